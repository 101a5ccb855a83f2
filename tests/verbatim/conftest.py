"""A tiny model, made once a session."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from .tiny_model import save_tiny_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a diffusers pipeline."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries that are loaded here first
        return save_tiny_model(tmp_path_factory.mktemp("model") / "tiny")
