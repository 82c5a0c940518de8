"""What each source adds where several meet: by its elasticity, or alone where that is small among few."""

import pytest
import torch

from course_utils.doctor.experiment import _shares


def added(sizes):
    """Return the shares of sources in orthogonal directions; the last has that of the first."""
    leaves = [torch.tensor(size, dtype=torch.float64, requires_grad=True) for size in sizes]
    n = len(sizes) - 1
    directions = n**0.5 * torch.eye(n, dtype=torch.float64)
    y = sum(leaf * direction for leaf, direction in zip(leaves, [*directions, directions[0]], strict=True))
    return _shares(y, leaves)


@pytest.mark.parametrize(("count", "alone"), [(2, True), (4, True), (5, False)])
def test_a_small_share_among_at_most_four_is_measured_alone(count, alone):
    second, *shares = added([1.0] * (count - 1) + [0.05])
    assert second == pytest.approx(count - 2 + 1.05**2)
    assert shares[:-1] == pytest.approx([1.05] + [1.0] * (count - 2))
    assert shares[-1] == pytest.approx(0.05**2 if alone else 0.05 * 1.05)


@pytest.mark.parametrize(("size", "alone"), [(0.099, True), (0.101, False)])
def test_a_share_is_small_below_a_tenth_of_the_largest(size, alone):
    *_, share = added([1.0, 1.0, size])
    assert share == pytest.approx(size**2 if alone else size * (1 + size))


def test_what_adds_nothing_has_no_share():
    assert added([1.0, 0.0, 0.0])[1:] == pytest.approx([1, 0, 0])
