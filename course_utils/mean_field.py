"""Theory: what a random network does to its signal, predicted without simulating one.

Conventions. `gain` is sigma_w and `bias_std` sigma_b, standard deviations: Var(w) = gain**2 / fan_in and
Var(b) = bias_std**2. `q` is the second moment of a pre-activation, q = E z**2, `c` the correlation of the
pre-activations of two inputs, both of second moment q; the second moment of a layer's output is
E h**2 = E phi(sqrt(q) Z)**2 with Z ~ N(0, 1). "Infinite width" means that a layer's mean square equals its
expectation; `log_second_moment_law` gives the first correction at finite width. All numbers are float64.

Slopes, and c* and the depth scales that rest on them, assume that phi is continuous: where phi jumps, the
true slope has a part that the derivative does not show.

SciPy takes longer to import than most of this takes to compute, so the three functions that need it do that.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from course_utils.activations import Activation, check_element_wise
from course_utils.quadrature import (
    END,
    adaptive_expectation,
    evaluate,
    gaussian_expectation,
    pair_expectation,
)

Function = Callable[[torch.Tensor], torch.Tensor]

_CRITICAL = 1e-9  # a slope this near to 1 is 1: quadrature knows no better


def output_second_moment(activation: Activation, q: ArrayLike) -> NDArray | float:
    """Return E phi(sqrt(q) Z)**2, the second moment of a layer's outputs, for pre-activations ~ N(0, q)."""
    return gaussian_expectation(lambda z: activation(z) ** 2, np.sqrt(q), kinks=activation.kinks)


def gain_behind(function: Function) -> float:
    """Return 1 / sqrt(E phi(Z)**2), Z ~ N(0, 1): weights of std gain / sqrt(fan_in) *behind* phi turn
    pre-activations of second moment 1 into pre-activations of second moment 1.

    The first layer, whose inputs come from no phi, takes gain 1. In front of phi the same number serves only
    if phi(a z) = a phi(z) for a > 0, as for ReLU; else solve E phi(gain Z)**2 = 1, as `initialize_` does.
    function: an Activation or any element-wise function of a tensor. Kinks and jumps need not be declared:
    the relative error is below 1e-6, unless all of phi hides between two nodes, about 0.05 apart.

    Raises: ValueError as `activations.check_element_wise`, if phi is 0, or if it grows or oscillates so fast
    that the integral does not converge.
    Source: He et al. (2015), Section 2.2, is the case of ReLU.
    """
    name = check_element_wise(function, getattr(function, "name", None))
    second_moment = adaptive_expectation(lambda z: function(z).square())
    if second_moment == 0:
        raise ValueError(f"{name} is 0 on the whole line: no gain makes up for that")
    tails = evaluate(function, np.array([-END, END])) ** 2 * np.exp(-(END**2) / 2)
    if tails.max() > 1e-7 * second_moment:
        raise ValueError(
            f"{name} grows too fast: E phi(Z)**2 has no limit within {END:g} standard deviations"
        )
    return 1 / math.sqrt(second_moment)


def length_map(
    activation: Activation, q: ArrayLike, gain: ArrayLike = 1.0, bias_std: ArrayLike = 0.0
) -> NDArray | float:
    """Return the next layer's q: gain**2 * E phi(sqrt(q) Z)**2 + bias_std**2.

    Source: Poole et al. (2016), eq. 3.
    """
    return np.square(gain) * output_second_moment(activation, q) + np.square(bias_std)


def length_slope(activation: Activation, q: ArrayLike, gain: ArrayLike = 1.0) -> NDArray | float:
    """Return chi_q = dq'/dq, the slope of the length map: below 1 in size, a fixed point there is stable.

    By Stein's lemma it is gain**2 * E phi(z) phi'(z) Z / sqrt(q), z = sqrt(q) Z. At q = 0 the limit.
    """
    root = np.sqrt(np.maximum(q, 1e-12))  # at 0 a difference quotient, and no smaller, for its rounding
    product = gaussian_expectation(
        lambda z: activation(z) * activation.derivative(z) * z, root, kinks=activation.kinks
    )
    return np.square(gain) * product / root**2


