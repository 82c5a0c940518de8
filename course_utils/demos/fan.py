"""Notebook 02: how many layers a width carries before networks of one law drift apart."""

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from course_utils import comparison, network_laws, plotting, propagation
from course_utils.activations import linear
from course_utils.demos import canvas, demo

NETWORKS, DEEPEST = 250, 300
_log_lengths = demo.remembered(propagation.log_lengths)


@demo.asks(
    "How deep can networks of width n be before one in three strays from the median by a factor of two?",
    width=demo.WIDTH,
    depth=demo.integers("depth (L)", 5, DEEPEST, 5),
    seed=demo.integers("seed", 0, 20, 1),
)
def fan_figure(width: int = 64, depth: int = 150, seed: int = 0) -> demo.Drawing:
    """Draw networks with Var(w) = 1/width as a fan by layer, with the log-normal law's quantiles."""
    mean, variance = np.outer(network_laws.exact_log_growth(linear, 1.0, width), np.arange(depth + 1))
    rms = np.exp(_log_lengths("Gaussian", width, DEEPEST, count=NETWORKS, seed=seed)[:, : depth + 1])
    low, median, high = (np.exp((mean + k * np.sqrt(variance)) / 2) for k in (-1.96, 0, 1.96))
    figure, (ax,) = canvas.new_figure()
    style = {"color": plotting.ORANGE, "linestyle": "-.", "linewidth": 2}
    ax.plot(2 * median, label="a factor of 2 from the median", **style)
    ax.plot(median / 2, **style)
    plotting.plot_fan(rms, low, median, high, ax=ax)
    canvas.name_lines(ax, (0.02, 0.2), (0.02, 0.13), (0.02, 0.06))
    canvas.set_decades(ax, min(low[-1], 0.01), max(high[-1], 10))
    canvas.set_layers(ax, depth, ylabel="RMS of the layer, relative")
    std = np.sqrt(variance[-1]) / 2
    ax.set_title(f"Predicted: {100 * _beyond(std):.1f} % of the networks are beyond a factor of 2")
    return figure, _sentence(depth, median[-1], std, rms[:, -1])


def _beyond(std: float) -> float:
    """Return the predicted share of networks beyond a factor of two from the median."""
    return 2 * NormalDist(0, std).cdf(-math.log(2))


def _sentence(depth: int, median: float, std: float, last: NDArray) -> str:
    logs, share = np.log(last / median), _beyond(std)
    # The error is the predicted share's: where no network strays, that of the measured one would be 0.
    error = math.sqrt(share * (1 - share) / NETWORKS)
    strays = comparison.Estimate(100 * (np.abs(logs) > math.log(2)).mean(), 100 * error)
    return (
        f"Beyond a factor of two from the median {median:.2g} at layer {depth}: predicted {100 * share:.1f} "
        f"% of the networks, measured {strays:.1f} % of {NETWORKS:,}. Standard deviation of ln RMS: "
        f"predicted {std:.3f} (about √(L/2n)), measured {comparison.std_of(logs):.3f}."
    )
