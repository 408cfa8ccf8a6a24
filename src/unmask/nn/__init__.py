"""Tensors in, tensors out: attention, blocks, encoder, decoder, positions, patches, initialisation."""
