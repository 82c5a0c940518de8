"""Theory: what a random network does to its signal, predicted without simulating one.

Conventions. `gain` is sigma_w, a standard deviation: Var(w) = gain**2 / fan_in. `q` is the second moment of a
pre-activation, q = E z**2; the second moment of a layer's output is E h**2 = E phi(sqrt(q) Z)**2 with
Z ~ N(0, 1). Biases are zero. "Infinite width" means that a layer's mean square equals its expectation;
`log_second_moment_law` gives the first correction at finite width. All numbers are float64.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import digamma, gammaln, polygamma

from course_utils.activations import Activation, linear, relu

Function = Callable[[torch.Tensor], torch.Tensor]


@lru_cache
def _half_line_rule() -> tuple[NDArray, NDArray]:
    """Return nodes and weights for the integral of f(z) N(z; 0, 1) over z > 0.

    Panels shrink towards 0 by factors of two: a kink at 0 falls on an edge, and a function that saturates
    within 1e-4 of 0 is still resolved.
    """
    edges = np.concatenate([[0.0], 12.0 * 2.0 ** np.arange(-20, 1)])
    nodes, weights = np.polynomial.legendre.leggauss(16)
    half_widths = np.diff(edges)[:, None] / 2
    z = (edges[:-1, None] + half_widths * (1 + nodes)).ravel()
    return z, (half_widths * weights).ravel() * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)


def gaussian_expectation(function: Function, std: ArrayLike = 1.0) -> NDArray | float:
    """Return E f(std * Z), Z ~ N(0, 1), for each entry of `std`.

    Piecewise Gauss-Legendre with an edge at 0: about 1e-13 for functions that are smooth apart from a kink or
    a jump at 0 (ReLU and its derivative). A kink elsewhere costs accuracy, and so do many oscillations within
    `std`: E sin(6 Z)**2 is off by 2e-9.

    Raises: ValueError if `std` is not finite, or if `function` changes the shape or returns nan or inf.
    """
    std = np.asarray(std, dtype=float)
    if not np.isfinite(std).all():
        raise ValueError(f"std, or the root of a q, must be finite; got {std}")
    half, weights = _half_line_rule()
    z = np.multiply.outer(std, np.concatenate([-half, half]))
    values = function(torch.from_numpy(z))
    if values.shape != z.shape:
        raise ValueError(f"the function must keep the shape {z.shape}; it returned {tuple(values.shape)}")
    if not torch.isfinite(values).all():
        raise ValueError("the function must be finite on the whole line; it returned nan or inf")
    return values.numpy() @ np.concatenate([weights, weights])


def output_second_moment(q: ArrayLike, activation: Activation) -> NDArray | float:
    """Return E phi(sqrt(q) Z)**2, the second moment of a layer's outputs, for pre-activations ~ N(0, q)."""
    return gaussian_expectation(lambda z: activation(z) ** 2, np.sqrt(q))


def length_map(q: ArrayLike, activation: Activation, gain: float = 1.0) -> NDArray | float:
    """Return the next layer's q: gain**2 * E phi(sqrt(q) Z)**2.

    Source: Poole et al. (2016), eq. 3.
    """
    return gain**2 * output_second_moment(q, activation)


def second_moment_profile(activation: Activation, gain: float, depth: int, start: float = 1.0) -> NDArray:
    """Return E h_l**2 for l = 0..depth, shape (depth + 1,), at infinite width; `start` is E h_0**2.

    `gain` is a standard deviation, the result a second moment.
    """
    moments = [start]
    for _ in range(depth):
        moments.append(output_second_moment(gain**2 * moments[-1], activation))
    return np.array(moments)


def fixed_point(activation: Activation, gain: float) -> float:
    """Return q* = length_map(q*), the q that depth settles at: 0 if the signal dies, inf if it explodes.

    For activations whose E phi(sqrt(q) Z)**2 / q falls with q, or is constant: tanh, sigmoid, softsign, ReLU
    and their like. Others, such as GELU, can have a further, unstable fixed point, which this does not see.

    Raises: ValueError if every q is fixed, as for ReLU at gain sqrt(2), or unless 0 < gain < 1e8.
    """
    if not 0 < gain < 1e8:
        raise ValueError(f"expected 0 < gain < 1e8; got {gain}")

    def growth(log_q: float) -> float:
        return np.log(length_map(np.exp(log_q), activation, gain)) - log_q

    small, large = -40.0, 40.0
    if abs(growth(small)) < 1e-12 and abs(growth(large)) < 1e-12:
        raise ValueError(f"every q is a fixed point of {activation.name} at gain {gain}")
    if growth(small) <= 0:
        return 0.0
    return float(np.exp(brentq(growth, small, large))) if growth(large) < 0 else np.inf


def chi_1(activation: Activation, gain: float, q: float) -> float:
    """Return gain**2 * E phi'(sqrt(q) Z)**2: the factor by which one layer multiplies a squared gradient.

    For square layers; unequal fans bring in a further factor fan_out / fan_in. Assumes that the weights met
    on the way back are independent of the forward pass.
    Source: Schoenholz et al. (2017), eq. 5.
    """
    return gain**2 * float(gaussian_expectation(lambda z: activation.derivative(z) ** 2, np.sqrt(q)))


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
        below, at, above = np.log(gaussian_expectation(lambda z: activation(z) ** 2, std))
        slope, curvature = (above - below) / (2 * step), (above - 2 * at + below) / step**2
        fourth = gaussian_expectation(lambda z: activation(z) ** 4, std[1])
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
