"""Theory beyond one infinitely wide layer: the spread of finite networks, and all directions of a deep one.

Conventions as in `mean_field`: `gain` is a standard deviation, `q` the second moment of a pre-activation.
Laws are over networks, of the logarithm where a product of layers is log-normal. All numbers are float64.

Raises, besides what a docstring lists: ValueError for arguments out of their range, which
`checks.check_arguments` names (factors are the layers of a product, 1 or more).

SciPy takes longer to import than most of this takes to compute, so the functions that need it do that.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from course_utils.activations import Activation, linear, relu
from course_utils.checks import check_arguments, check_name
from course_utils.quadrature import gaussian_expectation


def jacobian_spread(activation: Activation, q: ArrayLike, *, orthogonal: bool) -> float:
    """Return Var(s**2) / (E s**2)**2 of the singular values s of the Jacobian d h_L / d h_0 of L layers.

    q: the second moments (layers,) of the pre-activations. Each layer adds mu_2 / mu_1**2 - 1, with
    mu_k = E phi'(sqrt(q) Z)**(2 k), and a Gaussian weight matrix a further 1, an orthogonal one nothing.
    Infinite width, layers free of one another; 0 is an isometry up to a factor.
    Source: Pennington, Schoenholz and Ganguli (2017).
    """
    check_arguments(q=q)
    root = np.sqrt(np.atleast_1d(np.asarray(q, dtype=float)))
    mu_1, mu_2 = (
        gaussian_expectation(lambda z, k=k: activation.derivative(z) ** (2 * k), root, kinks=activation.kinks)
        for k in (1, 2)
    )
    return float((mu_2 / mu_1**2 - 1 + (not orthogonal)).sum())


def product_spectrum_edge(depth: int) -> float:
    """Return (L + 1)**(L + 1) / L**L, the largest squared singular value of a product of L Gaussian matrices.

    n x n matrices with entries of variance 1/n, n -> inf with L fixed; for large L about e (L + 1/2).
    Source: Penson and Zyczkowski (2011).
    """
    check_arguments(factors=depth)
    return float((depth + 1) * np.exp(depth * np.log1p(1 / depth)))


def product_spectrum_moment(depth: int, k: int) -> float:
    """Return E s**(2 k) of the singular values s of a product as in `product_spectrum_edge`.

    The Fuss-Catalan number binom((L + 1) k, k) / (L k + 1); the mean of s**2 is 1, its variance L.
    """
    check_arguments(factors=depth)
    return math.comb((depth + 1) * k, k) / (depth * k + 1)


def product_spectrum(depth: int, points: int = 2000) -> tuple[NDArray, NDArray, NDArray]:
    """Return x, density and distribution function of the squared singular values of the same product.

    Three arrays of shape (points,), x rising from near 0 to near `product_spectrum_edge(depth)`. With
    0 < t < pi / (L + 1) it is x = sin((L+1) t)**(L+1) / (sin t sin(L t)**L), and the density
    sin(t)**2 sin(L t)**(L-1) / (pi sin((L+1) t)**L).
    Source: Penson and Zyczkowski (2011); Haagerup and Moeller (2013) for this form.
    """
    check_arguments(factors=depth)
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
    check_arguments(gain=gain, depth=depth, width=width)
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
    check_arguments(gain=gain, width=width)
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


def wide_product_law(depth: int, width: int) -> NDArray:
    """Return log10 of the singular values of a product of Gaussian matrices, (width,), largest first.

    The law of width -> inf at fixed depth, at its quantiles (k + 1/2) / width; see `product_spectrum`.
    """
    x, _, below = product_spectrum(depth)
    return np.interp(1 - (np.arange(width) + 0.5) / width, below, np.log10(x) / 2)


def deep_product_law(depth: int, width: int) -> NDArray:
    """Return the same for depth -> inf at fixed width.

    ln s_k grows per layer by half the mean of ln(chi² / n), of n - k + 1 degrees. Source: Newman (1986).
    """
    from scipy.special import digamma

    return depth * (digamma(np.arange(width, 0, -1) / 2) + np.log(2 / width)) / 2 / np.log(10)


def log_length_law(weights: str, width: int) -> tuple[float, float]:
    """Return mean and standard deviation of ln |h_l| / |h_l-1| of a linear layer of gain 1.

    `weights` as for `chains.log_lengths`; `width` counts units or channels.
    Raises: ValueError for other weights.
    """
    from scipy.special import digamma, polygamma

    laws = {
        "Gaussian": exact_log_growth(linear, 1.0, width),
        "flattened orthogonal": (  # ln(9 B), B ~ Beta(n / 2, 8 n / 2)
            np.log(9) + digamma(width / 2) - digamma(9 * width / 2),
            polygamma(1, width / 2) - polygamma(1, 9 * width / 2),
        ),
        "delta-orthogonal": (0.0, 0.0),
    }
    growth, noise = laws[check_name("weights", weights, laws)]
    return float(growth) / 2, float(np.sqrt(noise)) / 2
