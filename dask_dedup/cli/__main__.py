"""`python -m dask_dedup.cli`."""

import sys

from dask_dedup.cli import main

sys.exit(main())
