"""Notebook 19: which rule for the gain keeps your activation's signal and gradient alive."""

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray
from torch import nn

from course_utils import activations, comparison, mean_field, network_laws, propagation
from course_utils.demos import canvas, demo

NETWORKS, DEEPEST, FACTOR = 20, 50, 30
ACTIVATIONS = {
    "ReLU": activations.relu,
    "leaky ReLU, a = 0.2": activations.leaky_relu(0.2),
    "ELU": activations.from_function(nn.functional.elu),
    "SELU": activations.selu,
    "GELU": activations.gelu,
    "SiLU": activations.silu,
    "Mish": activations.from_function(nn.functional.mish),
    "tanh": activations.tanh,
    "softsign": activations.softsign,
    "sigmoid": activations.sigmoid,
}
IN_FRONT, BEHIND = "in front: E φ(gZ)² = 1", "behind: 1/√(E φ(Z)²)"
RULES = {
    "torch's default: 1/√3": lambda phi: 3**-0.5,
    "Xavier: 1": lambda phi: 1.0,
    "He: √2": lambda phi: 2**0.5,
    "torch, for tanh: 5/3": lambda phi: 5 / 3,
    IN_FRONT: mean_field.gain_in_front,
    BEHIND: mean_field.gain_behind,
}
_theory = cache(network_laws.signal_and_gradient)


@cache
def gains(name: str, rule: str) -> tuple[float, float] | None:
    """Return the gains of the first layer and of all others, None where the rule's equation has no root."""
    phi, law = demo.pick("activation", ACTIVATIONS, name), demo.pick("rule", RULES, rule)
    try:
        gain = law(phi)
    except ValueError:  # bounded outputs
        return None
    return 1.0 if rule == BEHIND else gain, gain


def layers_kept(q: NDArray, chi: NDArray) -> int:
    """Return the depth up to which predicted signal and gradient stay within a factor FACTOR."""
    gradient = np.append(1.0, np.cumprod(chi[:-1]))
    out = np.maximum(np.abs(np.log(q / q[0])), np.abs(np.log(gradient))) > math.log(FACTOR)
    return int(out.argmax()) if out.any() else len(q)


@demo.asks(
    "Which rule keeps your activation's signal and gradient within a factor of 30 for fifty layers?",
    activation=demo.choice("activation (φ)", ACTIVATIONS),
    rule=demo.choice("rule for the gain (g)", RULES),
    depth=demo.integers("depth (L)", 5, DEEPEST, 1),
    width=demo.one_of("width (n)", (32, 64, 128, 256)),
)
def gain_figure(
    activation: str = "GELU", rule: str = "He: √2", depth: int = 50, width: int = 128
) -> demo.Drawing:
    """Draw second moments of signal and gradient by layer in plain networks, for a rule that sets the gain.

    Both relative to where they start: the signal to the first layer's, the gradient to the last's. Where the
    rule has no solution, the gain is 1.
    """
    pair, phi = gains(activation, rule) or (1.0, 1.0), ACTIVATIONS[activation]
    q, chi = _theory(phi, pair, DEEPEST)
    theory = network_laws.relative_moments(q[:depth], chi[:depth])
    draws = demo.normals(DEEPEST, 2, NETWORKS, width)[:depth]
    signal, gradient = propagation.gradient_chain(phi, pair, draws)
    measured = signal / signal[:, :1], gradient
    ends = np.log([measured[0][:, -1], gradient[:, 0]])
    within = (np.abs(ends) <= math.log(FACTOR)).all(axis=0).sum()
    figure, (ax,) = canvas.new_figure()
    layers, names = range(1, depth + 1), ("signal (q)", "gradient")
    canvas.plot_relative(ax, layers, theory, measured, names, x=0.45, center=np.median)
    canvas.shade(ax, FACTOR)
    canvas.set_layers(ax, depth, ylabel="second moment, relative")
    kept = f"predicted to keep {layers_kept(q, chi)} layers; {within} of {NETWORKS} networks keep {depth}"
    ax.set_title(f"{activation}, gain {pair[1]:.3g}: {kept}")
    up, down = (comparison.median_of(logs / math.log(10)) for logs in ends)
    return figure, (
        f"{_about_the_rule(activation, rule)}log10 of the factor over {depth} layers: "
        f"signal predicted {math.log10(theory[0][-1]):z.2f} at infinite width, median {up}; "
        f"gradient predicted {math.log10(theory[1][0]):z.2f}, median {down}. "
        f"{within} of {NETWORKS} networks keep both within a factor of {FACTOR}."
    )


def _about_the_rule(activation: str, rule: str) -> str:
    """Return what there is to say about the rule's equation: no solution, or a slope that is not 1."""
    pair = gains(activation, rule)
    if pair is None:
        return f"No gain in front of {activation} gives outputs of second moment 1; drawn with gain 1. "
    if rule not in (IN_FRONT, BEHIND):
        return ""
    first, gain = pair
    slope = float(mean_field.length_slope(ACTIVATIONS[activation], first**2, gain))
    kind = "neutral" if abs(slope - 1) < 1e-6 else "a valley" if slope < 1 else "a hilltop"
    return f"q = {first**2:.2f} is a fixed point, {kind}: each layer multiplies small errors by {slope:.2f}. "
