"""Theory: what a random network does to its signal, predicted without simulating one.

Conventions. `gain` is sigma_w and `bias_std` sigma_b, standard deviations: Var(w) = gain**2 / fan_in and
Var(b) = bias_std**2. `q` is the second moment of a pre-activation, q = E z**2, `c` the correlation of the
pre-activations of two inputs, both of second moment q; the second moment of a layer's output is
E h**2 = E phi(sqrt(q) Z)**2 with Z ~ N(0, 1). "Infinite width" means that a layer's mean square equals its
expectation; `network_laws` has the first correction. All numbers are float64.

Arguments come in one order: the activation, the point (c, q), gain, bias_std, depth. One layer at a point has
gain 1 and no biases unless told; what depth does needs a gain.

Slopes, and c* and the depth scales that rest on them, assume that phi is continuous: where phi jumps, the
true slope has a part that the derivative does not show.

Raises, besides what a docstring lists: ValueError for a q, c, gain, bias_std or depth out of its range, and
for a function that does not keep a tensor's shape or is not finite on the whole line (`quadrature.evaluate`).
"""

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from course_utils.activations import Activation
from course_utils.checks import check_arguments, check_correlation, check_element_wise
from course_utils.quadrature import Function, adaptive_expectation, gaussian_expectation, pair_expectation

_CRITICAL = 1e-9  # a slope this near to 1 is 1: quadrature knows no better
_ROUNDING = 1e-12  # a second moment that changes by less has not changed


def output_second_moment(activation: Activation, q: ArrayLike) -> NDArray | float:
    """Return E phi(sqrt(q) Z)**2, the second moment of a layer's outputs, for pre-activations ~ N(0, q)."""
    check_arguments(q=q)
    return gaussian_expectation(lambda z: activation(z) ** 2, np.sqrt(q), kinks=activation.kinks)


def length_map(
    activation: Activation, q: ArrayLike, gain: ArrayLike = 1.0, bias_std: ArrayLike = 0.0
) -> NDArray | float:
    """Return the next layer's q: gain**2 * E phi(sqrt(q) Z)**2 + bias_std**2.

    Source: Poole et al. (2016).
    """
    check_arguments(gain=gain, bias_std=bias_std)
    return np.square(gain) * output_second_moment(activation, q) + np.square(bias_std)


def length_slope(activation: Activation, q: ArrayLike, gain: ArrayLike = 1.0) -> NDArray | float:
    """Return chi_q = dq'/dq, the slope of the length map: below 1 in size, a fixed point there is stable.

    By the chain rule it is gain**2 * E phi(z) phi'(z) Z / sqrt(q), z = sqrt(q) Z. At q = 0 the limit.
    """
    check_arguments(q=q, gain=gain)
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
    Raises: ValueError for q = 0, and where the next layer's q is 0.
    Source: Poole et al. (2016).
    """
    second_moment = length_map(activation, q, gain, bias_std)
    covariance = gain**2 * pair_expectation(activation.function, c, q, activation.kinks) + bias_std**2
    if not np.all(second_moment):
        raise ValueError(f"no signal, no correlation: q={q}, gain={gain}, bias_std={bias_std} lead to q'=0")
    return covariance / second_moment


def second_moments(activation: Activation, gain: float, depth: int, *, bias_std: float = 0.0) -> NDArray:
    """Return E h_l**2 for l = 0..depth, shape (depth + 1,), at infinite width; E h_0**2 is 1.

    Raises: ValueError where a layer's q overflows.
    """
    check_arguments(gain=gain, bias_std=bias_std, depth=depth)
    moments = [1.0]
    for _ in range(depth):
        moments.append(output_second_moment(activation, gain**2 * moments[-1] + bias_std**2))
    return np.array(moments)


def cosines(
    activation: Activation, cosine: float, gain: float, depth: int, *, bias_std: float = 0.0
) -> NDArray:
    """Return the cosine E h_l h_l' / E h_l**2 of two inputs' outputs for l = 0..depth, at infinite width.

    `cosine` is that of the inputs, of second moment 1 each. The correlation of the pre-activations of layer
    l + 1 is (gain**2 m c + bias_std**2) / (gain**2 m + bias_std**2), m = E h_l**2.
    Raises: ValueError where a layer's q overflows, or underflows to 0.
    """
    values = [cosine]
    for m in second_moments(activation, gain, depth, bias_std=bias_std)[:-1]:
        q = gain**2 * m + bias_std**2
        c = (gain**2 * m * values[-1] + bias_std**2) / q
        values.append(correlation_map(activation, c, q))
    return np.array(values)


class FixedPoint(NamedTuple):
    """A q that the length map leaves alone, and the map's slope there: stable if |slope| < 1."""

    q: float
    slope: float


