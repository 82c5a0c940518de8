"""Notebook 12: how many layers of batch norm the gradient survives, and what a larger batch buys."""

import math
from collections.abc import Callable
from functools import cache, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import layer_norm

from course_utils import comparison, network_laws, plotting, propagation
from course_utils.demos import canvas, demo

NETWORKS, WIDTH, DEEPEST, MOST_IMAGES, FACTOR = 8, 64, 50, 32, 100


def _standardized(z: torch.Tensor) -> torch.Tensor:
    """Return z with mean 0 and variance 1 over its last dimension."""
    return layer_norm(z, z.shape[-1:], eps=0.0)


# What each layer does to its pre-activations (networks, units, images), given a matrix with Var(w) = 1/n.
NORMS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "batch norm": lambda z, W: W @ torch.relu(_standardized(z)),
    "batch norm in branches": lambda z, W: z + math.sqrt(2) * W @ torch.relu(_standardized(z)),
    "layer norm after ReLU": lambda z, W: W @ _standardized(torch.relu(z).mT).mT,
    "layer norm before ReLU": lambda z, W: W @ torch.relu(_standardized(z.mT).mT),
    "none, He's weights": lambda z, W: math.sqrt(2) * W @ torch.relu(z),
}


@cache
def _draws() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return inputs, errors and matrices of the deepest network: each setting takes its part of them.

    In float64: where gradients grow by 10^7, so do rounding errors, and float32's differ between processors.
    """
    images, matrices = (NETWORKS, WIDTH, MOST_IMAGES), (DEEPEST + 1, NETWORKS, WIDTH, WIDTH)
    draw = partial(torch.randn, generator=demo.luck(), dtype=torch.float64)
    return draw(*images), draw(*images), draw(*matrices) / math.sqrt(WIDTH)


def measured_gradients(norm: str, batch: int, depth: int) -> NDArray:
    """Return the RMS of the gradient by layer over that of the last, shape (networks, depth + 1).

    The layer that turns the inputs into pre-activations is left out: nothing has normalized them.
    """
    x, errors, matrices = _draws()
    errors = errors[..., :batch] - errors[..., :batch].mean(dim=2, keepdim=True)
    layer, inputs = demo.pick("norm", NORMS, norm), x[..., :batch].contiguous()
    _, *gradients = propagation.layer_gradients(layer, inputs, matrices[: depth + 1], errors)
    squares = torch.stack([g.square().mean(dim=(1, 2)) for g in gradients], dim=1).numpy()
    return np.sqrt(squares / squares[:, -1:])


@demo.asks(
    "How many layers with batch norm keep the gradient within a factor of 100, and do more images help?",
    norm=demo.choice("norm", NORMS),
    batch=demo.integers("images per batch (B)", 6, MOST_IMAGES, 1),
    depth=demo.integers("depth (L)", 5, DEEPEST, 1),
)
def norm_figure(norm: str = "batch norm", batch: int = 8, depth: int = 50) -> demo.Drawing:
    """Draw the RMS of the gradient by layer over that of the last, for layers with a norm and a ReLU.

    `batch` counts images. Predicted at infinite width, dotted for batch norm with infinitely many images.
    """
    factors = network_laws.norm_gradient_factors(norm, batch, depth)
    theory = np.sqrt(np.append(np.cumprod(factors[::-1])[::-1], 1.0))
    measured = measured_gradients(norm, batch, depth)
    figure, (ax,) = canvas.new_figure()
    plotting.plot_signal(measured, theory, ax=ax)
    canvas.shade(ax, FACTOR)
    canvas.set_layers(ax, depth, ylabel="RMS of gradient / last layer's")
    if norm == "batch norm":
        many = (math.pi / (math.pi - 1)) ** (np.arange(depth, -1, -1) / 2)
        ax.plot(many, "k:", label="infinitely many images")
        canvas.name_lines(ax, (0.02, 0.05))
    canvas.set_decades(ax, 0.05, max(1e3, 20 * theory[0]))
    growth = demo.power_of_ten(math.log10(theory[0]))
    ax.set_title(f"Predicted over {depth} layers: the gradient is multiplied by {growth}")
    log = comparison.mean_of(np.log10(measured[:, 0]))
    images = f" with {batch} images" if norm.startswith("batch") else ""
    kept = [(rms <= FACTOR).sum() - 1 for rms in (theory, np.median(measured, axis=0))]
    return figure, (
        f"{norm[0].upper()}{norm[1:]}{images}, {depth} layers: log10 of the gradient's RMS in the first over "
        f"that in the last is predicted to be {math.log10(theory[0]):.2f} at infinite width, and is "
        f"{log:z.2f} in {NETWORKS} networks of width {WIDTH}. Within a factor of {FACTOR} of the last "
        f"layer's: predicted for {kept[0]} layers, measured (median) for {kept[1]} of {depth}."
    )
