"""Tests of course_utils.initializers.

A statistical check measures how far a sample is from the exact law, in standard errors of that law, and fails
beyond Z_LIMIT of them; generators are seeded. Every numeric check is a function of the initializer that it
checks: it is run on the true one, which must pass, and on faulty ones, which must not.
"""

import inspect
import math
import re
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch.nn import functional

from course_utils import initializers as init

Z_LIMIT = 5.0
KS_LIMIT = special.kolmogi(2 * stats.norm.sf(Z_LIMIT))  # the same chance of a false alarm, 6e-7

NAMES = [
    *(
        "calculate_gain",
        "uniform_",
        "normal_",
        "trunc_normal_",
        "constant_",
        "ones_",
        "zeros_",
        "eye_",
        "dirac_",
    ),
    *("xavier_uniform_", "xavier_normal_", "kaiming_uniform_", "kaiming_normal_", "orthogonal_", "sparse_"),
]
HALF = (torch.float16, torch.bfloat16)
INF, NAN = math.inf, math.nan


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def check_z(error, standard_error, what):
    z = np.abs(np.asarray(error) / standard_error).max()
    assert z < Z_LIMIT, f"{what} is {z:.1f} standard errors off"


def refuses(check, *faulty, **options):
    """Assert that the check notices a planted fault."""
    with pytest.raises(AssertionError):
        check(*faulty, **options)


# --- Drop-in: signatures, and the same numbers from the same seed ---


@pytest.mark.parametrize("name", NAMES)
def test_signature_is_torchs(name):
    def arguments(module):
        parameters = inspect.signature(getattr(module, name)).parameters.values()
        return [(p.name, p.kind, p.default) for p in parameters]

    assert arguments(init) == arguments(torch.nn.init)


SAME_BITS = [
    ("uniform_", {"a": -0.3, "b": 0.7}),
    ("normal_", {"mean": 0.1, "std": 0.7}),
    ("xavier_uniform_", {}),
    ("xavier_uniform_", {"gain": 5 / 3}),
    ("xavier_normal_", {}),
    ("xavier_normal_", {"gain": 0.3}),
    ("kaiming_uniform_", {"a": math.sqrt(5)}),
    ("kaiming_uniform_", {"mode": "FAN_OUT", "nonlinearity": "tanh"}),
    ("kaiming_normal_", {"mode": "Fan_In"}),
    ("kaiming_normal_", {"mode": "fan_out", "nonlinearity": "selu"}),
    ("orthogonal_", {}),
    ("orthogonal_", {"gain": 0.7}),
]
SMALL_SHAPES = [(3, 7), (48, 31), (31, 48), (6, 5, 3), (7, 3, 2, 3), (4, 5, 2, 3, 2)]


def check_same_bits(module, name, arguments, shape, dtype):
    ours = getattr(module, name)(torch.zeros(shape, dtype=dtype), **arguments, generator=seeded(3))
    torchs = getattr(torch.nn.init, name)(torch.zeros(shape, dtype=dtype), **arguments, generator=seeded(3))
    assert torch.equal(ours, torchs)


@pytest.mark.parametrize(("name", "arguments"), SAME_BITS)
def test_one_seed_gives_torchs_bits(name, arguments):
    halves = () if name == "orthogonal_" else HALF  # torch has no orthogonal_ in half precision
    for shape, dtype in product(SMALL_SHAPES, (torch.float32, torch.float64, *halves)):
        check_same_bits(init, name, arguments, shape, dtype)


def test_last_bit_of_a_standard_deviation_is_noticed():
    class Faulty:
        @staticmethod
        def xavier_normal_(tensor, generator):
            mean_fan = sum(init.calculate_fans(tensor)) / 2
            return tensor.normal_(0, 1 / math.sqrt(mean_fan), generator=generator)

    def check_all(module):
        for shape in SMALL_SHAPES:
            check_same_bits(module, "xavier_normal_", {}, shape, torch.float64)

    check_all(init)
    refuses(check_all, Faulty)


def test_sparse_draws_torchs_values():
    ours, torchs = torch.zeros(9, 7), torch.zeros(9, 7)
    init.sparse_(ours, 0.0, 0.3, seeded(2))
    torch.nn.init.sparse_(torchs, 0.0, 0.3, seeded(2))
    assert torch.equal(ours, torchs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.int64])
def test_fixed_fills_are_torchs(dtype):
    cases = [("constant_", (2,)), ("ones_", ()), ("zeros_", ())]
    for (name, arguments), shape in product(cases, [(), (4,), (2, 3), (2, 3, 4)]):
        check_fixed_fill(name, arguments, shape, dtype)
    for shape in [(3, 3), (2, 5), (5, 2), (0, 3)]:
        check_fixed_fill("eye_", (), shape, dtype)
    for kernel, groups in product([(1,), (2,), (3,), (3, 4), (2, 3, 4)], [1, 2, 3]):
        for out, channels in [(6, 2), (6, 5), (12, 2)]:
            check_fixed_fill("dirac_", (groups,), (out, channels, *kernel), dtype)


