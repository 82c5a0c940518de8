"""Initializers as a drop-in for torch.nn.init, and what all of them promise.

A statistical check measures how far a sample is from the exact law, in standard errors of that law, and fails
beyond Z_LIMIT of them; generators are seeded. Every numeric check is a function of the initializer that it
checks: it is run on the true one, which must pass, and on faulty ones, which must not.
"""

import inspect
import math
from functools import partial
from itertools import product

import pytest
import torch
from initializer_cases import (
    ALL,
    DISCRETE,
    DTYPES,
    HALF,
    RANDOM,
    STOCHASTIC,
    refuses,
    seeded,
)
from torch.nn import functional

from course_utils import initializers as init

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
    ("kaiming_uniform_", {"mode": "fan_out", "nonlinearity": "tanh"}),
    ("kaiming_normal_", {"mode": "fan_in"}),
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


# --- What every random initializer promises ---


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


@pytest.mark.parametrize("name", ALL)
def test_parameters_are_filled_in_place(name):
    initializer, shape = ALL[name]
    parameter = torch.nn.Parameter(torch.full(shape, 7.0))
    assert initializer(parameter) is parameter
    assert not (parameter == 7).any()
    (parameter**2).sum().backward()
    assert torch.equal(parameter.grad, 2 * parameter)


def test_every_initializer_is_tested():
    public = {name[:-1] for name in vars(init) if name[0] != "_" and name[-1] == "_"}
    assert public - {*ALL, *STOCHASTIC} == set(), "add it to ALL in initializer_cases.py"


@pytest.mark.parametrize("name", sorted(RANDOM.keys() - DISCRETE))
def test_no_two_draws_of_double_precision_are_equal(name):
    initializer, _ = RANDOM[name]
    w = initializer(torch.empty(150, 200, dtype=torch.float64), generator=seeded(0))
    assert len(w.unique()) == w.numel()  # of so many with the 24 bits of float32 some 27 pairs would be


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
