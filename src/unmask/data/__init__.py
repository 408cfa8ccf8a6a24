"""Where samples come from. Knows no model: the transform is handed in."""
