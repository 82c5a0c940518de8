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
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from course_utils.activations import Activation, check_element_wise, linear, relu

Function = Callable[[torch.Tensor], torch.Tensor]
Kinks = Sequence[float]

_END = 12.0  # standard deviations; beyond, the normal density is below 1e-31
_PANELS = np.array([-_END, -8, -5, -3, -1, 1, 3, 5, 8, _END])
# Panels shrink towards a kink by factors of four: whatever happens within 1e-4 of it is still resolved.
_AROUND_A_KINK = np.concatenate([s * 1.5 * 4.0 ** -np.arange(10) for s in (-1, 1)] + [[0.0]])
_GAIN_ERROR = 1e-9  # of each panel, relative to the whole
_CRITICAL = 1e-9  # a slope this near to 1 is 1: quadrature knows no better


@lru_cache
def _legendre() -> tuple[NDArray, NDArray]:
    return np.polynomial.legendre.leggauss(16)


def _rule(breaks: NDArray, halved: bool) -> tuple[NDArray, NDArray]:
    """Return nodes and weights (..., nodes) for N(0, 1), with panels that end at `breaks` (..., kinks)."""
    breaks = np.clip(np.nan_to_num(breaks, nan=0.0), -_END, _END)
    around = (breaks[..., None] + _AROUND_A_KINK).reshape(*breaks.shape[:-1], -1)
    panels = np.broadcast_to(_PANELS, (*breaks.shape[:-1], _PANELS.size))
    edges = np.clip(np.concatenate([panels, around], axis=-1), -_END, _END)
    edges = np.unique(edges) if edges.ndim == 1 else np.sort(edges, axis=-1)
    if halved:
        middles = (edges[..., :-1] + edges[..., 1:]) / 2
        edges = np.sort(np.concatenate([edges, middles], axis=-1), axis=-1)
    nodes, weights = _legendre()
    half = np.diff(edges, axis=-1)[..., None] / 2
    z = (edges[..., :-1, None] + half * (1 + nodes)).reshape(*edges.shape[:-1], -1)
    weights = (half * weights).reshape(z.shape)
    return z, weights * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)


@lru_cache
def _rule_at_zero(halved: bool) -> tuple[NDArray, NDArray]:
    return _rule(np.zeros(1), halved)


def _evaluate(function: Function, z: NDArray) -> NDArray:
    """Return function(z), having made sure that it is an element-wise function of a tensor."""
    try:
        values = function(torch.from_numpy(z))
    except Exception as error:
        raise ValueError(f"the function must take a tensor of any shape; on {z.shape}: {error}") from error
    if not isinstance(values, torch.Tensor) or values.shape != z.shape:
        got = tuple(values.shape) if isinstance(values, torch.Tensor) else type(values).__name__
        raise ValueError(f"the function must keep the shape {z.shape}; it returned {got}")
    if not torch.isfinite(values).all():
        raise ValueError("the function must be finite on the whole line; it returned nan or inf")
    return values.detach().numpy()  # detach: the function may have parameters that learn, as PReLU does


def _expectation(
    function: Function, std: ArrayLike, mean: ArrayLike, kinks: Kinks, halved: bool
) -> NDArray | float:
    std, mean = np.asarray(std, dtype=float), np.asarray(mean, dtype=float)
    if not np.isfinite(std).all() or not np.isfinite(mean).all():
        raise ValueError(f"mean, and std, the root of a q, must be finite; got {mean} and {std}")
    if mean.any() or np.any(kinks):
        with np.errstate(divide="ignore", invalid="ignore"):
            breaks = (np.asarray(kinks, dtype=float) - mean[..., None]) / std[..., None]
        nodes, weights = _rule(breaks, halved)
    else:
        nodes, weights = _rule_at_zero(halved)  # the kink at 0 stays there for every std
    values = _evaluate(function, mean[..., None] + std[..., None] * nodes)
    return values @ weights if weights.ndim == 1 else (values * weights).sum(axis=-1)


