"""From the composed config to objects: the only reader of the config."""
