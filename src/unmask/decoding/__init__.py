"""From a frame's probabilities of characters to words, and how many of those are wrong."""
