"""Find the duplicates in image-text data sets of a thousand or of two billion rows.

The chain, each function on what the one before returned::

    read_dataset → fit_pca → build_cells → join_cells → spanning_forest → label_components
    → join_clusters

where the forest, or the labels, of many edges do not fit into a worker, by way of files::

    join_cells → write_forest → write_labels → join_clusters

or all of it, with resume, audit and report, by `run`; what it wrote, `open_result` opens again.
Beside it, embeddings are made smaller::

    read_dataset → fit_compressor → save_model, compress_dataset
"""

import os
import sys

# `python -m dask_dedup` looks for modules in the current folder first: that of a data set, perhaps.
if (
    sys.argv[:1] == ["-m"]
    and not sys.flags.safe_path
    and sys.path[0] == os.getcwd() != os.path.dirname(os.path.dirname(__file__))
):
    del sys.path[0]

import lazy_loader

from dask_dedup.runtime.kernel_cache import choose_cache

choose_cache()

# The public names, and where each is from, are in `__init__.pyi`; a module is imported when a name
# of it is first asked for: `import dask_dedup` loads nothing else.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
