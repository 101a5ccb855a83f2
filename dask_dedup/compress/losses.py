"""What the networks are trained to do: reconstruct (MSE), keep neighbours (SNIP), match pairs.

The paper trains with a mean squared error, or with a contrastive loss that it calls SNIP (subset
nearest-neighbour CLIP compression) and does not write out: the two SNIP losses here, soft and hard,
are ours. All take rows at unit length, so that a product is a cosine; all are means over rows, in
nats where they are entropies.
"""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy, log_softmax

__all__ = ["clip_loss", "mse_loss", "snip_hard_loss", "snip_soft_loss"]


def mse_loss(reconstructed: torch.Tensor, raw: torch.Tensor) -> torch.Tensor:
    """Squared error of each row, summed over its coordinates, mean over rows.

    For raw rows at unit length 1 is what a reconstruction by zeros gives, whatever the dimension.

    Parameters
    ----------
    reconstructed, raw : float tensors, shape (n, dim)
    """
    return (reconstructed - raw).square().sum(dim=1).mean()


def snip_soft_loss(raw: torch.Tensor, compressed: torch.Tensor, temperature: float) -> torch.Tensor:
    """Divergence between each row's neighbourhoods in the subset, raw and compressed.

    ``p_ij = softmax_j(x_i·x_j / τ)`` over the other rows j of the subset, x raw, and ``q_ij`` the
    same of the compressed rows: mean over i of ``Σ_j p_ij log(p_ij / q_ij)``. Ours. It is zero
    where the compression keeps all similarities up to a constant for each row.

    Parameters
    ----------
    raw : float tensor, shape (n, dim)
    compressed : float tensor, shape (n, kept)
    temperature : float
        τ, of both.
    """
    if len(raw) < 2:
        return compressed.sum() * 0.0  # no other row, nothing to keep
    log_target = log_softmax(_others(raw) / temperature, dim=1)
    log_kept = log_softmax(_others(compressed) / temperature, dim=1)
    return (log_target.exp() * (log_target - log_kept)).sum(dim=1).mean()


def snip_hard_loss(raw: torch.Tensor, compressed: torch.Tensor, temperature: float) -> torch.Tensor:
    """InfoNCE whose positive is the row's nearest neighbour in the raw space, inside the subset.

    ``−log q_i,nn(i)`` with ``q_ij = softmax_j(y_i·y_j / τ)`` over the other rows j, y compressed,
    and ``nn(i) = argmax_j x_i·x_j``, x raw. Mean over i. Ours.

    Parameters
    ----------
    raw, compressed, temperature
        As `snip_soft_loss` takes them.
    """
    if len(raw) < 2:
        return compressed.sum() * 0.0
    return cross_entropy(_others(compressed) / temperature, _others(raw).argmax(dim=1))


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


def _others(rows: torch.Tensor) -> torch.Tensor:
    """Return each row's products with the other rows: shape (n, n - 1), in their order."""
    n = len(rows)
    products = rows @ rows.T
    # Without its diagonal a matrix is n - 1 lines of n + 1 values, of which the first is dropped.
    return products.flatten()[1:].view(n - 1, n + 1)[:, :-1].reshape(n, n - 1)
