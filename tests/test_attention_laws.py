"""Laws of attention against softmaxes that are drawn, and against closed forms."""

import math
from itertools import pairwise

import pytest
import torch

from course_utils import attention_laws as laws
from course_utils.comparison import compare, mean_of

TOKENS = 6


def normals(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("v", [0.25, 1.0, 9.0])
def test_laws_of_the_shares_are_those_of_drawn_softmaxes(v):
    z = (math.sqrt(v) * normals(100_000, TOKENS)).requires_grad_()
    p = z.softmax(dim=1)
    (gradient,) = torch.autograd.grad(p, z, normals(*p.shape, seed=1))
    p = p.detach()
    compare(
        ("E p_1 p_2", laws.share_moment(v, TOKENS, 1, 1), mean_of(p[:, 0] * p[:, 1])),
        ("concentration", laws.concentration(v, TOKENS), mean_of(p.square().sum(dim=1))),
        ("entropy", laws.entropy(v, TOKENS), mean_of(torch.special.entr(p).sum(dim=1))),
        ("passed", laws.gradient_passed(v, TOKENS), mean_of(gradient.square().mean(dim=1))),
    )


def test_equal_logits_have_equal_shares():
    assert laws.concentration(0, TOKENS) == pytest.approx(1 / TOKENS)
    assert laws.entropy(0, TOKENS) == pytest.approx(math.log(TOKENS))
    assert laws.gradient_passed(0, TOKENS) == pytest.approx((1 / TOKENS - 1 / TOKENS**2) / TOKENS)


def test_queries_of_very_many_entries_have_all_the_same_length():
    many = laws.over_queries(laws.concentration, 1.0, TOKENS, 10**6)
    assert many == pytest.approx(laws.concentration(1.0, TOKENS), rel=1e-4)
    assert laws.over_queries(lambda v, tokens: v, 2.0, TOKENS, 4) == pytest.approx(2, rel=0.02)


@pytest.mark.parametrize("c", [0.0, 0.4, 0.9])
def test_attended_tokens_overlap_as_drawn_ones_do(c):
    one, other = normals(2, 200_000, TOKENS)
    root = math.sqrt(1 - c)
    p = (root * one).softmax(dim=1)
    p_other = (root * (c * one + math.sqrt(1 - c**2) * other)).softmax(dim=1)
    second, apart = laws.attended(1 - c, 1.0, TOKENS)
    squares, overlaps = p.square().sum(dim=1), (p * p_other).sum(dim=1)
    compare(
        ("second moment", second, mean_of(squares + (1 - squares) * c)),
        ("second moment - covariance", apart, mean_of((squares - overlaps) * (1 - c))),
    )


def test_small_contrasts_are_cubed_to_all_digits():
    slope = (1 - 1 / TOKENS) / TOKENS
    for contrast in (1e-3, 1e-6, 1e-12):
        assert laws.attended(contrast, 2.0, TOKENS)[1] / contrast**3 == pytest.approx(2 * slope, rel=0.01)


def test_contrasts_without_skips_lose_digits_threefold():
    logs = [math.log(contrast) for contrast in laws.contrasts_without_skips(1.0, 6, TOKENS)[3:]]
    for before, after in pairwise(logs):
        assert after == pytest.approx(3 * before + math.log((1 - 1 / TOKENS) / TOKENS), rel=1e-3)


def test_a_stream_adds_what_its_branches_return():
    m, contrasts = laws.stream_of_tokens(1.0, 0.5, 0.25, 2, TOKENS)
    second, apart = laws.attended(1.0, 1.0, TOKENS)
    assert m[:3] == pytest.approx([1, 1 + 0.5 * second, 1.25 + 0.5 * second])
    assert contrasts[1] == pytest.approx((1 + 0.5 * apart) / m[1])
    still, equal = laws.stream_of_tokens(1.0, 0.0, 0.0, 3, TOKENS)
    assert (still == 1).all()
    assert (equal == 1).all()


@pytest.mark.parametrize("cosine_map", [laws.gated_cosine, lambda c: c**2])
def test_each_branch_takes_the_contrast_that_the_one_before_has_left(cosine_map):
    m, contrasts = laws.stream_of_tokens(2.0, 0.7, 0.4, 3, TOKENS, cosine_map)
    size, apart = 1.0, 1.0
    for block in range(3):
        second, differs = laws.attended(apart / size, 2.0, TOKENS)
        size, apart = size + 0.7 * second, apart + 0.7 * differs
        assert (m[2 * block + 1], contrasts[2 * block + 1]) == pytest.approx((size, apart / size))
        size, apart = size + 0.4, apart + 0.4 * (1 - cosine_map(1 - apart / size))
        assert (m[2 * block + 2], contrasts[2 * block + 2]) == pytest.approx((size, apart / size))


def test_gated_outputs_have_the_cosine_of_drawn_ones():
    a, b, noise, other = normals(4, 400_000)
    a_two, b_two = 0.7 * a + math.sqrt(0.51) * noise, 0.7 * b + math.sqrt(0.51) * other
    silu = torch.nn.functional.silu
    one, two = silu(1.5 * a) * b, silu(1.5 * a_two) * b_two
    cosine = laws.gated_cosine(0.7, 1.5**2)
    gap = one * two - cosine * (one**2 + two**2) / 2
    compare(("gap of products", 0.0, mean_of(gap)))
    assert laws.gated_cosine(0.0) == 0
    assert laws.gated_cosine(1.0) == pytest.approx(1)


def test_a_stream_follows_the_cosine_map_of_its_mlps():
    m, contrasts = laws.stream_of_tokens(1.0, 0.0, 0.5, 1, TOKENS, laws.gated_cosine)
    assert m[-1] * contrasts[-1] == pytest.approx(1.5)  # orthogonal tokens stay so, behind gates
    _, mixed = laws.stream_of_tokens(1.0, 0.0, 0.5, 1, TOKENS)
    assert m[-1] * mixed[-1] == pytest.approx(1 + 0.5 * (1 - 1 / math.pi))


def test_arguments_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="v must be a number"):
        laws.concentration(-1.0, TOKENS)
    with pytest.raises(ValueError, match="correlation"):
        laws.attended(2.5, 1.0, TOKENS)
    with pytest.raises(ValueError, match="depth must be an integer"):
        laws.contrasts_without_skips(1.0, -1, TOKENS)
