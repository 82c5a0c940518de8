"""Properties of initializers and gains, at shapes, views, dtypes and numbers that Hypothesis chooses."""

import math
from functools import partial

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from initializer_cases import ALL, DTYPES, STOCHASTIC, refuses, seeded

from course_utils import activations, mean_field
from course_utils import initializers as init

# The same examples in every run, however long they take: a test passes always or never.
given, course = hypothesis.given, hypothesis.settings(derandomize=True, deadline=None, max_examples=60)

FILLS = {name: fill for name, (fill, _) in (STOCHASTIC | ALL).items()}
FILLS |= {"dirac": lambda w, generator: init.dirac_(w), "looks_linear": init.looks_linear_}
FILLS |= {"output_prior_bias": lambda w, generator: init.output_prior_bias_(w, range(1, w.shape[-1] + 1))}
WITH_GAIN = [f"{law}_{kind}" for law in ("lecun", "xavier") for kind in ("normal", "uniform")]
WITH_GAIN += ["variance_scaling", "variance_scaling uniform", "variance_scaling truncated", "orthogonal"]
WITH_GAIN += ["delta_orthogonal", "looks_linear"]
VIEWS = ("whole", "part", "transposed", "strided", "channels last")  # the first is contiguous
MATRICES = ("eye", "sparse")  # initializers that take no kernel
FANS = {"fan_in": lambda i, o: i, "fan_out": lambda i, o: o, "fan_avg": lambda i, o: (i + o) / 2}
SIZES, SEEDS, GAINS = st.integers(1, 7), st.integers(0, 2**31), st.floats(0.01, 100)
SHAPES = st.tuples(SIZES, SIZES, st.lists(st.integers(1, 4), max_size=3)).map(lambda s: (s[0], s[1], *s[2]))


def shape_for(name, shape):
    """Return the shape that comes nearest to this one among those that the initializer takes."""
    out, channels, *kernel = shape
    if name in ("dirac", "delta_orthogonal"):
        kernel = kernel or [1]
    out = max(out, channels) if name in ("delta_orthogonal", "looks_linear") else out
    channels = {"looks_linear": 2 * channels, "output_prior_bias": channels + 1}.get(name, channels)
    if name == "output_prior_bias" or name in MATRICES:
        kernel = []
    return out, channels, *kernel


def planted(shape, view, dtype):
    """Return a tensor of nines, and a view of it that has this shape."""
    out, channels, *kernel = shape
    if view == "whole":
        whole = torch.full(shape, 9.0, dtype=dtype)
        return whole, whole
    if view == "channels last":
        whole = torch.full((out, *kernel, channels), 9.0, dtype=dtype)
        return whole, whole.movedim(-1, 1)
    whole = torch.full((2 * out + 2, channels + 2, *kernel), 9.0, dtype=dtype)
    if view == "transposed":
        whole = torch.full((channels + 2, 2 * out + 2, *kernel), 9.0, dtype=dtype)
        return whole, whole.transpose(0, 1)[1 : out + 1, 1:-1]
    return whole, whole[1 : 2 * out : 2, 1:-1] if view == "strided" else whole[1 : out + 1, 1:-1]


def check_promises(fill, shape, view, dtype, seed):
    """What all promise: the tensor itself, numbers everywhere, which a seed repeats, nothing beside it."""
    before, (whole, w) = torch.get_rng_state(), planted(shape, view, dtype)
    assert fill(w, generator=seeded(seed)) is w
    assert (w.shape, w.dtype, w.requires_grad) == (torch.Size(shape), dtype, False)
    assert w.isfinite().all()
    assert torch.equal(torch.get_rng_state(), before)
    again_whole, again = planted(shape, view, dtype)
    fill(again, generator=seeded(seed))
    assert torch.equal(again_whole, whole)
    w.fill_(9.0)
    assert (whole == 9.0).all(), "something beside the tensor was written"


@pytest.mark.parametrize("name", FILLS)
@given(SHAPES, st.sampled_from(VIEWS), st.sampled_from(DTYPES), SEEDS)
@course
def test_every_initializer_keeps_what_all_promise(name, shape, view, dtype, seed):
    check_promises(FILLS[name], shape_for(name, shape), view, dtype, seed)


@pytest.mark.parametrize("name", FILLS)
@given(SHAPES, st.sampled_from(VIEWS), st.sampled_from(DTYPES), SEEDS, st.integers(0, 3))
@course
def test_without_a_generator_torch_draws_the_same_and_moves_on_as_far(name, shape, view, dtype, seed, drawn):
    one, other = (planted(shape_for(name, shape), view, dtype)[1] for _ in range(2))
    generator = seeded(seed)
    torch.rand(drawn, generator=generator)  # one that others have drawn from
    with torch.random.fork_rng(devices=()):
        torch.set_rng_state(generator.get_state())
        FILLS[name](one, generator=None)
        moved_on = torch.get_rng_state()
    FILLS[name](other, generator=generator)
    assert torch.equal(one, other)
    assert torch.equal(moved_on, generator.get_state())


def beside(w, generator):
    w.as_strided((1,), (1,), 0).fill_(0.0)
    return init.normal_(w, generator=generator)


