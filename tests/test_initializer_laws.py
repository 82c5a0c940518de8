"""Initializers: variances, laws, independence, truncation.

A statistical check measures how far a sample is from the exact law, in standard errors of that law, and fails
beyond Z_LIMIT of them; generators are seeded. Every numeric check is a function of the initializer that it
checks: it is run on the true one, which must pass, and on faulty ones, which must not.
"""

import math
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from initializer_cases import DTYPES, INF, KS_LIMIT, Z_LIMIT, check_z, refuses, seeded
from scipy import stats

from course_utils import initializers as init

# --- Variances, laws, independence ---

# Shapes and their (fan_in, fan_out). A million entries make 1 % of a standard deviation 14 standard errors.
FANS = {
    (1280, 800): (800, 1280),
    (160, 80, 80): (6400, 12800),
    (128, 80, 10, 10): (8000, 12800),
    (64, 40, 8, 5, 10): (16000, 25600),
}
MATRIX, VOLUME = (1280, 800), (64, 40, 8, 5, 10)
CUT_VARIANCE = stats.truncnorm.var(-2, 2)
LAWS = {
    "normal": lambda variance: stats.norm(0, math.sqrt(variance)),
    "uniform": lambda variance: stats.uniform(-math.sqrt(3 * variance), 2 * math.sqrt(3 * variance)),
    "truncated_normal": lambda variance: stats.truncnorm(-2, 2, scale=math.sqrt(variance / CUT_VARIANCE)),
}
MODES = {"fan_in": lambda i, o: 1 / i, "fan_out": lambda i, o: 1 / o, "fan_avg": lambda i, o: 2 / (i + o)}

# name: (initializer, law, variance as a function of fan_in and fan_out)
SCHEMES = {
    f"{mode} {law}": (
        partial(init.variance_scaling_, gain=1.3, mode=mode, distribution=law),
        law,
        per_fan,
        1.69,
    )
    for (mode, per_fan), law in product(MODES.items(), LAWS)
}
for _law in ("normal", "uniform"):
    _lecun, _xavier, _kaiming = (getattr(init, f"{name}_{_law}_") for name in ("lecun", "xavier", "kaiming"))
    SCHEMES |= {
        f"lecun {_law}": (_lecun, _law, MODES["fan_in"], 1),
        f"lecun {_law} gain": (partial(_lecun, gain=0.5), _law, MODES["fan_in"], 0.25),
        f"xavier {_law}": (_xavier, _law, MODES["fan_avg"], 1),
        f"xavier {_law} gain": (partial(_xavier, gain=3), _law, MODES["fan_avg"], 9),
        f"kaiming {_law}": (_kaiming, _law, MODES["fan_in"], 2),
        f"kaiming {_law} fan_out": (partial(_kaiming, mode="fan_out"), _law, MODES["fan_out"], 2),
        f"kaiming {_law} slope": (partial(_kaiming, a=0.5), _law, MODES["fan_in"], 1.6),
        f"kaiming {_law} tanh": (partial(_kaiming, nonlinearity="tanh"), _law, MODES["fan_in"], 25 / 9),
        f"kaiming {_law} linear": (partial(_kaiming, nonlinearity="linear"), _law, MODES["fan_in"], 1),
        f"kaiming {_law} selu": (partial(_kaiming, nonlinearity="selu"), _law, MODES["fan_in"], 9 / 16),
    }


def check_law(sample, law):
    """The first two moments of the sample, and the whole distribution of a tenth of it."""
    x = sample.double().flatten().numpy()
    mean, variance, excess_kurtosis = (float(moment) for moment in law.stats("mvk"))
    check_z(x.mean() - mean, math.sqrt(variance / x.size), "the mean")
    check_z(
        np.mean((x - mean) ** 2) / variance - 1, math.sqrt((excess_kurtosis + 2) / x.size), "the variance"
    )
    assert stats.kstest(x[::10], law.cdf).statistic * math.sqrt(x[::10].size) < KS_LIMIT