_LOG_GRID = np.linspace(-40, 40, 401)
_GRID = np.exp(_LOG_GRID)
_HERE = _GRID.size // 2  # where q = 1


def _roots(
    function: Callable[..., NDArray], low: ArrayLike, high: ArrayLike, *args: NDArray, xatol: float = 1e-15
) -> NDArray:
    """Return where function(x, *args) is 0, element by element."""
    from scipy.optimize import elementwise  # its import takes half a second

    return elementwise.find_root(function, (low, high), args=args, tolerances={"xatol": xatol}).x


def _growth(activation: Activation, gain: ArrayLike, bias_std: ArrayLike) -> NDArray:
    """Return q'/q - 1 at each q of the grid, shape (..., grid); what is 0 up to rounding is 0."""
    gain, bias_std = np.asarray(gain, dtype=float), np.asarray(bias_std, dtype=float)
    if not ((gain > 0) & (gain < 1e8) & (bias_std >= 0) & (bias_std < 1e8)).all():
        raise ValueError(f"expected 0 < gain < 1e8, 0 <= bias_std < 1e8; got {gain=!s}, {bias_std=!s}")
    growth = length_map(activation, _GRID, gain[..., None], bias_std[..., None]) / _GRID - 1
    return np.where(np.abs(growth) < _ROUNDING, 0.0, growth)


def _fixed_q(activation: Activation, gain: ArrayLike, bias_std: ArrayLike, *ends: NDArray) -> NDArray:
    """Return the fixed point whose ln q is between the two `ends`, element by element."""

    def growth(log_q: NDArray, *settings: NDArray) -> NDArray:
        return np.log(length_map(activation, np.exp(log_q), *settings)) - log_q

    return np.exp(_roots(growth, *ends, np.asarray(gain), np.asarray(bias_std)))


def fixed_point(activation: Activation, gain: ArrayLike, bias_std: ArrayLike = 0.0) -> NDArray | float:
    """Return q*, the q that depth settles at from q = 1: 0 if the signal dies, inf if it explodes.

    `gain` and `bias_std` broadcast. It is the first fixed point in the direction in which q moves, looked for
    from e**-40 to e**40 in steps of 22 %. The length map must not fall with q, which holds wherever |phi|
    grows with |z|. Where every q is fixed, as for ReLU at gain sqrt(2), it is 1.
    Raises: ValueError unless 0 < gain < 1e8 and 0 <= bias_std < 1e8.
    """
    gain, bias_std = np.broadcast_arrays(np.asarray(gain, dtype=float), np.asarray(bias_std, dtype=float))
    growth = _growth(activation, gain, bias_std)
    rises = growth[..., _HERE] > 0
    # Positive as long as q moves on, whichever way it moves.
    drive = np.where(rises[..., None], growth[..., _HERE:], -growth[..., _HERE::-1])
    turned = (drive < 0).argmax(axis=-1)  # 0: nowhere
    steps = np.arange(drive.shape[-1])
    before = np.where((drive > 0) & (steps < turned[..., None]), steps, 0).max(axis=-1)
    q = np.where(rises, np.inf, np.where(growth[..., _HERE] < 0, 0.0, 1.0))
    stops = (turned > 0) & (q != 1)
    way = np.where(rises, 1, -1)[stops]
    ends = (_LOG_GRID[_HERE + way * index[stops]] for index in (before, turned))
    q[stops] = _fixed_q(activation, gain[stops], bias_std[stops], *ends)
    return q[()]


