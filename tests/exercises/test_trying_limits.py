"""Where the checks of `trying` draw the line, from both sides: at what chance brings once in e^20 draws."""

import math

import pytest
import torch

from course_utils.exercises import trying
from course_utils.exercises.running import Unreadable

N = 10_000
QUANTILES = torch.special.ndtri((torch.arange(N).double() + 0.5) / N)
QUANTILES /= QUANTILES.square().mean().sqrt()
SIDES = pytest.mark.parametrize(
    ("off", "refused"), [(0.98, False), (1.02, True), (-0.98, False), (-1.02, True)]
)


def said(check, *arguments):
    """Return what a check says, "" if nothing."""
    try:
        check(*arguments)
    except Unreadable as reason:
        return str(reason)
    return ""


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def solved(function, wanted, low, high):
    """Return where a rising function has the value that is wanted."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) < wanted else (low, middle)
    return low


@SIDES
def test_the_mean(off, refused):
    mean = off * math.sqrt(40 / N)  # N mean² / 2 = 20, in units of the RMS
    w = QUANTILES * math.sqrt(1 - mean**2) + mean
    assert said(trying.check_mean, 3 * w.view(100, 100)).startswith("the mean of") == refused


@SIDES
@pytest.mark.parametrize("kurtosis", [3.0, 1.8])
def test_the_fourth_moment(kurtosis, off, refused):
    plain = QUANTILES if kurtosis == 3.0 else torch.linspace(-1, 1, N, dtype=torch.float64)
    wanted = kurtosis + off * math.sqrt(20 * 48 / N)

    def bent(p):
        return plain.sign() * plain.abs() ** p

    def fourth(p):
        return (bent(p).pow(4).mean() / bent(p).square().mean() ** 2).item()

    w = bent(solved(fourth, wanted, 0.5, 2.0)).view(100, 100)
    words = said(trying.check_entries, w, kurtosis)
    assert (f"E w⁴/(E w²)² is {wanted:.2f}, not {kurtosis:g}" in words) == refused


@SIDES
def test_the_histogram(off, refused):
    far = math.sqrt(20 / 2 / N)  # 2 N far² = 20
    shift = solved(
        lambda d: torch.special.ndtr(torch.tensor(d / 2)).mul(2).sub(1).item(), abs(off) * far, 0, 1
    )
    w = QUANTILES + math.copysign(shift, off)  # a shift has next to no part in the fourth moment
    assert ("that of a normal one" in said(trying.check_entries, w.view(100, 100))) == refused


@pytest.mark.parametrize(("largest", "refused"), [(3.1, False), (3.08, True)])
def test_the_largest_of_ten_thousand(largest, refused):
    # P(none is larger) = exp(-N 2 (1 - Phi(largest))) = exp(-20) at 3.09
    assert said(trying._check_largest, torch.linspace(0, largest, N)).startswith("the weights") == refused


@SIDES
def test_two_rows(off, refused):
    # A cosine of 401 entries: (1 - c²)^200 = exp(-20) / (2² / 2)
    c = off * math.sqrt(1 - math.exp(-(20 + math.log(2)) / 200))
    rows = torch.zeros(2, 401)
    rows[:, 0], rows[1, 1] = torch.tensor([1.0, c]), math.sqrt(1 - c**2)
    words = said(trying._check_lines, rows, "rows")
    assert words.startswith("two rows of a weight depend") == refused
    assert not refused or f"cosine {abs(c):.2f}" in words


@SIDES
def test_two_weights(off, refused):
    a, b = normal(2, N)
    a, b = (x - x.mean() for x in (a, b))
    a, b = a / a.norm(), b - (b @ a) / (a @ a) * a
    b = (off * math.sqrt(40 / N)) * a + math.sqrt(1 - 40 / N * off**2) * b / b.norm()
    words = said(trying.check_independence, [w.view(100, 100) for w in (a, 5 * b)])
    assert words.startswith("two of the weights") == refused


@SIDES
def test_neighbours(off, refused):
    e = normal(N, seed=3)

    def together(t):
        z = e + t * e.roll(1)
        z = z / z.square().mean().sqrt()
        return (z[1:] * z[:-1]).sum().item()

    t = solved(together, off * math.sqrt(2 * 20 * N), -0.5, 0.5)
    words = said(trying._check_scatter, trying._normalized((e + t * e.roll(1)).view(100, 100)), "rows", 3.0)
    assert words.startswith("neighbouring") == refused


def ratio_of_variances(freedom, side):
    """Return the ratio r above, or below, 1 at which Chernoff's freedom / 2 (r - 1 - ln r) is 20."""

    def bound(r):
        return side * freedom / 2 * (r - 1 - math.log(r))

    return solved(bound, 20 * side, *((1, 9) if side > 0 else (1e-9, 1)))


ROWS = {3.0: normal(100, 100, seed=4), 1.8: torch.special.ndtr(normal(100, 100, seed=4)) - 0.5}


@pytest.mark.parametrize("kurtosis", ROWS)
@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize(("off", "refused"), [(0.95, False), (1.05, True)])
def test_sums_and_mean_squares_of_rows(side, kurtosis, off, refused):
    rows = ROWS[kurtosis] / ROWS[kurtosis].square().mean().sqrt()
    means = rows.mean(dim=1, keepdim=True)
    wanted = (1 + off * (ratio_of_variances(100, side) - 1)) / 100  # of the means of 100 numbers

    def with_means(factor):
        changed = rows - means + factor * means
        return changed / changed.square().mean().sqrt()

    factor = solved(lambda k: with_means(k).mean(dim=1).square().mean().item(), wanted, 0, 9)
    words = said(trying._check_scatter, with_means(factor), "rows", kurtosis)
    assert words.startswith("the sums of its rows") == refused
    squares = rows.square().mean(dim=1, keepdim=True)
    ratio = 1 + off * (ratio_of_variances(99, side) - 1)
    spread = math.sqrt(ratio * (kurtosis - 1) / 100 / squares.var())
    changed = rows * (1 + spread * (squares - 1)).div(squares).sqrt()
    words = said(trying._check_scatter, changed, "rows", kurtosis)
    assert words.startswith("the mean squares of its rows") == refused


@pytest.mark.parametrize(("pairs", "refused"), [(3, False), (4, True)])
def test_equal_weights(pairs, refused):
    w = normal(10, 10, seed=5).flatten()
    assert w.abs().sort().values.diff().min() > 1e-5  # 100 numbers, of which none agree by chance
    w[:pairs] = -w[-pairs:]
    words = said(trying.check_law, [w.view(10, 10)])
    assert words.startswith("weights are copies") == refused


@pytest.mark.parametrize(("same", "refused"), [(0, False), (9, False), (11, True)])
def test_numbers_that_no_generator_drew(same, refused):
    def initialize(generator):
        w = torch.randn(1000, generator=generator)
        w[:same] = 3.0
        w[-100:] = 0.0  # zeros do not count
        return [w]

    words = said(trying.drawn, initialize)
    assert words.startswith("a part of the numbers") == refused