def check_scheme(initializer, law, per_fan, factor, shape):
    sample = initializer(torch.empty(shape), generator=seeded(11))
    check_law(sample, LAWS[law](factor * per_fan(*FANS[shape])))


@pytest.mark.parametrize("name", SCHEMES)
def test_scheme_has_its_variance_and_law(name):
    for shape in FANS:
        check_scheme(*SCHEMES[name], shape)


def scaled(initializer, factor):
    return lambda w, generator: initializer(w, generator=generator).mul_(factor)


def normal_of_std(std):
    return lambda w, generator: w.normal_(0, std(w), generator=generator)


def uniform_without_sqrt3(w, generator):
    return w.uniform_(-math.sqrt(2 / w[0].numel()), math.sqrt(2 / w[0].numel()), generator=generator)


def uncorrected_truncation(w, generator):
    std = 1 / math.sqrt(w[0].numel())
    return init.trunc_normal_(w, 0, std, -2 * std, 2 * std, generator)


def absolute_truncation(w, generator):
    return init.trunc_normal_(w, 0, 1 / math.sqrt(w[0].numel()), generator=generator)


HE, HE_UNIFORM = SCHEMES["kaiming normal"], SCHEMES["kaiming uniform"]
FAULTY_SCHEMES = {
    "std 1 % too large": (scaled(HE[0], 1.01), HE, MATRIX),
    "std 1 % too small": (scaled(HE[0], 0.99), HE, MATRIX),
    "uniform bound 1 % too large": (scaled(HE_UNIFORM[0], 1.01), HE_UNIFORM, MATRIX),
    "sqrt 2 missing": (init.lecun_normal_, HE, MATRIX),
    "2 for sqrt 2": (scaled(HE[0], math.sqrt(2)), HE, MATRIX),
    "fans swapped": (partial(init.kaiming_normal_, mode="fan_out"), HE, MATRIX),
    "variance given for std": (normal_of_std(lambda w: 2 / w[0].numel()), HE, MATRIX),
    "uniform bound without sqrt 3": (uniform_without_sqrt3, HE_UNIFORM, MATRIX),
    "uniform for normal": (init.kaiming_uniform_, HE, MATRIX),
    "mean off by 1 % of std": (lambda w, generator: HE[0](w, generator=generator).add_(5e-4), HE, MATRIX),
    "nonlinearity ignored": (init.kaiming_normal_, SCHEMES["kaiming normal tanh"], MATRIX),
    "slope ignored": (init.kaiming_normal_, SCHEMES["kaiming normal slope"], MATRIX),
    "selu gain 1": (init.lecun_normal_, SCHEMES["kaiming normal selu"], MATRIX),
    "gain squared": (partial(init.xavier_normal_, gain=9), SCHEMES["xavier normal gain"], MATRIX),
    "fan_in for fan_avg": (init.lecun_normal_, SCHEMES["xavier normal"], MATRIX),
    "kernel forgotten": (normal_of_std(lambda w: math.sqrt(2 / w.shape[1])), HE, VOLUME),
    "half the kernel": (normal_of_std(lambda w: math.sqrt(2 / math.prod(w.shape[1:4]))), HE, VOLUME),
    "truncation uncorrected": (
        uncorrected_truncation,
        (None, "truncated_normal", MODES["fan_in"], 1),
        MATRIX,
    ),
    "truncation at 2, not 2 std": (
        absolute_truncation,
        (None, "truncated_normal", MODES["fan_in"], 1),
        MATRIX,
    ),
}


@pytest.mark.parametrize("fault", FAULTY_SCHEMES)
def test_faulty_scheme_is_noticed(fault):
    initializer, scheme, shape = FAULTY_SCHEMES[fault]
    refuses(check_scheme, initializer, *scheme[1:], shape)


