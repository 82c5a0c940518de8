"""Notebook 05: how uneven widths may be before a choice of fan loses signal and gradient together."""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from course_utils import network_laws, plotting, propagation
from course_utils.demos import canvas, demo

NETWORKS, NARROW = 300, 128
# The exponent of the ratio, by the layer as a share of the depth and by its number.
SHAPES = {
    "narrowing": lambda share, layer: 1 - share,
    "widening": lambda share, layer: share,
    "alternating": lambda share, layer: layer % 2,
}


def widths_of(shape: str, ratio: float, depth: int) -> NDArray[np.int64]:
    """Return the widths of layers 0..depth, the narrowest 128 and the widest `ratio` times that."""
    layers = np.arange(depth + 1)
    return np.rint(NARROW * ratio ** demo.pick("shape", SHAPES, shape)(layers / depth, layers)).astype(int)


@demo.asks(
    "How uneven may widths be before a choice of fan has lost nine tenths of both signal and gradient?",
    shape=demo.choice("shape of the network", SHAPES),
    mode=demo.choice("He's variance: 2 over", ("fan_in", "fan_avg", "fan_out")),
    ratio=partial(demo.log_slider("widest / narrowest (r)", 0, 4, 0.5, ".3g"), base=2),
    depth=demo.integers("depth (L)", 2, 30, 2),
)
def pyramid_figure(
    shape: str = "narrowing", mode: str = "fan_avg", ratio: float = 4.0, depth: int = 20
) -> demo.Drawing:
    """Draw second moments of signal and gradient by layer for ReLU networks with Var(w) = 2 / fan."""
    widths, draws = widths_of(shape, ratio, depth), {"count": NETWORKS, "generator": demo.luck()}
    variances = network_laws.he_variances(widths, mode)
    theory = up, down = network_laws.relu_moments(widths, variances)
    signal = propagation.leaky_chain(0.0, widths, variances, **draws)
    gradient = propagation.relu_gradient_chain(widths, variances, **draws)
    figure, (ax,) = canvas.new_figure()
    layers, places = range(depth + 1), ((0.11, 0.93), (0.54, 0.93))
    names = "signal (m), on its way up", "gradient (g), on its way down"
    canvas.plot_two(ax, layers, theory, (signal, gradient), names, places, center=np.mean)
    style = {"transform": ax.get_xaxis_transform()}  # the widths along the bottom
    top = 0.02 + 0.14 * widths / widths.max()
    ax.fill_between(layers, 0.02, top, color=plotting.GREY, alpha=0.3, linewidth=0, step="mid", **style)
    first, second, *_, last = (f"{n:,}" for n in widths)
    ax.text(depth / 2, 0.035, f"widths {first}, {second}, …, {last}", fontsize=11, ha="center", **style)
    canvas.set_decades(ax, min(1e-3, np.min(theory) / 100), max(1e3, 30 * np.max(theory)))
    canvas.set_layers(ax, depth, ylabel="second moment (m, g)")
    ax.set_title(f"{mode}: signal × {up[-1]:.3g} at the top, gradient × {down[0]:.3g} at the bottom")
    return figure, (
        f"Second moments over {depth} layers, means of {NETWORKS:,} networks. "
        f"Signal at the top: {demo.versus(up[-1], signal[:, -1])}; "
        f"gradient at the bottom: {demo.versus(down[0], gradient[:, 0])}."
    )