def correlation_map(
    activation: Activation, c: ArrayLike, q: ArrayLike, gain: float = 1.0, bias_std: float = 0.0
) -> NDArray | float:
    """Return the correlation of two inputs' pre-activations one layer on, now c, both of second moment q.

    (gain**2 E phi(z1) phi(z2) + bias_std**2) / (gain**2 E phi(z1)**2 + bias_std**2), a double integral of
    accuracy 1e-12 or so for activations that declare their kinks.

    Raises: ValueError unless 0 < q < inf and |c| <= 1, and as `gaussian_expectation`.
    Source: Poole et al. (2016), eq. 5.
    """
    covariance = gain**2 * pair_expectation(activation.function, q, c, activation.kinks) + bias_std**2
    return covariance / length_map(activation, np.asarray(q, dtype=float), gain, bias_std)


def gradient_correlation_map(activation: Activation, c: ArrayLike, q: ArrayLike) -> NDArray | float:
    """Return E phi'(z1) phi'(z2) / E phi'(z1)**2, the factor by which one layer multiplies the correlation
    between the gradients that two inputs of correlation c and second moment q send back.

    Raises: ValueError unless 0 < q < inf and |c| <= 1, and as `gaussian_expectation`.
    """
    return pair_expectation(activation.derivative, q, c, activation.kinks) / chi_1(activation, q, 1.0)


def second_moments(activation: Activation, gain: float, depth: int, *, bias_std: float = 0.0) -> NDArray:
    """Return E h_l**2 for l = 0..depth, shape (depth + 1,), at infinite width; E h_0**2 is 1.

    `gain` and `bias_std` are standard deviations, the result a second moment.
    """
    moments = [1.0]
    for _ in range(depth):
        moments.append(output_second_moment(activation, gain**2 * moments[-1] + bias_std**2))
    return np.array(moments)


def cosines(
    activation: Activation,
    gain: float,
    depth: int,
    cosine: float,
    *,
    bias_std: float = 0.0,
    start: float = 1.0,
) -> NDArray:
    """Return the cosine E h_l h_l' / E h_l**2 of two inputs' outputs for l = 0..depth, at infinite width.

    `cosine` is that of the inputs, `start` the second moment E h_0**2 of each. The correlation of the
    pre-activations of layer l + 1 is (gain**2 m c + bias_std**2) / (gain**2 m + bias_std**2), m = E h_l**2.

    Raises: ValueError for |cosine| > 1, and where a layer's q underflows to 0 or overflows.
    """
    values, m = [cosine], start
    for _ in range(depth):
        q = gain**2 * m + bias_std**2
        c = (gain**2 * m * values[-1] + bias_std**2) / q
        m = output_second_moment(activation, q)
        values.append(pair_expectation(activation.function, q, c, activation.kinks) / m)
    return np.array(values)


class FixedPoint(NamedTuple):
    """A q that the length map leaves alone, and the map's slope there: stable if |slope| < 1."""

    q: float
    slope: float


_LOG_GRID = np.linspace(-40, 40, 401)


def _growth(activation: Activation, gain: NDArray, bias_std: NDArray, q: NDArray) -> NDArray:
    """Return q'/q - 1 at each q of a grid, shape (..., grid); what is 0 up to rounding is 0."""
    if not ((gain > 0) & (gain < 1e8)).all() or not ((bias_std >= 0) & (bias_std < 1e8)).all():
        raise ValueError(f"expected 0 < gain < 1e8 and 0 <= bias_std < 1e8; got {gain} and {bias_std}")
    growth = length_map(activation, q, gain[..., None], bias_std[..., None]) / q - 1
    growth[np.abs(growth) < 1e-12] = 0.0
    return growth


def _root(activation: Activation, gain: NDArray, bias_std: NDArray, low: NDArray, high: NDArray) -> NDArray:
    """Return the fixed point between `low` and `high`, element by element."""
    from scipy.optimize.elementwise import find_root

    def growth(log_q: NDArray, gain: NDArray, bias_std: NDArray) -> NDArray:
        return np.log(length_map(activation, np.exp(log_q), gain, bias_std)) - log_q

    root = find_root(growth, (np.log(low), np.log(high)), args=(gain, bias_std), tolerances={"xatol": 1e-15})
    return np.exp(root.x)


