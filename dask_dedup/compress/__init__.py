"""Compression of embeddings: fit on a seeded sample, transform a block, save, load."""