def check_fixed_fill(name, arguments, shape, dtype):
    ours, torchs = torch.full(shape, 7, dtype=dtype), torch.full(shape, 7, dtype=dtype)
    assert getattr(init, name)(ours, *arguments) is ours
    assert torch.equal(ours, getattr(torch.nn.init, name)(torchs, *arguments))


@pytest.mark.parametrize("groups", [1, 2])
def test_dirac_makes_a_convolution_copy_its_input(groups):
    x = torch.randn(2, 4, 6, 5, generator=seeded(1))
    kernel = init.dirac_(torch.empty(4, 4 // groups, 3, 3), groups)
    assert torch.equal(functional.conv2d(x, kernel, padding=1, groups=groups), x)


GAINS = {
    **dict.fromkeys(("linear", "sigmoid", "conv1d", "conv2d", "conv3d"), 1.0),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), 1.0),
    "tanh": 5 / 3,
    "relu": math.sqrt(2),
    "leaky_relu": math.sqrt(2 / 1.0001),
    "selu": 0.75,
}


def check_gains(calculate_gain):
    for name, gain in GAINS.items():
        assert calculate_gain(name) == gain == torch.nn.init.calculate_gain(name), name
    for slope in (0, 0.2, -1, math.sqrt(5)):
        assert calculate_gain("leaky_relu", slope) == math.sqrt(2 / (1 + slope**2))
        assert calculate_gain("relu", slope) == math.sqrt(2)


def test_gains():
    check_gains(init.calculate_gain)
    for wrong in ({"selu": 1.0}, {"relu": 2.0}, {"conv_transpose1d": 2.0}, {"tanh": 1.0}):
        refuses(
            check_gains, lambda name, p=None, wrong=wrong: wrong.get(name) or init.calculate_gain(name, p)
        )
    refuses(check_gains, lambda name, param=None: init.calculate_gain(name))


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
SCHEMES["capitals"] = (
    partial(init.variance_scaling_, mode="Fan_Avg", distribution="UNIFORM"),
    "uniform",
    MODES["fan_avg"],
    1,
)
for _law in ("normal", "uniform"):
    _lecun, _xavier, _kaiming = (getattr(init, f"{name}_{_law}_") for name in ("lecun", "xavier", "kaiming"))
    SCHEMES |= {
        f"lecun {_law}": (_lecun, _law, MODES["fan_in"], 1),
        f"lecun {_law} gain": (partial(_lecun, gain=0.5), _law, MODES["fan_in"], 0.25),
        f"xavier {_law}": (_xavier, _law, MODES["fan_avg"], 1),
        f"xavier {_law} gain": (partial(_xavier, gain=3), _law, MODES["fan_avg"], 9),
        f"kaiming {_law}": (_kaiming, _law, MODES["fan_in"], 2),
        f"kaiming {_law} fan_out": (partial(_kaiming, mode="Fan_Out"), _law, MODES["fan_out"], 2),
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
    "scaled": partial(init.variance_scaling_, distribution="Truncated_Normal", mode="FAN_AVG"),
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
    "fifty std out": (0, 0.02, 1, 3),
}
DTYPES = (torch.float64, torch.float32, *HALF)


def check_truncated(initializer, interval, dtype, count=40_000, law=None):
    """The exact law rounded to the dtype, its mean and standard deviation, and no number outside [a, b]."""
    mean, std, a, b = interval
    law = law or stats.truncnorm((a - mean) / std, (b - mean) / std, mean, std)
    sample = initializer(torch.empty(count, dtype=dtype), mean, std, a, b, generator=seeded(6))
    x = sample.double().numpy()
    assert a <= x.min()
    assert x.max() <= b
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
        ((0, 1, 1e5, INF), stats.expon(1e5, 1e-5)),
        ((0, 1e300, -2, 2), stats.uniform(-2, 4)),
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


def rounded_outside(w, mean, std, a, b, generator):
    exact = init.trunc_normal_(torch.empty(w.shape, dtype=torch.float64), mean, std, a, b, generator)
    return w.copy_(exact)


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
        (rounded_outside, "bounds off the grid", torch.bfloat16),
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
        ((0, 1e-310, 1, 2), 1.0),
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


# --- Orthogonal ---

SHAPES_OF_Q = [(12, 12), (5, 30), (30, 5), (4, 3, 5), (20, 2, 3, 3), (4, 2, 3, 2, 2), (1, 6), (6, 1), (1, 1)]


def check_orthogonal(initializer, shape, gain=1.0, dtype=torch.float32):
    """Rows or columns are orthonormal up to rounding.

    Rounding each entry by half a unit moves an inner product of unit vectors by at most eps (Cauchy-Schwarz);
    the factorization itself is good to about size * eps of the precision it is computed in.
    """
    w = initializer(torch.empty(shape, dtype=dtype), gain=gain, generator=seeded(8))
    q = w.detach().double().reshape(shape[0], -1) / gain
    q = q if q.shape[0] <= q.shape[1] else q.T
    working = torch.float64 if dtype == torch.float64 else torch.float32
    bound = torch.finfo(dtype).eps + max(q.shape) * torch.finfo(working).eps
    assert (q @ q.T - torch.eye(len(q))).abs().max() < bound


