"""Notebook 02: how many layers a width carries before networks of one law drift apart."""

import numpy as np

from course_utils import comparison, network_laws, plotting, propagation
from course_utils.activations import linear
from course_utils.demos import canvas, demo

NETWORKS = 1000


@demo.asks(
    "How deep can networks of width n be before one in three strays from the median by a factor of two?",
    width=demo.WIDTH,
    depth=demo.integers("depth (L)", 5, 300, 5),
    seed=demo.integers("seed", 0, 20, 1),
)
def fan_figure(width: int = 512, depth: int = 100, seed: int = 0) -> demo.Drawing:
    """Draw networks with Var(w) = 1/width as a fan by layer, with the log-normal law's quantiles."""
    # One factor chi2_n / n for the random input and one for each layer.
    mean, variance = np.outer(network_laws.exact_log_growth(linear, 1.0, width), np.arange(1, depth + 2))
    rms = propagation.norm_chain(linear, 1.0, depth, width, count=NETWORKS, generator=demo.luck(seed)).rms
    figure, (ax,) = canvas.new_figure()
    quantiles = (np.exp((mean + k * np.sqrt(variance)) / 2) for k in (-1.96, 0, 1.96))
    plotting.plot_fan(rms, *quantiles, ax=ax)
    ax.set(ylabel="RMS of the layer", title=f"{NETWORKS:,} networks, depth / width = {depth / width:.2g}")
    low, high = np.percentile(rms[:, -1], [2.5, 97.5])
    canvas.set_decades(ax, min(low, 0.1), max(high, 10))
    canvas.set_layers(ax, depth)
    spread, predicted = comparison.std_of(np.log(rms[:, -1])), np.sqrt(variance[-1]) / 2
    return figure, (
        f"Standard deviation of ln RMS at layer {depth}: predicted {predicted:.3f} (about √(L/2n)), measured "
        f"over {NETWORKS:,} networks {spread:.3f}. Two networks in three "
        f"lie within a factor {np.exp(predicted):.2f} of the median {np.exp(mean[-1] / 2):.2g}."
    )
