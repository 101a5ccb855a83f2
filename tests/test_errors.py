"""The exception tree, and what modules say they export."""

from __future__ import annotations

import ast
import importlib
import pickle
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import dask_dedup
from dask_dedup import errors

MODULES = sorted(
    module.name for module in pkgutil.walk_packages(dask_dedup.__path__, "dask_dedup.")
)


@pytest.mark.parametrize(
    "name", ["InputError", "SettingsError", "OutputError", "CapacityError", "ClusterError"]
)
def test_errors_have_one_base_that_is_no_builtin(name):
    kind = getattr(errors, name)
    assert kind.__mro__[1:3] == (errors.DedupError, Exception)
    assert getattr(dask_dedup, name) is kind


def test_errors_export_the_whole_tree():
    kinds = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and not name.startswith("_")
    }
    assert kinds == set(errors.__all__)


@pytest.mark.parametrize("name", errors.__all__)
def test_errors_come_back_from_workers_with_their_text(name):
    error = pickle.loads(pickle.dumps(getattr(errors, name)("a.npy: truncated")))
    assert type(error).__name__ == name
    assert str(error) == "a.npy: truncated"


@pytest.mark.parametrize("name", ["DamagedError", "UnreadableError"])
def test_errors_of_one_file_come_back_from_workers_with_its_path(name):
    error = pickle.loads(pickle.dumps(getattr(errors, name)("a.npy: truncated", "folder/a.npy")))
    assert error.path == "folder/a.npy"
    assert str(error) == "a.npy: truncated"


@pytest.mark.parametrize("name", MODULES)
def test_all_names_exist_once_and_are_sorted(name):
    module = importlib.import_module(name)
    exported = getattr(module, "__all__", [])
    assert [entry for entry in exported if not hasattr(module, entry)] == []
    assert sorted(set(exported)) == sorted(exported)


@pytest.mark.parametrize("name", MODULES)
def test_all_public_definitions_of_a_module_are_exported(name):
    module = importlib.import_module(name)
    defined = {
        entry
        for entry, value in vars(module).items()
        if getattr(value, "__module__", None) == name
        and not entry.startswith("_")
        and isinstance(value, type)
    }
    assert defined <= set(getattr(module, "__all__", ()))


def test_package_every_public_name_is_there_and_in_dir():
    for name in dask_dedup.__all__:
        assert callable(getattr(dask_dedup, name)), name
    assert dir(dask_dedup) == sorted(dask_dedup.__all__)
    stub = ast.parse(Path(dask_dedup.__file__).with_suffix(".pyi").read_text())
    (listed,) = (node.value for node in stub.body if isinstance(node, ast.Assign))
    assert sorted(ast.literal_eval(listed)) == sorted(dask_dedup.__all__)


def test_package_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="No dask_dedup attribute deduplicate"):
        _ = dask_dedup.deduplicate


def test_package_import_loads_none_of_the_heavy_libraries():
    script = (
        "import sys, dask_dedup\n"
        "print(sorted({'dask', 'faiss', 'torch', 'numba', 'pandas', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
