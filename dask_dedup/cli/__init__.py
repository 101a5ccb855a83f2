"""The command `dask-dedup`: the only place that prints, exits and configures logging."""
