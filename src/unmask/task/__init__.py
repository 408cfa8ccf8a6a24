"""What features are good for."""
