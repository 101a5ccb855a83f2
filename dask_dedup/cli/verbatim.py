"""`dask-dedup verbatim`: which images of the data a text-to-image model reproduces."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console

from dask_dedup.cli.command_workers import workers_and_progress
from dask_dedup.cli.group import (
    PATH,
    Group,
    chosen_settings,
    main,
    open_console,
    overwriting,
    say,
    verbosity,
    worker_settings,
)
from dask_dedup.paths import AnyPath

__all__ = ["verbatim"]


@main.group("verbatim", cls=Group, short_help="find training images that a model reproduces")
def verbatim() -> None:
    r"""Find the images of a data set that a text-to-image model reproduces.

    For auditing one's own model and data: which of the most duplicated pictures a model that was
    trained on them has memorised. In four steps, each of which continues where it was stopped:

    \b
    dask-dedup verbatim candidates OUT DEST              the most duplicated pictures
    dask-dedup verbatim generate DEST --model FOLDER     pictures from their captions
    dask-dedup verbatim score DEST                       which of these are copies
    dask-dedup verbatim report DEST                      a page to look at them

    A copy is shown by its score. That nothing was found for some prompts and seeds does not show
    that nothing is memorised.
    """


@verbatim.command("candidates", short_help="find the most duplicated pictures of a finished run")
@click.argument("out", type=PATH)
@click.argument("dest", type=PATH)
@click.option("--top", type=int, default=1000, show_default=True, help="how many, by falling k")
@click.option("--smallest", type=int, default=2, show_default=True, help="least k: copies in all")
@click.option(
    "--alike",
    type=float,
    default=0.0,
    help="least cosine of a copy to the row that stays [default: the run's threshold]",
)
@click.option(
    "--caption-length",
    type=int,
    default=1,
    show_default=True,
    help="characters that a caption has at least if it is to be a prompt",
)
@click.option(
    "--members",
    type=int,
    default=32,
    show_default=True,
    help="copies of each that are compared with what a model makes, at most",
)
@worker_settings
@overwriting
@verbosity
def candidates(
    out: AnyPath,
    dest: AnyPath,
    top: int,
    smallest: int,
    alike: float,
    caption_length: int,
    members: int,
    overwrite: bool,
    verbose: bool,
    quiet: bool,
    **options: Any,
) -> None:
    r"""Find the most duplicated pictures of the finished run in OUT.

    A candidate is a row that stays with the rows that are dropped for it: one picture, where a
    cluster may be a theme. k is how often it is in the data set.

    \b
    DEST/candidates/candidates.csv        for reading; .parquet has all columns
    DEST/candidates/captions.parquet      the captions of each, and how often they occur
    DEST/candidates/members.parquet       some of its copies
    """
    console = open_console(verbose, quiet)
    settings = chosen_settings(options, used=("compute", "cluster"))
    from dask_dedup.verbatim.candidates import CandidateSettings, find_candidates

    chosen = CandidateSettings(top, smallest, alike, caption_length, members)
    with workers_and_progress(console, settings, dest) as (execute, progress):
        summary = find_candidates(
            out, dest, chosen, overwrite=overwrite, execute=execute, progress=progress
        )
    if quiet:
        return
    console = Console()
    say(
        console,
        f"{summary['candidates']:,} candidates: the most frequent of {summary['groups']:,} "
        f"pictures that are there {smallest:,} times or more",
    )
    if summary["without_caption"]:
        say(
            console,
            f"{summary['without_caption']:,} as frequent are left out: they have no caption",
        )
    if summary["linkage"] != "star":
        say(console, "the run's linkage is components: k counts copies of representatives only")
    say(console, f"{dest}/candidates/candidates.csv lists them")


@verbatim.command("generate", short_help="generate pictures from the candidates' captions")
@click.argument("dest", type=PATH)
@click.option("--model", required=True, help="folder, or name on a hub, of a diffusers pipeline")
@click.option("--seeds", type=int, default=4, show_default=True, help="pictures of each prompt")
@click.option("--steps", type=int, default=50, show_default=True, help="denoising steps")
@click.option("--guidance", type=float, help="guidance scale [default: the pipeline's]")
@click.option("--size", type=int, help="pixels of each side [default: the pipeline's]")
@click.option(
    "--prompts", type=int, default=1, show_default=True, help="captions of each candidate"
)
@click.option(
    "--rank",
    type=click.Choice(["change", "text-norm", "edges"]),
    help="rank prompts first: by the change of the first denoising step, by the length of what the "
    "text adds to the noise (both white box), or by edges that all seeds share (black box)",
)
@click.option("--best", type=int, help="make pictures of so many prompts, best rank first")
@click.option("--batch", type=int, default=4, show_default=True, help="pictures made at a time")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="where the model runs, one a worker, which then has a GPU of its own: here there are at "
    "most as many workers as GPUs, of a scheduler those are used that offer Dask's resource GPU; "
    "cuda and auto (a GPU if there is one) are experimental",
)
@click.option("--half", is_flag=True, help="weights in float16")
@worker_settings
@overwriting
@verbosity
def generate(
    dest: AnyPath,
    model: str,
    seeds: int,
    steps: int,
    guidance: float | None,
    size: int | None,
    prompts: int,
    rank: str | None,
    best: int | None,
    batch: int,
    device: str,
    half: bool,
    overwrite: bool,
    verbose: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Generate pictures from the captions of the candidates in DEST.

    With any text-to-image pipeline of diffusers (pip install "dask_dedup[diffusion]"), from
    safetensors files alone; no code of its folder is run, and a safety checker is left out.
    Pictures are DEST/generated/pictures/CANDIDATE-PROMPT-SEED.png; what is there is not made again.

    Pictures that were made elsewhere need no model here: see `dask-dedup verbatim score --images`.
    """
    console = open_console(verbose, quiet)
    settings = chosen_settings(options, used=("compute", "cluster"))
    from dask_dedup.verbatim.generate import GenerateSettings
    from dask_dedup.verbatim.generate import generate as generate_pictures
    from dask_dedup.verbatim.model import Model
    from dask_dedup.verbatim.model_device import count_gpus

    chosen = GenerateSettings(
        Model(model, steps, guidance, size, device, half), seeds, prompts, rank, best, batch
    )
    gpus: int | None = None
    if settings.cluster.kind == "local":
        gpus = count_gpus(device) or None
    elif device != "cpu":
        gpus = 1  # of each worker there
    with workers_and_progress(console, settings, dest, gpus=gpus) as (execute, progress):
        summary = generate_pictures(
            dest, chosen, overwrite=overwrite, execute=execute, progress=progress
        )
    if quiet:
        return
    if summary["unranked"]:
        say(Console(), f"{summary['unranked']:,} prompts have no rank: the model does not show it")
    say(
        Console(),
        f"{summary['pictures']:,} pictures of {summary['prompts']:,} prompts in "
        f"{dest}/generated/pictures ({summary['resumed']:,} were there)",
    )


