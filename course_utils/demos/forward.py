"""What the demos of notebooks 01 to 04 draw: the signal on its way forward.

Each `*_figure` function turns the values of a demo's controls into a figure and a sentence with the predicted
and the measured numbers; it needs no browser.
"""

from functools import lru_cache

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from course_utils import activations, comparison, finite_width, mean_field, plotting, propagation
from course_utils.demos import canvas

NETWORKS = 50
MAX_DEPTH, TANH_WIDTH = 150, 256
FLOAT32 = torch.finfo(torch.float32)


def _median_and_range(values: NDArray) -> str:
    low, median, high = np.percentile(values, [2.5, 50, 97.5])
    return f"over {NETWORKS} networks median {median:.3g}, 95 % between {low:.2g} and {high:.2g}"


def explosion_figure(weight_std: float = 1.0, width: int = 512, depth: int = 100) -> tuple[Figure, str]:
    """Draw log10 RMS by layer for linear networks with weights N(0, weight_std**2), and float32's limits.

    Works with logarithms, so that no signal leaves the numbers that the figure itself is computed with.
    """
    factor = np.sqrt(width) * weight_std
    layers = np.arange(depth + 1)
    generator = torch.Generator().manual_seed(
        0
    )  # the same at every setting: a slider changes that, and not the luck
    unit = np.log10(
        propagation.norm_chain(activations.linear, 1.0, depth, width, count=NETWORKS, generator=generator).rms
    )
    figure, (ax,) = canvas.new_figure()
    low, median, high = np.percentile(unit + layers * np.log10(factor), [2.5, 50, 97.5], axis=0)
    ax.fill_between(layers, low, high, color=plotting.BLUE, alpha=0.2)
    ax.plot(layers[::5], median[::5], "o", color=plotting.BLUE)
    ax.plot(layers, layers * np.log10(factor), "k--")
    for limit, name in (
        (FLOAT32.max, "largest float32"),
        (FLOAT32.smallest_normal * FLOAT32.eps, "smallest float32"),
    ):
        ax.axhline(np.log10(limit), color=plotting.ORANGE, linewidth=1)
        ax.text(depth, np.log10(limit), name, ha="right", va="bottom", color=plotting.ORANGE)
    ax.set(
        xlabel="layer (l)",
        ylabel="log10 of RMS",
        ylim=(-75, 60),
        title=f"Predicted: each layer multiplies the RMS by {factor:.3g}",
    )
    place = {"x": 0.02, "transform": ax.transAxes}
    y = 0.93 if factor < 1 else 0.12
    ax.text(y=y, s=f"● median of {NETWORKS} networks, shaded: 95 %", color=plotting.BLUE, **place)
    ax.text(y=y - 0.07, s="dashed: predicted, l · log10(√n σ)", **place)
    return figure, (
        f"{_float32_sentence(factor, depth)} Measured over {NETWORKS} networks: median 10^{median[-1]:z.1f}, "
        f"95 % between 10^{low[-1]:z.1f} and 10^{high[-1]:z.1f}."
    )


def _float32_sentence(factor: float, depth: int) -> str:
    if factor == 1:
        return "Each layer is predicted to multiply the RMS by √n σ = 1: it stays at 1."
    limit = FLOAT32.max if factor > 1 else FLOAT32.smallest_normal * FLOAT32.eps
    layer = mean_field.crossing_layer(limit, factor)
    fate = f"leaves float32 in layer {np.ceil(layer):.0f}" if layer < depth else "is still within float32"
    return (
        f"Each layer is predicted to multiply the RMS by √n σ = {factor:.4g}. After layer {depth} that makes "
        f"10^{depth * np.log10(factor):z.1f}; the signal {fate}."
    )


def fan_figure(width: int = 512, depth: int = 100, seed: int = 0) -> tuple[Figure, str]:
    """Draw networks with Var(w) = 1/width as a fan by layer, with the log-normal law's quantiles."""
    # One factor chi2_n / n for the random input and one for each layer.
    growth, noise = finite_width.exact_log_growth(activations.linear, 1.0, width)
    mean, variance = growth * np.arange(1, depth + 2), noise * np.arange(1, depth + 2)
    rms = propagation.norm_chain(
        activations.linear, 1.0, depth, width, count=1000, generator=torch.Generator().manual_seed(seed)
    ).rms
    figure, (ax,) = canvas.new_figure()
    quantiles = (np.exp((mean + k * np.sqrt(variance)) / 2) for k in (-1.96, 0, 1.96))
    plotting.plot_fan(rms, *quantiles, ax=ax)
    ax.set(ylabel="RMS of the layer", title=f"1,000 networks, depth / width = {depth / width:.2g}")
    low, high = np.percentile(rms[:, -1], [2.5, 97.5])
    canvas.set_decades(ax, min(low, 0.1), max(high, 10))
    canvas.set_layers(ax, depth)
    spread, predicted = comparison.std_of(np.log(rms[:, -1])), np.sqrt(variance[-1]) / 2
    return figure, (
        f"Standard deviation of ln RMS at layer {depth}: predicted {predicted:.3f} (about √(L/2n)), measured "
        f"over 1,000 networks {spread:.3f}. Two networks in three "
        f"lie within a factor {np.exp(predicted):.2f} of the median {np.exp(mean[-1] / 2):.2g}."
    )


