"""Compressors of embeddings, behind one interface: fit on a sample, transform, save, load."""
