"""Notebook 06: which output bias gives the lowest first loss."""

from functools import cache

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from course_utils import architectures, plotting, propagation
from course_utils.activations import relu
from course_utils.demos import canvas
from course_utils.demos.demo import Demo, balanced_digits, integers, log_slider, luck, slider, versus
from course_utils.initializers import kaiming_normal_, lecun_normal_
from course_utils.networks import Ensemble

NETWORKS, PER_CLASS = 200, 5
MULTIPLES = np.linspace(0, 3, 61)  # of ln p; every tenth is measured
MEASURED = MULTIPLES[::10]


def first_loss_demo() -> Demo:
    """Find the output bias that gives the lowest first loss for a last layer of a given gain."""
    return Demo(
        "Which output bias gives the lowest first loss, and when is it the class prior ln p?",
        {
            "gain": log_slider("output gain (√n × std)", 10**0.15, -2, 0.5, 0.05, ".3f"),
            "share": slider("share of one class (p)", 0.7, 0.01, 0.99, 0.01),
            "classes": integers("classes (K)", 10, 2, 10),
        },
        first_loss_figure,
    )


@cache
def unit_logits() -> Tensor:
    """Return logits of variance 1 of real networks on real images, (networks, classes, images, logits)."""
    inputs, _ = balanced_digits(PER_CLASS)
    widths, draws = [inputs.shape[1], 100, 100, 10], {"output_init_": lecun_normal_, "generator": luck()}
    network = Ensemble(NETWORKS, widths, relu, kaiming_normal_, **draws)
    return propagation.unit_logits(network.double(), inputs).unflatten(1, (10, PER_CLASS))


def first_losses(gain: float, shares: ArrayLike, multiples: ArrayLike = MEASURED) -> NDArray:
    """Return first losses, (multiples, networks), at output biases of `multiples` of ln p.

    The losses of the classes' images are weighted by the classes' `shares` p; the last layer has std
    gain / sqrt(fan_in).
    """
    classes = len(shares)
    biases = torch.from_numpy(np.outer(multiples, np.log(shares)))
    logits = gain * unit_logits()[:, :classes, :, :classes]
    return (propagation.class_losses(logits, biases) @ torch.as_tensor(shares)).numpy()


def first_loss_figure(gain: float = np.sqrt(2), share: float = 0.7, classes: int = 10) -> tuple[Figure, str]:
    """Draw the loss at step 0 against the output bias, in multiples of ln p, for a last layer of `gain`.

    `share` is that of the first class; the others share the rest. The gain is √fan_in times a std.
    """
    p = np.array([share] + [(1 - share) / (classes - 1)] * (classes - 1))
    theory = architectures.expected_first_loss(p, np.outer(MULTIPLES, np.log(p)), gain)
    losses, entropy = first_losses(gain, p), -p @ np.log(p)
    balanced = np.ptp(p) < 1e-9  # then one bias is as good as another, and only rounding tells them apart
    best = 20 if balanced else np.argmin(theory)
    figure, (ax,) = canvas.new_figure()
    plotting.plot_samples(MEASURED, losses.T, ax=ax, center=np.mean)
    ax.plot(MULTIPLES, theory, "k--", linewidth=1.5)
    ax.plot(MULTIPLES[best], theory[best], "D", color=plotting.ORANGE, markersize=12, fillstyle="none")
    _draw_references(ax, np.log(classes), entropy)
    place = "with any multiple of ln p" if balanced else f"at a bias of {MULTIPLES[best]:.2f} ln p"
    if MULTIPLES[best] == MULTIPLES[-1]:  # the true lowest point is beyond what is drawn
        place += " or beyond"
    ax.set(
        xlabel="output bias in multiples of ln p (β)",
        xticks=range(4),
        ylabel="loss at step 0",
        ylim=(0, np.ceil(1.05 * max(np.percentile(losses, 97.5, axis=1).max(), np.log(classes)))),
        title=f"Lowest mean first loss {theory[best]:.3f}, {place}",
    )
    return figure, (
        f"Mean first loss of {NETWORKS} networks. Bias 0: {versus(theory[0], losses[0])}. Bias ln p: "
        f"{versus(theory[20], losses[2])}. The least that any bias reaches here is {theory[best]:.3f}; an "
        f"informed guess costs H(p) = {entropy:.3f}."
    )


def _draw_references(ax: Axes, log_classes: float, entropy: float) -> None:
    """Draw what a blind and an informed guess cost, and name them beyond the end of the curve."""
    below = "top" if entropy > log_classes / 2 else "bottom"
    for level, name, side in ((log_classes, "ln K", "bottom"), (entropy, "H(p)", below)):
        ax.axhline(level, color=plotting.GREY, linewidth=1)
        ax.text(3.08, level, name, va=side, color=plotting.GREY)
    ax.set_xlim(-0.1, 3.4)
