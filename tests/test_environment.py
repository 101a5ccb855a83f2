"""What stands outside the package and must agree with it: environment.yml, Makefile."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
CONDA_NAMES = {
    "torch": "pytorch",
    "matplotlib": "matplotlib-base",
    "duckdb": "python-duckdb",
}
WITHOUT_PYPROJECT = {"python", "pip"}
REQUIREMENT = re.compile(r"([A-Za-z0-9_.-]+)(?:\[[^]]*\])?\s*(.*)")
PAGE_FILES = (
    *(
        "common.js",
        "gallery.html",
        "label.css",
        "label.html",
        "label.js",
        "page.css",
        "page.html",
        "page.js",
    ),
    *("verbatim.css", "verbatim.html", "verbatim.js"),
)


def bounds(requirements: list[str]) -> dict[str, str]:
    """Return the version bound of each name; extras are left out."""
    matches = [REQUIREMENT.fullmatch(requirement) for requirement in requirements]
    return {match[1]: match[2] for match in matches if match}


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def environment() -> list:
    return yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]


def test_environment_yml_has_the_names_and_bounds_of_pyproject(project, environment):
    (pip,) = (entry["pip"] for entry in environment if isinstance(entry, dict))
    listed = bounds([entry for entry in environment if isinstance(entry, str)])
    listed |= bounds([entry for entry in pip if not entry.startswith("--editable")])
    wanted = bounds([*project["dependencies"], *project["optional-dependencies"]["test"]])
    wanted = {CONDA_NAMES.get(name, name): bound for name, bound in wanted.items()}
    assert {n: bound for n, bound in listed.items() if n not in WITHOUT_PYPROJECT} == wanted


def test_environment_yml_has_the_python_of_pyproject(project, environment):
    assert f"python{project['requires-python']}" in environment


def test_environment_yml_installs_the_package(environment):
    (pip,) = (entry["pip"] for entry in environment if isinstance(entry, dict))
    assert "--editable ." in pip


def test_lowest_versions_are_those_of_pyproject_but_torch_and_the_tools(project):
    done = subprocess.run(
        [sys.executable, ROOT / ".ci" / "lowest.py"], capture_output=True, text=True, check=True
    )
    extras = project["optional-dependencies"]
    wanted = bounds([*project["dependencies"], *extras["s3"], *extras["test"]])
    for name in ("torch", "mypy", "ruff", "playwright", "diffusers", "transformers", "urllib3"):
        del wanted[name]
    for name in ("datasets", "onnx", "onnxruntime", "webdataset"):
        del wanted[name]
    assert all(re.fullmatch(r">=[0-9.]+", bound) for bound in wanted.values())
    wanted = {name: bound.replace(">=", "==") for name, bound in wanted.items()}
    assert bounds(done.stdout.splitlines()) == wanted


def test_makefile_help_names_every_target():
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony
    done = subprocess.run(["make", "-C", ROOT, "help"], capture_output=True, text=True, check=True)
    assert set(re.findall(r"^make ([a-z-]+) ", done.stdout, re.MULTILINE)) == set(phony[1].split())


@pytest.mark.slow
def test_wheel_holds_every_module_and_says_that_it_has_types(tmp_path):
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "dask_dedup", source / "dask_dedup", ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    command = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(tmp_path), "."]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if "dist-info" not in name}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "dask_dedup").rglob("*.py*")}
    modules = {name for name in modules if "__pycache__" not in name}
    page = {f"dask_dedup/report/page_files/{name}" for name in PAGE_FILES}
    assert inside == modules | page | {"dask_dedup/DESIGN.md", "dask_dedup/py.typed"}