def fixed_point(
    activation: Activation, gain: ArrayLike, bias_std: ArrayLike = 0.0, start: float = 1.0
) -> NDArray | float:
    """Return q*, the q that depth settles at from `start`: 0 if the signal dies, inf if it explodes.

    `gain` and `bias_std` broadcast. It is the first fixed point in the direction in which q moves, looked for
    on a grid from start * e**-40 to start * e**40 in steps of 22 %. The length map must not fall with q,
    which holds wherever |phi| grows with |z|. Where every q is fixed, as for ReLU at gain sqrt(2), it is
    `start`.

    Raises: ValueError unless 0 < gain < 1e8, 0 <= bias_std < 1e8 and 0 < start < inf.
    """
    if not 0 < start < np.inf:
        raise ValueError(f"expected 0 < start < inf; got {start}")
    gain, bias_std = np.broadcast_arrays(np.asarray(gain, dtype=float), np.asarray(bias_std, dtype=float))
    grid = start * np.exp(_LOG_GRID)
    middle = grid.size // 2
    growth = _growth(activation, gain, bias_std, grid)
    now, index = growth[..., middle], np.arange(grid.size)
    rises, falls = growth > 0, growth < 0
    # A falling q stops above the last grid point below it that rises, a rising q below the first that falls.
    # In between, next to criticality, some are fixed up to rounding, and the bracket spans them.
    last_rise = np.where(rises & (index < middle), index, -1).max(axis=-1)
    low = np.where(now < 0, last_rise, middle)[..., None]
    high = np.where(falls & (index > low), index, grid.size).min(axis=-1)
    low = np.where(rises & (index < high[..., None]), index, -1).max(axis=-1)
    stops = (now != 0) & (low >= 0) & (high < grid.size)
    q = np.where(now == 0, start, np.where(now < 0, 0.0, np.inf))
    if stops.any():
        q[stops] = _root(activation, gain[stops], bias_std[stops], grid[low[stops]], grid[high[stops]])
    return q[()]


def fixed_points(activation: Activation, gain: float, bias_std: float = 0.0) -> list[FixedPoint]:
    """Return every fixed point of the length map between e**-40 and e**40, and 0 if it is one, in order.

    Two that are closer than 22 % may be missed.

    Raises: ValueError if every q is a fixed point, and as `fixed_point`.
    """
    grid = np.exp(_LOG_GRID)
    growth = _growth(activation, np.asarray(gain), np.asarray(bias_std), grid)
    signed = np.flatnonzero(growth)
    if not signed.size:
        raise ValueError(f"every q is a fixed point of {activation.name} at gain {gain}")
    turns = np.flatnonzero(np.diff(np.sign(growth[signed])))
    low, high = grid[signed[turns]], grid[signed[turns + 1]]
    gains, biases = np.full(low.shape, float(gain)), np.full(low.shape, float(bias_std))
    q = _root(activation, gains, biases, low, high) if turns.size else low
    if length_map(activation, 0.0, gain, bias_std) == 0:
        q = np.concatenate([[0.0], q])
    return [FixedPoint(float(x), float(length_slope(activation, x, gain))) for x in q]


def chi_1(activation: Activation, q: ArrayLike, gain: ArrayLike = 1.0) -> NDArray | float:
    """Return gain**2 * E phi'(sqrt(q) Z)**2: the factor by which one layer multiplies a squared gradient.

    For square layers; unequal fans bring in a further factor fan_out / fan_in. Assumes that the weights met
    on the way back are independent of the forward pass. Biases act through q alone; q = inf stands for e**40.
    Source: Schoenholz et al. (2017), eq. 5.
    """
    root = np.sqrt(np.minimum(q, np.exp(40.0)))
    slope = gaussian_expectation(lambda z: activation.derivative(z) ** 2, root, kinks=activation.kinks)
    return np.square(gain) * slope


def _settled_q(activation: Activation, gain: float, bias_std: float) -> float:
    """Return q*, or where the signal dies or explodes a q so near to that end that its maps are the end's."""
    return float(np.clip(fixed_point(activation, gain, bias_std), 1e-12, np.exp(40.0)))


def _correlation_slope(activation: Activation, gain: float, bias_std: float, q: float, c: float) -> float:
    """Return dc'/dc of the correlation map at second moment q."""
    slope = gain**2 * pair_expectation(activation.derivative, q, c, activation.kinks)
    return float(slope * q / length_map(activation, q, gain, bias_std))


