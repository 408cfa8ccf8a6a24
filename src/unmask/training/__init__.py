"""The one training loop: module, schedule, parameter groups, precision, what a run folder holds."""
