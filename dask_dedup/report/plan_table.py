"""A plan as tables for people."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from dask_dedup.report.count_text import count_text

__all__ = ["plan_lines", "plan_tables", "size_text", "span_text"]


def plan_tables(plan: dict[str, Any]) -> tuple[Table, Table]:
    """Return two tables of a plan, as `planning.cost_model.describe` gives it: sums and stages."""
    sums = Table(box=None, show_header=False, pad_edge=False)
    sums.add_column(style="bold")
    sums.add_column(justify="right")
    sums.add_column(style="dim")
    work, machine = plan["workload"], plan["machine"]
    name, number, note = _search_line(work)
    started = f"{span_text(plan['start_seconds'])} of it to start and stop"
    for line in (
        ("rows", f"{work['rows']:,}", f"dimension {work['dim']}"),
        ("parts", f"{work['parts']:,}", ""),
        (f"{name}s", f"{number:,}", note),
        (
            "workers",
            f"{machine['workers']:,}",
            f"of {count_text(machine['threads'], 'thread')} each",
        ),
        ("time", span_text(plan["seconds"]), started),
        ("peak memory", size_text(plan["memory_bytes"]), "the largest task"),
        ("working files", size_text(plan["working_bytes"]), "deleted in the end"),
    ):
        sums.add_row(*line)
    stages = Table(box=None, pad_edge=False)
    for name in ("stage", "tasks", "Tflop", "read", "written", "memory a task", "time"):
        stages.add_column(name, justify="left" if name == "stage" else "right", no_wrap=True)
    for stage in plan["stages"]:
        sizes = [size_text(stage[key]) for key in ("bytes_read", "bytes_written", "memory_bytes")]
        tera = f"{stage['flops'] / 1e12:,.2f}"
        stages.add_row(
            stage["name"], f"{stage['tasks']:,}", tera, *sizes, span_text(stage["seconds"])
        )
    return sums, stages


def plan_lines(plan: dict[str, Any], memory_bytes: float, free_bytes: float | None) -> list[str]:
    """Return a plan in two lines, beside what there is of memory and disk."""
    work = plan["workload"]
    tasks = sum(stage["tasks"] for stage in plan["stages"])
    free = "" if free_bytes is None else f", {size_text(free_bytes)} free"
    name, number, note = _search_line(work)
    return [
        f"plan: {count_text(number, name)}, {note}, "
        f"{count_text(tasks, 'task')}; about {span_text(plan['seconds'])}",
        f"plan: up to {size_text(plan['memory_bytes'])} of a worker's {size_text(memory_bytes)}; "
        f"{size_text(plan['working_bytes'])} of working files{free}",
    ]


def _search_line(work: dict[str, Any]) -> tuple[str, int, str]:
    """Return what is searched: cells, or the inverted lists of the finder adc; how many; how."""
    index = work["index"]
    if index is None:
        return "cell", work["cells"], f"each row in {work['cells_per_row']:.3g} on average"
    looked = (
        f"each row looks into {index['nprobe']}" if index["lists"] else "each row meets all rows"
    )
    return "list", index["lists"], looked


def size_text(size_bytes: float) -> str:
    """Return bytes in the largest fitting unit: 1.5 GB."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size_bytes >= scale:
            return f"{size_bytes / scale:,.1f} {unit}"
    return f"{size_bytes / 1e3:,.1f} kB"


def span_text(seconds: float) -> str:
    """Return a time in seconds, minutes or hours: 2.5 min."""
    for unit, scale in (("h", 3600.0), ("min", 120.0)):
        if seconds >= scale:
            return f"{seconds / (3600 if unit == 'h' else 60):,.1f} {unit}"
    return f"{seconds:.1f} s"
