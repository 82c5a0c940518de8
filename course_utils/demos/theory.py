"""What the demos of notebooks 08 to 11 draw: depth, seen by pairs of inputs, all directions, and gradients.

Each `*_figure` function turns the values of a demo's controls into a figure and a sentence with the predicted
and the measured numbers; it needs no browser.
"""

import math
from functools import lru_cache

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from course_utils import activations, comparison, finite_width, mean_field, plotting
from course_utils.activations import Activation
from course_utils.demos import canvas

NETWORKS = 50


# Notebook 08: two inputs on their way down.

PAIR_WIDTH, PAIR_DEPTH = 128, 100
PAIRS = {"strangers": 0.6, "twins": 0.99}  # cosine of the two inputs


@lru_cache
def _pair_noise() -> NDArray:
    # float32 is twice as fast and good to more digits than are shown.
    shape = (PAIR_DEPTH, 2, NETWORKS, PAIR_WIDTH)
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def _measured_correlations(activation: Activation, gain: float, bias_std: float, depth: int) -> NDArray:
    """Return c_1, ..., c_depth of both pairs in networks of Gaussian weights, (pairs, networks, depth).

    Given the layer below, a unit's two pre-activations are jointly normal: two numbers stand for a row of
    weights and its bias, at any width. The pairs share these numbers, each has the exact law of a pair.
    """
    cosine = np.array([*PAIRS.values()])[:, None, None]
    first, second = np.ones((NETWORKS, 1)), np.ones((2, NETWORKS, 1))
    product = cosine * first
    correlations = []
    for u, v in _pair_noise()[:depth]:
        q1, q2, q12 = (gain**2 * moment + bias_std**2 for moment in (first, second, product))
        c = np.minimum(q12 / np.sqrt(q1 * q2), 1)
        correlations.append(c[..., 0])
        along, across = np.float32(np.sqrt(q2) * c), np.float32(np.sqrt(q2 * (1 - c**2)))
        z = np.concatenate([(np.float32(np.sqrt(q1)) * u)[None], along * u + across * v])
        h = activation(torch.from_numpy(z)).numpy()
        first = np.einsum("bi,bi->b", h[0], h[0], dtype=float)[:, None] / PAIR_WIDTH
        second = np.einsum("pbi,pbi->pb", h[1:], h[1:], dtype=float)[..., None] / PAIR_WIDTH
        product = np.einsum("bi,pbi->pb", h[0], h[1:], dtype=float)[..., None] / PAIR_WIDTH
    return np.stack(correlations, axis=-1)


@lru_cache
def _half_plane() -> tuple[NDArray, NDArray, NDArray]:
    """Return u >= 0, v and weights (u, v) of the trapezoidal rule for even functions of two N(0, 1) numbers.

    For smooth functions of Gaussian numbers it is as good as Gauss's rule: 1e-6 for tanh at gain 3.
    """
    v = np.linspace(-6, 6, 65)
    u, weight = v[32:], np.exp(-(v**2) / 2)
    half = np.append(weight[32], 2 * weight[33:])
    return u[:, None], v, np.outer(half, weight) / weight.sum() ** 2


def _output_products(activation: Activation, q: float, c: NDArray) -> tuple[float, NDArray]:
    """Return E phi(z1)**2 and E phi(z1) phi(z2), the latter for each correlation in `c` (pairs,)."""
    if activation is activations.relu:  # a kink is not smooth, but ReLU has a closed form
        return q / 2, q / 2 * mean_field.relu_cosine_map(c)
    u, v, weights = _half_plane()
    c = c[:, None, None]
    first = activation(torch.from_numpy(np.sqrt(q) * u)).numpy()
    second = activation(torch.from_numpy(np.sqrt(q) * (c * u + np.sqrt(1 - c**2) * v))).numpy()
    return float((first**2 * weights).sum()), np.einsum("uo,puv,uv->p", first, second, weights)


def _predicted_correlations(activation: Activation, gain: float, bias_std: float, depth: int) -> NDArray:
    """Return c_1, ..., c_depth of both pairs at infinite width, (pairs, depth)."""
    second, product, correlations = 1.0, np.array([*PAIRS.values()]), []
    for _ in range(depth):
        q = gain**2 * second + bias_std**2
        correlations.append(np.minimum((gain**2 * product + bias_std**2) / q, 1))
        second, product = _output_products(activation, q, correlations[-1])
    return np.stack(correlations, axis=-1)