FAULTY = {
    "a copy": lambda w, generator: init.normal_(w.clone(), generator=generator),
    "beside": beside,
    "the global generator": lambda w, generator: torch.nn.init.normal_(w),
    "not all of it": lambda w, generator: init.normal_(w[:1], generator=generator).expand_as(w),
    "no number": lambda w, generator: w.fill_(math.nan),
}


@pytest.mark.parametrize("fault", FAULTY)
def test_a_broken_promise_is_noticed(fault):
    refuses(check_promises, FAULTY[fault], (4, 3), "part", torch.float32, 0)


@pytest.mark.parametrize("name", WITH_GAIN)
@given(SHAPES, GAINS, SEEDS)
@course
def test_gain_multiplies_every_number(name, shape, gain, seed):
    one, scaled = (torch.empty(shape_for(name, shape), dtype=torch.float64) for _ in range(2))
    FILLS[name](one, generator=seeded(seed))
    FILLS[name](scaled, gain=gain, generator=seeded(seed))
    torch.testing.assert_close(scaled, gain * one, rtol=1e-9, atol=1e-12 * gain)


def fan_of(shape, mode):
    fan_in, fan_out = (shape[k] * math.prod(shape[2:]) for k in (1, 0))
    return FANS[mode](fan_in, fan_out)


@pytest.mark.parametrize("mode", FANS)
@given(SHAPES, GAINS, SEEDS)
@course
def test_standard_deviation_and_bound_are_those_of_the_fan(mode, shape, gain, seed):
    std = gain / math.sqrt(fan_of(shape, mode))
    fill = partial(init.variance_scaling_, gain=gain, mode=mode)
    w, standard = torch.empty(2, *shape, dtype=torch.float64)
    fill(w, distribution="normal", generator=seeded(seed))
    torch.testing.assert_close(w, std * standard.normal_(generator=seeded(seed)))
    fill(w, distribution="uniform", generator=seeded(seed))
    torch.testing.assert_close(w, math.sqrt(3) * std * standard.uniform_(-1, 1, generator=seeded(seed)))


@given(SHAPES, GAINS, SEEDS, st.sampled_from(DTYPES), st.sampled_from(["uniform", "truncated_normal"]))
@course
def test_no_number_lies_outside_the_bound(shape, gain, seed, dtype, distribution):
    w = init.variance_scaling_(torch.empty(shape, dtype=dtype), gain, "fan_in", distribution, seeded(seed))
    std = gain / math.sqrt(fan_of(shape, "fan_in"))
    bound = std * {"uniform": math.sqrt(3), "truncated_normal": 2 / 0.87962566}[distribution]
    assert w.abs().max().item() <= bound * (1 + torch.finfo(dtype).eps)


@pytest.mark.parametrize("name", ["orthogonal", "delta_orthogonal"])
@given(SHAPES, GAINS, SEEDS)
@course
def test_the_shorter_side_is_orthogonal(name, shape, gain, seed):
    w = torch.empty(shape_for(name, shape), dtype=torch.float64)
    FILLS[name](w, gain=gain, generator=seeded(seed))
    m = w.flatten(1) if name == "orthogonal" else w.flatten(2).sum(dim=2)
    gram = m @ m.T if m.shape[0] < m.shape[1] else m.T @ m
    torch.testing.assert_close(
        gram, gain**2 * torch.eye(len(gram), dtype=torch.float64), atol=1e-9, rtol=1e-9
    )


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors is a no-op")
@pytest.mark.parametrize("name", sorted(FILLS.keys() - {"output_prior_bias"}))  # which needs two classes
@given(SHAPES, st.data(), st.sampled_from(DTYPES))
@course
def test_an_empty_tensor_stays_empty(name, shape, data, dtype):
    shape = list(shape_for(name, shape))
    shape[data.draw(st.integers(0 if name not in ("delta_orthogonal", "looks_linear") else 1, 1))] = 0
    w = torch.empty(shape, dtype=dtype)
    assert FILLS[name](w, generator=seeded(0)) is w


SLOPES = st.floats(-5, 5)


@given(SLOPES)
@course
def test_gain_of_a_leaky_relu_is_the_closed_form(slope):
    exact, leaky = math.sqrt(2 / (1 + slope**2)), activations.leaky_relu(slope)
    assert mean_field.gain_in_front(leaky) == pytest.approx(exact, rel=1e-6)
    assert mean_field.gain_behind(leaky) == pytest.approx(exact, rel=1e-6)
    assert init.calculate_gain("leaky_relu", slope) == pytest.approx(exact, rel=1e-12)


@given(SLOPES, st.floats(0.1, 10))
@course
def test_a_homogeneous_function_has_one_gain(slope, scale):
    """c × leaky needs 1 / c times the gain of leaky, in front as behind."""

    def scaled(z):
        return scale * torch.where(z > 0, z, slope * z)

    exact = math.sqrt(2 / (1 + slope**2)) / scale
    assert mean_field.gain_in_front(scaled) == pytest.approx(exact, rel=1e-6)
    assert mean_field.gain_behind(scaled) == pytest.approx(exact, rel=1e-6)