def correlation_fixed_point(activation: Activation, gain: float, bias_std: float = 0.0) -> float:
    """Return c*, the correlation that two different inputs settle at: 1 in the ordered phase.

    In the chaotic phase, where the slope at c = 1 exceeds 1, it is the fixed point below 1. Where the signal
    dies without biases the map is that of a linear network, which leaves every c alone, and c* = 1 is its
    limit for small biases.

    Raises: ValueError as `fixed_point`.
    """
    from scipy.optimize import brentq

    q = _settled_q(activation, gain, bias_std)
    excess = _correlation_slope(activation, gain, bias_std, q, 1.0) - 1
    if excess < _CRITICAL:
        return 1.0

    def drift(c: float) -> float:
        return float(correlation_map(activation, c, q, gain, bias_std)) - c

    if drift(0.0) <= 0:
        return 0.0
    gap = 0.1 * min(1.0, excess) ** 2
    while drift(1 - gap) >= 0:  # between c* and 1 the correlation falls; strong biases press c* towards 1
        gap /= 4
        if gap * excess < 1e-12:  # what the correlation falls by is rounding
            return 1.0
    return brentq(drift, 0.0, 1 - gap, xtol=1e-14)


class DepthScales(NamedTuple):
    """Layers over which a difference shrinks (or grows) by a factor e: 1 / |ln slope|; inf at criticality."""

    length: float
    correlation: float
    gradient: float


def _layers_per_e(slope: float) -> float:
    if slope == 0:
        return 0.0
    rate = abs(np.log(abs(slope)))
    return np.inf if rate < _CRITICAL else float(1 / rate)


def depth_scales(activation: Activation, gain: float, bias_std: float = 0.0) -> DepthScales:
    """Return xi_q, xi_c and 1 / |ln chi_1|, in layers.

    `length`: q - q* shrinks as exp(-l / xi_q). `correlation`: c - c* shrinks as exp(-l / xi_c), at the stable
    c* of `correlation_fixed_point`. `gradient`: a squared gradient shrinks, or in the chaotic phase grows, by
    e; in the ordered phase with a signal it equals xi_c. A scale is inf where its slope is 1 (to 1e-9): at
    criticality the approach is a power of l, not an exponential. Without a signal, q* = 0, slopes are those
    at q = 1e-12; where q* = inf, those at e**40.

    Raises: ValueError as `fixed_point`.
    Source: Schoenholz et al. (2017), eq. 8 and 9.
    """
    q = _settled_q(activation, gain, bias_std)
    c = correlation_fixed_point(activation, gain, bias_std)
    return DepthScales(
        _layers_per_e(float(length_slope(activation, q, gain))),
        _layers_per_e(_correlation_slope(activation, gain, bias_std, q, c)),
        _layers_per_e(float(chi_1(activation, q, gain))),
    )


class CriticalPoint(NamedTuple):
    """gain and bias_std, both standard deviations, at which chi_1 = 1."""

    gain: NDArray | float
    bias_std: NDArray | float


def critical_point(activation: Activation, q: ArrayLike) -> CriticalPoint:
    """Return gain and bias_std that make q a fixed point with chi_1 = 1; many q trace the critical line.

    gain**2 = 1 / E phi'(z)**2 and bias_std**2 = q - gain**2 E phi(z)**2, z ~ N(0, q).

    Raises: ValueError if that asks for a negative variance of the biases: no critical network has this q.
    Source: Schoenholz et al. (2017), Section 3.
    """
    q = np.asarray(q, dtype=float)
    variance = 1 / chi_1(activation, q, 1.0)
    bias_variance = q - length_map(activation, q, np.sqrt(variance))
    bias_variance = np.where(np.abs(bias_variance) < 1e-12 * q, 0.0, bias_variance)
    if not (bias_variance >= 0).all():
        raise ValueError(f"{activation.name} has no critical point with q = {q[~(bias_variance >= 0)]}")
    return CriticalPoint(np.sqrt(variance), np.sqrt(bias_variance)[()])


def crossing_layer(limit: float, factor: float) -> float:
    """Return the real l at which factor**l = limit: overflow or underflow happens in the layer after it.

    Raises: ValueError unless limit and factor are positive and on the same side of 1: else it never happens.
    """
    if not (limit > 0 and factor > 0 and (limit > 1) == (factor > 1) and factor != 1):
        raise ValueError(f"a factor of {factor} per layer never crosses {limit}")
    return float(np.log(limit) / np.log(factor))


def relu_cosine_map(cosine: ArrayLike) -> NDArray | float:
    """Return the cosine between two inputs after one wide He-initialized ReLU layer.

    Source: Cho & Saul (2009), arc-cosine kernel of degree 1.
    """
    c = np.clip(cosine, -1.0, 1.0)
    return (np.sqrt(1 - c**2) + c * (np.pi - np.arccos(c))) / np.pi
