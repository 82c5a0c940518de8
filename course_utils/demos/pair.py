"""Notebook 08: which gain lets a deep network still tell twins from strangers."""

from functools import lru_cache

import numpy as np

from course_utils import activations, comparison, mean_field, network_laws, plotting, propagation
from course_utils.activations import Activation
from course_utils.demos import canvas, demo

NETWORKS, WIDTH, DEEPEST = 20, 128, 100
STRANGERS, TWINS = 0.6, 0.99  # cosine of the two inputs
ACTIVATIONS = {"tanh": activations.tanh, "ReLU": activations.relu}


@lru_cache
def trainable_depth(activation: Activation, gain: float, bias_std: float) -> tuple[float, float]:
    """Return chi_1 and the depth up to which notebook 08 trained: to a factor 900, inf at the edge."""
    q = max(1e-12, mean_field.fixed_point(activation, gain, bias_std))  # at 0 itself ReLU has no slope
    chi = float(mean_field.chi_1(activation, q, gain))
    rate = abs(np.log(chi))
    return chi, np.log(900) / rate if rate > 1e-6 else np.inf


@demo.asks(
    "Which gain lets a network of 50 layers still tell twins from strangers?",
    activation=demo.choice("activation (φ)", ACTIVATIONS),
    gain=demo.slider("gain (σ_w = √n × std)", 0.7, 3.0, 0.01),
    bias_std=demo.slider("bias std (σ_b)", 0.0, 1.0, 0.05),
    depth=demo.integers("depth (L)", 10, DEEPEST, 10),
)
def pair_figure(
    activation: str = "tanh", gain: float = 2.0, bias_std: float = 0.2, depth: int = 50
) -> demo.Drawing:
    """Draw the correlation of two strangers and of two twins by layer, and the predicted trainable depth.

    `gain` and `bias_std` are standard deviations; `activation` is "tanh" or "ReLU".
    """
    phi, cosines = demo.pick("activation", ACTIVATIONS, activation), (STRANGERS, TWINS)
    theory = network_laws.correlations(phi, gain, depth, cosines, bias_std=bias_std)
    draws = demo.normals(DEEPEST, 2, NETWORKS, WIDTH)[:depth]
    measured = propagation.pair_chain(phi, gain, cosines, draws, bias_std=bias_std)
    chi, limit = trainable_depth(phi, gain, bias_std)
    figure, (ax,) = canvas.new_figure()
    names = f"strangers, cosine {STRANGERS}", f"twins, cosine {TWINS}"
    layers, places = np.arange(1, depth + 1), ((0.7, 0.925), (0.04, 0.925))
    canvas.plot_two(ax, layers, theory, measured, names, places, every=max(1, depth // 12))
    ylabel = "correlation of two inputs (c)"
    canvas.set_layers(ax, depth, ylabel=ylabel, ylim=(-0.35, 1.38), yticks=(0, 0.5, 1))
    if limit < depth:
        ax.axvline(limit, ymax=0.88, color=plotting.GREY, linestyle=":")
        side = "left" if limit < 0.6 * depth else "right"
        ax.text(limit, 1.09, " trains to about here ", color=plotting.GREY, ha=side)
    gap, found = theory[1, -1] - theory[0, -1], comparison.mean_of(measured[1, :, -1] - measured[0, :, -1])
    above = "Chaos" if activation == "tanh" else "Explosion"  # ReLU's lengths grow, and inputs still merge
    phase = "Edge" if limit > 1000 else "Order" if chi < 1 else above
    ax.set_title(f"{phase}, χ₁ = {chi:.2f}: twins and strangers differ by {gap:z.2f} in layer {depth}")
    reach = f"up to about {limit:.0f} layers" if limit < 1000 else "at every depth shown here"
    return figure, (
        f"Correlation of the twins minus that of the strangers in layer {depth}: predicted {gap:z.4f}, "
        f"measured over {NETWORKS} networks of width {WIDTH} {found:.4f}. Each layer "
        f"multiplies a squared gradient by χ₁ = {chi:.3f}: by the rule ln(900) / |ln χ₁| the network "
        f"trains {reach}."
    )
