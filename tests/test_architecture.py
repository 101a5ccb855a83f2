"""Who may import whom, read from the source; the table in CONTRIBUTING.md is made from it here.

`python tests/test_architecture.py` writes that table anew.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "dask_dedup"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
DESIGN = PACKAGE / "DESIGN.md"
TESTS = sorted((ROOT / "tests").rglob("*.py"))
#: Documents that name tests.
DOCUMENTS = [
    "CONTRIBUTING.md",
    "README.md",
    *(path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob("examples/guide/*.md"))),
    "dask_dedup/DESIGN.md",
    "Makefile",
    "tests/FAULTS.md",
    "tests/hostile/INPUTS.md",
]
#: Folders of tests of the whole.
OF_THE_WHOLE = {"hostile", "slurm"}
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
    if path != PACKAGE / "__init__.py"
}
#: The one list: each folder, or module at the root, and what of the package it may import beside
#: itself. It stands in the order of the layers: nothing imports from what stands below it here.
MAY_IMPORT = {
    "errors": "",
    "schema": "",
    "paths": "errors",
    "settings": "errors paths",
    "runtime": "errors paths settings",
    "storage": "errors paths runtime",
    "data": "errors paths runtime schema storage",
    "report": "paths runtime storage",
    "vectors": "data errors paths runtime storage",
    "graph": "errors paths runtime schema storage",
    "compressors": "data errors paths runtime storage vectors",
    "cells": "data errors graph paths runtime schema storage vectors",
    "ivf": "compressors data errors graph paths runtime schema storage vectors",
    "results": "cells data errors graph paths report runtime schema settings storage vectors",
    "planning": (
        "cells data errors graph ivf paths report results runtime settings storage vectors"
    ),
    "pipeline": (
        "cells compressors data errors graph ivf paths planning report results runtime schema "
        "settings storage vectors"
    ),
    "evaluate": "compressors data errors graph ivf paths runtime schema storage vectors",
    "verbatim": "errors paths report results runtime storage vectors",
    "cli": (
        "compressors data errors evaluate ivf paths pipeline planning report results runtime "
        "settings storage verbatim"
    ),
    "__main__": "cli errors pipeline runtime",
}
#: Heavy packages, and the only modules that may import them.
HEAVY = {
    "faiss": {
        "evaluate.indexes",
        "evaluate.pareto",
        "cells.kmeans",
        "ivf.train_base",
        "ivf.faiss_index",
    },
    "matplotlib": {
        "report.histogram",
        "report.learning_curve",
        "report.pareto_plot",
        "report.precision_plot",
        "report.sweep_plot",
        "report.tolerance_curve",
    },
    "dask_jobqueue": {"runtime.slurm"},
    "duckdb": {"results.expression_check", "results.expressions"},
    "distributed": {
        "runtime.client_executor",
        "runtime.deployment",
        "runtime.gpus",
        "pipeline.preloaded",
        "runtime.security",
        "runtime.slurm",
        "runtime.worker_checks",
    },
    "scipy": {
        "graph.tree_path",
        "pipeline.audit",
        "verbatim.edges",
        "verbatim.share_copied",
        "verbatim.squared_errors",
    },
    "jinja2": {"report.page"},
    "PIL": {"results.pictures", "verbatim.generate", "verbatim.pictures", "verbatim.report"},
    "networkx": {"verbatim.tiles"},
    "diffusers": {"verbatim.model"},
    "transformers": {"verbatim.model"},
    "urllib3": {"verbatim.fetch"},
}
KERNELS = [
    "compressors.pca_compressor",
    "compressors.losses",
    "compressors.network",
    "vectors.pca",
    "vectors.sample",
    "compressors.train",
    "vectors.unit",
    "graph.edge_buffer",
    "graph.edge_order",
    "graph.forest",
    "graph.tree_path",
    "graph.sweep",
    "cells.assign",
    "cells.assign_device",
    "cells.assign_exact",
    "cells.kmeans",
    "vectors.int8_codes",
    "vectors.cosines",
    "vectors.equal_rows",
    "results.approximate_counts",
    "results.page_rows",
    "results.page_scan",
    "results.pictures",
    "results.decisions",
    "results.expression_check",
    "results.expressions",
    "results.merge_columns",
    "results.order",
    "results.roles",
    "results.settle",
    "results.sorted_files",
    "results.witness",
    "results.witness_files",
    "results.witness_groups",
    "results.witness_order",
    "ivf.train_base",
    "ivf.faiss_index",
    "ivf.adaptive_threshold",
    "ivf.tolerance",
    "evaluate.components",
    "evaluate.exact",
    "evaluate.front",
    "evaluate.indexes",
    "evaluate.ranks",
    "evaluate.retrieval",
    "evaluate.zeroshot",
    "verbatim.edges",
    "verbatim.encoder",
    "verbatim.pictures",
    "verbatim.share_copied",
    "verbatim.squared_errors",
    "verbatim.tiles",
]


def imports(name):
    """Full names of what a module imports, type checking included."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module)
    return found


