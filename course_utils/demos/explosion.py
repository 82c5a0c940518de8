"""Notebook 01: at which weight standard deviation 100 linear layers neither explode nor vanish."""

import numpy as np
import torch

from course_utils import mean_field, plotting, propagation
from course_utils.activations import linear
from course_utils.demos import canvas, demo

NETWORKS, DEPTH = 50, 100
_FLOAT32 = torch.finfo(torch.float32)
LIMITS = {"largest float32": _FLOAT32.max, "smallest float32": _FLOAT32.smallest_normal * _FLOAT32.eps}


@demo.asks(
    "At which weight standard deviation do 100 layers neither explode nor vanish?",
    weight_std=demo.log_slider("weight std (σ)", -2.5, 0.5, 0.025, ".4f"),
    width=demo.WIDTH,
)
def explosion_figure(weight_std: float = 1.0, width: int = 512) -> demo.Drawing:
    """Draw log10 RMS by layer for linear networks with weights N(0, weight_std**2), and float32's limits.

    Works with logarithms, so that no signal leaves the numbers that the figure itself is computed with.
    """
    factor, layers = np.sqrt(width) * weight_std, np.arange(DEPTH + 1)
    unit = propagation.norm_chain(linear, 1.0, DEPTH, width, count=NETWORKS, generator=demo.luck()).rms
    samples = np.log10(unit) + layers * np.log10(factor)
    figure, (ax,) = canvas.new_figure()
    label = f"median of {NETWORKS} networks, shaded: 95 %"
    plotting.plot_samples(layers, samples, ax=ax, every=5, label=label)
    ax.plot(layers, layers * np.log10(factor), "k--", label="predicted, l · log10(√n σ)")
    for name, limit in LIMITS.items():
        plotting.mark_level(ax, np.log10(limit), name, DEPTH, color=plotting.ORANGE, ha="right", va="bottom")
    y = 0.93 if factor < 1 else 0.12
    canvas.name_lines(ax, (0.02, y), (0.02, y - 0.07))
    title = f"Predicted: each layer multiplies the RMS by {factor:.3g}"
    ax.set(xlabel="layer (l)", ylabel="log10 of RMS", ylim=(-75, 60), title=title)
    measured = demo.median_and_range(samples[:, -1], "10^{:z.1f}", "10^{:z.1f}")
    return figure, f"{_prediction(factor)} Measured {measured}."


def _prediction(factor: float) -> str:
    if factor == 1:
        return "Each layer is predicted to multiply the RMS by √n σ = 1: it stays at 1."
    largest, smallest = LIMITS.values()
    layer = mean_field.crossing_layer(largest if factor > 1 else smallest, factor)
    fate = f"leaves float32 in layer {np.ceil(layer):.0f}" if layer < DEPTH else "is still within float32"
    return (
        f"Each layer is predicted to multiply the RMS by √n σ = {factor:.4g}. After layer {DEPTH} that makes "
        f"10^{DEPTH * np.log10(factor):z.1f}; the signal {fate}."
    )
