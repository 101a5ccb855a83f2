"""A text-to-image model on disk or from a hub: any pipeline of diffusers; no pickles are read."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dask_dedup.errors import CapacityError, InputError, SettingsError
from dask_dedup.storage.files import digest_of

__all__ = ["FirstStep", "Model", "draw", "first_step", "load_pipeline", "model_files"]


# A pipeline keeps where it is in its schedule: two threads would draw into each other's pictures.
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class Model:
    """A model, and how it draws.

    Attributes
    ----------
    name : str
        Folder of a diffusers pipeline, or its name on a hub.
    steps : int
        Denoising steps.
    guidance : float or None
        Scale of classifier-free guidance; None: what the pipeline takes.
    size : int or None
        Pixels of each side; None: what the pipeline takes.
    device : str
        ``cpu``, ``cuda`` (one of several as ``cuda:1``), or ``auto``: a GPU if torch sees one.
    half : bool
        Weights in float16.
    """

    name: str
    steps: int = 50
    guidance: float | None = None
    size: int | None = None
    device: str = "cpu"
    half: bool = False


class FirstStep(NamedTuple):
    """What the first denoising step of one prompt and seed tells (white box).

    ``change``: mean squared change of the latent picture, as arXiv 2305.08694 ranks prompts; of
    a memorised picture it is large. ``text_norm``: length of the difference of the noise that is
    predicted with the text and without, as of Wen et al. 2024; NaN of a model that predicts no
    such two, or without guidance.
    """

    change: float
    text_norm: float


def model_files(name: str) -> str:
    """Return a digest of the names, sizes and times of a model's files; empty for one of a hub.

    A model that is trained on into the same folder makes other pictures.
    """
    folder = Path(name)
    if not folder.is_dir():
        return ""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            about = path.stat()
            found.append([str(path.relative_to(folder)), about.st_size, about.st_mtime_ns])
    return digest_of({"files": found})


class _FirstStepDone(Exception):  # noqa: N818  no error: it leaves the pipeline's loop
    pass


@lru_cache(maxsize=1)
def load_pipeline(name: str, device: str = "cpu", half: bool = False) -> Any:
    """Load a text-to-image pipeline; a process keeps the last one.

    Weights are read from safetensors files, never from pickles, and no code of the model's folder
    is run. A safety checker is taken out: it would put black pictures in the place of others.

    Raises
    ------
    SettingsError
        diffusers is not installed.
    InputError
        There is no such pipeline, it has pickled weights only, or it is none of text to image.
    """
    try:
        import torch
        from diffusers import DiffusionPipeline
        from diffusers.utils import logging as diffusers_logging
        from transformers.utils import logging as transformers_logging
    except ImportError as error:
        raise SettingsError(
            f'{error}. Pictures are generated with diffusers: pip install "dask_dedup[diffusion]"; '
            f"or score pictures that were made elsewhere."
        ) from error
    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
        library.set_verbosity_error()
    try:
        pipeline = DiffusionPipeline.from_pretrained(
            name,
            dtype=torch.float16 if half else torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
        )
    except Exception as error:  # diffusers, transformers and hubs raise what they like
        line = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"{name}: no text-to-image pipeline can be loaded: {line[0]} Expected the folder or "
            f"the hub's name of a diffusers pipeline with weights in safetensors files."
        ) from error
    if not hasattr(pipeline, "scheduler") or not _takes_prompts(pipeline):
        raise InputError(
            f"{name}: {type(pipeline).__name__} does not make images from text; expected a "
            f"text-to-image pipeline."
        )
    if getattr(pipeline, "safety_checker", None) is not None:
        pipeline.safety_checker = None
    pipeline.set_progress_bar_config(disable=True)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return pipeline.to(device)


def draw(model: Model, prompts: Sequence[str], seeds: Sequence[int], steps: int) -> np.ndarray:
    """Generate pictures, all at once.

    Parameters
    ----------
    model : Model
    prompts, seeds : sequences of equal lengths
        A prompt and a seed for each picture. The noise that a picture begins with depends on its
        seed, its size, torch's version and ``half`` alone, on any device.
    steps : int
        Denoising steps.

    Returns
    -------
    float32 array, shape (pictures, height, width, 3), in [0, 1]

    Raises
    ------
    InputError
        The model fails, or gives something else than finite numbers.
    """
    with _ONE_AT_A_TIME:
        pipeline = load_pipeline(model.name, model.device, model.half)
        found = _call(pipeline, model, prompts, seeds, steps)
    images = np.asarray(found.images, np.float32)
    if not np.isfinite(images).all():  # as black pictures they would count as no copies
        raise InputError(
            f"{model.name}: gives pictures that are no numbers, of {prompts[0]!r} or the prompts "
            f"after it. Numbers of 16 bits overflow in some models: leave out --half."
        )
    return np.clip(images, 0, 1)


def first_step(model: Model, prompts: Sequence[str], seeds: Sequence[int]) -> list[FirstStep]:
    """Return what the first denoising step tells, without doing the others.

    Parameters
    ----------
    model : Model
    prompts, seeds : sequences of equal lengths

    Returns
    -------
    list of FirstStep
        In their order. Values are NaN where the pipeline does not let them be seen.
    """
    seen: dict[str, np.ndarray] = {}
    with _ONE_AT_A_TIME:
        pipeline = load_pipeline(model.name, model.device, model.half)
        with _watched(pipeline, seen), suppress(_FirstStepDone):
            _call(pipeline, model, prompts, seeds, model.steps)
    count = len(prompts)
    change = _of_each(seen.get("change"), count)
    text_norm = _of_each(seen.get("text_norm"), count)
    return [FirstStep(*both) for both in zip(change, text_norm, strict=True)]


@contextmanager
def _watched(pipeline: Any, seen: dict[str, np.ndarray]) -> Iterator[None]:
    """Note the predicted noise and the change of the first step, then leave the pipeline."""
    network = getattr(pipeline, "unet", None) or getattr(pipeline, "transformer", None)
    step = pipeline.scheduler.step

    def note_noise(_module: Any, _given: Any, output: Any) -> None:
        noise = output[0] if isinstance(output, tuple) else output.sample
        if len(noise) % 2 == 0 and getattr(pipeline, "do_classifier_free_guidance", False):
            plain, with_text = noise.chunk(2)
            seen["text_norm"] = _flat(with_text - plain).norm(dim=1).cpu().numpy()

    def note_change(model_output: Any, timestep: Any, sample: Any, *rest: Any, **more: Any) -> Any:
        stepped = step(model_output, timestep, sample, *rest, **more)
        after = stepped[0] if isinstance(stepped, tuple) else stepped.prev_sample
        seen["change"] = (_flat(after - sample) ** 2).mean(dim=1).cpu().numpy()
        raise _FirstStepDone

    hook = network.register_forward_hook(note_noise) if network is not None else None
    pipeline.scheduler.step = note_change
    try:
        yield
    finally:
        del pipeline.scheduler.step  # of the object; its class has the real one
        if hook is not None:
            hook.remove()


def _flat(tensor: Any) -> Any:
    return tensor.detach().double().flatten(1)


def _of_each(values: np.ndarray | None, count: int) -> list[float]:
    """Return a value for each picture; NaN where the model works on something else."""
    if values is None or len(values) != count:
        return [float("nan")] * count
    return [float(value) for value in values]


def _takes_prompts(pipeline: Any) -> bool:
    taken = inspect.signature(type(pipeline).__call__).parameters
    return "prompt" in taken and "num_inference_steps" in taken and "image" not in taken


def _call(
    pipeline: Any, model: Model, prompts: Sequence[str], seeds: Sequence[int], steps: int
) -> Any:
    import torch

    options: dict[str, Any] = {}
    if model.guidance is not None:
        options["guidance_scale"] = model.guidance
    if model.size is not None:
        options["height"] = options["width"] = model.size
    try:
        return pipeline(
            prompt=list(prompts),
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            num_inference_steps=steps,
            output_type="np",
            **options,
        )
    except _FirstStepDone:
        raise
    except torch.cuda.OutOfMemoryError as error:
        raise CapacityError(
            f"{model.name}: the GPU's memory is too small for {len(prompts)} pictures at a time. "
            f"Make fewer with --batch, smaller ones with --size, or try --half."
        ) from error
    except Exception as error:  # pipelines refuse sizes, prompts and schedules in their own ways
        line = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"{model.name}: {type(pipeline).__name__} fails: {line[0]}") from error