def _trainable_depth(activation: Activation, gain: float, bias_std: float) -> tuple[float, float]:
    """Return chi_1 and the depth ln(30**2) / |ln chi_1| up to which notebook 08 trained, inf at the edge."""
    q = max(1e-12, mean_field.fixed_point(activation, gain, bias_std))  # at 0 itself ReLU has no slope
    chi = float(mean_field.chi_1(activation, q, gain))
    return chi, np.inf if abs(np.log(chi)) < 1e-6 else 2 * np.log(30) / abs(np.log(chi))


def pair_figure(
    activation: str = "tanh", gain: float = 2.0, bias_std: float = 0.2, depth: int = 50
) -> tuple[Figure, str]:
    """Draw the correlation of two strangers and of two twins by layer, and the predicted trainable depth.

    `gain` and `bias_std` are standard deviations; `activation` is "tanh" or "ReLU".
    """
    phi = {"tanh": activations.tanh, "ReLU": activations.relu}[activation]
    layers = np.arange(1, depth + 1)
    theory = _predicted_correlations(phi, gain, bias_std, depth)
    measured = _measured_correlations(phi, gain, bias_std, depth)
    chi, limit = _trainable_depth(phi, gain, bias_std)
    figure, (ax,) = canvas.new_figure()
    shown = slice(None, None, max(1, depth // 12))
    for i, (marker, color) in enumerate((("o", plotting.BLUE), ("^", plotting.ORANGE))):
        plotting.plot_samples(layers[shown], measured[i][:, shown], ax=ax, color=color, marker=marker)
        ax.plot(layers, theory[i], "k--")
    top = {"y": 0.925, "transform": ax.transAxes}
    ax.text(0.04, s="▲ twins, cosine 0.99", color=plotting.ORANGE, **top)
    ax.text(0.96, s="● strangers, cosine 0.6", color=plotting.BLUE, ha="right", **top)
    if limit < depth:
        ax.axvline(limit, ymax=0.88, color=plotting.GREY, linestyle=":")
        side = "left" if limit < 0.6 * depth else "right"
        ax.text(limit, 1.09, " trains to about here ", color=plotting.GREY, ha=side)
    canvas.set_layers(ax, depth)
    gap = theory[1, -1] - theory[0, -1]
    above = "Chaos" if activation == "tanh" else "Explosion"  # ReLU's lengths grow, and inputs still merge
    phase = "Edge" if limit > 1000 else "Order" if chi < 1 else above
    ax.set(
        xlabel="layer (l)",
        ylabel="correlation of two inputs (c)",
        ylim=(-0.35, 1.38),
        yticks=(0, 0.5, 1),
        title=f"{phase}, χ₁ = {chi:.2f}: twins and strangers differ by {gap:.2f} in layer {depth}",
    )
    return figure, _pair_sentence(depth, gap, measured[1] - measured[0], chi, limit)


def _pair_sentence(depth: int, gap: float, measured: NDArray, chi: float, limit: float) -> str:
    found = comparison.mean_of(measured[:, -1])
    reach = f"up to about {limit:.0f} layers" if limit < 1000 else "at every depth shown here"
    return (
        f"Correlation of the twins minus that of the strangers in layer {depth}: predicted {gap:.4f}, "
        f"measured over {NETWORKS} networks of width {PAIR_WIDTH} {found:.4f}. Each layer "
        f"multiplies a squared gradient by χ₁ = {chi:.3f}: by the rule ln(900) / |ln χ₁| the network "
        f"trains {reach}."
    )


# Notebook 09: all directions of a product.

PRODUCT_DEPTH = 50


def _factors(weights: str, count: int, width: int, rng: np.random.Generator) -> torch.Tensor:
    """Return one layer of `count` products, (count, width, width), with Var(w) = 1 / width."""
    gaussian = torch.from_numpy(rng.standard_normal((count, width, width)))
    if weights == "Gaussian":
        return gaussian / np.sqrt(width)
    q, r = torch.linalg.qr(gaussian)
    return q * r.diagonal(dim1=1, dim2=2).sign()[:, None]  # the signs of R make it uniform


@lru_cache(maxsize=4)
def _products(weights: str, width: int) -> torch.Tensor:
    """Return the products of 1 to PRODUCT_DEPTH random matrices, (depth, products, width, width)."""
    rng = np.random.default_rng(0)
    count = 4 if weights == "orthogonal" else 10 if width > 32 else 20
    products = [_factors(weights, count, width, rng)]
    for _ in range(PRODUCT_DEPTH - 1):
        products.append(_factors(weights, count, width, rng) @ products[-1])
    return torch.stack(products)


def _shallow_law(depth: int, width: int) -> NDArray:
    """Return log10 of the singular values of Gaussian products at depth << width, largest first."""
    x, _, below = finite_width.product_spectrum(depth)
    return np.interp(1 - (np.arange(width) + 0.5) / width, below, np.log10(x) / 2)


def _deep_law(depth: int, width: int) -> NDArray:
    """Return log10 of the singular values of Gaussian products at depth >> width, largest first.

    Source: Newman (1986): ln s_k grows per layer by half the mean of ln(chi2 / n), of n - k + 1 degrees.
    """
    from scipy.special import digamma

    return depth * (digamma(np.arange(width, 0, -1) / 2) + np.log(2 / width)) / 2 / np.log(10)


def _usable(log10_s: NDArray) -> NDArray:
    """Return the share of directions that lose less than a factor of 1,000 against the best one."""
    return (log10_s > log10_s.max(axis=-1, keepdims=True) - 3).mean(axis=-1)


def product_figure(weights: str = "Gaussian", width: int = 32, depth: int = 5) -> tuple[Figure, str]:
    """Draw all singular values of a product of `depth` matrices with Var(w) = 1 / width, largest first.

    `weights` is "Gaussian" or "orthogonal"; `depth` is at most 50. Two laws are drawn: that of wide products
    and that of deep ones.
    """
    s = np.log10(torch.linalg.svdvals(_products(weights, width)[depth - 1]).numpy())
    rotation = weights == "orthogonal"
    shallow, deep = (0 * s[0] if rotation else law(depth, width) for law in (_shallow_law, _deep_law))
    figure, (ax,) = canvas.new_figure()
    share = (np.arange(width) + 0.5) / width
    plotting.plot_samples(share, s, ax=ax)
    ax.plot(share, shallow, "k--")
    ax.plot(share, deep, "k:", linewidth=2)
    floor = np.median(s[:, 0]) - 3
    ax.axhline(floor, color=plotting.ORANGE, linewidth=1)
    free = {"x": 0.01, "va": "top"} if depth < 25 else {"x": 0.99, "va": "bottom", "ha": "right"}
    ax.text(y=floor, s="1,000 times below the largest", color=plotting.ORANGE, **free)
    laws = "dashed: predicted for L ≪ n\ndotted: predicted for L ≫ n"
    ax.text(0.99, 0.98, laws, ha="right", va="top", transform=ax.transAxes)
    found = comparison.mean_of(100 * _usable(s))
    ax.set(
        xlabel="share of directions (k/n), best first",
        ylabel="log10 of singular value (s)",
        xlim=(0, 1),
        ylim=(-9, 2.6),
        title=f"{depth} {weights} layer{'s' * (depth > 1)}: {found.value:.0f} % of the directions are usable",
    )
    return figure, _product_sentence(len(s), found, shallow, deep)


def _product_sentence(count: int, found: comparison.Estimate, shallow: NDArray, deep: NDArray) -> str:
    wide, far = (100 * _usable(law) for law in (shallow, deep))
    return (
        f"Directions that lose less than a factor of 1,000 against the best one: predicted {wide:.0f} % for "
        f"L ≪ n and {far:.0f} % for L ≫ n; measured over {count} products {found:.1f} %. "
        f"(What is below 10^-9 is not drawn.)"
    )


# Notebook 10: gradients around a circle of inputs.

POINTS = 32
CIRCLE_NETWORKS, CIRCLE_WIDTH, CIRCLE_DEPTH = 10, 64, 50
NEIGHBOURS = 360 / POINTS  # degrees


@lru_cache
def _circle_weights() -> tuple[torch.Tensor, torch.Tensor]:
    """Return the plane of the circle and the output's weights, (networks, 3, n), and He weights, in float64.

    The latter are (CIRCLE_DEPTH, networks, n, n).
    """
    rng = np.random.default_rng(0)
    ends = rng.standard_normal((CIRCLE_NETWORKS, 3, CIRCLE_WIDTH))
    shape = (CIRCLE_DEPTH, CIRCLE_NETWORKS, CIRCLE_WIDTH, CIRCLE_WIDTH)
    weights = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)).double()
    return torch.from_numpy(ends), weights * np.sqrt(2 / CIRCLE_WIDTH)


