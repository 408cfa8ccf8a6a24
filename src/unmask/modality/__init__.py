"""One file per modality: all that knows what a sample is."""
