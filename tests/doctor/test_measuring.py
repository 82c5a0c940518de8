"""What the doctor measures on tensors, against numbers worked out by hand, and where each limit lies."""

import math
from collections import namedtuple

import pytest
import torch
import torch.nn.functional as F

from course_utils.doctor import measuring
from course_utils.doctor.measuring import Moments
from course_utils.doctor.recognizing import Invocation

Pair = namedtuple("Pair", "one other")


@pytest.mark.parametrize("size", [1e-140, 1e-30, 1.0, 1e30, 1e140])
def test_a_second_moment_neither_underflows_nor_overflows(size):
    assert measuring.second_moment(torch.tensor([3, -4]).double() * size) == pytest.approx(12.5 * size**2)
    if 1e-40 < size < 1e35:
        assert measuring.second_moment(torch.tensor([3.0, -4.0]) * size) == pytest.approx(12.5 * size**2)


def test_second_moments_of_half_sparse_and_empty_tensors():
    assert measuring.second_moment(torch.tensor([300.0, -400.0], dtype=torch.float16)) == pytest.approx(125e3)
    twice = torch.sparse_coo_tensor([[0, 0], [1, 1]], [1.0, 1.0], (2, 2), check_invariants=True)
    assert measuring.second_moment(twice) == pytest.approx(1)  # (1 + 1)² of four entries
    with pytest.warns(UserWarning, match="beta"):
        rows = torch.tensor([[0.0, 2.0], [0.0, 0.0]]).to_sparse_csr()
    assert measuring.second_moment(rows) == pytest.approx(1)
    assert math.isnan(measuring.second_moment(torch.empty(0)))


def test_moments_along_either_dimension():
    x = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    assert measuring.moments(x, 0) == pytest.approx(Moments(3, 12.5, 2.5))
    assert measuring.moments(x, 1) == pytest.approx(Moments(3, 12.5, 1.25))
    assert measuring.moments(torch.tensor(2.0), 0) == Moments(2, 4, 0)
    assert all(map(math.isnan, measuring.moments(torch.empty(0, 3), 0)))
    for value in (0.1, 0.7, 1.1):  # what rounding leaves is cut off
        assert 0 <= measuring.moments(torch.full((7, 3), value, dtype=torch.float64), 0).varying < 1e-15


def test_identical_units():
    columns = torch.tensor([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]])
    assert measuring.has_identical_units(columns, None, 1)
    assert not measuring.has_identical_units(columns, None, 0)
    assert measuring.has_identical_units(columns, torch.ones(3), 1)
    assert not measuring.has_identical_units(columns, torch.tensor([1.0, 1.0, 2.0]), 1)
    assert not measuring.has_identical_units(torch.ones(1, 3), None, 0)
    assert not measuring.has_identical_units(torch.tensor([[1.0], [1.0], [2.0]]), None, 0)
    pairs = torch.tensor([[1.0], [1.0], [2.0], [2.0]])
    assert measuring.has_identical_units(pairs, None, 0, 2)
    assert measuring.has_identical_units(pairs, pairs[:, 0], 0, 2)
    assert not measuring.has_identical_units(pairs, torch.arange(4.0), 0, 2)
    assert not measuring.has_identical_units(pairs, None, 0, 4)  # one of each group, and no copy


def test_orthogonal_rows_or_columns():
    turned = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(0)))[0]
    for matrix in (turned, 30 * turned, turned[:3], turned[:, :3], turned[:2].reshape(2, 3, 2, 2)):
        assert measuring.is_orthogonal(matrix)
    assert measuring.is_orthogonal(
        torch.tensor([[1.0, 1.0], [-2.0, 2.0]])
    )  # the rows, though not the columns
    assert not measuring.is_orthogonal(torch.tensor([[1.0, -2.0], [1.0, 2.0]]))
    assert not measuring.is_orthogonal(turned[:1])
    assert not measuring.is_orthogonal(turned.abs())
    assert measuring.is_orthogonal(torch.cat([turned[:8], turned[:1]]))  # eight are looked at
    assert not measuring.is_orthogonal(torch.cat([turned[:7], turned[:1]]))
    for size in (0.1, 10.0):
        assert measuring.is_orthogonal(size * torch.tensor([[1.0, 0.0], [0.9e-4, 1.0]]))
        assert not measuring.is_orthogonal(size * torch.tensor([[1.0, 0.0], [-1.1e-4, 1.0]]))


