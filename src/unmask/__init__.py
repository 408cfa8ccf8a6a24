"""unmask: pretrain encoders by hiding part of the input and predicting it."""

__version__ = "0.1.0"
