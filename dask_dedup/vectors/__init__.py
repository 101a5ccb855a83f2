"""What every finder needs of vectors: unit rows, samples, exact cosines, PCA, int8 codes."""