def test_how_decided_a_softmax_is():
    assert measuring.decided(torch.full((3, 4), 0.25)) == pytest.approx(0)
    assert measuring.decided(torch.eye(4)) == pytest.approx(1)
    assert measuring.decided(torch.tensor([[0.5, 0.5, 0, 0]])) == pytest.approx(1 / 3)
    assert measuring.decided(torch.tensor([[[0.9], [0.1]]])) == pytest.approx(1 - 2 * 0.18)  # in dimension 1
    assert measuring.decided(random(3, 4)) == 0.0
    firsts = torch.cat([torch.full((8, 4), 0.25), torch.eye(4)])
    assert measuring.decided(firsts) == pytest.approx(0)  # eight are looked at
    assert measuring.decided(firsts.flip(0)) == pytest.approx(0.5)


def test_what_are_shares_and_probabilities():
    assert measuring.is_share(torch.tensor([0.0, 1.0]))
    for off in (-1e-6, 1.000001):
        assert not measuring.is_share(torch.tensor([0.5, off]))
    for p, holds in [
        ([[0.0, 1.0]], True),
        ([[0.2, 0.8009]], True),  # in half precision, sums round
        ([[0.2, 0.8011]], False),
        ([[0.2, 0.7989]], False),
        ([[-0.1, 1.1]], False),
        ([[1.0]], False),
    ]:
        assert measuring.is_probability(torch.tensor(p, dtype=torch.float64), -1) is holds
    assert not measuring.is_probability(torch.empty(0, 3), 1)
    assert measuring.is_probability(torch.tensor([[0.3, 1.0], [0.7, 0.0]]), 0)
    assert not measuring.is_probability(torch.tensor([[0.3, 1.0], [0.7, 0.0]]), 1)


def test_what_cannot_be_written_to():
    with torch.inference_mode():
        sealed = torch.ones(3)
        assert not measuring.is_fixed(sealed)
    assert measuring.is_fixed(sealed)
    assert measuring.is_fixed(torch.ones(1).expand(2))
    assert not measuring.is_fixed(torch.ones(1).expand(1))
    assert not measuring.is_fixed(torch.ones(2, 3).T)
    assert not measuring.is_fixed(torch.eye(3).to_sparse())


def called(function, *args, name=None, **keywords):
    """Return a call as a Recorder notes it."""
    output = function(*args, **keywords)
    return Invocation(function, name or function.__name__, args, keywords, output, output)


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


FANS = [  # function, input, weight, keywords; fan_in, fan_out and the dimension of units
    (F.linear, (2, 3), (5, 3), {}, (3, 5, 0)),
    (torch.conv1d, (1, 2, 8), (5, 2, 3), {}, (6, 15, 0)),
    (torch.conv2d, (1, 4, 8, 8), (6, 2, 3, 3), {"groups": 2}, (18, 27, 0)),
    (torch.conv2d, (4, 8, 8), (6, 4, 3, 3), {"stride": 2}, (36, 54, 0)),
    (torch.conv_transpose1d, (1, 4, 8), (4, 3, 5), {}, (20, 15, 1)),
    (torch.conv_transpose2d, (1, 4, 8, 8), (4, 3, 3, 3), {"stride": 2, "groups": 2}, (4.5, 27, 1)),
    (torch.conv_transpose2d, (1, 4, 8, 8), (4, 3, 3, 3), {"stride": (1, 2)}, (18, 27, 1)),
    (torch.conv_transpose2d, (4, 8, 8), (4, 3, 1, 3), {"stride": 2}, (6, 9, 1)),
    (torch.matmul, (2, 3), (3, 5), {}, (3, 5, 1)),
    (torch.bmm, (7, 2, 3), (7, 3, 5), {}, (3, 5, 2)),
]


@pytest.mark.parametrize(("function", "x", "weight", "keywords", "fans"), FANS)
def test_fans_are_products_that_meet(function, x, weight, keywords, fans):
    x, weight = random(*x), random(*weight)
    assert measuring.fans(called(function, x, weight, **keywords), x, weight) == fans


