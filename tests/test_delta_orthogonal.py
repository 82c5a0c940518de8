"""Delta-orthogonal kernels: where they are zero, what they keep, and how they are drawn."""

import inspect
import math
import re
from itertools import product

import numpy as np
import pytest
import torch
from initializer_cases import seeded
from torch import nn

from course_utils import initializers as init
from course_utils.initializers import delta_orthogonal_

SHAPES = [(6, 4, 3), (4, 4, 3, 3), (7, 3, 5, 1), (4, 2, 3, 3, 3), (5, 5, 2, 4), (3, 1, 1, 6)]
CONVOLUTIONS = {3: nn.functional.conv1d, 4: nn.functional.conv2d, 5: nn.functional.conv3d}
EPS = torch.finfo(torch.float64).eps


def draw(shape, gain=1.0, dtype=torch.float64, seed=0, initializer=delta_orthogonal_):
    return initializer(torch.full(shape, 7.0, dtype=dtype), gain, seeded(seed))


def refuses(check, faulty):
    with pytest.raises(AssertionError):
        check(faulty)


def convolve(x, weight, padding):
    """Convolve at stride 1, so that pixel i of the result is centred on pixel i of x."""
    sides = []
    for size in reversed(weight.shape[2:]):  # functional.pad wants the last dimension first
        sides += [(size - 1) // 2, size // 2]
    return CONVOLUTIONS[weight.ndim](nn.functional.pad(x, sides, mode=padding), weight)


def check_isometry(initializer):
    """Each pixel's norm is `gain` times what it was, border included, whatever the border is padded with."""
    for shape, padding, gain in product(SHAPES, ("constant", "circular", "replicate"), (1.0, 0.7)):
        weight = draw(shape, gain, initializer=initializer)
        x = torch.randn(2, shape[1], *[6] * len(shape[2:]), generator=seeded(1), dtype=torch.float64)
        before, after = x.norm(dim=1), convolve(x, weight, padding).norm(dim=1)
        assert after.shape == before.shape
        assert (after / before - gain).abs().max() < 50 * EPS, (shape, padding, gain)


def check_support(initializer):
    """Only the centre differs from 0: one matrix, at (size - 1) // 2 in each direction."""
    for shape in SHAPES:
        places = draw(shape, initializer=initializer).abs().sum(dim=(0, 1)).nonzero().tolist()
        assert places == [[(size - 1) // 2 for size in shape[2:]]], shape


def check_haar(initializer, count=4000):
    """The moments of a uniform orthogonal matrix: entries, their squares, trace and determinant."""
    generator, n = seeded(2), 4
    draws = [initializer(torch.empty(n, n, 3), generator=generator)[..., 1] for _ in range(count)]
    q = torch.stack(draws).double().numpy()
    errors = {
        "mean": (q.mean(0), math.sqrt(1 / n / count)),
        "square": ((q**2).mean(0) - 1 / n, math.sqrt((3 / (n * (n + 2)) - 1 / n**2) / count)),
        "trace squared": ((np.trace(q, axis1=1, axis2=2) ** 2).mean() - 1, math.sqrt(2 / count)),
        "determinant": (np.linalg.det(q).mean(), 1 / math.sqrt(count)),
    }
    for name, (error, standard_error) in errors.items():
        assert np.abs(error).max() < 4.5 * standard_error, name


def check_generator(initializer):
    """The generator decides all, and the global one is left alone."""
    state = torch.get_rng_state()
    first, again, other = (draw((4, 4, 3), seed=seed, initializer=initializer) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


CHECKS = [check_isometry, check_support, check_haar, check_generator]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_delta_orthogonal(check):
    check(delta_orthogonal_)


def at(place, matrix_=init.orthogonal_, amount=lambda gain: gain, noise=0.0):
    """Return an initializer like delta_orthogonal_, but with one thing changed."""

    def initializer(tensor, gain=1.0, generator=None):
        q = matrix_(torch.empty(tensor.shape[:2], dtype=tensor.dtype), amount(gain), generator=generator)
        with torch.no_grad():
            tensor.fill_(noise)[(..., *(place(size) for size in tensor.shape[2:]))] = q
        return tensor

    return initializer


def centre(size):
    return (size - 1) // 2


def naive_qr_(tensor, gain=1.0, generator=None):
    return tensor.copy_(torch.linalg.qr(tensor.normal_(generator=generator)).Q.mul_(gain))


def gaussian_(tensor, gain=1.0, generator=None):
    return init.normal_(tensor, 0, gain / math.sqrt(tensor.shape[1]), generator)


def global_orthogonal_(tensor, gain=1.0, generator=None):
    return nn.init.orthogonal_(tensor, gain, generator=None)


FAULTS = {
    "torch's centre of an even kernel": (check_isometry, at(lambda size: size // 2)),
    "first tap": (check_isometry, at(lambda size: 0)),
    "last tap": (check_support, at(lambda size: size - 1)),
    "gain is a variance": (check_isometry, at(centre, amount=math.sqrt)),
    "no gain": (check_isometry, at(centre, amount=lambda gain: 1.0)),
    "small taps remain": (check_support, at(centre, noise=1e-6)),
    "flattened": (check_isometry, lambda w, gain=1.0, generator=None: init.orthogonal_(w, gain, generator)),
    "Gaussian centre": (check_isometry, at(centre, gaussian_)),
    "naive QR": (check_haar, at(centre, naive_qr_)),
    "identity": (check_haar, at(centre, lambda w, gain=1.0, generator=None: init.eye_(w))),
    "global generator": (check_generator, at(centre, global_orthogonal_)),
}


def test_the_unchanged_copy_passes():
    for check in CHECKS:
        check(at(centre))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_initializer_is_noticed(fault):
    refuses(*FAULTS[fault])


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")  # once a process
def test_padding_same_of_torch_loses_no_pixel_of_an_even_kernel():
    weight = draw((3, 3, 4))
    x = torch.randn(2, 3, 6, generator=seeded(1), dtype=torch.float64)
    y = nn.functional.conv1d(x, weight, padding="same")
    torch.testing.assert_close(y.norm(dim=1), x.norm(dim=1))


def test_the_gradient_keeps_its_norm_too_if_the_kernel_is_square():
    x = torch.randn(2, 4, 6, 6, generator=seeded(1), dtype=torch.float64, requires_grad=True)
    y = convolve(x, draw((4, 4, 3, 3)), "constant")
    y.backward(u := torch.randn(y.shape, generator=seeded(2), dtype=torch.float64))
    torch.testing.assert_close(x.grad.norm(dim=1), u.norm(dim=1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_float32_rounded(dtype):
    weight = draw((6, 4, 3), 1.3, dtype)
    assert weight.dtype == dtype
    assert torch.equal(weight, draw((6, 4, 3), 1.3, torch.float32).to(dtype))


@pytest.mark.parametrize("layout", ["channels_last", "transposed", "strided"])
def test_the_memory_layout_changes_nothing(layout):
    shape = (5, 4, 3, 2)
    laid_out = {
        "channels_last": torch.empty(shape).to(memory_format=torch.channels_last),
        "transposed": torch.empty(4, 5, 3, 2).transpose(0, 1),
        "strided": torch.full((10, 4, 3, 4), 7.0)[::2, :, :, ::2],
    }[layout]
    strides = laid_out.stride()
    assert torch.equal(delta_orthogonal_(laid_out, 3, generator=seeded(0)), draw(shape, 3, torch.float32))
    assert laid_out.stride() == strides


def test_it_fills_in_place_and_records_no_gradient():
    leaf = torch.zeros(4, 4, 3, requires_grad=True)
    assert delta_orthogonal_(leaf, generator=seeded(0)) is leaf
    assert leaf.is_leaf
    assert leaf.requires_grad
    assert leaf.any()


def test_it_is_called_as_orthogonal_is():
    expected = inspect.signature(init.orthogonal_).parameters
    found = inspect.signature(delta_orthogonal_).parameters
    assert list(found) == list(expected)
    assert [p.default for p in found.values()] == [p.default for p in expected.values()]


def test_nothing_is_drawn_for_meta_and_empty_tensors():
    generator = seeded(0)
    state = generator.get_state()
    for tensor in (torch.empty(4, 4, 3, device="meta"), torch.empty(0, 0, 3), torch.empty(4, 4, 0)):
        assert delta_orthogonal_(tensor, generator=generator) is tensor
    assert torch.equal(generator.get_state(), state)


@pytest.mark.parametrize("shape", [(3, 4, 3), (1, 2, 3, 3), (0, 1, 3)], ids=str)
def test_fewer_outputs_than_inputs_cannot_keep_all_norms(shape):
    tensor, generator = torch.full(shape, 7.0), seeded(0)
    state = generator.get_state()
    with pytest.raises(ValueError, match=re.escape(f"out >= in; got {shape}") + ".*orthogonal_"):
        delta_orthogonal_(tensor, generator=generator)
    assert (tensor == 7).all()
    assert torch.equal(generator.get_state(), state)


@pytest.mark.parametrize("shape", [(), (4,), (4, 4), (4, 4, 3, 3, 3, 3)], ids=str)
def test_kernels_of_none_or_more_than_three_dimensions_are_refused(shape):
    with pytest.raises(ValueError, match=re.escape(f"3 to 5 dimensions; got shape {shape}")):
        delta_orthogonal_(torch.empty(shape), generator=None)


def test_what_is_no_floating_tensor_is_refused():
    with pytest.raises(NotImplementedError, match="int64"):
        delta_orthogonal_(torch.ones(4, 4, 3, dtype=torch.int64), generator=None)
    with pytest.raises(TypeError, match="list"):
        delta_orthogonal_([[[1.0]]], generator=None)
