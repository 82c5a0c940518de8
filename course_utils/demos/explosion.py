"""Notebook 01: at which weight standard deviation 100 linear layers neither explode nor vanish."""

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from course_utils import mean_field, plotting, propagation
from course_utils.activations import linear
from course_utils.demos import canvas
from course_utils.demos.demo import Demo, log_slider, luck, median_and_range, width_slider

NETWORKS = 50
_FLOAT32 = torch.finfo(torch.float32)
LIMITS = {"largest float32": _FLOAT32.max, "smallest float32": _FLOAT32.smallest_normal * _FLOAT32.eps}


def explosion_demo() -> Demo:
    """Find the weight standard deviation at which 100 layers neither explode nor vanish."""
    return Demo(
        "At which weight standard deviation do 100 layers neither explode nor vanish?",
        {
            "weight_std": log_slider("weight std (σ)", 1.0, -2.5, 0.5, 0.025, ".4f"),
            "width": width_slider(),
        },
        explosion_figure,
    )


def explosion_figure(weight_std: float = 1.0, width: int = 512, depth: int = 100) -> tuple[Figure, str]:
    """Draw log10 RMS by layer for linear networks with weights N(0, weight_std**2), and float32's limits.

    Works with logarithms, so that no signal leaves the numbers that the figure itself is computed with.
    """
    factor = np.sqrt(width) * weight_std
    layers = np.arange(depth + 1)
    unit = propagation.norm_chain(linear, 1.0, depth, width, count=NETWORKS, generator=luck()).rms
    samples = np.log10(unit) + layers * np.log10(factor)
    figure, (ax,) = canvas.new_figure()
    plotting.plot_samples(
        layers, samples, ax=ax, every=5, label=f"median of {NETWORKS} networks, shaded: 95 %"
    )
    ax.plot(layers, layers * np.log10(factor), "k--", label="predicted, l · log10(√n σ)")
    _draw_limits(ax, depth)
    y = 0.93 if factor < 1 else 0.12
    canvas.name_lines(ax, (0.02, y), (0.02, y - 0.07))
    ax.set(
        xlabel="layer (l)",
        ylabel="log10 of RMS",
        ylim=(-75, 60),
        title=f"Predicted: each layer multiplies the RMS by {factor:.3g}",
    )
    return figure, _sentence(factor, depth, samples[:, -1])


def _draw_limits(ax: Axes, depth: int) -> None:
    for name, limit in LIMITS.items():
        ax.axhline(np.log10(limit), color=plotting.ORANGE, linewidth=1)
        ax.text(depth, np.log10(limit), name, ha="right", va="bottom", color=plotting.ORANGE)


def _sentence(factor: float, depth: int, last: NDArray) -> str:
    measured = median_and_range(last, "10^{:z.1f}", "10^{:z.1f}")
    return f"{_prediction(factor, depth)} Measured {measured}."


def _prediction(factor: float, depth: int) -> str:
    if factor == 1:
        return "Each layer is predicted to multiply the RMS by √n σ = 1: it stays at 1."
    largest, smallest = LIMITS.values()
    layer = mean_field.crossing_layer(largest if factor > 1 else smallest, factor)
    fate = f"leaves float32 in layer {np.ceil(layer):.0f}" if layer < depth else "is still within float32"
    return (
        f"Each layer is predicted to multiply the RMS by √n σ = {factor:.4g}. After layer {depth} that makes "
        f"10^{depth * np.log10(factor):z.1f}; the signal {fate}."
    )
