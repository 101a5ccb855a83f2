"""What the networks are trained to do: reconstruct (MSE), keep neighbours (SNIP), match pairs.

The paper trains with a mean squared error, or with a contrastive loss that it calls SNIP (subset
nearest-neighbour CLIP compression) and does not write out: the two SNIP losses here, soft and hard,
are ours. All take rows at unit length, so that a product is a cosine; all are means over rows, in
nats where they are entropies.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn.functional import cross_entropy, log_softmax

__all__ = ["Side", "clip_loss", "mse_loss", "snip_hard_loss", "snip_soft_loss"]


class Side(NamedTuple):
    """The rows of a subset in one modality.

    Attributes
    ----------
    raw : float tensor, shape (n, dim)
    compressed : float tensor, shape (n, kept)
    """

    raw: torch.Tensor
    compressed: torch.Tensor


def mse_loss(reconstructed: torch.Tensor, raw: torch.Tensor) -> torch.Tensor:
    """Squared error of each row, summed over its coordinates, mean over rows.

    For raw rows at unit length 1 is what a reconstruction by zeros gives, whatever the dimension.

    Parameters
    ----------
    reconstructed, raw : float tensors, shape (n, dim)
    """
    return (reconstructed - raw).square().sum(dim=1).mean()


def snip_soft_loss(query: Side, key: Side, temperature: float) -> torch.Tensor:
    """Divergence between each query's neighbourhoods among the keys, raw and compressed.

    ``p_ij = softmax_j(x_i·y_j / τ)`` over the keys j, raw, and ``q_ij`` the same of the compressed
    rows: mean over i of ``Σ_j p_ij log(p_ij / q_ij)``. Ours. It is zero where the compression
    keeps all similarities up to a constant for each query.

    Parameters
    ----------
    query, key : Side
        The same object for one modality with itself: then a row is not its own neighbour. Images
        and texts are compared by a call of their own, since two images are nearer to each other
        than an image to its text in CLIP's spaces: in one softmax over both, texts would count
        for nothing.
    temperature : float
        τ, of both softmaxes.
    """
    raw, kept = _products(query, key)
    if not raw.shape[1]:
        return query.compressed.sum() * 0.0  # no other row, nothing to keep
    log_target = log_softmax(raw / temperature, dim=1)
    log_kept = log_softmax(kept / temperature, dim=1)
    return (log_target.exp() * (log_target - log_kept)).sum(dim=1).mean()


def snip_hard_loss(query: Side, key: Side, temperature: float) -> torch.Tensor:
    """InfoNCE whose positive is the query's nearest key in the raw space.

    ``−log q_i,nn(i)`` with ``q_ij`` as in `snip_soft_loss` and ``nn(i) = argmax_j x_i·y_j``, raw.
    Mean over i. Ours.

    Parameters
    ----------
    query, key, temperature
        As `snip_soft_loss` takes them.
    """
    raw, kept = _products(query, key)
    if not raw.shape[1]:
        return query.compressed.sum() * 0.0
    return cross_entropy(kept / temperature, raw.argmax(dim=1))


def clip_loss(images: torch.Tensor, texts: torch.Tensor, temperature: float) -> torch.Tensor:
    """CLIP's contrastive loss (Radford et al., 2021) between compressed images and their texts.

    Half the sum of two InfoNCE: image i finds text i among all texts, and the reverse.

    Parameters
    ----------
    images, texts : float tensors, shape (n, kept)
        Row i of the one belongs to row i of the other.
    temperature : float
    """
    scores = images @ texts.T / temperature
    target = torch.arange(len(images), device=images.device)
    return (cross_entropy(scores, target) + cross_entropy(scores.T, target)) / 2


def _products(query: Side, key: Side) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the products of queries and keys, raw and compressed; a row's own ones left out."""
    products = query.raw @ key.raw.T, query.compressed @ key.compressed.T
    return products if query is not key else (_without_own(products[0]), _without_own(products[1]))


def _without_own(products: torch.Tensor) -> torch.Tensor:
    """Return a square matrix without its diagonal: shape (n, n - 1), in the order of columns."""
    n = len(products)
    if n == 1:
        return products[:, :0]
    # Without its first value, the matrix is n - 1 lines of n values and one of the diagonal.
    return products.flatten()[1:].view(n - 1, n + 1)[:, :-1].reshape(n, n - 1)
