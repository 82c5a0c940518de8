"""Notebook 03: which gain keeps signal and gradient of a deep tanh network alive."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from course_utils import activations, mean_field, plotting, propagation
from course_utils.demos import canvas
from course_utils.demos.demo import Demo, integers, luck, median_and_range, slider

NETWORKS, WIDTH = 50, 256


def tanh_demo() -> Demo:
    """Find the gain at which a tanh network neither dies exponentially nor turns chaotic."""
    return Demo(
        "Which gain keeps both the signal and the gradient of a deep tanh network alive?",
        {
            "gain": slider("gain (√n × weight std)", 1.0, 0.5, 3.0, 0.05),
            "depth": integers("depth (L)", 100, 10, 150, 10),
        },
        tanh_figure,
    )


def tanh_figure(gain: float = 1.0, depth: int = 100) -> tuple[Figure, str]:
    """Draw the map q -> q' of tanh with its staircase, and the RMS by layer with the infinite-width line."""
    figure, (left, right) = canvas.new_figure(2)
    _draw_map(left, gain)
    theory = np.sqrt(mean_field.second_moments(activations.tanh, gain, depth))
    rms = propagation.norm_chain(activations.tanh, gain, depth, WIDTH, count=NETWORKS, generator=luck()).rms
    plotting.plot_signal(rms, theory, ax=right)
    canvas.set_decades(right, min(1e-3, theory[-1] / 10), 2)
    canvas.set_layers(right, depth)
    right.set(ylabel="RMS of the layer", title=f"{NETWORKS} networks of width {WIDTH}")
    return figure, _sentence(gain, theory, rms[:, -1])


def _draw_map(ax: Axes, gain: float) -> None:
    stop = next(stop for stop in (1, 1.5, 2, 3, 5, 10) if stop >= 1.1 * gain**2)
    plotting.plot_cobweb(
        lambda q: mean_field.length_map(activations.tanh, q, gain), gain**2, 30, stop=stop, ax=ax
    )
    ax.set(xlabel="q in this layer", ylabel="q' in the next", title=f"The map at gain {gain:.2f}")
    ax.locator_params(nbins=3)


def _sentence(gain: float, theory: NDArray, last: NDArray) -> str:
    q = mean_field.fixed_point(activations.tanh, gain)
    slope = np.sqrt(mean_field.chi_1(activations.tanh, q, gain))
    return (
        f"Predicted RMS at layer {len(theory) - 1}: {theory[-1]:.4g}; measured {median_and_range(last)}. "
        f"Fixed point q* = {q:.4g}; there each layer multiplies a gradient by √χ₁ = {slope:.4g}."
    )