def check_haar(initializer, shape, count=4000):
    """Moments that a uniform (semi-)orthogonal matrix has, entry by entry and (if square) as a whole."""
    generator, size = seeded(9), max(shape)
    draws = [initializer(torch.empty(shape), generator=generator) for _ in range(count)]
    q = torch.stack(draws).double().numpy()
    check_z(q.mean(0), math.sqrt(1 / size / count), "the mean of an entry")
    check_z((q > 0).mean(0) - 0.5, 0.5 / math.sqrt(count), "the chance of a positive entry")
    spread = math.sqrt(3 / (size * (size + 2)) - 1 / size**2)
    check_z((q**2).mean(0) - 1 / size, spread / math.sqrt(count), "the variance of an entry")
    if shape[0] == shape[1]:
        check_z(np.linalg.det(q).mean(), 1 / math.sqrt(count), "the determinant")
        trace = np.trace(q, axis1=1, axis2=2)
        check_z((trace**2).mean() - 1, math.sqrt(2 / count), "the squared trace")


@pytest.mark.parametrize("shape", SHAPES_OF_Q, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_orthogonal(shape, dtype):
    for gain in (1.0, math.sqrt(2), 0.1):
        check_orthogonal(init.orthogonal_, shape, gain, dtype)


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (5, 3)], ids=str)
def test_orthogonal_is_haar(shape):
    check_haar(init.orthogonal_, shape)


def factorized(factorize):
    return lambda w, generator: w.copy_(factorize(torch.empty(w.shape).normal_(generator=generator)))


def rotation(x):
    q, r = torch.linalg.qr(x)
    q *= r.diagonal().sign()
    q[0] *= q.det()
    return q


FAULTY_Q = {
    "naive QR": factorized(lambda x: torch.linalg.qr(x).Q),
    "left singular vectors": factorized(lambda x: torch.linalg.svd(x).U),
    "identity": lambda w, generator: init.eye_(w),
    "rotations only": factorized(rotation),
    "random signs": factorized(lambda x: torch.diag(x[0].sign())),
    "normalized rows": factorized(lambda x: x / x.norm(dim=1, keepdim=True)),
}


@pytest.mark.parametrize("fault", FAULTY_Q)
def test_faulty_orthogonal_is_noticed(fault):
    if fault == "normalized rows":
        refuses(check_orthogonal, lambda w, gain, generator: FAULTY_Q[fault](w, generator), (4, 4))
    else:
        refuses(check_haar, FAULTY_Q[fault], (4, 4))


def test_faulty_gain_of_orthogonal_is_noticed():
    def squared(w, gain, generator):
        return init.orthogonal_(w, gain**2, generator)

    refuses(check_orthogonal, squared, (6, 6), gain=1.01)


# --- Sparse ---


def check_sparse(initializer, sparsity=0.3, std=0.2, shape=(101, 400)):
    """Count, position and spread of the zeros, and the law of the rest."""
    rows, columns = shape
    w = initializer(torch.full(shape, 7.0), sparsity, std, seeded(10))
    zero = (w == 0).numpy()
    zeros = math.ceil(sparsity * rows)
    assert (zero.sum(0) == zeros).all()
    share = zeros / rows
    check_z(zero.mean(1) - share, math.sqrt(share * (1 - share) / columns), "zeros in a row")
    # Pairs of neighbours: down a column drawn without replacement, otherwise independent. The variance is as
    # for independent zeros, where pairs overlap; a fixed number of zeros in a column only lowers it.
    variance = share**2 * (1 - share**2) + 2 * share**3 * (1 - share)
    down, along, diagonal = zero[1:] & zero[:-1], zero[:, 1:] & zero[:, :-1], zero[1:, 1:] & zero[:-1, :-1]
    both = share * (zeros - 1) / (rows - 1)
    check_z(down.mean() - both, math.sqrt(variance / down.size), "pairs in a column")
    check_z(along.mean() - share**2, math.sqrt(variance / along.size), "pairs in a row")
    check_z(diagonal.mean() - share**2, math.sqrt(variance / diagonal.size), "diagonal pairs")
    values = w[w != 0].double().numpy()
    check_z(values.mean(), std / math.sqrt(values.size), "the mean")
    check_z(np.mean(values**2) / std**2 - 1, math.sqrt(2 / values.size), "the variance")


def zeros_at(rows_of_zeros):
    def initializer(w, sparsity, std, generator):
        init.normal_(w, 0, std, generator)
        count = math.ceil(sparsity * w.shape[0])
        return w.scatter_(0, rows_of_zeros(w, generator)[:count] % w.shape[0], 0.0)

    return initializer


def ranked(w, generator):
    return torch.rand(w.shape, generator=generator).argsort(0)


