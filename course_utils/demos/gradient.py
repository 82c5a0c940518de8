"""Notebook 10: how small residual branches must be for the gradient to stay smooth."""

from collections.abc import Callable
from functools import cache, partial

import numpy as np
import torch
from numpy.typing import NDArray

from course_utils import comparison, network_laws, plotting, propagation
from course_utils.demos import canvas, demo

POINTS, NETWORKS, WIDTH, DEEPEST = 32, 10, 64, 50
NEIGHBOURS = 360 / POINTS  # degrees


def normalize(z: torch.Tensor) -> torch.Tensor:
    """Centre each unit over the circle and give the layer RMS 1; both are constants for the gradient."""
    fixed = z.detach()
    mean = fixed.mean(dim=1, keepdim=True)
    return (z - mean) / (fixed - mean).square().mean(dim=(1, 2), keepdim=True).sqrt()


# Each takes pre-activations (networks, points, units), a matrix (networks, units, units) and β.
LAYERS: dict[str, Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]] = {
    "plain": lambda z, W, branch: z.relu() @ W,
    "normalized": lambda z, W, branch: normalize(z).relu() @ W,
    # The mirrored half of the units has the weights with the other sign.
    "looks-linear": lambda z, W, branch: z.relu() @ W - (-z).relu() @ W,
    "residual": lambda z, W, branch: z + branch * (normalize(z).relu() @ W),
}


@cache
def circle_draws() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return inputs of the first layer on a circle, errors of one random output, and He's matrices.

    Inputs and errors are (networks, points, units), the matrices (layers, networks, units, units).
    """
    draw = partial(torch.randn, generator=demo.luck(), dtype=torch.float64)
    u, v, readout = draw(3, NETWORKS, 1, WIDTH)
    matrices = draw(DEEPEST, NETWORKS, WIDTH, WIDTH) * np.sqrt(2 / WIDTH)
    t = 2 * np.pi * torch.arange(POINTS, dtype=torch.float64)[:, None] / POINTS
    return t.cos() * u + t.sin() * v, readout.expand(NETWORKS, POINTS, WIDTH), matrices


def measured_correlations(architecture: str, branch: float, depth: int) -> NDArray:
    """Return the correlation of gradients at two points of the circle by lag, (networks, POINTS).

    Gradients of one random output with respect to the first pre-activations, true ones of true networks.
    """
    inputs, errors, matrices = circle_draws()
    layer = demo.pick("architecture", LAYERS, architecture)
    g, *_ = propagation.layer_gradients(lambda z, W: layer(z, W, branch), inputs, matrices[:depth], errors)
    power = np.square(np.abs(np.fft.rfft(g.numpy(), axis=1))).sum(axis=2)
    overlap = np.fft.irfft(power, n=POINTS, axis=1)
    return overlap / overlap[:, :1]


def predicted_correlations(architecture: str, branch: float, depth: int) -> NDArray:
    """Return the same at infinite width, (POINTS,)."""
    if architecture == "looks-linear":  # a linear network: one gradient for all
        return np.ones(POINTS)
    skip, normalized = float(architecture == "residual"), architecture != "plain"
    return network_laws.gradient_correlations(POINTS, depth, normalized, skip, branch)


@demo.asks(
    "How small must residual branches be to roughen the gradient less than one plain layer does?",
    architecture=demo.choice("architecture", LAYERS),
    branch=demo.slider("residual branch × (β)", 0.02, 2.0, 0.02),
    depth=demo.integers("depth (L)", 1, DEEPEST, 1),
)
def gradient_figure(architecture: str = "residual", branch: float = 1.0, depth: int = 24) -> demo.Drawing:
    """Draw how gradients correlate by the angle between two inputs; `branch` scales residual branches."""
    measured = measured_correlations(architecture, branch, depth)
    theory = predicted_correlations(architecture, branch, depth)
    angles, quarter = NEIGHBOURS * np.arange(POINTS // 2 + 1), POINTS // 4
    figure, (ax,) = canvas.new_figure()
    plotting.plot_samples(angles, measured[:, : len(angles)], theory[: len(angles)], ax=ax)
    ax.plot([0, 180], [1, 0], color=plotting.ORANGE, linewidth=1)
    ax.text(0.55, 0.54, "Brownian motion:\none plain layer", color=plotting.ORANGE, transform=ax.transAxes)
    ax.set(xlabel="angle between two inputs (δ, degrees)", xticks=range(0, 181, 45))
    ax.set(ylabel="correlation of gradients (ρ)", ylim=(-0.15, 1.1))
    kind = f"residual, branches × {branch:g}" if architecture == "residual" else architecture
    ax.set_title(f"{depth} layer{'s' * (depth > 1)}, {kind}: ρ = {theory[1]:.2f} for neighbours")
    near, right = (comparison.mean_of(measured[:, lag]) for lag in (1, quarter))
    return figure, (
        f"Gradients of inputs {NEIGHBOURS} degrees apart: predicted ρ = {theory[1]:.4f}, measured over "
        f"{NETWORKS} networks of width {WIDTH} {near} (one plain layer: {1 - 2 / POINTS:.3f}). At a right "
        f"angle: predicted {theory[quarter]:.4f}, measured {right} (0.500)."
    )