def gaussian_expectation(
    function: Function, std: ArrayLike = 1.0, mean: ArrayLike = 0.0, kinks: Kinks = (0.0,)
) -> NDArray | float:
    """Return E f(mean + std * Z), Z ~ N(0, 1), for each entry of `std` and `mean`, which broadcast.

    Piecewise Gauss-Legendre with panels that end at `kinks`: about 1e-13 for functions that are smooth apart
    from kinks and jumps there. A kink elsewhere costs accuracy (hard tanh with kinks=(0,): 1e-5), and so do
    many oscillations within `std`; `quadrature_error` tells how much. What is narrower than 1e-6 `std`, as
    the slope of tanh is at q > 1e12, may be missed altogether.

    Raises: ValueError if `std` or `mean` is not finite, or if `function` fails on a tensor, changes the shape
    or returns nan or inf.
    """
    return _expectation(function, std, mean, kinks, halved=False)


def quadrature_error(
    function: Function, std: ArrayLike = 1.0, mean: ArrayLike = 0.0, kinks: Kinks = (0.0,)
) -> NDArray | float:
    """Return how far `gaussian_expectation` moves when every panel is halved: an estimate of its error.

    Raises: as `gaussian_expectation`.
    """
    fine = _expectation(function, std, mean, kinks, halved=True)
    return np.abs(fine - _expectation(function, std, mean, kinks, halved=False))


def _pair_expectation(function: Function, q: float, c: float, kinks: Kinks) -> float:
    """Return E f(z1) f(z2) for z1, z2 ~ N(0, q) with correlation c, as a double integral.

    Given z1 = sqrt(q) u, z2 ~ N(c z1, (1 - c**2) q). As a function of u the inner integral changes fastest
    where z1 or its conditional mean c z1 is at a kink.
    """
    root = np.sqrt(q)
    breaks = np.asarray(kinks, dtype=float) / root
    if c:
        breaks = np.concatenate([breaks, breaks / c])
    nodes, weights = _rule(breaks, halved=False)
    inner = gaussian_expectation(function, root * np.sqrt(max(0.0, 1 - c**2)), root * c * nodes, kinks)
    return float((_evaluate(function, root * nodes) * inner) @ weights)


def _pair_map(function: Function, q: ArrayLike, c: ArrayLike, kinks: Kinks) -> NDArray | float:
    q, c = np.broadcast_arrays(np.asarray(q, dtype=float), np.asarray(c, dtype=float))
    if not (np.isfinite(q) & (q > 0)).all():
        raise ValueError(f"a correlation needs 0 < q < inf; got {q}")
    if not (np.abs(c) <= 1 + 1e-12).all():  # what rounding adds is forgiven
        raise ValueError(f"a correlation lies between -1 and 1; got {c}")
    values = [_pair_expectation(function, *pair, kinks) for pair in zip(q.flat, c.flat, strict=True)]
    return np.reshape(values, c.shape)[()]


def output_second_moment(q: ArrayLike, activation: Activation) -> NDArray | float:
    """Return E phi(sqrt(q) Z)**2, the second moment of a layer's outputs, for pre-activations ~ N(0, q)."""
    return gaussian_expectation(lambda z: activation(z) ** 2, np.sqrt(q), kinks=activation.kinks)


def _adaptive_expectation(function: Function) -> float:
    """Return E f(Z) for f >= 0, halving panels until each agrees with its two halves."""
    x, weights = _legendre()
    low, high, total, done = _PANELS[:-1], _PANELS[1:], np.nan, 0.0

    def integrals(low: NDArray, high: NDArray) -> NDArray:
        half = (high - low)[:, None] / 2
        z = low[:, None] + half * (1 + x)
        return (_evaluate(function, z) * half * weights * np.exp(-(z**2) / 2)).sum(axis=1)

    for _ in range(60):
        middle = (low + high) / 2
        halves = integrals(np.append(low, middle), np.append(middle, high)).reshape(2, -1)
        refined = halves.sum(axis=0)
        total = done + refined.sum()
        rough = np.abs(refined - integrals(low, high)) > _GAIN_ERROR * total
        done += refined[~rough].sum()
        if not rough.any():
            return float(total / np.sqrt(2 * np.pi))
        low, middle, high = low[rough], middle[rough], high[rough]
        low, high = np.append(low, middle), np.append(middle, high)
        if low.size > 4096:
            break
    raise ValueError("the integral of the function's square does not converge: it oscillates too fast")