FAULTY_ZEROS = {
    "same rows": zeros_at(lambda w, generator: ranked(w, generator)[:, :1].expand(w.shape)),
    "first rows": zeros_at(lambda w, generator: torch.arange(len(w))[:, None].expand(w.shape)),
    "a block": zeros_at(lambda w, generator: ranked(w, generator)[:1] + torch.arange(len(w))[:, None]),
    "moving along": zeros_at(lambda w, generator: ranked(w, generator)[:, :1] + torch.arange(w.shape[1])),
    "rows and columns swapped": lambda w, *rest: w.copy_(init.sparse_(torch.empty(w.T.shape), *rest).T),
    "one zero short": lambda w, sparsity, *rest: init.sparse_(w, sparsity - 1 / len(w), *rest),
    "each entry at random": lambda w, s, std, g: w.normal_(0, std, generator=g).mul_(
        torch.rand(w.shape, generator=g) >= s
    ),
    "variance given for std": lambda w, sparsity, std, g: init.sparse_(w, sparsity, std**2, g),
}


def test_sparse():
    check_sparse(init.sparse_)
    for sparsity in (0.0, 0.01, 0.5, 0.999, 1.0):
        w = init.sparse_(torch.ones(50, 9), sparsity, generator=seeded(1))
        assert ((w == 0).sum(0) == math.ceil(sparsity * 50)).all()


@pytest.mark.parametrize("fault", FAULTY_ZEROS)
def test_faulty_sparse_is_noticed(fault):
    refuses(check_sparse, FAULTY_ZEROS[fault])


# --- What every random initializer promises ---

RANDOM = {
    "uniform": (init.uniform_, (6, 4)),
    "normal": (init.normal_, (6, 4)),
    "truncated": (init.trunc_normal_, (6, 4)),
    "tail": (partial(init.trunc_normal_, a=1, b=2), (6, 4)),
    "variance_scaling": (init.variance_scaling_, (6, 4, 3)),
    "variance_scaling uniform": (partial(init.variance_scaling_, distribution="uniform"), (6, 4, 3)),
    "variance_scaling truncated": (partial(init.variance_scaling_, distribution="truncated_normal"), (6, 4)),
    "lecun_normal": (init.lecun_normal_, (6, 4)),
    "lecun_uniform": (init.lecun_uniform_, (6, 4)),
    "xavier_normal": (init.xavier_normal_, (6, 4)),
    "xavier_uniform": (init.xavier_uniform_, (6, 4)),
    "kaiming_normal": (init.kaiming_normal_, (6, 4)),
    "kaiming_uniform": (init.kaiming_uniform_, (6, 4)),
    "orthogonal": (init.orthogonal_, (6, 4)),
    "sparse": (partial(init.sparse_, sparsity=0.5), (6, 4)),
}


