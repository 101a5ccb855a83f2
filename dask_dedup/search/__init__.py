"""Finders of edges: the join inside cells."""