def _normalize(z: torch.Tensor) -> torch.Tensor:
    """Centre each unit over the circle and give the layer RMS 1; both are constants for the gradient."""
    fixed = z.detach()
    mean = fixed.mean(dim=1, keepdim=True)
    return (z - mean) / (fixed - mean).square().mean(dim=(1, 2), keepdim=True).sqrt()


def _layer(architecture: str, z: torch.Tensor, weight: torch.Tensor, branch: float) -> torch.Tensor:
    if architecture == "plain":
        return torch.bmm(z.relu(), weight)
    if architecture == "looks-linear":  # the mirrored half of the units has the weights with the other sign
        return torch.bmm(z.relu(), weight) - torch.bmm((-z).relu(), weight)
    change = torch.bmm(_normalize(z).relu(), weight)
    return change if architecture == "normalized" else z + branch * change


def _measured_gradients(architecture: str, branch: float, depth: int) -> NDArray:
    """Return the correlation of gradients at two points of the circle by lag, (networks, POINTS).

    Gradients of one random output with respect to the first pre-activations, true ones of true networks.
    """
    ends, weights = _circle_weights()
    t = 2 * np.pi * torch.arange(POINTS, dtype=torch.float64) / POINTS
    first = (torch.stack([t.cos(), t.sin()], dim=1) @ ends[:, :2]).requires_grad_()
    z = first
    for weight in weights[:depth]:
        z = _layer(architecture, z, weight, branch)
    (g,) = torch.autograd.grad((z * ends[:, 2:]).sum(), first)
    power = np.square(np.abs(np.fft.rfft(g.numpy(), axis=1))).sum(axis=2)
    overlap = np.fft.irfft(power, n=POINTS, axis=1)
    return overlap / overlap[:, :1]