def gain(function: Function) -> float:
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
    second_moment = _adaptive_expectation(lambda z: function(z).square())
    if second_moment == 0:
        raise ValueError(f"{name} is 0 on the whole line: no gain makes up for that")
    tails = _evaluate(function, np.array([-_END, _END])) ** 2 * np.exp(-(_END**2) / 2)
    if tails.max() > 1e-7 * second_moment:
        raise ValueError(
            f"{name} grows too fast: E phi(Z)**2 has no limit within {_END:g} standard deviations"
        )
    return 1 / math.sqrt(second_moment)


def length_map(
    q: ArrayLike, activation: Activation, gain: ArrayLike = 1.0, bias_std: ArrayLike = 0.0
) -> NDArray | float:
    """Return the next layer's q: gain**2 * E phi(sqrt(q) Z)**2 + bias_std**2.

    Source: Poole et al. (2016), eq. 3.
    """
    return np.square(gain) * output_second_moment(q, activation) + np.square(bias_std)


def length_slope(q: ArrayLike, activation: Activation, gain: ArrayLike = 1.0) -> NDArray | float:
    """Return chi_q = dq'/dq, the slope of the length map: below 1 in size, a fixed point there is stable.

    By Stein's lemma it is gain**2 * E phi(z) phi'(z) Z / sqrt(q), z = sqrt(q) Z. At q = 0 the limit.
    """
    root = np.sqrt(np.maximum(q, 1e-12))  # at 0 a difference quotient, and no smaller, for its rounding
    product = gaussian_expectation(
        lambda z: activation(z) * activation.derivative(z) * z, root, kinks=activation.kinks
    )
    return np.square(gain) * product / root**2


def correlation_map(
    c: ArrayLike, q: ArrayLike, activation: Activation, gain: float = 1.0, bias_std: float = 0.0
) -> NDArray | float:
    """Return the correlation of two inputs' pre-activations one layer on, now c, both of second moment q.

    (gain**2 E phi(z1) phi(z2) + bias_std**2) / (gain**2 E phi(z1)**2 + bias_std**2), a double integral of
    accuracy 1e-12 or so for activations that declare their kinks.

    Raises: ValueError unless 0 < q < inf and |c| <= 1, and as `gaussian_expectation`.
    Source: Poole et al. (2016), eq. 5.
    """
    covariance = gain**2 * _pair_map(activation.function, q, c, activation.kinks) + bias_std**2
    return covariance / length_map(np.asarray(q, dtype=float), activation, gain, bias_std)


def gradient_correlation_map(c: ArrayLike, q: ArrayLike, activation: Activation) -> NDArray | float:
    """Return E phi'(z1) phi'(z2) / E phi'(z1)**2, the factor by which one layer multiplies the correlation
    between the gradients that two inputs of correlation c and second moment q send back.

    Raises: ValueError unless 0 < q < inf and |c| <= 1, and as `gaussian_expectation`.
    """
    return _pair_map(activation.derivative, q, c, activation.kinks) / chi_1(activation, 1.0, q)


def second_moment_profile(
    activation: Activation, gain: float, depth: int, start: float = 1.0, *, bias_std: float = 0.0
) -> NDArray:
    """Return E h_l**2 for l = 0..depth, shape (depth + 1,), at infinite width; `start` is E h_0**2.

    `gain` and `bias_std` are standard deviations, the result a second moment.
    """
    moments = [start]
    for _ in range(depth):
        moments.append(output_second_moment(gain**2 * moments[-1] + bias_std**2, activation))
    return np.array(moments)


