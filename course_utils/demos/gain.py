"""Notebook 15: which rule for the gain keeps your activation's signal and gradient alive."""

import math
from collections.abc import Callable
from functools import cache, lru_cache

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import nn

from course_utils import activations, architectures, chains, comparison, mean_field, plotting
from course_utils.activations import Activation
from course_utils.demos import canvas
from course_utils.demos.demo import Demo, choice, integers, luck, one_of, pick

NETWORKS, DEEPEST, FACTOR = 50, 50, 30
WIDTHS = (32, 64, 128, 256)
ACTIVATIONS: dict[str, Callable[[], Activation]] = {
    "ReLU": lambda: activations.relu,
    "leaky ReLU, a = 0.2": lambda: activations.leaky_relu(0.2),
    "ELU": lambda: activations.from_function(nn.functional.elu),
    "SELU": lambda: activations.selu,
    "GELU": lambda: activations.gelu,
    "SiLU": lambda: activations.silu,
    "Mish": lambda: activations.from_function(nn.functional.mish),
    "tanh": lambda: activations.tanh,
    "softsign": lambda: activations.softsign,
    "sigmoid": lambda: activations.sigmoid,
}
FIXED_GAINS = {
    "torch's default: 1/√3": 3**-0.5,
    "Xavier: 1": 1.0,
    "He: √2": 2**0.5,
    "torch, for tanh: 5/3": 5 / 3,
}
IN_FRONT, BEHIND = "in front: E φ(gZ)² = 1", "behind: 1/√(E φ(Z)²)"
RULES = (*FIXED_GAINS, IN_FRONT, BEHIND)


def gain_demo() -> Demo:
    """Find the rule, if there is one, that keeps signal and gradient of fifty layers alive."""
    return Demo(
        "Which rule keeps your activation's signal and gradient within a factor of 30 for fifty layers?",
        {
            "activation": choice("activation (φ)", tuple(ACTIVATIONS), "GELU"),
            "rule": choice("rule for the gain (g)", RULES, "He: √2"),
            "depth": integers("depth (L)", 50, 5, DEEPEST),
            "width": one_of("width (n)", WIDTHS, 128),
        },
        gain_figure,
    )


@cache
def activation_of(name: str) -> Activation:
    """Return the activation of this name. Raises: ValueError for an unknown one."""
    return pick("activation", ACTIVATIONS, name)()


@cache
def gains(name: str, rule: str) -> tuple[float, float] | None:
    """Return the gains of the first layer and of all others, None where the rule's equation has no root."""
    phi = activation_of(name)
    if rule == BEHIND:
        return 1.0, mean_field.gain_behind(phi)
    if rule != IN_FRONT:
        return (pick("rule", FIXED_GAINS | dict.fromkeys(RULES[-2:]), rule),) * 2
    try:
        return (mean_field.gain_in_front(phi),) * 2
    except ValueError:  # bounded outputs
        return None


@cache
def _theory(name: str, gains: tuple[float, float]) -> tuple[NDArray, NDArray]:
    return architectures.signal_and_gradient(activation_of(name), gains, DEEPEST)


@lru_cache(maxsize=len(WIDTHS))
def _normals(width: int) -> NDArray:
    # float32 is twice as fast and good to more digits than are shown.
    return torch.randn(DEEPEST, 2, NETWORKS, width, generator=luck()).numpy()


def layers_kept(q: NDArray, chi: NDArray) -> int:
    """Return the depth up to which predicted signal and gradient stay within a factor FACTOR."""
    gradient = np.append(1.0, np.cumprod(chi[:-1]))
    out = np.maximum(np.abs(np.log(q / q[0])), np.abs(np.log(gradient))) > math.log(FACTOR)
    return int(out.argmax()) if out.any() else len(q)


def gain_figure(
    activation: str = "GELU", rule: str = "He: √2", depth: int = 50, width: int = 128
) -> tuple[Figure, str]:
    """Draw second moments of signal and gradient by layer in plain networks, for a rule that sets the gain.

    Both relative to where they start: the signal to the first layer's, the gradient to the last's. Where the
    rule has no solution, the gain is 1.
    """
    phi, pair = activation_of(activation), gains(activation, rule) or (1.0, 1.0)
    q, chi = _theory(activation, pair)
    theory = q[:depth] / q[0], np.append(np.cumprod(chi[: depth - 1][::-1])[::-1], 1.0)
    signal, gradient = chains.gradient_chain(phi, pair, _normals(width)[:depth])
    measured = signal / signal[:, :1], gradient
    figure, (ax,) = canvas.new_figure()
    _draw_moments(ax, theory, measured)
    kept, within = layers_kept(q, chi), _within(*measured)
    ax.set_title(
        f"{activation}, gain {pair[1]:.3g}: predicted to keep {kept} layers; {within} of {NETWORKS} "
        f"networks keep {depth}"
    )
    return figure, _about_the_rule(activation, rule) + _sentence(theory, measured)


def _draw_moments(ax: Axes, theory: tuple[NDArray, NDArray], measured: tuple[NDArray, NDArray]) -> None:
    depth = len(theory[0])
    layers, every = np.arange(1, depth + 1), max(1, depth // 12)
    for law, samples, label, color, marker in (
        (theory[0], measured[0], "signal (q)", plotting.BLUE, "o"),
        (theory[1], measured[1], "gradient", plotting.ORANGE, "s"),
    ):
        style = {"every": every, "label": label, "color": color, "marker": marker}
        plotting.plot_samples(layers, samples, ax=ax, **style)
        ax.plot(layers, law, "k--", linewidth=1.5)
    ends = np.concatenate([*theory, *(np.median(samples, axis=0) for samples in measured)])
    bottom = min(1e-3, ends.min() / 10)
    canvas.set_decades(ax, bottom, max(3e3, 10 * ends.max(), bottom**-0.4))
    canvas.shade(ax, FACTOR)
    canvas.set_layers(ax, depth)
    canvas.name_lines(ax, (0.45, 0.92), (0.45, 0.85))
    ax.set(xlabel="layer (l)", ylabel="second moment, relative")


def _within(signal: NDArray, gradient: NDArray) -> int:
    """Return how many networks keep both within a factor FACTOR over all layers."""
    ends = np.log([signal[:, -1], gradient[:, 0]])
    return int((np.abs(ends) <= math.log(FACTOR)).all(axis=0).sum())


def _about_the_rule(activation: str, rule: str) -> str:
    """Return what there is to say about the rule's equation: no solution, or a slope that is not 1."""
    pair = gains(activation, rule)
    if pair is None:
        return f"No gain in front of {activation} gives outputs of second moment 1; drawn with gain 1. "
    if rule in FIXED_GAINS:
        return ""
    first, gain = pair
    slope = float(mean_field.length_slope(activation_of(activation), first**2, gain))
    kind = "neutral" if abs(slope - 1) < 1e-6 else "a valley" if slope < 1 else "a hilltop"
    return f"q = {first**2:.2f} is a fixed point, {kind}: each layer multiplies small errors by {slope:.2f}. "


def _sentence(theory: tuple[NDArray, NDArray], measured: tuple[NDArray, NDArray]) -> str:
    parts = []
    for name, k, law, samples in zip(("signal", "gradient"), (-1, 0), theory, measured, strict=True):
        log = comparison.median_of(np.log10(samples[:, k]))
        parts.append(f"{name} predicted {math.log10(law[k]):z.2f}, median {log}")
    return (
        f"log10 of the factor over {len(theory[0])} layers: {'; '.join(parts)}. "
        f"{_within(*measured)} of {NETWORKS} networks keep both within a factor of {FACTOR}."
    )
