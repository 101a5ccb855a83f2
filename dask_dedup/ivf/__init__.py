"""The paper's finder's parts: faiss indexes in shards, the adaptive threshold, its tolerance."""