@verbatim.command("score", short_help="tell which generated pictures are copies")
@click.argument("dest", type=PATH)
@click.option(
    "--images",
    help="pictures that were made elsewhere: a folder whose files' names begin with a candidate's "
    "number, or a CSV file with image and candidate, row_id or caption",
)
@click.option(
    "--preset",
    "presets",
    type=click.Choice(["webster", "carlini", "sscd"]),
    multiple=True,
    default=["webster"],
    show_default=True,
    help="what counts as a copy; may be repeated",
)
@click.option("--encoder", default="", help="TorchScript or ONNX file of the preset sscd")
@click.option("--copy-cosine", type=float, default=0.75, show_default=True, help="of sscd")
@click.option(
    "--training",
    metavar="TEMPLATE",
    help='training pictures, such as "images/{key}.jpg" or "images/{shard}.tar#{key}" [default: '
    "images beside the data set]",
)
@click.option("--load-urls", is_flag=True, help="fetch training pictures from their URLs")
@worker_settings
@overwriting
@verbosity
def score(
    dest: AnyPath,
    images: str | None,
    presets: tuple[str, ...],
    encoder: str,
    copy_cosine: float,
    training: str | None,
    load_urls: bool,
    overwrite: bool,
    verbose: bool,
    quiet: bool,
    **options: Any,
) -> None:
    r"""Tell which generated pictures are copies of training pictures.

    Each is compared with the picture that its prompt is the caption of, and with copies of it.

    \b
    webster    template, matching or retrieved verbatim, by sums of squares (arXiv 2305.08694)
    carlini    extracted, by the Euclidean distance (Carlini et al. 2023)
    sscd       copy, by the cosine of an encoder of yours

    \b
    DEST/scores/scores.csv     every picture with its verdict; .parquet likewise
    DEST/scores/shares.csv     the share of candidates copied, by how often they are in the data
    DEST/scores/problems.parquet   what could not be looked at
    """
    console = open_console(verbose, quiet)
    settings = chosen_settings(options, used=("compute", "cluster"))
    from dask_dedup.verbatim.score import ScoreSettings
    from dask_dedup.verbatim.score import score as score_pictures
    from dask_dedup.verbatim.score_tasks import Rules

    rules = Rules(tuple(dict.fromkeys(presets)), copy_cosine=copy_cosine, encoder=encoder)
    with workers_and_progress(console, settings, dest) as (execute, progress):
        summary = score_pictures(
            dest,
            ScoreSettings(rules, images, training, load_urls),
            overwrite=overwrite,
            execute=execute,
            progress=progress,
        )
    if not quiet:
        _print_scores(summary, dest)


