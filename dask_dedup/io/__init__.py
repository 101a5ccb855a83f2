"""Reading data sets and keeping the outputs of stages."""
