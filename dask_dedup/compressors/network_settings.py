"""How a compressor's network is built and trained: one frozen object.

It is no table of `dask_dedup.Settings`: a run has no use for it, and a model carries the settings
it was trained with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dask_dedup.errors import SettingsError

__all__ = ["NetworkSettings", "load_network_settings"]


class NetworkSettings(BaseModel):
    """Settings of `fit_compressor`; a PCA reads ``sample_rows`` and ``threads`` alone.

    The paper gives none of them: the defaults are ours, chosen by measurement.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    sample_rows: Annotated[int, Field(ge=1)] = 131_072
    """rows of the seeded sample, held in memory: 4 bytes a coordinate and modality"""

    validation_share: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    """share of the sample that is not trained on; the loss on it decides when to stop"""

    epochs: Annotated[int, Field(ge=1)] = 24
    """passes over the sample at most"""

    patience: Annotated[int, Field(ge=1)] = 5
    """epochs without a lower validation loss after which training stops"""

    batch: Annotated[int, Field(ge=2)] = 512
    """rows of one training step: for snip the subset among which neighbours are sought"""

    learning_rate: Annotated[float, Field(gt=0, le=1)] = 2e-3
    """learning rate of AdamW at the start; it falls to zero along half a cosine"""

    width: Annotated[int, Field(ge=1)] = 512
    """units of each hidden layer"""

    depth: Annotated[int, Field(ge=1, le=16)] = 2
    """linear layers of the encoder, GELU between them; 1 is a linear map"""

    start: Literal["pca", "random"] = "pca"
    """pca: a linear map beside the layers, which starts as the PCA's axes; random: layers alone"""

    temperature: Annotated[float, Field(ge=1e-3, le=10)] = 0.05
    """temperature of the similarities in the losses of snip"""

    hard: bool = False
    """snip: the nearest neighbour as the one positive, instead of all similarities"""

    clip_weight: Annotated[float, Field(ge=0)] = 0.0
    """weight of the contrastive term between compressed images and their texts (modality both)"""

    threads: Annotated[int, Field(ge=1)] = 1
    """threads of the arithmetic on the CPU; another number may change the last bits"""


def load_network_settings(values: Mapping[str, Any]) -> NetworkSettings:
    """Check settings; None values are passed over.

    Raises
    ------
    SettingsError
        Naming each one that is unknown or out of range.
    """
    given = {key: value for key, value in values.items() if value is not None}
    try:
        return NetworkSettings.model_validate(given)
    except ValidationError as error:
        known = ", ".join(NetworkSettings.model_fields)
        raise SettingsError(
            "\n".join(
                f"unknown setting {problem['loc'][0]}; known here: {known}."
                if problem["type"] == "extra_forbidden"
                else f"{problem['loc'][0]}: {problem['msg']}, got {problem['input']!r}."
                for problem in error.errors()
            )
        ) from error