def check_contract(initializer, shape):
    """In place, the very tensor back, no gradient recorded, the generator the only source of randomness."""
    leaf = torch.zeros(shape, requires_grad=True)
    assert initializer(leaf, generator=seeded(1)) is leaf
    assert leaf.is_leaf
    assert leaf.requires_grad
    assert torch.is_grad_enabled()
    state = torch.get_rng_state()
    first, again, other = (initializer(torch.zeros(shape), generator=seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, leaf)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        assert torch.equal(initializer(torch.zeros(shape)), first)


@pytest.mark.parametrize("name", RANDOM)
def test_contract(name):
    check_contract(*RANDOM[name])


def returns_nothing(w, generator=None):
    init.normal_(w, generator=generator)


def without_no_grad(w, generator=None):
    try:
        return w.normal_(generator=generator)
    except RuntimeError as error:
        raise AssertionError(error) from error


FAULTY_CONTRACTS = {
    "returns a copy": lambda w, generator=None: init.normal_(w, generator=generator).clone(),
    "returns nothing": returns_nothing,
    "records gradients": without_no_grad,
    "turns gradients off": lambda w, generator=None: init.normal_(
        w.requires_grad_(False), generator=generator
    ),
    "ignores the generator": lambda w, generator=None: init.normal_(w),
    "seeds itself": lambda w, generator=None: init.normal_(w, generator=seeded(0)),
    "zeros from the global state": partial(torch.nn.init.sparse_, sparsity=0.5),
}


@pytest.mark.parametrize("fault", FAULTY_CONTRACTS)
def test_broken_contract_is_noticed(fault):
    refuses(check_contract, FAULTY_CONTRACTS[fault], (6, 4))


STOCHASTIC = RANDOM | {  # the others have tests of their own
    "delta_orthogonal": (init.delta_orthogonal_, (6, 4, 3)),
    "looks_linear": (init.looks_linear_, (6, 4)),
    "output_prior_bias": (partial(init.output_prior_bias_, frequencies=[1, 2, 3, 4]), (6, 4)),
}
ALL = RANDOM | {
    "constant": (lambda w, generator=None: init.constant_(w, 0.3), (6, 4)),
    "ones": (lambda w, generator=None: init.ones_(w), (6, 4)),
    "zeros": (lambda w, generator=None: init.zeros_(w), (6, 4)),
    "eye": (lambda w, generator=None: init.eye_(w), (6, 4)),
    "dirac": (lambda w, generator=None: init.dirac_(w, 2), (6, 3, 4)),
    "output_prior_bias": (lambda w, generator=None: init.output_prior_bias_(w, [1, 2, 3, 4]), (6, 4)),
}


@pytest.mark.parametrize("name", ALL)
def test_parameters_are_filled_in_place(name):
    initializer, shape = ALL[name]
    parameter = torch.nn.Parameter(torch.full(shape, 7.0))
    assert initializer(parameter) is parameter
    assert not (parameter == 7).any()
    (parameter**2).sum().backward()
    assert torch.equal(parameter.grad, 2 * parameter)


@pytest.mark.parametrize("name", ALL)
def test_meta_tensors_pass_through(name):
    initializer, shape = ALL[name]
    w = torch.empty(shape, device="meta")
    assert initializer(w) is w


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda():
    for initializer, shape in ALL.values():
        w = torch.full(shape, 7.0, device="cuda")
        assert initializer(w, generator=torch.Generator("cuda").manual_seed(1)) is w
        assert not (w == 7).any()


@pytest.mark.parametrize("name", ALL)
def test_list_is_refused(name):
    with pytest.raises(TypeError, match=r"expected a torch.Tensor; got list"):
        ALL[name][0]([[0.0, 0.0], [0.0, 0.0]])


# --- Memory layouts ---


def views(shape):
    """Views of `shape` in other layouts, each with the memory that it lies in."""
    memory = torch.full(shape[::-1], 7.0)
    yield memory.permute(*range(len(shape) - 1, -1, -1)), memory
    memory = torch.full([2 * size + 1 for size in shape], 7.0)
    yield memory[tuple(slice(1, None, 2) for _ in shape)], memory
    if len(shape) == 4:
        memory = torch.full(shape, 7.0).to(memory_format=torch.channels_last)
        yield memory, memory


def check_layouts(initializer, shape):
    """A view gets the numbers that a contiguous tensor gets; strides and memory in between are untouched."""
    expected = initializer(torch.zeros(shape), generator=seeded(12))
    for view, memory in views(shape):
        strides = view.stride()
        initializer(view, generator=seeded(12))
        assert torch.equal(view, expected)
        assert view.stride() == strides
        assert (memory == 7).sum() == memory.numel() - view.numel()


SAME_IN_EVERY_LAYOUT = {
    "truncated": (init.trunc_normal_, [(20, 30), (4, 5, 3, 2)]),
    "tail": (partial(init.trunc_normal_, a=1, b=2), [(20, 30), (4, 5, 3, 2)]),
    "orthogonal": (
        partial(init.orthogonal_, gain=3),
        [(8, 5), (5, 8), (4, 5, 3), (4, 5, 3, 2), (30, 2, 3, 2)],
    ),
    "eye": (ALL["eye"][0], [(8, 5), (5, 8)]),
    "dirac": (ALL["dirac"][0], [(6, 2, 3), (6, 2, 3, 2), (6, 2, 3, 2, 1)]),
}


@pytest.mark.parametrize("name", SAME_IN_EVERY_LAYOUT)
def test_layouts(name):
    initializer, shapes = SAME_IN_EVERY_LAYOUT[name]
    for shape in shapes:
        check_layouts(initializer, shape)


def test_faulty_layout_is_noticed():
    def in_memory_order(w, generator):
        return w.set_(init.orthogonal_(torch.empty(w.shape), 3, generator))

    def transposed(w, generator):
        return init.orthogonal_(w.transpose(0, 1), 3, generator)

    refuses(check_layouts, in_memory_order, (4, 5, 3, 2))
    refuses(check_layouts, transposed, (4, 4, 3, 2))


@pytest.mark.parametrize(("name", "arguments"), [*SAME_BITS[:2], *SAME_BITS[5:10:2]])
def test_layouts_get_torchs_bits(name, arguments):
    for shape in [(20, 30), (4, 5, 3, 2)]:
        for (ours, _), (torchs, _) in zip(views(shape), views(shape), strict=True):
            strides = ours.stride()
            getattr(init, name)(ours, **arguments, generator=seeded(1))
            getattr(torch.nn.init, name)(torchs, **arguments, generator=seeded(1))
            assert torch.equal(ours, torchs)
            assert ours.stride() == strides


def test_sparse_in_other_layouts():
    for view, memory in views((50, 20)):
        init.sparse_(view, 0.3, generator=seeded(1))
        assert ((view == 0).sum(0) == 15).all()
        assert (memory == 7).sum() == memory.numel() - view.numel()


# --- Bad input ---

LAYER = (4, 6)
REFUSED = {
    "nonlinearity": (init.kaiming_normal_, LAYER, {"nonlinearity": "gelu"}, ValueError, "'selu'.*got 'gelu'"),
    "nonlinearity in capitals": (
        init.kaiming_normal_,
        LAYER,
        {"nonlinearity": "ReLU"},
        ValueError,
        "got 'ReLU'",
    ),
    "nonlinearity no name": (
        init.kaiming_normal_,
        LAYER,
        {"nonlinearity": ["relu"]},
        ValueError,
        r"got \['relu'\]",
    ),
    "slope a string": (init.kaiming_uniform_, LAYER, {"a": "x"}, ValueError, "slope.*got 'x'"),
    "slope a bool": (init.kaiming_uniform_, LAYER, {"a": True}, ValueError, "slope.*got True"),
    "kaiming mode": (
        init.kaiming_normal_,
        LAYER,
        {"mode": "fan_on"},
        ValueError,
        "'fan_in', 'fan_out'; got 'fan_on'",
    ),
    "kaiming fan_avg": (
        init.kaiming_uniform_,
        LAYER,
        {"mode": "fan_avg"},
        ValueError,
        "'fan_out'; got 'fan_avg'",
    ),
    "mode None": (init.kaiming_uniform_, LAYER, {"mode": None}, ValueError, "got None"),
    "mode": (
        init.variance_scaling_,
        LAYER,
        {"mode": "both"},
        ValueError,
        "'fan_in', 'fan_out', 'fan_avg'; got 'both'",
    ),
    "distribution": (
        init.variance_scaling_,
        LAYER,
        {"distribution": "log"},
        ValueError,
        "'uniform'; got 'log'",
    ),
    "kaiming vector": (init.kaiming_normal_, (4,), {}, ValueError, r"2 or more dimensions; got shape \(4,\)"),
    "xavier vector": (init.xavier_uniform_, (4,), {}, ValueError, r"2 or more dimensions; got shape \(4,\)"),
    "lecun scalar": (init.lecun_normal_, (), {}, ValueError, r"2 or more dimensions; got shape \(\)"),
    "orthogonal vector": (init.orthogonal_, (4,), {}, ValueError, r"2 or more dimensions; got shape \(4,\)"),
    "eye 3-D": (init.eye_, (2, 2, 2), {}, ValueError, r"with 2 dimensions; got shape \(2, 2, 2\)"),
    "eye 1-D": (init.eye_, (2,), {}, ValueError, r"with 2 dimensions; got shape \(2,\)"),
    "sparse 3-D": (init.sparse_, (2, 2, 2), {"sparsity": 0.1}, ValueError, "with 2 dimensions; got shape"),
    "dirac 2-D": (init.dirac_, LAYER, {}, ValueError, r"3 to 5 dimensions; got shape \(4, 6\)"),
    "dirac 6-D": (init.dirac_, (1,) * 6, {}, ValueError, "3 to 5 dimensions; got shape"),
    "groups": (init.dirac_, (4, 2, 3), {"groups": 3}, ValueError, r"dimension 0 \(size 4\); got 3"),
    "no groups": (init.dirac_, (4, 2, 3), {"groups": 0}, ValueError, "got 0"),
    "negative groups": (init.dirac_, (4, 2, 3), {"groups": -2}, ValueError, "got -2"),
    "groups a float": (init.dirac_, (4, 2, 3), {"groups": 2.0}, TypeError, "float"),
    "normal std": (init.normal_, LAYER, {"std": -1}, RuntimeError, "std >= 0.*mean=0.0, std=-1"),
    "normal std NaN": (init.normal_, LAYER, {"std": NAN}, RuntimeError, "std >= 0.*nan"),
    "normal std infinite": (
        init.normal_,
        LAYER,
        {"std": INF},
        ValueError,
        "fit into torch.float32; .*std=inf",
    ),
    "normal std too large": (init.normal_, LAYER, {"std": 1e38}, ValueError, r"std=1e\+38"),
    "normal mean NaN": (init.normal_, LAYER, {"mean": NAN}, ValueError, "mean=nan"),
    "normal mean too large": (init.normal_, LAYER, {"mean": -1e39}, ValueError, r"mean=-1e\+39"),
    "uniform bounds": (init.uniform_, LAYER, {"a": 2, "b": 1}, RuntimeError, "from=2 > to=1"),
    "uniform bound NaN": (init.uniform_, LAYER, {"a": NAN}, RuntimeError, "out of bounds"),
    "uniform bound infinite": (init.uniform_, LAYER, {"b": INF}, RuntimeError, "out of bounds"),
    "xavier gain": (init.xavier_normal_, LAYER, {"gain": -1}, RuntimeError, "gain >= 0.*gain=-1"),
    "xavier uniform gain": (init.xavier_uniform_, LAYER, {"gain": -1}, RuntimeError, "gain >= 0.*gain=-1"),
    "slope NaN": (init.kaiming_normal_, LAYER, {"a": NAN}, RuntimeError, "gain >= 0.*gain=nan"),
    **{
        f"{initializer.__name__} gain {gain}": (
            initializer,
            shape,
            {"gain": gain},
            ValueError,
            re.escape(f"gain={gain}"),
        )
        for initializer, shape in [
            (init.variance_scaling_, LAYER),
            (init.lecun_uniform_, LAYER),
            (init.orthogonal_, LAYER),
            (init.delta_orthogonal_, (6, 4, 3)),
            (init.looks_linear_, LAYER),
            (init.looks_linear_, (6, 4, 3)),
        ]
        for gain in (-0.5, NAN, INF, -INF, 4e37)
    },
    "gain of truncated": (
        init.variance_scaling_,
        LAYER,
        {"gain": NAN, "distribution": "truncated_normal"},
        ValueError,
        "gain=nan",
    ),
    "truncated std": (init.trunc_normal_, LAYER, {"std": -1}, ValueError, "std >= 0.*mean=0.0, std=-1"),
    "truncated std NaN": (init.trunc_normal_, LAYER, {"std": NAN}, ValueError, "std=nan"),
    "truncated std infinite": (init.trunc_normal_, LAYER, {"std": INF}, ValueError, "std=inf"),
    "truncated std too large": (init.trunc_normal_, LAYER, {"std": 1e300}, ValueError, r"std=1e\+300"),
    "truncated mean NaN": (init.trunc_normal_, LAYER, {"mean": NAN}, ValueError, "mean=nan"),
    "truncated bound NaN": (init.trunc_normal_, LAYER, {"a": NAN}, ValueError, "a=nan"),
    "truncated other bound NaN": (init.trunc_normal_, LAYER, {"b": NAN}, ValueError, "b=nan"),
    "truncated bounds": (init.trunc_normal_, LAYER, {"a": 2, "b": 1}, RuntimeError, "a <= b.*got a=2, b=1"),
    "truncated bounds too large": (init.trunc_normal_, LAYER, {"a": 1e39, "b": INF}, ValueError, r"a=1e\+39"),
    "truncated at infinity": (init.trunc_normal_, LAYER, {"a": INF, "b": INF}, ValueError, "a=inf, b=inf"),
    "sparsity high": (init.sparse_, LAYER, {"sparsity": 1.1}, ValueError, "between 0 and 1; got 1.1"),
    "sparsity low": (init.sparse_, LAYER, {"sparsity": -0.1}, ValueError, "between 0 and 1; got -0.1"),
    "sparsity NaN": (init.sparse_, LAYER, {"sparsity": NAN}, ValueError, "between 0 and 1; got nan"),
    "too few frequencies": (
        init.output_prior_bias_,
        (3,),
        {"frequencies": [0.5, 0.5]},
        ValueError,
        r"expected 3 frequencies; got shape \(2,\)",
    ),
    "frequencies a column": (
        init.output_prior_bias_,
        (3, 3),
        {"frequencies": torch.ones(3, 1)},
        ValueError,
        r"got shape \(3, 1\)",
    ),
    "prior of one logit": (
        init.output_prior_bias_,
        (3, 1),
        {"frequencies": [5.0]},
        ValueError,
        r"got shape \(1,\) .*log\(p / \(1 - p\)\)",
    ),
    "prior of a scalar": (init.output_prior_bias_, (), {"frequencies": [1]}, ValueError, "1 or more dim"),
    **{
        f"frequency {bad}": (
            init.output_prior_bias_,
            (3,),
            {"frequencies": [2.0, bad, 1.0]},
            ValueError,
            rf"positive and finite; got \[2.0, {bad}, 1.0\]",
        )
        for bad in (0.0, -1.0, NAN, INF)
    },
    "sparse std": (init.sparse_, LAYER, {"sparsity": 0.1, "std": -1}, RuntimeError, "std >= 0.*-1"),
}


def check_refused(initializer, tensor, arguments, error, message):
    """The right error with a message that helps, the tensor and the generator untouched."""
    before, generator = tensor.clone(), seeded(1)
    state = generator.get_state()
    takes = "generator" in inspect.signature(initializer).parameters
    with_generator = {"generator": generator} if takes else {}
    try:
        with pytest.raises(error, match=message):
            initializer(tensor, **arguments, **with_generator)
    except pytest.fail.Exception as failure:
        raise AssertionError("nothing was raised") from failure
    assert torch.equal(tensor, before)
    assert torch.equal(generator.get_state(), state)


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused(case):
    initializer, shape, arguments, error, message = REFUSED[case]
    check_refused(initializer, torch.full(shape, 7.0), arguments, error, message)


TORCHS_ERRORS = [
    *("nonlinearity", "slope a string", "kaiming mode", "kaiming vector", "orthogonal vector", "eye 3-D"),
    *("dirac 2-D", "groups", "normal std", "normal std NaN", "uniform bounds", "xavier gain", "sparse 3-D"),
    *("xavier uniform gain", "slope NaN", "truncated bounds", "sparsity NaN", "sparse std"),
]


@pytest.mark.parametrize("case", TORCHS_ERRORS)
def test_errors_are_of_torchs_type(case):
    initializer, shape, arguments, error, _ = REFUSED[case]
    with pytest.raises(error):
        getattr(torch.nn.init, initializer.__name__)(torch.full(shape, 7.0), **arguments)


def writes_first(w, sparsity, generator):
    return init.sparse_(init.normal_(w), sparsity, generator=generator)


def draws_first(w, sparsity, generator):
    torch.rand(1, generator=generator)
    return init.sparse_(w, sparsity, generator=generator)


@pytest.mark.parametrize("faulty", [torch.nn.init.sparse_, writes_first, draws_first])
def test_faulty_refusal_is_noticed(faulty):
    refuses(check_refused, faulty, torch.full(LAYER, 7.0), {"sparsity": 1.1}, ValueError, None)


@pytest.mark.parametrize("name", STOCHASTIC)
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64], ids=str)
def test_what_is_no_floating_number_is_refused(name, dtype):
    initializer, shape = STOCHASTIC[name]
    with_no_bits_lost = torch.ones(shape, dtype=dtype)
    check_refused(initializer, with_no_bits_lost, {}, NotImplementedError, str(dtype))