def sign_changes(values: NDArray) -> tuple[NDArray, NDArray]:
    """Return the indices before and after each change of sign of `values` (points,) along a grid.

    Values that are 0 up to rounding are skipped: two indices need not be neighbours.
    """
    signed = np.flatnonzero(np.abs(values) >= _ROUNDING)
    turns = np.flatnonzero(np.diff(np.sign(values[signed])))
    return signed[turns], signed[turns + 1]


def fixed_points(activation: Activation, gain: float, bias_std: float = 0.0) -> list[FixedPoint]:
    """Return every fixed point of the length map between e**-40 and e**40, and 0 if it is one, in order.

    Two that are closer than 22 % may be missed.
    Raises: ValueError if every q is a fixed point; else as `fixed_point`.
    """
    growth = _growth(activation, gain, bias_std)
    if not growth.any():
        raise ValueError(f"every q is a fixed point of {activation.name} at gain {gain}")
    low, high = sign_changes(growth)
    q = _fixed_q(activation, gain, bias_std, _LOG_GRID[low], _LOG_GRID[high])
    if length_map(activation, 0.0, gain, bias_std) == 0:
        q = np.concatenate([[0.0], q])
    return [FixedPoint(float(x), float(length_slope(activation, x, gain))) for x in q]


def chi_1(activation: Activation, q: ArrayLike, gain: ArrayLike = 1.0) -> NDArray | float:
    """Return gain**2 * E phi'(sqrt(q) Z)**2: the factor by which one layer multiplies a squared gradient.

    For square layers; unequal fans bring in a further factor fan_out / fan_in. Assumes that the weights met
    on the way back are independent of the forward pass. Biases act through q alone; q = inf stands for e**40.
    Source: Schoenholz et al. (2017).
    """
    q = np.minimum(q, _GRID[-1])
    check_arguments(q=q, gain=gain)
    slope = gaussian_expectation(lambda z: activation.derivative(z) ** 2, np.sqrt(q), kinks=activation.kinks)
    return np.square(gain) * slope


def _settled_q(activation: Activation, gain: float, bias_std: float) -> float:
    """Return q*, or where the signal dies or explodes a q so near to that end that its maps are the end's."""
    return float(np.clip(fixed_point(activation, gain, bias_std), 1e-12, _GRID[-1]))


def _correlation_slope(activation: Activation, gain: float, bias_std: float, q: float, c: float) -> float:
    """Return dc'/dc of the correlation map at second moment q."""
    slope = gain**2 * pair_expectation(activation.derivative, c, q, activation.kinks)
    return float(slope * q / length_map(activation, q, gain, bias_std))


