"""Notebook 02: how many layers a width carries before networks of one law drift apart."""

import math
from statistics import NormalDist

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
def fan_figure(width: int = 64, depth: int = 200, seed: int = 0) -> demo.Drawing:
    """Draw networks with Var(w) = 1/width as a fan by layer, with the log-normal law's quantiles."""
    # One factor chi2_n / n for the random input and one for each layer.
    mean, variance = np.outer(network_laws.exact_log_growth(linear, 1.0, width), np.arange(1, depth + 2))
    rms = propagation.norm_chain(linear, 1.0, depth, width, count=NETWORKS, generator=demo.luck(seed)).rms
    low, median, high = (np.exp((mean + k * np.sqrt(variance)) / 2) for k in (-1.96, 0, 1.96))
    figure, (ax,) = canvas.new_figure()
    label = "a factor of 2 from the median"
    ax.plot(2 * median, "--", color=plotting.ORANGE, linewidth=2, label=label)
    ax.plot(median / 2, "--", color=plotting.ORANGE, linewidth=2)
    plotting.plot_fan(rms, low, median, high, ax=ax)
    ax.set(ylabel="RMS of the layer", title=f"{NETWORKS:,} networks, depth / width = {depth / width:.2g}")
    canvas.set_decades(ax, min(low[-1], 0.01), max(high[-1], 10))
    canvas.set_layers(ax, depth)
    std, logs = np.sqrt(variance[-1]) / 2, np.log(rms[:, -1] / median[-1])
    strays, spread = comparison.mean_of(100 * (np.abs(logs) > math.log(2))), comparison.std_of(logs)
    return figure, (
        f"Beyond a factor of two from the median {median[-1]:.2g} at layer {depth}: predicted "
        f"{200 * NormalDist(0, std).cdf(-math.log(2)):.1f} % of the networks, measured {strays:.1f} % of "
        f"{NETWORKS:,}. Standard deviation of ln RMS: predicted {std:.3f} (about √(L/2n)), measured "
        f"{spread:.3f}."
    )