@pytest.mark.parametrize("name", ALL | STOCHASTIC)
def test_what_cannot_be_filled_is_left_as_it_was(name):
    initializer, shape = (ALL | STOCHASTIC)[name]
    with torch.inference_mode():
        frozen = torch.full(shape, 7.0)
    check_refused(initializer, frozen, {}, RuntimeError, "made in inference mode")
    sparse = torch.full(shape, 7.0).to_sparse()
    with pytest.raises(NotImplementedError, match=r"expected a dense tensor.*sparse_coo"):
        initializer(sparse)
    assert (sparse.to_dense() == 7).all()
    row = torch.full((1, *shape[1:]), 7.0)
    check_refused(initializer, row.expand(shape), {}, ValueError, "memory for each entry")


def test_inference_mode_itself_is_no_obstacle():
    parameter = torch.nn.Parameter(torch.full(LAYER, 7.0))
    with torch.inference_mode():
        for w in (torch.full(LAYER, 7.0), parameter):
            assert init.orthogonal_(w, generator=seeded(1)) is w
            assert not (w == 7).any()


EMPTY = [(0, 5), (5, 0), (0, 0), (3, 2, 0)]


@pytest.mark.parametrize("shape", EMPTY, ids=str)
@pytest.mark.parametrize("name", [name for name in RANDOM if name.startswith(("var", "lec", "xav", "kai"))])
def test_empty_tensors_get_a_warning(name, shape):
    w = torch.empty(shape)
    with pytest.warns(UserWarning, match="Initializing zero-element tensors is a no-op") as caught:
        assert RANDOM[name][0](w) is w
    if not isinstance(RANDOM[name][0], partial) and name != "variance_scaling":
        assert caught[0].filename == __file__


