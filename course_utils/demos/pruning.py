"""Notebook 17: how few links a unit needs, and what must happen to those that remain."""

import math
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from course_utils import comparison, network_laws, plotting, propagation
from course_utils.demos import canvas, demo

NETWORKS, WIDTH, LAYERS, FACTOR = 24, 128, 10, 10


@cache
def _draws() -> tuple[NDArray, NDArray, NDArray]:
    """Return inputs, He's weights, and a number in (0, 1) for each: at random, those below `kept` stay."""
    generator, shape = demo.luck(), (LAYERS, NETWORKS, WIDTH, WIDTH)
    inputs = torch.randn(NETWORKS, WIDTH, 1, generator=generator)
    weights = torch.randn(shape, generator=generator) * math.sqrt(2 / WIDTH)
    return inputs.numpy(), weights.numpy(), torch.rand(shape, generator=generator).numpy()


def pruned_signals(removed: str, kept: float) -> NDArray:
    """Return second moments of He networks that keep a share of their links, (networks, layers + 1)."""
    inputs, weights, dice = _draws()
    cut = network_laws.pruned_normal(removed, kept)[0] * math.sqrt(2 / WIDTH)
    masks = (dice[i] < kept if removed == "at random" else np.abs(weights[i]) > cut for i in range(LAYERS))
    return propagation.relu_signals(inputs, map(np.multiply, weights, masks))


@demo.asks(
    "How few links per unit keep the signal of ten ReLU layers within a factor of ten?",
    removed=demo.choice("weights removed", ("the smallest", "at random")),
    others=demo.choice("weights that remain", ("as they are", "rescaled")),
    kept=demo.log_slider("share kept (p)", -1.7, 0, 0.05, ".3f"),
)
def pruning_figure(
    removed: str = "the smallest", kept: float = 0.1, others: str = "as they are"
) -> demo.Drawing:
    """Draw the second moment by layer of ReLU networks that keep a share `kept` of their He weights.

    If the `others`, those that remain, are "rescaled", their variance makes up for what is gone.
    """
    _, factor, kurtosis = network_laws.pruned_normal(removed, kept)
    growth = demo.pick("others", {"as they are": factor, "rescaled": 1.0}, others)
    layers = np.arange(LAYERS + 1)
    moments = pruned_signals(removed, kept) * (growth / factor) ** layers
    theory, variance = growth**layers, network_laws.relu_log_variance(kurtosis, LAYERS, WIDTH)
    figure, (ax,) = canvas.new_figure()
    plotting.plot_samples(layers, moments, ax=ax, center=np.mean)
    # Two standard errors; a bar down to 0 has no place on a logarithmic axis.
    means, errors = moments.mean(axis=0), 2 * moments.std(axis=0, ddof=1) / math.sqrt(NETWORKS)
    ax.errorbar(layers, means, [np.minimum(errors, 0.9 * means), errors], fmt="none", color=plotting.BLUE)
    ax.plot(layers, theory, "k--")
    if variance is not None:
        limits = np.exp([k * np.sqrt(variance) - variance / 2 for k in (-1.96, 1.96)])
        ax.plot(layers, (theory * limits).T, "k:")
    canvas.set_decades(ax, min(0.02, theory[-1] / 30), max(50, theory[-1] ** -0.2))
    canvas.set_layers(ax, LAYERS, ylabel="second moment (m)")
    canvas.shade(ax, FACTOR)
    left = f"{100 * kept:.3g} % of the weights, {kept * WIDTH:.3g} links a unit"
    ax.set_title(f"{left}: × {growth:.3g} a layer")
    return figure, _sentence(theory[-1], variance, moments[:, -1])


def _sentence(theory: float, variance: NDArray | None, last: NDArray) -> str:
    mean, spread = comparison.mean_of(last / theory), comparison.std_of(np.log(last))
    within = (np.abs(np.log(last)) <= math.log(FACTOR)).sum()
    noise = "not predicted, for with so few links the noise has passed its pole;"
    if variance is not None:
        noise = f"predicted {math.sqrt(variance[-1]):.2f} (95 % dotted),"
    return (
        f"Predicted mean of m after {LAYERS} layers: {theory:.3g}. "
        f"{NETWORKS} networks of width {WIDTH} have {mean} times that. "
        f"Standard deviation of ln m over networks: {noise} measured {spread}. "
        f"{within} of the networks keep m within a factor of {FACTOR}."
    )
