"""Notebook 04: which gain a ReLU needs that leaks."""

import numpy as np

from course_utils import plotting, propagation
from course_utils.demos import canvas, demo

NETWORKS, DEPTH = 50, 100
_leaky_chain = demo.remembered(propagation.leaky_chain)


@demo.asks(
    "Which gain does a ReLU that leaks with slope a need?",
    gain=demo.slider("gain (√n × weight std)", 0.5, 2.5, 0.01),
    negative_slope=demo.slider("negative slope (a)", 0.0, 1.0, 0.05),
    width=demo.WIDTH,
)
def relu_figure(gain: float = 1.0, negative_slope: float = 0.0, width: int = 512) -> demo.Drawing:
    """Draw the RMS by layer of (leaky) ReLU networks with Var(w) = gain**2 / width, and the predicted line.

    The activation is homogeneous, so networks of every gain are those of gain 1 times gain**layer.
    """
    factor, layers = gain * np.sqrt((1 + negative_slope**2) / 2), np.arange(DEPTH + 1)
    of_gain_1 = (width,) * (DEPTH + 1), (1 / width,) * DEPTH
    rms = np.sqrt(_leaky_chain(negative_slope, *of_gain_1, count=NETWORKS)) * gain**layers
    figure, (ax,) = canvas.new_figure()
    plotting.plot_signal(rms, factor**layers, ax=ax)
    ax.set(ylabel="RMS of the layer", title=f"Predicted: each layer multiplies the RMS by {factor:.3f}")
    canvas.set_decades(ax, 1e-32, 1e32)
    return figure, (
        f"Predicted factor per layer: gain × √((1 + a²)/2) = {factor:.4f}. RMS at layer {DEPTH}: predicted "
        f"{factor**DEPTH:.3g}; measured {demo.median_and_range(rms[:, -1])}. (Finite width pulls the median "
        f"below the prediction.)"
    )
