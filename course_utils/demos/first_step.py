"""Notebook 07: which multiples of He's weights one step of an optimizer can improve."""

from functools import lru_cache

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray

from course_utils import network_laws, plotting, propagation
from course_utils.demos import canvas, demo

FACTORS = 2.0 ** np.linspace(-2, 2, 9)
COPIES, WIDTH, PER_CLASS = 6, 32, 2
LEAST, MOST = 1e-13, 1e2  # shares that are drawn
_networks = lru_cache(maxsize=2)(lambda hidden: demo.he_networks(COPIES, [WIDTH] * hidden))
# The first step at learning rate 1.
OPTIMIZERS = {"SGD": lambda gradient: gradient, "Adam": lambda gradient: gradient / (gradient.abs() + 1e-8)}


@lru_cache(maxsize=2)
def _scaled_networks(hidden: int) -> tuple[list[torch.Tensor], torch.Tensor, tuple[torch.Tensor, ...]]:
    """Return He's weights with the hidden ones times each of FACTORS, and the first losses and gradients."""
    *inner, last = (weight.detach() for weight in _networks(hidden).weights)
    factors = torch.from_numpy(FACTORS)[:, None, None, None]
    scaled = [*(factors * weight for weight in inner), torch.ones_like(factors) * last]
    weights = [weight.flatten(0, 1).requires_grad_() for weight in scaled]
    losses = propagation.relu_losses(weights, *demo.balanced_digits(PER_CLASS))
    return weights, losses.detach(), torch.autograd.grad(losses.sum(), weights)


def measured_shares(hidden: int, rate: float, optimizer: str) -> NDArray:
    """Return the share of each network's loss that one step removes, (factors, copies), at least -MOST."""
    weights, before, gradients = _scaled_networks(hidden)
    step = demo.pick("optimizer", OPTIMIZERS, optimizer)
    with torch.no_grad():
        moved = [w - rate * step(g) for w, g in zip(weights, gradients, strict=True)]
        after = propagation.relu_losses(moved, *demo.balanced_digits(PER_CLASS))
    return ((before - after) / before).clamp(min=-MOST).reshape(len(FACTORS), COPIES).numpy()


@lru_cache(maxsize=4)
def predicted_shares(hidden: int, optimizer: str) -> NDArray:
    """Return the same per unit of learning rate, to first order in it and for tiny logits."""
    gradients = propagation.guess_gradients(_networks(hidden), *demo.balanced_digits(PER_CLASS))
    return network_laws.first_order_shares(gradients, FACTORS, OPTIMIZERS[optimizer])


@demo.asks(
    "Which multiples of He's weights lose 1 % of the loss in one step, and which of them at any depth?",
    hidden=demo.integers("hidden layers (H)", 1, 20, 1),
    rate=demo.log_slider("learning rate (η)", -4, 1, 0.25, ".2g"),
    optimizer=demo.choice("optimizer", OPTIMIZERS),
)
def first_step_figure(hidden: int = 4, rate: float = 0.1, optimizer: str = "SGD") -> demo.Drawing:
    """Draw the share of the loss that one step removes, for ReLU networks with He's weights times c."""
    shares, predicted = measured_shares(hidden, rate, optimizer), rate * predicted_shares(hidden, optimizer)
    first = _scaled_networks(hidden)[1].numpy().reshape(shares.shape)
    figure, (ax,) = canvas.new_figure()
    _draw_shares(ax, shares, np.median(first, axis=1))
    ax.plot(np.log2(FACTORS), np.median(predicted, axis=1), "k--")
    names = {0.25: "1/4", 6**-0.5: "torch", 2**-0.5: "Xavier", 1.0: "He = 1", 2.0: "2", 4.0: "4"}
    ax.set_xticks(np.log2([*names]), names.values())
    plotting.mark_level(ax, 0.01, "1 %", 2.12, va="bottom")
    canvas.name_lines(ax, (0.53, 0.13), (0.68, 0.13), (0.53, 0.05))
    good = FACTORS[np.median(shares, axis=1) >= 0.01]
    window = f"from c = {good[0]:.2g} to {good[-1]:.2g}" if good.size else "nowhere"
    if good.size == 1:
        window = f"at c = {good[0]:.2g} only"
    ax.set(xlabel="He's weights times (c)", ylabel="share of the loss removed", xlim=(-2.1, 2.4))
    ax.set_title(f"{hidden} hidden layer{'s' * (hidden > 1)}: one step removes 1 % or more {window}")
    return figure, _sentence(shares[3], predicted[3], optimizer)


def _draw_shares(ax: Axes, shares: NDArray, first: NDArray) -> None:
    """Draw falls as circles with their range, rises as crosses.

    A circle is hollow where the `first` loss was more than twice that of a guess: its share says little.
    """
    octaves, median, far = np.log2(FACTORS), np.median(shares, axis=1), first > 2 * np.log(10)
    falls, all_fall = median > LEAST, (shares > 0).all(axis=1)
    low, high, blue = shares.min(axis=1), shares.max(axis=1), {"color": plotting.BLUE}
    ax.fill_between(octaves, low, high, where=falls & all_fall, alpha=0.2, linewidth=0, **blue)
    near, away, rises = falls & ~far, falls & far, median < -LEAST
    ax.plot(octaves[near], median[near], "o", label="loss falls", **blue)
    ax.plot(octaves[away], median[away], "o", label="from above 2 ln 10", fillstyle="none", **blue)
    cross = {"color": plotting.ORANGE, "markersize": 11, "markeredgewidth": 3}
    name = f"loss rises by as much ({MOST:g}: or more)"
    ax.plot(octaves[rises], -median[rises], "x", label=name, **cross)
    canvas.set_decades(ax, LEAST / 10, 10 * MOST)


def _sentence(measured: NDArray, predicted: NDArray, optimizer: str) -> str:
    text = f"Xavier's weights (c = 0.71): predicted share that one step of {optimizer} removes "
    text += f"{np.median(predicted):.2g}"
    if (predicted < LEAST).any():
        return f"{text}, less than can be measured."
    if (measured <= 0).any():
        return f"{text}; measured, the loss rises in {(measured <= 0).sum()} of {COPIES} networks."
    return (
        f"{text}, measured {np.median(measured):.2g} (medians of {COPIES} networks). Their ratio, network by "
        f"network: {demo.versus(1.0, measured / predicted)}."
    )
