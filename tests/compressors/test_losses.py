"""Losses by hand on three rows, and their gradients by finite differences."""

import math

import numpy as np
import pytest
import torch

from dask_dedup.compressors.losses import (
    Side,
    clip_loss,
    mse_loss,
    snip_hard_loss,
    snip_soft_loss,
)


def rows(*degrees):
    """Return unit rows in the plane, at these angles: a cosine is that of the difference."""
    angle = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def within(loss, raw, kept, temperature):
    """Take a loss of rows with themselves."""
    side = Side(raw, kept)
    return loss(side, side, temperature)


RAW, KEPT = rows(0, 60, 90), rows(0, 90, 180)
# Cosines between rows (0, 1), (0, 2), (1, 2): raw 1/2, 0, √3/2; compressed 0, −1, 0.
RAW_COSINES = {(0, 1): 0.5, (0, 2): 0.0, (1, 2): math.sqrt(3) / 2}
KEPT_COSINES = {(0, 1): 0.0, (0, 2): -1.0, (1, 2): 0.0}


def shares(cosines, i, temperature):
    """Return the softmax of row i over the two other rows, in their order."""
    others = [j for j in range(3) if j != i]
    weights = [math.exp(cosines[tuple(sorted((i, j)))] / temperature) for j in others]
    return [weight / sum(weights) for weight in weights]


def test_mse_loss_by_hand():
    raw = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    made = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.6, 0.3]])
    assert mse_loss(made, raw).item() == pytest.approx((0 + 1 + 0.25) / 3)
    assert mse_loss(torch.zeros(3, 2), raw).item() == pytest.approx(1.0)


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_snip_soft_loss_by_hand(temperature):
    expected = 0.0
    for i in range(3):
        p, q = (shares(cosines, i, temperature) for cosines in (RAW_COSINES, KEPT_COSINES))
        expected += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / 3
    assert within(snip_soft_loss, RAW, KEPT, temperature).item() == pytest.approx(
        expected, rel=1e-12
    )


def test_snip_soft_loss_is_zero_where_similarities_are_kept():
    turned = rows(20, 80, 110)
    assert within(snip_soft_loss, RAW, turned, 0.05).item() == pytest.approx(0, abs=1e-12)


def test_snip_hard_loss_by_hand():
    # Nearest in the raw space: of row 0 row 1, of row 1 row 2, of row 2 row 1.
    shares_of_nearest = [
        shares(KEPT_COSINES, 0, 0.5)[0],
        shares(KEPT_COSINES, 1, 0.5)[1],
        shares(KEPT_COSINES, 2, 0.5)[1],
    ]
    expected = -sum(map(math.log, shares_of_nearest)) / 3
    assert within(snip_hard_loss, RAW, KEPT, 0.5).item() == pytest.approx(expected, rel=1e-12)


def test_clip_loss_by_hand():
    images, texts = rows(0, 90), rows(0, 60)
    scores = [[1.0, 0.5], [0.0, math.sqrt(3) / 2]]
    e = [[math.exp(score / 0.5) for score in line] for line in scores]
    by_row = math.log(e[0][0] / sum(e[0])) + math.log(e[1][1] / sum(e[1]))
    by_column = math.log(e[0][0] / (e[0][0] + e[1][0])) + math.log(e[1][1] / (e[0][1] + e[1][1]))
    expected = -(by_row / 2 + by_column / 2) / 2
    assert clip_loss(images, texts, 0.5).item() == pytest.approx(expected, rel=1e-12)


def test_snip_losses_across_two_modalities_by_hand():
    """A row's own text is one of its neighbours: two images, two texts, one query written out."""
    images, texts = Side(rows(0, 90), rows(0, 90)), Side(rows(0, 60), rows(0, 180))
    e = math.exp
    p = [[e(2) / (e(2) + e(1)), e(1) / (e(2) + e(1))], [1 / (1 + e(3**0.5)), None]]
    p[1][1] = 1 - p[1][0]
    q = [[e(2) / (e(2) + e(-2)), e(-2) / (e(2) + e(-2))], [0.5, 0.5]]
    soft = sum(p[i][j] * math.log(p[i][j] / q[i][j]) for i in (0, 1) for j in (0, 1)) / 2
    hard = -(math.log(q[0][0]) + math.log(q[1][1])) / 2
    assert snip_soft_loss(images, texts, 0.5).item() == pytest.approx(soft, rel=1e-9)
    assert snip_hard_loss(images, texts, 0.5).item() == pytest.approx(hard, rel=1e-9)


@pytest.mark.parametrize("loss", [snip_soft_loss, snip_hard_loss])
def test_snip_losses_of_equal_rows_are_those_of_no_knowledge(loss):
    """All rows equal: targets and shares are uniform over the n − 1 others."""
    same = rows(*[10] * 5)
    expected = 0.0 if loss is snip_soft_loss else math.log(4)
    assert within(loss, same, same, 0.05).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("loss", [snip_soft_loss, snip_hard_loss])
def test_snip_losses_of_one_row_are_zero_with_a_gradient(loss):
    one = rows(30).requires_grad_()
    value = within(loss, rows(30), one, 0.05)
    value.backward()
    assert value.item() == 0
    np.testing.assert_array_equal(one.grad, 0)


def test_losses_have_the_gradients_of_finite_differences():
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    made = torch.randn(6, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    other = torch.randn(6, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    for function, arguments in [
        (lambda x: within(snip_soft_loss, raw, x, 0.7), (made,)),
        (lambda x: within(snip_hard_loss, raw, x, 0.7), (made,)),
        (lambda x: mse_loss(x, raw[:, :3]), (made,)),
        (lambda x, y: clip_loss(x, y, 0.7), (made, other)),
        (lambda x, y: snip_soft_loss(Side(raw, x), Side(raw.flip(0), y), 0.7), (made, other)),
    ]:
        assert torch.autograd.gradcheck(function, arguments)


def test_snip_soft_gradient_by_hand_at_one_coordinate():
    """dL/dy_i = Σ_j (q_ij − p_ij) y_j / (τ n) as query, and as key of j the same of j's shares."""
    kept = KEPT.clone().requires_grad_()
    within(snip_soft_loss, RAW, kept, 0.5).backward()
    expected = np.zeros((3, 2))
    for i in range(3):
        others = [j for j in range(3) if j != i]
        p, q = (shares(cosines, i, 0.5) for cosines in (RAW_COSINES, KEPT_COSINES))
        for j, before, now in zip(others, p, q, strict=True):
            expected[i] += (now - before) * KEPT[j].numpy() / 0.5 / 3
            expected[j] += (now - before) * KEPT[i].numpy() / 0.5 / 3
    np.testing.assert_allclose(kept.grad, expected, atol=1e-12)