@pytest.mark.parametrize(
    ("name", "law"),
    [
        ("normal_", stats.norm(0.5, 0.2)),
        ("uniform_", stats.uniform(-1, 3)),
        ("trunc_normal_", stats.truncnorm(-2, 2)),
    ],
)
def test_law_of_plain_draws(name, law):
    arguments = {"normal_": (0.5, 0.2), "uniform_": (-1, 2), "trunc_normal_": ()}[name]
    sample = getattr(init, name)(torch.empty(MATRIX), *arguments, generator=seeded(4))
    check_law(sample, law)
    mean = law.mean()
    refuses(check_law, (sample - mean) * 1.01 + mean, law)


def test_fans():
    for shape, fans in FANS.items():
        assert init.calculate_fans(torch.empty(shape)) == fans


def check_independent(initializer):
    """Neighbours along either axis are uncorrelated: the correlation has standard error 1 / sqrt(pairs)."""
    x = initializer(torch.empty(500, 400, dtype=torch.float64), generator=seeded(5))
    x = (x - x.mean()) / x.std()
    for axis in (0, 1):
        products = x.narrow(axis, 1, x.shape[axis] - 1) * x.narrow(axis, 0, x.shape[axis] - 1)
        check_z(products.mean().item(), 1 / math.sqrt(products.numel()), f"the correlation along axis {axis}")


def sort(w):
    return w.flatten().sort().values.view_as(w)


def repeat_the_first_row(w):
    return w[:1].expand_as(w)


def repeat_the_first_column(w):
    return w[:, :1].expand_as(w)


INDEPENDENT = {
    "uniform": init.uniform_,
    "normal": init.normal_,
    "truncated": init.trunc_normal_,
    "tail": partial(init.trunc_normal_, a=1, b=3),
    "kaiming": init.kaiming_normal_,
    "scaled": partial(init.variance_scaling_, distribution="truncated_normal", mode="fan_avg"),
}


@pytest.mark.parametrize("name", INDEPENDENT)
def test_entries_are_independent(name):
    initializer = INDEPENDENT[name]
    check_independent(initializer)
    for fault in (sort, repeat_the_first_row, repeat_the_first_column):
        refuses(
            check_independent, lambda w, generator, fault=fault: fault(initializer(w, generator=generator))
        )


# --- Truncation ---

INTERVALS = {  # mean, std, a, b
    "two std": (0, 1, -2, 2),
    "one sided": (0, 1, -0.5, INF),
    "whole line": (1, 2, -INF, INF),
    "narrow around the mean": (0, 1, -0.1, 0.1),
    "narrow beside the mean": (0.5, 2, 0.6, 0.65),
    "just off the mean": (0, 1, 0.005, 0.5),
    "bounds off the grid": (0, 0.02, -0.03, 0.01),
    "lower tail": (0, 1, -3, -1),
    "upper tail": (0, 1, 2, 10),
    "infinite upper tail": (0, 1, 1, INF),
    "infinite lower tail": (2, 0.5, -INF, 0),
    "far upper tail": (0, 1, 10, 12),
    "far lower tail": (1, 0.5, -8, -6),
    "thirty std out": (0, 0.02, 0.6, 3),
}


def check_truncated(initializer, interval, dtype, count=40_000, law=None):
    """The exact law rounded to the dtype, its mean and standard deviation, and no number outside [a, b]."""
    mean, std, a, b = interval
    lowest, highest = torch.tensor([a, b], dtype=dtype).tolist()
    law = law or stats.truncnorm((a - mean) / std, (b - mean) / std, mean, std)
    sample = initializer(torch.empty(count, dtype=dtype), mean, std, a, b, generator=seeded(6))
    x = sample.double().numpy()
    assert lowest <= x.min()
    assert x.max() <= highest
    check_rounded_distribution(sample, law, b)
    # Rounding moves every number by less than eps times its size, hence mean and std by less than eps * rms.
    rounding = torch.finfo(dtype).eps * np.sqrt(np.mean(x**2))
    center, variance, excess_kurtosis = (float(moment) for moment in law.stats("mvk"))
    spread = math.sqrt(variance)
    assert abs(x.mean() - center) < Z_LIMIT * spread / math.sqrt(count) + rounding
    assert abs(x.std() - spread) < Z_LIMIT * spread * math.sqrt((excess_kurtosis + 2) / count) / 2 + rounding


