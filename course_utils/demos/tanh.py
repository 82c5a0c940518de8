"""Notebook 03: which gain keeps signal and gradient of a deep tanh network alive."""

import numpy as np

from course_utils import activations, mean_field, plotting, propagation
from course_utils.demos import canvas, demo

NETWORKS, WIDTH = 50, 256


@demo.asks(
    "Which gain keeps both the signal and the gradient of a deep tanh network alive?",
    gain=demo.slider("gain (√n × weight std)", 0.5, 3.0, 0.05),
    depth=demo.integers("depth (L)", 10, 150, 10),
)
def tanh_figure(gain: float = 1.0, depth: int = 100) -> demo.Drawing:
    """Draw the map q -> q' of tanh with its staircase, and the RMS by layer with the infinite-width line."""
    phi = activations.tanh
    figure, (left, right) = canvas.new_figure(2)
    stop = next(stop for stop in (1, 1.5, 2, 3, 5, 10) if stop >= 1.1 * gain**2)
    plotting.plot_cobweb(lambda q: mean_field.length_map(phi, q, gain), gain**2, 30, stop=stop, ax=left)
    left.set(xlabel="q in this layer", ylabel="q' in the next", title=f"The map at gain {gain:.2f}")
    left.locator_params(nbins=3)
    theory = np.sqrt(mean_field.second_moments(phi, gain, depth))
    rms = propagation.norm_chain(phi, gain, depth, WIDTH, count=NETWORKS, generator=demo.luck()).rms
    plotting.plot_signal(rms, theory, ax=right)
    canvas.set_decades(right, min(1e-3, theory[-1] / 10), 2)
    canvas.set_layers(right, depth, ylabel="RMS of the layer", title=f"{NETWORKS} networks of width {WIDTH}")
    q = mean_field.fixed_point(phi, gain)
    slope, measured = np.sqrt(mean_field.chi_1(phi, q, gain)), demo.median_and_range(rms[:, -1])
    return figure, (
        f"Predicted RMS at layer {depth}: {theory[-1]:.4g}; measured {measured}. "
        f"Fixed point q* = {q:.4g}; there each layer multiplies a gradient by √χ₁ = {slope:.4g}."
    )
