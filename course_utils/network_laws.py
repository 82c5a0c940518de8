"""Theory beyond one infinitely wide layer: finite widths, products of matrices, and architectures.

Conventions as in `mean_field`. First the spread of finite networks and all directions of a deep one, where
laws are over networks, and of the logarithm where a product of layers is log-normal; then architectures,
pruning and first losses, for wide layers unless a function says otherwise.

Raises, besides what a docstring lists: ValueError for a q, gain, depth or width out of its range,
and for a name that is none of those listed.

SciPy takes longer to import than most of this takes to compute, so the functions that need it do that.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from course_utils.activations import Activation, linear, relu
from course_utils.checks import check_arguments, check_name
from course_utils.mean_field import chi_1, length_map, relu_cosine_map
from course_utils.quadrature import gaussian_expectation


def jacobian_spread(activation: Activation, q: ArrayLike, *, orthogonal: bool) -> float:
    """Return Var(s**2) / (E s**2)**2 of the singular values s of the Jacobian d h_L / d h_0 of L layers.

    q: the second moments (layers,) of the pre-activations. Each layer adds mu_2 / mu_1**2 - 1, with
    mu_k = E phi'(sqrt(q) Z)**(2 k), and a Gaussian weight matrix a further 1, an orthogonal one nothing.
    Infinite width, layers free of one another; 0 is an isometry up to a factor.
    Source: Pennington, Schoenholz and Ganguli (2017).
    """
    check_arguments(q=q)
    q = np.atleast_1d(np.asarray(q, dtype=float))
    mu_1 = chi_1(activation, q)
    mu_2 = gaussian_expectation(lambda z: activation.derivative(z) ** 4, np.sqrt(q), kinks=activation.kinks)
    return float((mu_2 / mu_1**2 - 1 + (not orthogonal)).sum())


def product_spectrum_edge(depth: int) -> float:
    """Return (L + 1)**(L + 1) / L**L, the largest squared singular value of a product of L Gaussian matrices.

    n x n matrices with entries of variance 1/n, n -> inf with L fixed; for large L about e (L + 1/2).
    Source: Penson and Zyczkowski (2011).
    """
    return float((depth + 1) * np.exp(depth * np.log1p(1 / depth)))


def product_spectrum_moment(depth: int, k: int) -> float:
    """Return E s**(2 k) of the singular values s of a product as in `product_spectrum_edge`.

    The Fuss-Catalan number binom((L + 1) k, k) / (L k + 1); the mean of s**2 is 1, its variance L.
    """
    return math.comb((depth + 1) * k, k) / (depth * k + 1)


def product_spectrum(depth: int, points: int = 2000) -> tuple[NDArray, NDArray, NDArray]:
    """Return x, density and distribution function of the squared singular values of the same product.

    Three arrays of shape (points,), x rising from near 0 to near `product_spectrum_edge(depth)`. With
    0 < t < pi / (L + 1) it is x = sin((L+1) t)**(L+1) / (sin t sin(L t)**L), and the density
    sin(t)**2 sin(L t)**(L-1) / (pi sin((L+1) t)**L).
    Source: Penson and Zyczkowski (2011); Haagerup and Moeller (2013) for this form.
    """
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

    `weights` as for `propagation.log_lengths`; `width` counts units or channels.
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


def he_variances(widths: ArrayLike, mode: str) -> NDArray:
    """Return He's variance 2 / fan of each layer's weights, (depth,), for layers of `widths` (depth + 1,).

    mode: "fan_in", "fan_out", or "fan_avg", the mean of both.
    """
    n_in, n_out = np.asarray(widths)[:-1], np.asarray(widths)[1:]
    fans = {"fan_in": n_in, "fan_avg": (n_in + n_out) / 2, "fan_out": n_out}
    return 2 / fans[check_name("mode", mode, fans)]


def relu_moments(widths: ArrayLike, variances: ArrayLike) -> tuple[NDArray, NDArray]:
    """Return E m_l of the signal and E g_l of its gradient, l = 0..depth, in ReLU networks of any width.

    m is the mean square of h_l, 1 in layer 0; g that of dL/dh_l, 1 in layer depth, for an error of
    independent entries of mean 0. `widths` is (depth + 1,), `variances` of the weights (depth,).
    Source: He et al. (2015).
    """
    widths, variances = np.asarray(widths), np.asarray(variances)
    upwards = np.cumprod([1, *(widths[:-1] * variances / 2)])
    return upwards, np.cumprod([1, *(widths[1:] * variances / 2)[::-1]])[::-1]


@lru_cache(maxsize=4)
def _gumbel_sum(std: float) -> tuple[NDArray, Callable[[NDArray], NDArray]]:
    """Return points t, and P(z + G <= t) of z ~ N(0, std²) and a Gumbel G as a function of t."""
    from scipy.interpolate import CubicSpline

    t = np.arange(-8 * std - 6, 8 * std + 40, 0.1)
    z = np.linspace(-8.5, 8.5, 61 + int(60 * std))
    density = np.exp(-(z**2) / 2) * (z[1] - z[0]) / np.sqrt(2 * np.pi)
    return t, CubicSpline(t, np.exp(-np.exp(np.minimum(std * z - t[:, None], 700))) @ density)


def expected_first_loss(shares: ArrayLike, biases: ArrayLike, std: float) -> NDArray:
    """Return the expected cross-entropy in nats, (settings,), of independent logits N(bias, std²).

    `shares` (classes,) are those of the classes among the images; each row of the `biases` (settings,
    classes) is one setting of the output biases, from -40 to 0.
    E ln sum_k exp(b_k + z_k) = E max_k (b_k + z_k + G_k) - Euler's gamma with independent Gumbel G_k.
    """
    t, distribution = _gumbel_sum(std)
    columns, counts = np.unique(biases, axis=1, return_counts=True)  # equal classes share a factor
    top, below = columns.max(axis=1), np.ones(t.size)
    for column, count in zip(columns.T, counts, strict=True):
        gaps = (top - column)[:, None]
        below = below * distribution(np.minimum(t + gaps, t[-1]) if gaps.any() else t) ** count
    return top + t[-1] - np.trapezoid(below, t, axis=-1) - np.euler_gamma - np.asarray(biases) @ shares


def first_order_shares(
    gradients: Sequence[torch.Tensor], factors: ArrayLike, step: Callable[[torch.Tensor], torch.Tensor]
) -> NDArray:
    """Return the share of the first loss that one step removes per unit of learning rate, to first order.

    gradients: of He networks with the error of a uniform guess, one tensor (networks, fan_out, fan_in) for
    each layer. factors: of the hidden layers' weights. step: from a gradient to the step at learning rate 1.
    For tiny logits, where the loss is ln(classes): hidden gradients go with c**(hidden layers - 1), the last
    one's with c**(hidden layers). Shape (factors, networks).
    """
    *hidden, last = (g.flatten(1) for g in gradients)
    inner, depth, shares = torch.cat(hidden, dim=1), len(hidden), []
    for c in factors:
        scaled = c ** (depth - 1) * inner, c**depth * last
        shares.append(sum((g * step(g)).sum(dim=1) for g in scaled) / math.log(gradients[-1].shape[1]))
    return torch.stack(shares).numpy()


# The trapezoidal rule for even functions of two N(0, 1) numbers u >= 0 and v. Where they are smooth it is as
# good as Gauss's: 1e-6 for tanh at gain 3.
_V = np.linspace(-6, 6, 65)
_U, _DENSITY = _V[32:, None], np.exp(-(_V**2) / 2) / np.exp(-(_V**2) / 2).sum()
_WEIGHTS = np.outer(np.append(_DENSITY[32], 2 * _DENSITY[33:]), _DENSITY)


def _output_products(activation: Activation, q: float, c: NDArray) -> tuple[float, NDArray]:
    """Return E phi(z1)² and E phi(z1) phi(z2), the latter for each correlation in `c` (pairs,)."""
    if activation is relu:  # a kink is not smooth, but ReLU has a closed form
        return q / 2, q / 2 * relu_cosine_map(c)
    c, root = c[:, None, None], np.sqrt(q)
    first = activation(torch.from_numpy(root * _U)).numpy()
    second = activation(torch.from_numpy(root * (c * _U + np.sqrt(1 - c**2) * _V))).numpy()
    return float((first**2 * _WEIGHTS).sum()), np.einsum("uo,puv,uv->p", first, second, _WEIGHTS)


def correlations(
    activation: Activation, gain: float, depth: int, cosines: ArrayLike, *, bias_std: float = 0.0
) -> NDArray:
    """Return correlations of two inputs' pre-activations in layers 1..depth of wide networks, (pairs, depth).

    `cosines` (pairs,) are those of the inputs, of second moment 1. Odd smooth activations and ReLU only, to
    about 1e-6: `mean_field.cosines` is exact for all, and a hundred times slower.
    """
    second, product, rows = 1.0, np.asarray(cosines, dtype=float), []
    for _ in range(depth):
        q = gain**2 * second + bias_std**2
        rows.append(np.minimum((gain**2 * product + bias_std**2) / q, 1))
        second, product = _output_products(activation, q, rows[-1])
    return np.stack(rows, axis=-1)


def gradient_correlations(points: int, depth: int, normalized: bool, skip: float, branch: float) -> NDArray:
    """Return the correlation of the gradients at two of `points` inputs on a circle by lag, (points,).

    For wide layers z -> skip z + branch W relu(z) of He weights, with `normalized` pre-activations for the
    ReLU: centred over the circle, of mean square 1. A layer multiplies the correlation by the share of units
    that are on for both inputs, out of those that are on for one. Source: Balduzzi et al. (2017).
    """
    covariance, rho = np.cos(2 * np.pi * np.arange(points) / points), np.ones(points)
    for _ in range(depth):
        centred = covariance - normalized * covariance.mean()
        c, gained = centred / centred[0], branch**2 / centred[0]
        both_on = 1 - np.arccos(np.clip(c, -1, 1)) / np.pi
        rho = rho * (skip**2 + gained * both_on) / (skip**2 + gained)
        covariance = skip**2 * covariance + branch**2 * relu_cosine_map(c)
    return rho


def norm_gradient_factors(norm: str, batch: int, depth: int) -> NDArray:
    """Return the factor of each of `depth` wide layers with a norm and a ReLU on squared gradients, (depth,).

    norm: "batch norm", "batch norm in branches", "layer norm after ReLU", "layer norm before ReLU", or "none,
    He's weights". `batch` counts images, at least 4, for batch norm: pre-activations of two of them correlate
    by -1 / (batch - 1), and with k, the arc-cosine map at that, a layer keeps the variance 1 - k. For large
    batches the factor is pi / (pi - 1).
    Source: Yang et al. (2019).
    """
    rho = -1 / (batch - 1)
    k, both_on = relu_cosine_map(rho), 1 / 4 + math.asin(rho) / (2 * math.pi)
    growth, kept = batch / ((batch - 3) * (1 - k)) * (1 - (2 - 2 * both_on - k) / batch), 1 - k
    factors = {
        "batch norm": growth,
        "batch norm in branches": 1 + growth * kept / (1 + np.arange(1, depth + 1) * kept),
        "layer norm after ReLU": math.pi / (math.pi - 1),
        "layer norm before ReLU": 1.0,
        "none, He's weights": 1.0,
    }
    return np.broadcast_to(factors[check_name("norm", norm, factors)], depth)


def stream_law(scale: float, branches: int, norm: str, width: int) -> tuple[NDArray, NDArray]:
    """Return E m_k of a residual stream and the share of x_0 in x_k, in squares, for k = 0..branches.

    `norm` as for `propagation.residual_stream`. Even unrelated directions have 1/n in common.
    """
    k = np.arange(branches + 1)
    grown = 1 + scale**2 * k if norm == "pre-norm" else (1 + scale**2) ** k
    share = 1 / grown + (1 - 1 / grown) / (width - (norm == "post-norm"))
    return (np.ones(branches + 1) if norm == "post-norm" else grown), share


def pruned_normal(removed: str, kept: float) -> tuple[float, float, float]:
    """Return where |w| is cut, what remains of E w², and the kurtosis of what remains, for w ~ N(0, 1).

    removed: "the smallest" weights, or those "at random", for which nothing is cut; `kept` is the share that
    stays. The zeros count.
    """
    if check_name("removed", removed, ("the smallest", "at random")) == "at random":
        return 0.0, kept, 3 / kept
    cut = abs(NormalDist().inv_cdf(kept / 2))
    density = NormalDist().pdf(cut)
    second, fourth = kept + 2 * cut * density, 3 * kept + 2 * (cut**3 + 3 * cut) * density
    return cut, second, fourth / second**2


def relu_log_variance(kurtosis: float, depth: int, width: int) -> NDArray | None:
    """Return Var ln m_l, l = 0..depth, in ReLU networks of weights of a `kurtosis`, None beyond the pole.

    To first order in 1/n: the kurtosis of a layer's outputs follows k' = 6 + 2 (kurtosis - 3) k / n, and a
    layer adds (k' - 1) / n: as ln(1 + ...), so that it stays a variance of logarithms where it is large.
    """
    slope = 2 * (kurtosis - 3) / width
    if slope >= 1:
        return None
    outputs, steps = 3.0, [2 / width]
    for _ in range(depth):
        outputs = 6 + slope * outputs
        steps.append((outputs - 1) / width)
    return np.cumsum(np.log1p(steps))


def signal_and_gradient(
    activation: Activation, gains: tuple[float, float], depth: int
) -> tuple[NDArray, NDArray]:
    """Return q_l, l = 1..depth, and chi_1 at each, (depth,), at infinite width for inputs of second moment 1.

    `gains` are the standard deviations of the first layer's weights and of all others', times sqrt(fan_in).
    """
    q = [gains[0] ** 2]
    for _ in range(depth - 1):
        q.append(length_map(activation, q[-1], gains[1]))
    return np.array(q), chi_1(activation, q, gains[1])


def relative_moments(q: NDArray, chi: NDArray) -> tuple[NDArray, NDArray]:
    """Return q over its first and the squared gradient over that of the last layer, l = 1..depth.

    `q` and `chi` as from `signal_and_gradient`, of which the last layer's chi_1 has no part in the gradient.
    """
    return q / q[0], np.append(np.cumprod(chi[:-1][::-1])[::-1], 1.0)
