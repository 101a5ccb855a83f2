"""The public names, and where each is from: read by `__init__.py`, type checkers and editors."""

from .cells.build import build_cells
from .cells.join import join_cells
from .cells.layout_files import CellLayout
from .compressors.apply import compress_dataset
from .compressors.base import Compressor, ModelHeader, load_model, save_model
from .compressors.fit import fit_compressor
from .compressors.network_settings import NetworkSettings
from .data.dataset import BadFile, Dataset, read_dataset
from .data.embedding_file import EmbeddingFile
from .data.metadata_columns import MetadataColumns
from .data.parts import Part
from .errors import (
    CapacityError,
    ClusterError,
    ColumnError,
    DamagedError,
    DedupError,
    InputError,
    OutputError,
    SettingsError,
    StoreError,
    UnreadableError,
)
from .graph.components import label_components, read_forest, spanning_forest
from .graph.on_disk import write_forest, write_labels
from .ivf.faiss_index import Neighbours
from .ivf.shard_files import Shard
from .ivf.vector_index import VectorIndex, build_index, open_index, search_index
from .pipeline.relabel_into import keep, relabel
from .pipeline.run import run
from .results.apply import apply
from .results.clusters import join_clusters
from .results.export import export
from .results.result import Result, open_result
from .settings.run_settings import Settings, load_settings
from .vectors.fit_pca import fit_pca
from .vectors.pca import PcaModel

__all__ = [
    "BadFile",
    "CapacityError",
    "CellLayout",
    "ClusterError",
    "ColumnError",
    "Compressor",
    "DamagedError",
    "Dataset",
    "DedupError",
    "EmbeddingFile",
    "InputError",
    "MetadataColumns",
    "ModelHeader",
    "Neighbours",
    "NetworkSettings",
    "OutputError",
    "Part",
    "PcaModel",
    "Result",
    "Settings",
    "SettingsError",
    "Shard",
    "StoreError",
    "UnreadableError",
    "VectorIndex",
    "apply",
    "build_cells",
    "build_index",
    "compress_dataset",
    "export",
    "fit_compressor",
    "fit_pca",
    "join_cells",
    "join_clusters",
    "keep",
    "label_components",
    "load_model",
    "load_settings",
    "open_index",
    "open_result",
    "read_dataset",
    "read_forest",
    "relabel",
    "run",
    "save_model",
    "search_index",
    "spanning_forest",
    "write_forest",
    "write_labels",
]