def own_imports(name):
    """Folders, or modules at the root, that a module imports beside its own."""
    own = {m.removeprefix("dask_dedup.") for m in imports(name) if m.startswith("dask_dedup.")}
    return {imported.split(".")[0] for imported in own} - {name.split(".")[0]}


def test_every_folder_has_its_line_and_its_layer():
    assert {name.split(".")[0] for name in MODULES} == set(MAY_IMPORT)
    for i, (folder, allowed) in enumerate(MAY_IMPORT.items()):
        assert set(allowed.split()) <= set(list(MAY_IMPORT)[:i]), folder


@pytest.mark.parametrize("name", sorted(MODULES))
def test_a_module_imports_what_its_folder_may(name):
    assert own_imports(name) <= set(MAY_IMPORT[name.split(".")[0]].split())


def test_the_finders_and_the_research_do_not_know_what_stands_beside_them():
    for one, other in (("cells", "ivf"), ("pipeline", "evaluate")):
        assert other not in MAY_IMPORT[one].split()
        assert one not in MAY_IMPORT[other].split()


def test_few_files_lie_at_the_root_and_no_folder_hides_a_function():
    import dask_dedup

    assert len([p for p in PACKAGE.iterdir() if p.is_file()]) <= 8
    assert not {p.name for p in PACKAGE.iterdir() if p.is_dir()} & set(dask_dedup.__all__)


def layer_table():
    """The table of CONTRIBUTING: what each folder holds, and what it may import."""
    lines = ["| folder | holds | may import |", "|---|---|---|"]
    for name, allowed in reversed(MAY_IMPORT.items()):
        path = MODULES[name]
        holds = ast.get_docstring(ast.parse(path.read_text())).splitlines()[0]
        kind = f"`{name}/`" if path.name == "__init__.py" else f"`{name}.py`"
        lines.append(f"| {kind} | {holds} | {', '.join(allowed.split()) or 'nothing'} |")
    return "\n".join(lines)


def with_table(text):
    table = re.compile(r"^\| folder \| holds .*?(?=\n\n)", re.MULTILINE | re.DOTALL)
    assert table.search(text)
    return table.sub(lambda found: layer_table(), text)


def test_the_table_of_contributing_is_this_list():
    text = CONTRIBUTING.read_text()
    assert with_table(text) == text, f"write it anew: python {Path(__file__).relative_to(ROOT)}"


@pytest.mark.parametrize("package", sorted(HEAVY))
def test_heavy_packages_are_imported_where_they_are_needed(package):
    users = {name for name in MODULES if any(m.split(".")[0] == package for m in imports(name))}
    assert users == HEAVY[package]


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_do_not_import_dask(name):
    assert not {m for m in imports(name) if m.split(".")[0] in ("dask", "distributed")}


def test_torch_stays_with_the_arithmetic():
    users = {name.split(".")[0] for name in MODULES if "torch" in imports(name)}
    assert users == {
        *("cells", "compressors", "evaluate", "ivf", "pipeline", "planning", "vectors"),
        "verbatim",
    }


