"""Cells: trained on a seeded sample, rows assigned to them, files sorted by them."""
