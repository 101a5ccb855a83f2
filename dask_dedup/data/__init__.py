"""A data set: its parts, embeddings and metadata under one ``row_id``."""