def cosine_profile(
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
    cosines, m = [cosine], start
    for _ in range(depth):
        q = gain**2 * m + bias_std**2
        c = (gain**2 * m * cosines[-1] + bias_std**2) / q
        m = output_second_moment(q, activation)
        cosines.append(_pair_map(activation.function, q, c, activation.kinks) / m)
    return np.array(cosines)


class FixedPoint(NamedTuple):
    """A q that the length map leaves alone, and the map's slope there: stable if |slope| < 1."""

    q: float
    slope: float


_LOG_GRID = np.linspace(-40, 40, 401)


def _growth(activation: Activation, gain: NDArray, bias_std: NDArray, q: NDArray) -> NDArray:
    """Return q'/q - 1 at each q of a grid, shape (..., grid); what is 0 up to rounding is 0."""
    if not ((gain > 0) & (gain < 1e8)).all() or not ((bias_std >= 0) & (bias_std < 1e8)).all():
        raise ValueError(f"expected 0 < gain < 1e8 and 0 <= bias_std < 1e8; got {gain} and {bias_std}")
    growth = length_map(q, activation, gain[..., None], bias_std[..., None]) / q - 1
    growth[np.abs(growth) < 1e-12] = 0.0
    return growth


def _root(activation: Activation, gain: NDArray, bias_std: NDArray, low: NDArray, high: NDArray) -> NDArray:
    """Return the fixed point between `low` and `high`, element by element."""
    from scipy.optimize.elementwise import find_root

    def growth(log_q: NDArray, gain: NDArray, bias_std: NDArray) -> NDArray:
        return np.log(length_map(np.exp(log_q), activation, gain, bias_std)) - log_q

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
    if length_map(0.0, activation, gain, bias_std) == 0:
        q = np.concatenate([[0.0], q])
    return [FixedPoint(float(x), float(length_slope(x, activation, gain))) for x in q]


def chi_1(activation: Activation, gain: ArrayLike, q: ArrayLike) -> NDArray | float:
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
    slope = gain**2 * _pair_map(activation.derivative, q, c, activation.kinks)
    return float(slope * q / length_map(q, activation, gain, bias_std))


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
        return float(correlation_map(c, q, activation, gain, bias_std)) - c

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
        _layers_per_e(float(length_slope(q, activation, gain))),
        _layers_per_e(_correlation_slope(activation, gain, bias_std, q, c)),
        _layers_per_e(float(chi_1(activation, gain, q))),
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
    variance = 1 / chi_1(activation, 1.0, q)
    bias_variance = q - length_map(q, activation, np.sqrt(variance))
    bias_variance = np.where(np.abs(bias_variance) < 1e-12 * q, 0.0, bias_variance)
    if not (bias_variance >= 0).all():
        raise ValueError(f"{activation.name} has no critical point with q = {q[~(bias_variance >= 0)]}")
    return CriticalPoint(np.sqrt(variance), np.sqrt(bias_variance)[()])


def jacobian_spread(activation: Activation, q: ArrayLike, *, orthogonal: bool) -> float:
    """Return Var(s**2) / (E s**2)**2 of the singular values s of the Jacobian d h_L / d h_0 of L layers.

    q: the second moments (layers,) of the pre-activations. Each layer adds mu_2 / mu_1**2 - 1, with
    mu_k = E phi'(sqrt(q) Z)**(2 k), and a Gaussian weight matrix a further 1, an orthogonal one nothing.
    Infinite width, layers free of one another; 0 is an isometry up to a factor.
    Source: Pennington, Schoenholz and Ganguli (2017), eq. 22.
    """
    root = np.sqrt(np.atleast_1d(np.asarray(q, dtype=float)))
    mu_1, mu_2 = (
        gaussian_expectation(lambda z, k=k: activation.derivative(z) ** (2 * k), root, kinks=activation.kinks)
        for k in (1, 2)
    )
    return float((mu_2 / mu_1**2 - 1 + (not orthogonal)).sum())


def product_edge(depth: int) -> float:
    """Return (L + 1)**(L + 1) / L**L, the largest squared singular value of a product of L Gaussian matrices.

    n x n matrices with entries of variance 1/n, n -> inf with L fixed; for large L about e (L + 1/2).
    Source: Penson and Zyczkowski (2011).
    """
    return float((depth + 1) * np.exp(depth * np.log1p(1 / depth)))


def product_moment(depth: int, k: int) -> float:
    """Return E s**(2 k) of the singular values s of such a product: the Fuss-Catalan number.

    binom((L + 1) k, k) / (L k + 1); the mean of s**2 is 1, its variance L.
    """
    return math.comb((depth + 1) * k, k) / (depth * k + 1)


def product_law(depth: int, points: int = 2000) -> tuple[NDArray, NDArray, NDArray]:
    """Return x, density and distribution function of the squared singular values of such a product.

    Three arrays of shape (points,), x rising from near 0 to near `product_edge(depth)`. With
    0 < t < pi / (L + 1) it is x = sin((L+1) t)**(L+1) / (sin t sin(L t)**L), and the density
    sin(t)**2 sin(L t)**(L-1) / (pi sin((L+1) t)**L).

    Raises: ValueError for a depth below 1.
    Source: Penson and Zyczkowski (2011); Haagerup and Moeller (2013) for this form.
    """
    if depth < 1:
        raise ValueError(f"expected depth >= 1; got {depth}")
    v = (np.arange(points) + 0.5) / points
    t = np.pi / (depth + 1) * (1 - v**2)  # dense where x is near 0
    dt = np.pi / (depth + 1) * 2 * v / points
    a, b, c = np.sin(t), np.sin(depth * t), np.sin((depth + 1) * t)
    with np.errstate(over="ignore"):  # hundreds of factors: x underflows to 0, where the density is infinite
        x = np.exp((depth + 1) * np.log(c) - np.log(a) - depth * np.log(b))
        density = np.exp(2 * np.log(a) + (depth - 1) * np.log(b) - depth * np.log(c)) / np.pi
    slope = (depth + 1) ** 2 / np.tan((depth + 1) * t) - 1 / np.tan(t) - depth**2 / np.tan(depth * t)
    mass = a * c / b * np.abs(slope) * dt / np.pi  # density |dx|, with dx = x slope dt
    return x, density, np.cumsum(mass) - mass / 2


def log_second_moment_law(
    activation: Activation, gain: float, depth: int, width: int
) -> tuple[NDArray, NDArray]:
    """Return mean and variance of ln(mean square of h_l), l = 0..depth, over networks of finite `width`.

    First order in depth/width, for Gaussian weights and N(0, 1) inputs. With m the mean square, one layer is
    ln m' = g(ln m) + noise; the noise has variance v = Var(phi**2) / (width * (E phi**2)**2) and mean -v/2.
    exp(mean / 2) is the geometric mean of the RMS, and for linear and ReLU layers, where `exact_log_growth`
    has the exact law, nearly its median.
    """
    step = 1e-3
    mean, variance = [-1 / width], [2 / width]  # of ln(chi2_n / n), to first order
    for _ in range(depth):
        std = gain * np.exp((mean[-1] + step * np.array([-1, 0, 1])) / 2)
        square = gaussian_expectation(lambda z: activation(z) ** 2, std, kinks=activation.kinks)
        below, at, above = np.log(square)
        slope, curvature = (above - below) / (2 * step), (above - 2 * at + below) / step**2
        fourth = gaussian_expectation(lambda z: activation(z) ** 4, std[1], kinks=activation.kinks)
        noise = (fourth / np.exp(2 * at) - 1) / width
        mean.append(at + curvature * variance[-1] / 2 - noise / 2)
        variance.append(slope**2 * variance[-1] + noise)
    return np.array(mean), np.array(variance)


def exact_log_growth(activation: Activation, gain: float, width: int) -> tuple[float, float]:
    """Return mean and variance of ln(m'/m), the growth of the mean square in one layer, at any width.

    Linear: m'/m = gain**2 chi2_n / n. ReLU: the same with chi2_K, K ~ Binomial(n, 1/2) active units, given
    K > 0 (with probability 2**-n all units are off and the signal is gone).

    Raises: ValueError for other activations, whose growth depends on m.
    """
    from scipy.special import digamma, gammaln, polygamma

    if activation is linear:
        active, probability = np.array([width]), np.array([1.0])
    elif activation is relu:
        active = np.arange(1, width + 1)
        log_binomial = gammaln(width + 1) - gammaln(active + 1) - gammaln(width - active + 1)
        probability = np.exp(log_binomial - width * np.log(2))
        probability /= probability.sum()
    else:
        raise ValueError(f"activation must be linear or relu; got {activation.name}")
    log_chi2 = digamma(active / 2) + np.log(2)
    mean = probability @ log_chi2
    variance = probability @ (polygamma(1, active / 2) + (log_chi2 - mean) ** 2)
    return float(mean + np.log(gain**2 / width)), float(variance)


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