def test_no_module_is_a_rag_bag_or_too_long_to_know():
    for name, path in MODULES.items():
        assert not {"utils", "core", "common", "helpers"} & set(name.split("."))
        assert len(path.read_text().splitlines()) <= 400, name


def patched_strings(source):
    """The lines on which something is patched that is named by a dotted string."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [
        call.lineno
        for call in calls
        if getattr(call.func, "attr", getattr(call.func, "id", ""))
        in ("setattr", "delattr", "patch", "dict", "multiple")
        and call.args
        and isinstance(call.args[0], ast.Constant)
        and re.fullmatch(r"\w+(\.\w+)+", str(call.args[0].value))
    ]


def test_patches_by_a_dotted_string_are_seen():
    source = 'm.setattr("dask_dedup.cells.join.x", 1)\npatch("os.link")\nm.setattr(os, "link", 1)'
    assert patched_strings(source) == [1, 2]


def test_no_test_patches_by_a_dotted_string():
    found = {str(path): patched_strings(path.read_text()) for path in TESTS}
    assert {path: lines for path, lines in found.items() if lines} == {}


def test_the_tests_mirror_the_package():
    """A test in a folder begins with its module's name; what is of several stands at the root."""
    for path in TESTS:
        folder, name = path.parent.relative_to(ROOT / "tests").as_posix(), path.stem
        if folder == "." or name == "conftest" or folder in OF_THE_WHOLE:
            continue
        own = f"{folder}.{name.removeprefix('test_')}"
        named = [m for m in MODULES if own == m or own.startswith(f"{m}_")]
        assert named, f"{path}: no module {own}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_name_tests_that_there_are(document):
    path = ROOT / document
    named = set(re.findall(r"[\w/.]*\b(?:test_\w+|conftest|corpus)\.py", path.read_text()))
    missing = [
        name
        for name in named
        if not any((folder / name).is_file() for folder in (path.parent, ROOT, ROOT / "tests"))
    ]
    assert missing == []
    assert named or document.endswith("README.md") or document.startswith("examples/guide/")


def missing_files(text):
    """The files and folders that a text of DESIGN names, and that are not there."""
    drawing = re.findall(r"^  (\w+)/ (.*)$", text, re.MULTILINE)
    inside = [f"{folder}/{file}" for folder, holds in drawing for file in named_files(holds)]
    # Without a folder stands what lies at the root, of the package or of the repository.
    quoted = named_files("\n".join(re.findall(r"`[^`\n]+`", text)))
    places = [(PACKAGE, ROOT)] * len(quoted) + [(PACKAGE,)] * len(inside)
    return [
        name
        for name, roots in zip([*quoted, *inside], places, strict=True)
        if name != "settings.toml" and not any((root / name).is_file() for root in roots)
    ]


def named_files(text):
    return re.findall(r"[\w/]+\.(?:pyi?|md|toml)\b", text)


def test_missing_files_are_seen():
    text = "```\n  cells/   join.py, gone.py\n```\n`tests/test_chain.py`, `cells/nothing.py`"
    assert missing_files(text) == ["cells/nothing.py", "cells/gone.py"]


def test_the_design_is_short_and_names_what_there_is():
    text = DESIGN.read_text()
    assert len(text.splitlines()) <= 200
    assert missing_files(text) == []


def test_the_design_draws_every_folder_once():
    drawn = re.findall(r"^  (\w+)/ ", DESIGN.read_text(), re.MULTILINE)
    assert sorted(drawn) == sorted(
        p.name for p in PACKAGE.iterdir() if (p / "__init__.py").exists()
    )


def test_the_design_names_at_most_four_files_for_each_change():
    table = DESIGN.read_text().partition("## Where to change what")[2]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 10
    assert [row for row in rows if not 1 <= len(set(named_files(row))) <= 4] == []


if __name__ == "__main__":
    CONTRIBUTING.write_text(with_table(CONTRIBUTING.read_text()))
