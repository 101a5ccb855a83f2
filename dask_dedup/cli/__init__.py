"""The command `dask-dedup`: only this package prints, exits and configures logging."""