def test_fans_of_a_weight_on_the_left():
    x, weight = random(3, 2), random(5, 3)
    assert measuring.fans(called(torch.matmul, weight, x), x, weight) == (3, 5, 0)
    x, weight = random(7, 3, 2), random(7, 5, 3)
    assert measuring.fans(called(torch.bmm, weight, x), x, weight) == (3, 5, 1)


@pytest.mark.parametrize(
    ("equation", "weight", "fans"),
    [
        ("bi,oi->bo", (5, 3), (3, 5, 0)),
        ("b i, i o -> b o", (3, 5), (3, 5, 1)),
        ("bi,koi->bko", (4, 5, 3), (3, 20, 1)),
        ("...i,oi->...o", (5, 3), (3, 5, 0)),
        ("bi,i->bi", (3,), (1, 1, 0)),
    ],
)
def test_fans_of_an_einsum(equation, weight, fans):
    x, weight = random(2, 3), random(*weight)
    assert measuring.fans(called(torch.einsum, equation, x, weight), x, weight) == fans
    one, other = equation.replace(" ", "").partition("->")[0].split(",")
    turned = f"{other},{one}->{equation.replace(' ', '').partition('->')[2]}"
    assert measuring.fans(called(torch.einsum, turned, weight, x), x, weight) == fans


def test_a_convolution_sees_less_at_borders():
    weight = random(2, 1, 3)
    for x in (random(5, 1, 4), random(1, 4)):  # with a batch, and without
        assert measuring.seen(called(torch.conv1d, x, weight, padding=1), x, weight) == pytest.approx(2.5)
        assert measuring.seen(called(torch.conv1d, x, weight), x, weight) == pytest.approx(3)
    call = called(torch.conv1d, x, weight, None, 1, 1)  # the stride and the padding by their places
    assert measuring.seen(call, x, weight) == pytest.approx(2.5)


def test_what_is_nested_is_mapped_and_found_in_order():
    a, b, c = (torch.tensor(float(k)) for k in range(3))
    nested = {"x": [a, (b, "word")], "y": Pair(c, 3)}
    assert list(measuring.tensors_in(nested)) == [a, b, c]
    assert list(measuring.tensors_in("abc")) == []
    twice = measuring.mapped(lambda t: 2 * t, nested)
    assert twice == {"x": [0, (2, "word")], "y": Pair(4, 3)}
    assert isinstance(twice["y"], Pair)


def test_clones_are_leaves_where_that_is_wanted():
    plain, learned, whole = torch.ones(2), torch.ones(2, requires_grad=True), torch.arange(3)
    copies, leaves = measuring.cloned([plain, learned, whole], False)
    assert len(leaves) == 1
    assert [x.requires_grad for x in copies] == [False, True, False]
    copies, leaves = measuring.cloned([plain, learned, whole], True)
    assert len(leaves) == 2
    for leaf, copy in zip(leaves, copies, strict=False):
        assert leaf.is_leaf
        assert leaf.requires_grad
        assert copy.data_ptr() != leaf.data_ptr()
        copy.mul_(2)  # as a model may
    copies[2].zero_()
    assert whole.tolist() == [0, 1, 2]


def test_units_are_copied_in_weights_and_gradient_and_zeros_are_none():
    weight = torch.tensor([[1.0, 1, 1], [1, 1, 1], [0, 0, 0], [0, 0, 0], [2, 1, 1], [2, 1, 2]])
    gradient = torch.ones(6, 3)
    assert measuring.copied_units(weight, gradient, 0) == 1
    assert measuring.copied_units(weight.T, gradient.T, 1) == 1
    assert measuring.copied_units(torch.ones(4, 3), torch.ones(4, 3), 0) == 3
    assert measuring.copied_units(weight, 0 * gradient, 0) == 0
    assert measuring.copied_units(weight, gradient * torch.tensor([1, 1.001, 1, 1, 1, 1])[:, None], 0) == 0
    assert measuring.copied_units(weight, gradient * torch.tensor([1, 1.00001, 1, 1, 1, 1])[:, None], 0) == 1


def test_a_dimension_of_one_without_a_stride_can_be_written_to():
    assert not measuring.is_fixed(torch.ones(()).expand(1))
    assert measuring.is_fixed(torch.ones(()).expand(2))