def _predicted_gradients(architecture: str, branch: float, depth: int) -> NDArray:
    """Return the same correlation at infinite width, (POINTS,)."""
    covariance, rho = np.cos(2 * np.pi * np.arange(POINTS) / POINTS), np.ones(POINTS)
    skip, scale = (1, branch) if architecture == "residual" else (0, 1)
    for _ in range(0 if architecture == "looks-linear" else depth):
        centred = covariance - (architecture != "plain") * covariance.mean()
        c, gained = centred / centred[0], scale**2 / centred[0]
        kept = 1 - np.arccos(np.clip(c, -1, 1)) / np.pi
        rho = rho * (skip + gained * kept) / (skip + gained)
        covariance = skip * covariance + scale**2 * mean_field.relu_cosine_map(c)
    return rho


def gradient_figure(
    architecture: str = "residual", branch: float = 1.0, depth: int = 24
) -> tuple[Figure, str]:
    """Draw how the gradients of two inputs correlate, by the angle between the inputs, in ReLU networks.

    `architecture` is "plain", "normalized", "residual" or "looks-linear"; `branch` scales the normalized
    branches of the residual one, `depth` is at most 50.
    """
    theory = _predicted_gradients(architecture, branch, depth)
    measured = _measured_gradients(architecture, branch, depth)
    angles = NEIGHBOURS * np.arange(POINTS // 2 + 1)
    figure, (ax,) = canvas.new_figure()
    plotting.plot_samples(angles, measured[:, : len(angles)], ax=ax)
    ax.plot(angles, theory[: len(angles)], "k--")
    ax.plot([0, 180], [1, 0], color=plotting.ORANGE, linewidth=1)
    ax.text(0.55, 0.54, "Brownian motion:\none plain layer", color=plotting.ORANGE, transform=ax.transAxes)
    kind = f"residual, branches × {branch:g}" if architecture == "residual" else architecture
    ax.set(
        xlabel="angle between two inputs (δ, degrees)",
        ylabel="correlation of gradients (ρ)",
        xticks=range(0, 181, 45),
        ylim=(-0.15, 1.1),
        title=f"{depth} layer{'s' * (depth > 1)}, {kind}: ρ = {theory[1]:.2f} for neighbours",
    )
    return figure, _gradient_sentence(theory, measured)


def _gradient_sentence(theory: NDArray, measured: NDArray) -> str:
    near, right = (comparison.mean_of(measured[:, lag]) for lag in (1, POINTS // 4))
    return (
        f"Gradients of inputs {NEIGHBOURS} degrees apart: predicted ρ = {theory[1]:.4f}, measured over "
        f"{CIRCLE_NETWORKS} networks of width {CIRCLE_WIDTH} {near} "
        f"(one plain layer: {1 - 2 / POINTS:.3f}). At a right angle: predicted "
        f"{theory[POINTS // 4]:.4f}, measured {right} (0.500)."
    )


# Notebook 11: lengths over ten thousand layers.

DEEPEST = 10_000
TAPS = 9  # a flattened 3x3 kernel has nine times as many columns as rows


@lru_cache(maxsize=2)
def _log_lengths(weights: str, width: int) -> NDArray:
    """Return ln |h_l| / |h_0| at gain 1 for l = 0..DEEPEST, (NETWORKS, DEEPEST + 1).

    Drawn from the exact law: a Gaussian layer multiplies the squared length by chi2_n / n. For a flattened
    orthogonal kernel and an image that is constant in space it is a Beta variable: 9 times the share that n
    of 9 n coordinates have of a random unit vector.
    """
    rng, shape = np.random.default_rng(0), (NETWORKS, DEEPEST)
    logs = np.zeros((NETWORKS, DEEPEST + 1))
    if weights == "Gaussian":
        logs[:, 1:] = np.log(rng.standard_gamma(width / 2, shape) * (2 / width)) / 2
    elif weights == "flattened orthogonal":
        logs[:, 1:] = np.log(TAPS * rng.beta(width / 2, (TAPS - 1) * width / 2, shape)) / 2
    return np.cumsum(logs, axis=1)


def _length_law(weights: str, width: int) -> tuple[float, float]:
    """Return mean and standard deviation of one layer's ln |h_l| / |h_l-1| at gain 1."""
    from scipy.special import digamma, polygamma

    if weights == "Gaussian":
        growth, noise = finite_width.exact_log_growth(activations.linear, 1.0, width)
        return growth / 2, np.sqrt(noise) / 2
    if weights == "flattened orthogonal":
        half, all_nine = width / 2, TAPS * width / 2
        mean = np.log(TAPS) + digamma(half) - digamma(all_nine)
        return mean / 2, np.sqrt(polygamma(1, half) - polygamma(1, all_nine)) / 2
    return 0.0, 0.0


def _share_within_ten(mean: float, std: float) -> float:
    """Return the probability that a log10 length with law N(mean, std**2) lies between -1 and 1."""
    if std == 0:
        return float(abs(mean) <= 1)
    upper, lower = ((limit - mean) / (math.sqrt(2) * std) for limit in (1, -1))
    return (math.erf(upper) - math.erf(lower)) / 2


def length_figure(
    weights: str = "Gaussian", gain: float = 1.0, width: int = 64, depth: float = DEEPEST
) -> tuple[Figure, str]:
    """Draw log10 of the length of a signal by layer in networks of up to 10,000 linear layers.

    `weights` is "Gaussian", "flattened orthogonal" or "delta-orthogonal", of standard deviation
    gain / sqrt(fan_in); `width` counts units or channels; `depth` is rounded, for a logarithmic slider.
    """
    depth = round(depth)
    layers = np.unique(np.linspace(0, depth, 13).round().astype(int))
    measured = (_log_lengths(weights, width)[:, layers] + layers * np.log(gain)) / np.log(10)
    growth, noise = _length_law(weights, width)
    mean, std = layers * (growth + np.log(gain)) / np.log(10), np.sqrt(layers) * noise / np.log(10)
    figure, (ax,) = canvas.new_figure()
    plotting.plot_samples(layers, measured, ax=ax)
    ax.plot(layers, mean, "k--")
    for sign in (-1.96, 1.96):
        ax.plot(layers, mean + sign * std, "k:", linewidth=2)
    ax.axhspan(-1, 1, color=plotting.GREEN, alpha=0.25, linewidth=0)
    ax.ticklabel_format(axis="x", style="plain")
    ax.text(depth, 1, "within a factor of ten", color=plotting.GREEN, ha="right", va="bottom")
    power = round(mean[-1], 1) + 0.0  # no minus sign before a zero
    furthest = max(np.abs(measured[:, -1]).max(), abs(mean[-1]) + 2 * std[-1])
    edge = 2 ** np.ceil(np.log2(max(4.0, furthest)))  # doubled where needed: the axis seldom jumps
    ax.set(
        xlabel="layer (l)",
        ylabel="log10 of length (|h| / |h₀|)",
        ylim=(-edge, edge),
        title=f"{weights.capitalize()}, gain {gain:.4f}: 10^{power:.1f} after {depth:,} layers",
    )
    share = _share_within_ten(mean[-1], std[-1])
    return figure, _length_sentence(depth, mean[-1], std[-1], share, measured[:, -1])


def _length_sentence(depth: int, mean: float, std: float, share: float, measured: NDArray) -> str:
    found, within = comparison.mean_of(measured), int((np.abs(measured) <= 1).sum())
    return (
        f"log10 of the length after {depth:,} layers: predicted {mean:z.2f}, with a spread over networks of "
        f"{std:.2f}; measured over {NETWORKS} networks {found:z.2f}, "
        f"spread {measured.std(ddof=1):.2f}. Within a factor of ten of where it began: predicted "
        f"{100 * share:.0f} % of the networks, measured {within} of {NETWORKS}."
    )