def _print_scores(summary: dict[str, Any], dest: AnyPath) -> None:
    console = Console()
    say(console, f"{summary['scored']:,} of {summary['images']:,} pictures scored")
    for preset, kinds in summary["kinds"].items():
        counts = ", ".join(f"{kind} {count:,}" for kind, count in sorted(kinds.items()))
        say(console, f"{preset}: {counts}")
    missing = {
        "images_unknown": "pictures belong to no candidate",
        "without_images": "candidates have no generated picture that could be read",
        "without_training": "candidates have no training picture that could be read",
        "own_picture_missing": "candidates were compared with copies alone: their own is missing",
        "copies_left_out": "candidates have more copies than were compared: see --members",
        "without_caption": "pictures as frequent are no candidates: they have no caption",
        "unranked": "prompts had no rank: the model does not show it",
    }
    if summary.get("unfinished"):
        say(console, "generate was stopped before it had made all pictures")
    for name, text in missing.items():
        if summary.get(name):
            say(console, f"{summary[name]:,} {text}")
    for word, count in summary["problems"].items():
        say(console, f"{count:,} files could not be used: {word}")
    say(console, f"{dest}/scores/scores.csv has every picture with its verdict")


@verbatim.command("report", short_help="make the page of scored pictures, to confirm or reject")
@click.argument("dest", type=PATH)
@click.option("--verdicts", type=PATH, help="verdicts.csv, as the page saves it")
@click.option("--pictures", type=int, default=200, show_default=True, help="shown at most")
@verbosity
def report(
    dest: AnyPath, verdicts: AnyPath | None, pictures: int, verbose: bool, quiet: bool
) -> None:
    """Make DEST/report/index.html: each generated picture beside the training picture.

    The authors of the method removed false copies by hand: the page has keys for it, and saves
    verdicts.csv; --verdicts reads it back, and shares.csv then leaves out what was rejected.
    """
    open_console(verbose, quiet)
    from dask_dedup.verbatim.report import report as make_page

    found = make_page(dest, verdicts, pictures)
    if not quiet:
        say(Console(), f"page: {found['page']}, {found['shown']:,} pictures")
        if found["confirmed"] or found["rejected"]:
            text = f"{found['confirmed']:,} confirmed, {found['rejected']:,} rejected"
            say(Console(), text)
