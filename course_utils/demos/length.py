"""Notebook 11: how exactly the gain must be hit for 10,000 layers, and which weights allow it."""

import math
from statistics import NormalDist

import numpy as np

from course_utils import comparison, network_laws, plotting, propagation
from course_utils.demos import canvas, demo

NETWORKS, DEEPEST, FACTOR = 50, 10_000, 10
WEIGHTS = ("delta-orthogonal", "flattened orthogonal", "Gaussian")
_unit_lengths = demo.remembered(propagation.log_lengths)  # at gain 1


@demo.asks(
    "How exactly must the gain be hit for 10,000 layers, and which weights allow it?",
    weights=demo.choice("weights (W)", WEIGHTS),
    gain=demo.slider("gain (√fan_in × std)", 0.98, 1.04, 0.0001, ".4f"),
    width=demo.one_of("units or channels (n)", (16, 64, 256, 1024, 4096, 16384)),
    depth=demo.log_slider("depth (L)", 1, 4, 0.1, ",.0f"),
)
def length_figure(
    weights: str = "Gaussian", gain: float = 1.0, width: int = 64, depth: float = DEEPEST
) -> demo.Drawing:
    """Draw log10 of the length of a signal by layer in networks of up to 10,000 linear layers.

    Weights have standard deviation gain / sqrt(fan_in); `depth` is rounded, for a logarithmic slider.
    """
    depth = round(depth)
    layers = np.unique(np.linspace(0, depth, 13).round().astype(int))
    logs = _unit_lengths(weights, width, DEEPEST, count=NETWORKS)[:, layers] + layers * np.log(gain)
    measured = logs / np.log(10)
    growth, noise = network_laws.log_length_law(weights, width)
    mean, std = layers * (growth + np.log(gain)) / np.log(10), np.sqrt(layers) * noise / np.log(10)
    figure, (ax,) = canvas.new_figure()
    plotting.plot_samples(layers, measured, mean, ax=ax)
    ax.plot(layers, np.transpose([mean - 1.96 * std, mean + 1.96 * std]), "k:", linewidth=2)
    canvas.shade(ax, FACTOR, end=0.95, color=plotting.GREEN, alpha=0.25)
    furthest = max(np.abs(measured[:, -1]).max(), abs(mean[-1]) + 2 * std[-1])
    edge = 2 ** np.ceil(np.log2(max(4.0, furthest)))  # doubled where needed: the axis seldom jumps
    ax.set(xlabel="layer (l)", ylabel="log10 of length (|h| / |h₀|)", ylim=(-edge, edge))
    ax.ticklabel_format(axis="x", style="plain")
    ax.set_title(f"{weights.capitalize()}, gain {gain:.4f}: 10^{mean[-1]:z.1f} after {depth:,} layers")
    last, limit = measured[:, -1], math.log10(FACTOR)
    law = NormalDist(mean[-1], max(std[-1], 1e-12))  # which needs a spread
    return figure, (
        f"log10 of the length after {depth:,} layers: predicted {mean[-1]:z.2f}, with a spread over networks "
        f"of {std[-1]:.2f}; measured over {NETWORKS} networks {comparison.mean_of(last):z.2f}, "
        f"spread {last.std(ddof=1):.2f}. Within a factor of {FACTOR} of where it began: predicted "
        f"{100 * (law.cdf(limit) - law.cdf(-limit)):.0f} % of the networks, "
        f"measured {(np.abs(last) <= limit).sum()} of {NETWORKS}."
    )
