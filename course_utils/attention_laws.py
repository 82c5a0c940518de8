"""Laws of attention at step 0: how unequal its shares are, and what it makes of tokens, over depth.

The shares p of a token are the softmax of T independent logits N(0, v). With S = sum_j exp(z_j) and
1 / S^k = int t^(k-1) exp(-t S) dt / (k-1)!, the mean of any product of shares is one integral over t.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from course_utils.activations import silu
from course_utils.checks import check_arguments, check_correlation
from course_utils.mean_field import relu_cosine_map
from course_utils.quadrature import gaussian_expectation, pair_expectation

_Z = np.linspace(-9, 9, 151)
_DENSITY = np.exp(-(_Z**2) / 2) / np.exp(-(_Z**2) / 2).sum()


@lru_cache(maxsize=4)
def _decays(v: float) -> tuple[NDArray, NDArray, NDArray]:
    """Return exp(z), the nodes s of t = exp(s), and exp(-t exp(z)), (nodes of s, nodes of z)."""
    root = math.sqrt(v)
    e, s = np.exp(root * _Z), np.linspace(-16 - 9 * root, 4 + 9 * root, 201)
    return e, s, np.exp(-np.exp(s)[:, None] * e)


def share_moment(v: float, tokens: int, *powers: int) -> float:
    """Return E p_1^a p_2^b ... for the shares p of `tokens` logits N(0, v), with `powers` a, b, ... >= 1."""
    check_arguments(v=v, count=tokens)
    e, s, decay = _decays(v)
    product = (decay @ _DENSITY) ** (tokens - len(powers)) / math.factorial(sum(powers) - 1)
    for power in powers:
        product *= decay @ (_DENSITY * e**power)
    return float(np.trapezoid(np.exp(sum(powers) * s) * product, s))


def concentration(v: float, tokens: int) -> float:
    """Return E sum_j p_j^2 of logits N(0, v): 1 / tokens for equal shares, 1 for a single winner."""
    return tokens * share_moment(v, tokens, 2)


def _fourth(v: float, tokens: int) -> float:
    """Return E (sum_j p_j^2)^2."""
    return tokens * (share_moment(v, tokens, 4) + (tokens - 1) * share_moment(v, tokens, 2, 2))


def entropy(v: float, tokens: int) -> float:
    """Return the mean entropy of the shares in nats, ln(tokens) for equal ones.

    E sum p z = v (1 - P) and d E ln S / dv = (1 - P) / 2, with P the concentration (Stein's lemma).
    """
    nodes, weights = np.polynomial.legendre.leggauss(12)
    differs = [1 - concentration(v * (1 + node) / 2, tokens) for node in nodes]
    return math.log(tokens) + v / 4 * float(weights @ differs) - v * (1 - concentration(v, tokens))


def gradient_passed(v: float, tokens: int) -> float:
    """Return which share of a random gradient's mean square passes the softmax on its way back."""
    cubes = 2 * tokens * share_moment(v, tokens, 3)
    return (concentration(v, tokens) - cubes + _fourth(v, tokens)) / tokens


def over_queries(law: Callable[[float, int], float], v: float, tokens: int, head: int) -> float:
    """Return the mean of `law`(v |q|^2 / E|q|^2, tokens) over queries of `head` normal entries."""
    shares = chi2.ppf((np.arange(20) + 0.5) / 20, head) / head
    return float(np.mean([law(v * share, tokens) for share in shares]))


def attended(contrast: float, v: float, tokens: int) -> tuple[float, float]:
    """Return what attention makes of tokens of second moment 1 and contrast 1 - c, c their cosine.

    The outputs' second moment, and how far that is above their covariance. What all logits of a token share
    drops out of its softmax: their own parts have variance v (1 - c). Two tokens ask with cosine c, and their
    shares overlap by a cubic in c, of which both ends and both slopes are exact (Stein's lemma).
    Assumes wide heads, and values that keep the second moment.
    """
    check_correlation(1 - contrast)
    own = v * contrast
    P = concentration(own, tokens)
    rise, start = P - 1 / tokens, own * (1 - P) ** 2 / (tokens - 1)
    end = own * tokens * gradient_passed(own, tokens)
    differs = end + contrast * (3 * rise - 2 * end - start + contrast * (start + end - 2 * rise))
    return 1 - (1 - P) * contrast, differs * contrast**2


def contrasts_without_skips(v: float, layers: int, tokens: int) -> NDArray:
    """Return the tokens' contrast 1 - c, (layers + 1,), through normed attention layers, without skips.

    From orthogonal tokens; v is the logits' variance, which the norm keeps.
    """
    check_arguments(depth=layers)
    contrasts = [1.0]
    for _ in range(layers):
        second, apart = attended(contrasts[-1], v, tokens)
        contrasts.append(apart / second)
    return np.array(contrasts)


def gated_cosine(cosine: float, q: float = 1.0) -> float:
    """Return the cosine of two outputs silu(a) * b, with a and b N(0, q), of inputs with this cosine.

    A gated unit (SwiGLU) of independent rows: the cosine of b times that of silu(a).
    """
    check_correlation(cosine)
    same = gaussian_expectation(lambda z: silu(z) ** 2, math.sqrt(q))
    return cosine * float(pair_expectation(silu, cosine, q, silu.kinks) / same)


def stream_of_tokens(
    v: float,
    attention: float,
    mlp: float,
    blocks: int,
    tokens: int,
    cosine_map: Callable[[float], float] = relu_cosine_map,
) -> tuple[NDArray, NDArray]:
    """Return second moment and contrast of the tokens of a pre-norm stream, each (2 * blocks + 1,).

    Branches in turn: attention, whose values and last matrix multiply a second moment by `attention`, and an
    MLP that multiplies it by `mlp`, and makes of tokens' cosines what `cosine_map` says. From orthogonal
    tokens of second moment 1; v as above.
    """
    check_arguments(attention=attention, mlp=mlp, depth=blocks)
    m, apart = [1.0], [1.0]
    for _ in range(blocks):
        second, differs = attended(apart[-1] / m[-1], v, tokens)
        m.append(m[-1] + attention * second)
        apart.append(apart[-1] + attention * differs)
        differs = 1 - cosine_map(1 - apart[-1] / m[-1])
        m.append(m[-1] + mlp)
        apart.append(apart[-1] + mlp * differs)
    return np.array(m), np.array(apart) / np.array(m)