@pytest.mark.parametrize(
    "name", ["uniform", "normal", "truncated", "tail", "orthogonal", "sparse", "constant", "eye"]
)
def test_other_empty_tensors_pass_silently(name):
    for shape in EMPTY[:3]:
        w = torch.empty(shape)
        assert ALL[name][0](w) is w
    assert init.dirac_(torch.empty(2, 2, 0)).shape == (2, 2, 0)


# --- The output bias ---


def check_output_prior(initializer, dtype=torch.float32, counts=(900, 90, 7, 3)):
    """The softmax of the bias is the frequencies, so that its loss on such labels is their entropy."""
    shares = torch.tensor(counts, dtype=torch.float64) / sum(counts)
    bias = initializer(torch.full((2, 4), 7.0, dtype=dtype), counts).double()
    rounding = 8 * torch.finfo(dtype).eps  # of logs as large as 6
    for row in bias:
        assert torch.allclose(row.softmax(dim=0), shares, rtol=rounding, atol=0)
        loss = functional.cross_entropy(row, shares)
        assert torch.isclose(loss, -(shares * shares.log()).sum(), rtol=rounding, atol=0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_output_prior_bias(dtype):
    check_output_prior(init.output_prior_bias_, dtype)


@pytest.mark.parametrize("frequencies", [(1e308, 1e308), (5e-324, 5e-324)])
def test_frequencies_whose_sum_overflows_or_underflows(frequencies):
    assert init.output_prior_bias_(torch.empty(2), frequencies).tolist() == pytest.approx([math.log(0.5)] * 2)


def test_counts_and_shares_give_the_same_bias():
    biases = [init.output_prior_bias_(torch.empty(2), f) for f in ([99, 1], torch.tensor([0.99, 0.01]))]
    assert torch.allclose(*biases)
    assert math.isclose(biases[0][1] - biases[0][0], math.log(0.01 / 0.99), rel_tol=1e-6)


FAULTY_PRIORS = {
    "zeros": lambda w, counts: init.zeros_(w),
    "shares, not logs": lambda w, counts: w.copy_(torch.tensor(counts) / sum(counts)),
    "logits of each class": lambda w, counts: w.copy_((torch.tensor(counts) / sum(counts)).logit()),
    "binary logs": lambda w, counts: w.copy_(torch.tensor(counts).log2()),
}


@pytest.mark.parametrize("fault", FAULTY_PRIORS)
def test_faulty_output_prior_is_noticed(fault):
    refuses(check_output_prior, FAULTY_PRIORS[fault])
