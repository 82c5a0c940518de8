"""Notebook 06: which output bias gives the lowest first loss."""

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from course_utils import network_laws, plotting, propagation
from course_utils.demos import canvas, demo

NETWORKS, PER_CLASS = 100, 5
MULTIPLES = np.linspace(0, 3, 61)  # of ln p; every tenth is measured
MEASURED = MULTIPLES[::10]


@cache
def unit_logits() -> torch.Tensor:
    """Return logits of variance 1 of real networks on real images, (networks, classes, images, logits)."""
    network, (inputs, _) = demo.he_networks(NETWORKS, [100, 100]), demo.balanced_digits(PER_CLASS)
    return propagation.unit_logits(network, inputs).unflatten(1, (10, PER_CLASS))


def first_losses(gain: float, shares: NDArray) -> NDArray:
    """Return first losses at biases of MEASURED multiples of ln p, (multiples, networks); p are `shares`."""
    classes, biases = len(shares), torch.from_numpy(np.outer(MEASURED, np.log(shares)))
    logits = gain * unit_logits()[:, :classes, :, :classes]
    return (propagation.class_losses(logits, biases) @ torch.from_numpy(shares)).numpy()


@demo.asks(
    "Which output bias gives the lowest first loss, and when is it the class prior ln p?",
    gain=demo.log_slider("output gain (√n × std)", -2, 0.5, 0.05, ".3f"),
    share=demo.slider("share of one class (p)", 0.01, 0.99, 0.01),
    classes=demo.integers("classes (K)", 2, 10, 1),
)
def first_loss_figure(gain: float = 0.1, share: float = 0.7, classes: int = 10) -> demo.Drawing:
    """Draw the loss at step 0 against the output bias, in multiples of ln p, for a last layer of `gain`.

    `share` is that of the first class; the others share the rest. The gain is √fan_in times a std.
    """
    p = np.array([share] + [(1 - share) / (classes - 1)] * (classes - 1))
    theory = network_laws.expected_first_loss(p, np.outer(MULTIPLES, np.log(p)), gain)
    losses, entropy, blind = first_losses(gain, p), -p @ np.log(p), np.log(classes)
    balanced = np.ptp(p) < 1e-9  # then one bias is as good as another, and only rounding tells them apart
    best = 20 if balanced else np.argmin(theory)
    figure, (ax,) = canvas.new_figure()
    plotting.plot_samples(MEASURED, losses.T, ax=ax, center=np.mean)
    ax.plot(MULTIPLES, theory, "k--")
    ax.plot(MULTIPLES[best], theory[best], "D", color=plotting.ORANGE, markersize=12, fillstyle="none")
    plotting.mark_level(ax, blind, "ln K", 3.08, va="bottom")
    plotting.mark_level(ax, entropy, "H(p)", 3.08, va="top" if entropy > blind / 2 else "bottom")
    place = "with any multiple of ln p" if balanced else f"at a bias of {MULTIPLES[best]:.2f} ln p"
    if MULTIPLES[best] == MULTIPLES[-1]:  # the true lowest point is beyond what is drawn
        place += " or beyond"
    top = np.ceil(1.05 * max(np.percentile(losses, 97.5, axis=1).max(), blind))
    ax.set(xlabel="output bias in multiples of ln p (β)", xticks=range(4), xlim=(-0.1, 3.4))
    ax.set(ylabel="loss at step 0", ylim=(0, top))
    ax.set_title(f"Lowest mean first loss {theory[best]:.3f}, {place}")
    return figure, (
        f"Mean first loss of {NETWORKS} networks. Bias 0: {demo.versus(theory[0], losses[0])}. "
        f"Bias ln p: {demo.versus(theory[20], losses[2])}. The least that any bias reaches here is "
        f"{theory[best]:.3f}; an informed guess costs H(p) = {entropy:.3f}."
    )