@lru_cache
def _normals() -> NDArray:
    return np.random.default_rng(0).standard_normal((MAX_DEPTH + 1, NETWORKS, TANH_WIDTH))


def _tanh_rms(depth: int, gain: float) -> NDArray:
    """Return the RMS of `propagation.norm_chain`, shape (networks, depth + 1); draw its numbers once."""
    rms, scale = np.empty((NETWORKS, depth + 1)), np.ones((NETWORKS, 1))
    for layer, z in enumerate(_normals()[: depth + 1]):
        h = np.tanh(scale * z) if layer else z
        rms[:, layer] = np.sqrt(np.mean(h**2, axis=1))
        scale = gain * rms[:, layer, None]
    return rms


def tanh_figure(gain: float = 1.0, depth: int = 100) -> tuple[Figure, str]:
    """Draw the map q -> q' of tanh with its staircase, and the RMS by layer with the infinite-width line."""
    figure, (left, right) = canvas.new_figure(2)
    stop = next(stop for stop in (1, 1.5, 2, 3, 5, 10) if stop >= 1.1 * gain**2)
    plotting.plot_cobweb(
        lambda q: mean_field.length_map(activations.tanh, q, gain), gain**2, 30, stop=stop, ax=left
    )
    left.set(xlabel="q in this layer", ylabel="q' in the next", title=f"The map at gain {gain:.2f}")
    left.locator_params(nbins=3)
    theory = np.sqrt(mean_field.second_moments(activations.tanh, gain, depth))
    rms = _tanh_rms(depth, gain)
    plotting.plot_signal(rms, theory, ax=right)
    canvas.set_decades(right, min(1e-3, theory[-1] / 10), 2)
    canvas.set_layers(right, depth)
    right.set(ylabel="RMS of the layer", title=f"{NETWORKS} networks of width {TANH_WIDTH}")
    q = mean_field.fixed_point(activations.tanh, gain)
    slope = np.sqrt(mean_field.chi_1(activations.tanh, q, gain))
    return figure, (
        f"Predicted RMS at layer {depth}: {theory[-1]:.4g}; measured {_median_and_range(rms[:, -1])}. "
        f"Fixed point q* = {q:.4g}; there each layer multiplies a gradient by √χ₁ = {slope:.4g}."
    )


def _leaky_rms(negative_slope: float, width: int, depth: int) -> NDArray:
    """Draw networks with Var(w) = 1/width from the exact law of the mean square, shape (networks, depth + 1).

    In a layer of n units K ~ Binomial(n, 1/2) are positive: m'/m = (chi2_K + slope**2 chi2_(n - K)) / n.
    """
    rng = np.random.default_rng(0)
    positive = rng.binomial(width, 0.5, (NETWORKS, depth))
    chi2, leaked = 2 * rng.gamma(positive / 2), 2 * rng.gamma((width - positive) / 2)
    start = np.ones((NETWORKS, 1))
    return np.sqrt(np.cumprod(np.hstack([start, (chi2 + negative_slope**2 * leaked) / width]), axis=1))


def relu_figure(
    gain: float = 1.0, negative_slope: float = 0.0, width: int = 512, depth: int = 100
) -> tuple[Figure, str]:
    """Draw the RMS by layer of (leaky) ReLU networks with Var(w) = gain**2 / width, and the predicted line.

    The activation is homogeneous, so networks of every gain are those of gain 1 times gain**layer.
    """
    factor, layers = gain * np.sqrt((1 + negative_slope**2) / 2), np.arange(depth + 1)
    rms = _leaky_rms(negative_slope, width, depth) * gain**layers
    figure, (ax,) = canvas.new_figure()
    plotting.plot_signal(rms, factor**layers, ax=ax)
    ax.set(
        ylabel="RMS of the layer",
        title=f"Predicted: each layer multiplies the RMS by {factor:.3f}",
    )
    canvas.set_decades(ax, 1e-32, 1e32)
    return figure, (
        f"Predicted factor per layer: gain × √((1 + a²)/2) = {factor:.4f}. RMS at layer {depth}: predicted "
        f"{factor**depth:.3g}; measured {_median_and_range(rms[:, -1])}. (Finite width pulls the median "
        f"below the prediction.)"
    )
