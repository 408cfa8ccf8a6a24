"""What is predicted from what is visible. Plain modules: no Lightning, no Hydra."""
