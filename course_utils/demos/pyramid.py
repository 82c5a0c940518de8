"""Notebook 05: how uneven widths may be before a choice of fan loses signal and gradient together."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from course_utils import architectures, chains, plotting
from course_utils.demos import canvas
from course_utils.demos.demo import Demo, choice, integers, log_slider, luck, pick, versus

NETWORKS, NARROW = 500, 128
MODES = ("fan_in", "fan_avg", "fan_out")
# The exponent of the ratio, by the layer as a share of the depth and by its number.
SHAPES = {
    "narrowing": lambda share, layer: 1 - share,
    "widening": lambda share, layer: share,
    "alternating": lambda share, layer: layer % 2,
}


def pyramid_demo() -> Demo:
    """Find how uneven widths must be for a choice of fan to lose signal and gradient together."""
    return Demo(
        "How uneven may widths be before a choice of fan has lost nine tenths of both signal and gradient?",
        {
            "shape": choice("shape of the network", tuple(SHAPES), "narrowing"),
            "mode": choice("He's variance: 2 over", MODES, "fan_avg"),
            "ratio": log_slider("widest / narrowest (r)", 4.0, 0, 4, 0.5, ".3g", base=2),
            "depth": integers("depth (L)", 20, 2, 30, 2),
        },
        pyramid_figure,
    )


def widths_of(shape: str, ratio: float, depth: int) -> NDArray[np.int64]:
    """Return the widths of layers 0..depth, the narrowest 128 and the widest `ratio` times that."""
    layers = np.arange(depth + 1)
    return np.rint(NARROW * ratio ** pick("shape", SHAPES, shape)(layers / depth, layers)).astype(int)


def pyramid_figure(
    shape: str = "narrowing", mode: str = "fan_avg", ratio: float = 4.0, depth: int = 20
) -> tuple[Figure, str]:
    """Draw second moments of signal and gradient by layer for ReLU networks with Var(w) = 2 / fan."""
    widths, draws = widths_of(shape, ratio, depth), {"count": NETWORKS, "generator": luck()}
    variances = architectures.he_variances(widths, mode)
    theory = upwards, downwards = architectures.relu_moments(widths, variances)
    signal = chains.leaky_chain(0.0, widths, variances, **draws)
    gradient = chains.relu_gradient_chain(widths, variances, **draws)
    figure, (ax,) = canvas.new_figure()
    for samples, law, label, color, marker in (
        (signal, upwards, "signal (m), on its way up", plotting.BLUE, "o"),
        (gradient, downwards, "gradient (g), on its way down", plotting.ORANGE, "^"),
    ):
        style = {"label": label, "color": color, "marker": marker}
        plotting.plot_samples(np.arange(depth + 1), samples, ax=ax, center=np.mean, **style)
        ax.plot(law, "k--", linewidth=1.5)
    _draw_silhouette(ax, widths)
    canvas.name_lines(ax, (0.11, 0.93), (0.54, 0.93))
    canvas.set_decades(ax, min(1e-3, np.min(theory) / 100), max(1e3, 30 * np.max(theory)))
    canvas.set_layers(ax, depth)
    ax.set(
        xlabel="layer (l)",
        ylabel="second moment (m, g)",
        title=f"{mode}: signal × {upwards[-1]:.3g} at the top, gradient × {downwards[0]:.3g} at the bottom",
    )
    return figure, (
        f"Second moments over {depth} layers, means of {NETWORKS:,} networks. Signal at the top: "
        f"{versus(upwards[-1], signal[:, -1])}; gradient at the bottom: "
        f"{versus(downwards[0], gradient[:, 0])}."
    )


def _draw_silhouette(ax: Axes, widths: NDArray[np.int64]) -> None:
    """Draw the widths of the layers along the bottom."""
    place, top = ax.get_xaxis_transform(), 0.02 + 0.14 * widths / widths.max()
    style = {"color": plotting.GREY, "alpha": 0.3, "linewidth": 0, "step": "mid", "transform": place}
    ax.fill_between(range(len(widths)), 0.02, top, **style)
    first, second, *_, last = (f"{n:,}" for n in widths)
    middle, text = (len(widths) - 1) / 2, f"widths {first}, {second}, …, {last}"
    ax.text(middle, 0.035, text, fontsize=11, ha="center", transform=place)
