"""Which images of a data set a generative model reproduces: verbatim copies."""
