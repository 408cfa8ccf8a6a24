"""What watches a training: metrics, progress, checkpoints, probes, pictures. Removing one changes no weight."""
