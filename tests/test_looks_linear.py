"""Tests of initializers.looks_linear_.

Every numeric check is a function of the initializer that it checks: it is run on the true one, which must
pass, and on faulty ones, which must not.
"""

import pytest
import torch
from initializer_cases import seeded
from torch.nn import functional

from course_utils import initializers as init

SHAPES = [
    (6, 12),
    (9, 8),
    (3, 12),
    (1, 2),
    (6, 8, 3),
    (6, 6, 4),
    (5, 10, 3, 3),
    (4, 6, 1, 3),
    (4, 8, 3, 2, 3),
]
CONVOLUTIONS = {3: functional.conv1d, 4: functional.conv2d, 5: functional.conv3d}


def crelu(y):
    return torch.cat([y, -y], dim=1).relu()


def apply(w, x):
    return functional.linear(x, w) if w.ndim == 2 else CONVOLUTIONS[w.ndim](x, w, padding="same")


def check_linear(initializer, shape, gain=1.0, dtype=torch.float64):
    """A layer fed by a CReLU is the linear map W', which keeps norms up to `gain` if out >= d."""
    w = initializer(torch.full(shape, 7.0, dtype=dtype), gain=gain, generator=seeded(1)).double()
    out, channels, *kernel = shape
    y = torch.randn(5, channels // 2, *(8 for _ in kernel), dtype=torch.float64, generator=seeded(2))
    image = apply(w, crelu(y))
    rounding = 100 * max(shape) * torch.finfo(torch.float32 if dtype == torch.half else dtype).eps
    if dtype == torch.half:
        rounding += 4 * torch.finfo(dtype).eps
    assert torch.allclose(image, apply(w[:, : channels // 2], y), rtol=0, atol=rounding)
    if 2 * out >= channels:
        assert torch.allclose(image.square().sum(dim=1), gain**2 * y.square().sum(dim=1), rtol=rounding)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.half], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_layer_after_crelu_is_linear_and_keeps_norms(shape, dtype):
    for gain in (1.0, 0.5):
        check_linear(init.looks_linear_, shape, gain, dtype)


def same_sign(w, gain=1.0, generator=None):
    half = init.orthogonal_(w.new_empty(w.shape[0], w.shape[1] // 2), gain, generator)
    return w.copy_(torch.cat([half, half], dim=1))


def interleaved(w, gain=1.0, generator=None):
    half = init.orthogonal_(w.new_empty(w.shape[0], w.shape[1] // 2), gain, generator)
    return w.copy_(torch.stack([half, -half], dim=2).flatten(1))


def gaussian(w, gain=1.0, generator=None):
    half = init.lecun_normal_(w.new_empty(w.shape[0], w.shape[1] // 2), gain, generator)
    return w.copy_(torch.cat([half, -half], dim=1))


def without_gain(w, gain=1.0, generator=None):
    return init.looks_linear_(w, 1.0, generator)


def flattened_kernel(w, gain=1.0, generator=None):
    half = init.orthogonal_(w.new_empty(w.shape[0], w.shape[1] // 2, *w.shape[2:]), gain, generator)
    return w.copy_(torch.cat([half, -half], dim=1))


@pytest.mark.parametrize(
    ("fault", "shape", "gain"),
    [
        (same_sign, (6, 12), 1.0),
        (interleaved, (6, 12), 1.0),
        (gaussian, (6, 12), 1.0),
        (without_gain, (6, 12), 0.5),
        (flattened_kernel, (6, 8, 3), 1.0),
    ],
)
def test_a_planted_fault_is_noticed(fault, shape, gain):
    with pytest.raises(AssertionError):
        check_linear(fault, shape, gain)


@pytest.mark.parametrize("shape", [(6, 12), (6, 8, 3, 3)], ids=str)
def test_the_first_half_is_what_the_siblings_draw(shape):
    sibling_ = init.orthogonal_ if len(shape) == 2 else init.delta_orthogonal_
    w = init.looks_linear_(torch.empty(shape), 0.7, seeded(3))
    half = sibling_(torch.empty(shape[0], shape[1] // 2, *shape[2:]), 0.7, seeded(3))
    assert torch.equal(w, torch.cat([half, -half], dim=1))


@pytest.mark.parametrize("shape", [(6, 12), (6, 8, 3)], ids=str)
def test_contract(shape):
    """In place, the very tensor back, no gradient recorded, the generator the only source of randomness."""
    leaf = torch.zeros(shape, requires_grad=True)
    assert init.looks_linear_(leaf, generator=seeded(1)) is leaf
    assert leaf.is_leaf
    assert leaf.requires_grad
    state = torch.get_rng_state()
    first, again, other = (init.looks_linear_(torch.zeros(shape), generator=seeded(k)) for k in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, leaf)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_strided_view_is_filled_and_nothing_else():
    memory = torch.full((12, 12), 7.0)
    view = memory.T[::2]
    init.looks_linear_(view, generator=seeded(1))
    assert torch.equal(view, init.looks_linear_(torch.empty(6, 12), generator=seeded(1)))
    assert (memory == 7).sum() == memory.numel() - view.numel()


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (4, 2, 0)], ids=str)
def test_empty_tensors_pass_silently(shape):
    w = torch.empty(shape)
    assert init.looks_linear_(w, generator=seeded(1)) is w


def test_meta_tensors_pass():
    w = torch.empty(6, 8, 3, device="meta")
    assert init.looks_linear_(w, generator=seeded(1)) is w


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (torch.full((4, 5), 7.0), ValueError, r"\(out, 2 \* d\).* got \(4, 5\)"),
        (torch.full((4, 3, 3), 7.0), ValueError, r"\(out, 2 \* d, \*kernel\) .*; got \(4, 3, 3\)"),
        (torch.full((4,), 7.0), ValueError, r"2 to 5 dimensions; got shape \(4,\)"),
        (torch.full((4, 2, 1, 1, 1, 1), 7.0), ValueError, "2 to 5 dimensions"),
        (torch.full((2, 6, 3), 7.0), ValueError, r"with out >= d; got \(2, 6, 3\)"),
        (torch.full((4, 2), 7), NotImplementedError, "floating-point numbers; got torch.int64"),
        ([[7.0, 7.0]], TypeError, "expected a torch.Tensor; got list"),
    ],
)
def test_what_is_refused_and_left_as_it_was(value, error, message):
    with pytest.raises(error, match=message):
        init.looks_linear_(value, generator=seeded(1))
    assert not isinstance(value, torch.Tensor) or (value == 7).all()
