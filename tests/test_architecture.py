"""Who may import whom, read from the source."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "dask_dedup"
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
    if path != PACKAGE / "__init__.py"
}
LAYERS = [
    ["errors", "kernel_cache", "limits", "places", "schema", "tasks", "memory", "terminal"],
    ["config", "cluster_settings", "io"],
    ["compress", "index", "search", "graph"],
    ["clusters", "evaluate", "report"],
    [
        "stages",
        "job",
        "packing",
        "bad_parts",
        "adc_tasks",
        "adc_finder",
        "join_finder",
        "vector_index",
        "search_output",
        "calibration",
        "pipeline",
        "workload",
        "plan",
        "plan_like",
        "stage_plan",
        "relabel",
        "run_plan",
        "status",
        "calibrate",
    ],
    ["prefork", "preloaded", "security", "slurm", "deploy", "progress", "cli", "__main__"],
]
#: Inside a layer: who may use whom. Stages meet in tables, not in imports.
WITHIN = {
    "config": {"cluster_settings"},
    "io": {"io"},
    "limits": {"errors"},
    "places": {"errors"},
    "compress": {"compress"},
    "index": {"index", "compress"},
    "search": {"search", "index", "compress"},
    "graph": {"graph"},
    "evaluate": {"evaluate"},
    "report": {"report"},
    "join_finder": {"job", "stages", "status"},
    "adc_finder": {"adc_tasks", "job"},
    "search_output": {"vector_index"},
    "calibration": {"adc_finder", "adc_tasks", "job"},
    "packing": {"job"},
    "pipeline": {
        "adc_finder",
        "bad_parts",
        "job",
        "join_finder",
        "packing",
        "relabel",
        "stages",
    },
    "plan": {"stage_plan", "workload"},
    "stage_plan": {"workload"},
    "plan_like": {"plan", "workload"},
    "relabel": {"job"},
    "run_plan": {"plan", "workload"},
    "calibrate": {"workload"},
    "deploy": {"prefork", "security", "slurm"},
    "slurm": {"prefork", "security"},
    "__main__": {"cli", "prefork"},
    "cli": {"cli", "deploy", "prefork", "progress", "slurm"},
}
#: Heavy packages, and the only modules that may import them.
HEAVY = {
    "faiss": {
        "evaluate.indexes",
        "evaluate.pareto",
        "index.cells",
        "index.ivf_training",
        "index.ivfpq",
    },
    "matplotlib": {
        "report.histogram",
        "report.learning_curve",
        "report.pareto_plot",
        "report.tolerance_curve",
    },
    "dask_jobqueue": {"slurm"},
    "distributed": {"deploy", "preloaded", "security", "slurm"},
    "scipy": {"evaluate.audit"},
}
KERNELS = [
    "compress.axes",
    "compress.losses",
    "compress.network",
    "compress.pca",
    "compress.sample",
    "compress.train",
    "compress.vectors",
    "graph.forest",
    "index.assign",
    "index.assign_device",
    "index.assign_exact",
    "index.cells",
    "search.grid_filter",
    "compress.verify",
    "index.equals",
    "index.ivf_training",
    "index.ivfpq",
    "search.adc",
    "evaluate.calibrate",
    "evaluate.components",
    "evaluate.exact",
    "evaluate.front",
    "evaluate.indexes",
    "evaluate.ranks",
    "evaluate.retrieval",
    "evaluate.zeroshot",
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


def layer_of(top):
    return next(i for i, names in enumerate(LAYERS) if top in names)


def own_imports(name):
    return {m.removeprefix("dask_dedup.") for m in imports(name) if m.startswith("dask_dedup.")}


def test_every_module_has_a_layer():
    for name in MODULES:
        layer_of(name.split(".")[0])


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_go_downwards(name):
    top = name.split(".")[0]
    for imported in own_imports(name):
        target = imported.split(".")[0]
        allowed = layer_of(target) < layer_of(top) or target in WITHIN.get(top, set())
        assert allowed, f"{name} imports {imported}"


def test_deploy_knows_settings_and_tasks_only():
    known = {"config", "errors", "limits", "prefork", "security", "slurm", "tasks"}
    assert own_imports("deploy") <= known


@pytest.mark.parametrize("package", sorted(HEAVY))
def test_heavy_packages_are_imported_where_they_are_needed(package):
    users = {name for name in MODULES if any(m.split(".")[0] == package for m in imports(name))}
    assert users == HEAVY[package]


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_do_not_import_dask(name):
    assert not {m for m in imports(name) if m.split(".")[0] in ("dask", "distributed")}


def test_torch_stays_with_the_arithmetic():
    users = {name.split(".")[0] for name in MODULES if "torch" in imports(name)}
    assert users == {"compress", "index", "search", "evaluate", "adc_tasks", "calibrate"}


def test_no_module_is_a_rag_bag_or_too_long_to_know():
    for name, path in MODULES.items():
        assert not {"utils", "core", "common", "helpers"} & set(name.split("."))
        assert len(path.read_text().splitlines()) <= 400, name