def correlation_fixed_point(activation: Activation, gain: float, bias_std: float = 0.0) -> float:
    """Return c*, the correlation that two different inputs settle at: 1 in the ordered phase.

    In the chaotic phase, where the slope at c = 1 exceeds 1, it is the fixed point below 1. Where the signal
    dies without biases the map is that of a linear network, which leaves every c alone, and c* = 1 is its
    limit for small biases.
    Raises: ValueError as `fixed_point`.
    """
    q = _settled_q(activation, gain, bias_std)
    excess = _correlation_slope(activation, gain, bias_std, q, 1.0) - 1
    if excess < _CRITICAL:
        return 1.0

    def drift(c: ArrayLike) -> NDArray | float:
        return correlation_map(activation, c, q, gain, bias_std) - c

    if drift(0.0) <= 0:
        return 0.0
    gap = 0.1 * min(1.0, excess) ** 2
    while drift(1 - gap) >= 0:  # between c* and 1 the correlation falls; strong biases press c* towards 1
        gap /= 4
        if gap * excess < 1e-12:  # what the correlation falls by is rounding
            return 1.0
    return float(_roots(drift, 0.0, 1 - gap))


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
    Source: Schoenholz et al. (2017).
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
    Source: Schoenholz et al. (2017).
    """
    q = np.asarray(q, dtype=float)
    variance = 1 / chi_1(activation, q)
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

    Raises: ValueError unless |cosine| <= 1, up to rounding.
    Source: Cho & Saul (2009), arc-cosine kernel of degree 1.
    """
    check_correlation(cosine)
    c = np.clip(cosine, -1.0, 1.0)
    return (np.sqrt(1 - c**2) + c * (np.pi - np.arccos(c))) / np.pi


def gain_behind(function: Function) -> float:
    """Return 1 / sqrt(E phi(Z)**2), Z ~ N(0, 1): weights of std gain / sqrt(fan_in) *behind* phi turn
    pre-activations of second moment 1 into pre-activations of second moment 1.

    The first layer, whose inputs come from no phi, takes gain 1. In front of phi the same number serves only
    if phi(a z) = a phi(z) for a > 0, as for ReLU; else it is `gain_in_front`.
    function: an Activation or any element-wise function of a tensor. Its kinks need not be declared:
    `quadrature.adaptive_expectation`.
    Raises: ValueError as `checks.check_element_wise` and `quadrature.adaptive_expectation`, and if phi
    is 0 on the whole line.
    Source: He et al. (2015) for ReLU.
    """
    name = check_element_wise(function, getattr(function, "name", None))
    moment = adaptive_expectation(lambda z: function(z).square())
    if moment == 0:
        raise ValueError(f"{name} is 0 on the whole line: no gain makes up for that")
    return 1 / math.sqrt(moment)


_LOG_GAINS = np.linspace(-20, 20, 161)


def gain_in_front(function: Function) -> float:
    """Return g with E phi(g Z)**2 = 1, Z ~ N(0, 1): weights of std g / sqrt(fan_in) *in front* of phi turn
    inputs of second moment 1 into outputs of second moment 1.

    sqrt(2) for ReLU, 1.468 for GELU, 1.559 for SiLU. Of several g the smallest at which E phi(g Z)**2 crosses
    1, looked for from e**-20 to e**20 in steps of 28 %. function, accuracy: as `gain_behind`.
    Raises: ValueError if there is none, as for tanh and sigmoid, whose outputs are below 1; else as
    `gain_behind`.
    Source: He et al. (2015) for ReLU.
    """
    name = check_element_wise(function, getattr(function, "name", None))

    def rough(z: torch.Tensor) -> torch.Tensor:  # at large gains it may overflow, long after it crossed 1
        return torch.nan_to_num(function(z).square(), nan=1e300, posinf=1e300)

    @cache
    def log_moment(log_gain: float) -> float:
        moment = adaptive_expectation(lambda z: function(math.exp(log_gain) * z).square())
        return math.log(max(moment, 1e-300))

    before, after = sign_changes(gaussian_expectation(rough, np.exp(_LOG_GAINS)) - 1)
    # Kinks that nobody declared cost the scan accuracy: the crossing may be in the next interval.
    for margin in (0.0, 0.25) if before.size else ():
        low, high = float(_LOG_GAINS[before[0]]) - margin, float(_LOG_GAINS[after[0]]) + margin
        if log_moment(low) * log_moment(high) <= 0:
            return math.exp(_roots(np.vectorize(log_moment), low, high, xatol=1e-9))
    raise ValueError(f"{name} has no gain in front: E phi(g Z)**2 crosses 1 at no g from e**-20 to e**20")
