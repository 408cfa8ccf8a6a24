"""Which tokens are hidden: a score per token, the highest scores hidden, to an exact count."""