def check_rounded_distribution(sample, law, b):
    """Kolmogorov-Smirnov; a number stands for all up to halfway to the next, or to b if that is outside."""
    values, counts = sample.unique(return_counts=True)
    following = values.nextafter(torch.full_like(values, INF)).double().numpy()
    expected = np.where(following > b, 1.0, law.cdf((values.double().numpy() + following) / 2))
    distance = np.abs(counts.cumsum(0).numpy() / len(sample) - expected).max()
    assert distance * math.sqrt(len(sample)) < KS_LIMIT, f"distance {distance:.3g}"


@pytest.mark.parametrize("name", INTERVALS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_truncated_law_is_exact(name, dtype):
    check_truncated(init.trunc_normal_, INTERVALS[name], dtype)


@pytest.mark.parametrize(
    ("interval", "law"),
    [
        ((0, 1, 0.5, 0.5 + 1e-9), stats.uniform(0.5, 1e-9)),
        ((0, 1, -3.00001, -3), stats.uniform(-3.00001, 1e-5)),
    ],
)
def test_truncated_law_where_only_its_limit_is_known(interval, law):
    """Up to a few parts in 100,000; scipy's own truncated law has lost its moments there."""
    check_truncated(init.trunc_normal_, interval, torch.float64, law=law)


def clamped(w, mean, std, a, b, generator):
    return w.normal_(mean, std, generator=generator).clamp_(a, b)


def uniform_between(w, mean, std, a, b, generator):
    return w.uniform_(a, b, generator=generator)


def exponential_tail(w, mean, std, a, b, generator):
    return w.exponential_((a - mean) / std, generator=generator).mul_(std).add_(a).clamp_(a, b)


def bounds_in_std(w, mean, std, a, b, generator):
    return init.trunc_normal_(w, mean, std, a * std, b * std, generator)


@pytest.mark.parametrize(
    ("faulty", "name", "dtype"),
    [
        (clamped, "two std", torch.float32),
        (uniform_between, "two std", torch.float32),
        (uniform_between, "far upper tail", torch.float64),
        (exponential_tail, "upper tail", torch.float64),
        (bounds_in_std, "bounds off the grid", torch.float32),
        (torch.nn.init.trunc_normal_, "upper tail", torch.bfloat16),
        (torch.nn.init.trunc_normal_, "upper tail", torch.float16),
    ],
)
def test_faulty_truncation_is_noticed(faulty, name, dtype):
    refuses(check_truncated, faulty, INTERVALS[name], dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("interval", "value"),
    [
        ((0.5, 0, -2, 2), 0.5),
        ((5, 0, -2, 2), 2.0),
        ((-5, 0, -2, INF), -2.0),
        ((0, 1, 0.1, 0.1), 0.1),
        ((0, 0, 3, 3), 3.0),
    ],
)
def test_truncation_to_a_point(interval, value, dtype):
    w = init.trunc_normal_(torch.zeros(5, dtype=dtype), *interval)
    assert torch.equal(w, torch.full((5,), value, dtype=dtype))


def test_narrowest_intervals_end():
    """Where the grid of the dtype is coarser than the interval, redrawing must still come to an end."""
    grid = 2.0**-23  # of float32 just above 1
    w = init.trunc_normal_(torch.zeros(100), 1 + 0.49 * grid, 0.1 * grid, 1 + 0.51 * grid, 2)
    assert torch.equal(w, torch.full((100,), 1 + grid))
    assert (init.trunc_normal_(torch.zeros(100), 0, 1, 0.1, 0.1 + 1e-12) - 0.1).abs().max() < grid
