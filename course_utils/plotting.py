"""Figures of the course: theory as a line, measurements as points, the spread over networks as a band.

Every function takes arrays, draws into `ax` and returns it. Theory is dashed and black wherever it appears;
measurements carry markers, so that nothing is told by colour alone.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from itertools import chain
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.core.getipython import get_ipython
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.category import StrCategoryFormatter
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedFormatter, FuncFormatter
from matplotlib_inline.backend_inline import set_matplotlib_formats
from numpy.typing import ArrayLike, NDArray
from PIL import Image

# Okabe & Ito (2008): distinguishable with every common form of colour blindness.
BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#767676"

_STYLE = {
    "figure.figsize": (9, 4.5),
    "figure.constrained_layout.use": True,
    "font.size": 13,
    "axes.titlesize": 14,
    "axes.titlelocation": "left",
    "axes.titley": 1.0,  # else every drawing measures all texts to place the title
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": plt.cycler(color=[BLUE, ORANGE, GREEN, PINK, GREY]),
    "axes.formatter.limits": (-3, 4),
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.framealpha": 0.9,
    "legend.edgecolor": "none",
    "legend.fontsize": 11,
    "figure.dpi": 72,
}

_COLORS = {BLUE: "blue", ORANGE: "orange", GREEN: "green", PINK: "pink", GREY: "grey", "#000000": "black"}
_STYLES = {"--": "dashed", ":": "dotted", "-.": "dash-dotted", "-": "solid"}


def use_course_style() -> None:
    """Set fonts, colours and sizes for a projector, sharp images, and what each figure says as its text."""
    plt.rcParams.update(_STYLE)
    set_matplotlib_formats("retina")
    if shell := get_ipython():
        texts = shell.display_formatter.formatters["text/plain"]
        texts.for_type(Figure, lambda figure, printer, cycle: printer.text(describe(figure)))


def describe(figure: Figure) -> str:
    """Return a figure's words, its keys, its spans, and five points of each line of theory.

    Jupyter stores it beside the picture, and the tests compare it, for the line in a picture is a second copy
    of what a cell asserts. What was measured, as markers, bands, bars or solid lines, is left out.
    """
    panels = [ax for ax in figure.axes if ax.get_visible()]
    labels = [(ax.get_ylabel(), ax.get_xlabel()) for ax in panels]
    names = dict.fromkeys(" over ".join(pair) for pair in labels if all(pair))
    heading = " and ".join(names) or "no axes"  # the first line is seen where an output is collapsed
    words = f"Figure of {heading}", figure.get_suptitle(), figure.get_supxlabel(), figure.get_supylabel()
    return "\n".join(filter(None, [*words, *chain.from_iterable(map(_panel, panels))]))


def _panel(ax: Axes) -> Iterator[str]:
    """Yield what one panel says."""
    yield f"* {ax.get_title() or ax.get_title('left') or 'no title'} [{_axis(ax.xaxis)}; {_axis(ax.yaxis)}]"
    for line in ax.lines:
        if line.get_linestyle() in ("--", ":", "-.") and len(line.get_xydata()):
            yield f"  {_look(line)}: {_points(line)}"
    bars = {patch for container in ax.containers for patch in container}
    for patch in ax.patches:
        if type(patch) is Rectangle and patch not in bars:
            box = patch.get_bbox()
            yield f"  {_look(patch)} span: x {box.x0:.3g} to {box.x1:.3g}, y {box.y0:.3g} to {box.y1:.3g}"
    if legend := ax.get_legend():
        for artist, text in zip(legend.legend_handles, legend.get_texts(), strict=True):
            yield f"  key {_look(artist)}: {text.get_text()}"
    for text in ax.texts:
        if re.search(r"[^\W\d]", text.get_text()):  # a mere number was measured
            yield f"  text {_look(text)}: {text.get_text()}"


def _axis(axis: Axis) -> str:
    """Return an axis' label, its scale, and what stands at its ticks if these are names."""
    words = [axis.get_label_text() or "no label", axis.get_scale()]
    formatter = axis.get_major_formatter()
    if isinstance(formatter, FixedFormatter | FuncFormatter | StrCategoryFormatter):
        words += map(str, formatter.format_ticks(axis.get_majorticklocs()))
    return ", ".join(words)


def _look(artist: Artist) -> str:
    """Return colour, kind of line and marker of what is drawn: "black dashed", "blue o"."""
    color = artist.get_color() if hasattr(artist, "get_color") else artist.get_facecolor()
    color = to_hex(color if isinstance(color, str) else np.reshape(color, (-1, np.shape(color)[-1]))[0])
    words = [_COLORS.get(color.upper(), color)]
    if isinstance(artist, Line2D):
        words += [_STYLES.get(artist.get_linestyle(), ""), str(artist.get_marker()).replace("None", "")]
    return " ".join(filter(None, words))


def _points(line: Line2D) -> str:
    """Return the first point, the last and three between, to three digits; ties are rounded up everywhere."""
    xy = line.get_xydata()
    if line.axes.get_yscale() == "linear":
        xy = np.where(np.abs(xy) < 1e-14, 0, xy)  # rounding, which each machine does differently
    ends = xy[np.linspace(0, len(xy) - 1, min(5, len(xy))).astype(int)] * (1 + 1e-9)
    return " ".join(f"({x:.3g}, {y:.3g})" for x, y in ends)


def to_jpeg(picture: Image.Image) -> bytes:
    """Return the picture as the bytes of a JPEG image, without visible loss.

    JPEG, because the compression of a PNG image takes as long as its drawing.
    """
    buffer = BytesIO()
    picture.convert("RGB").save(buffer, "jpeg", quality=95, subsampling=0)
    return buffer.getvalue()


def use_log_axis(ax: Axes) -> Axes:
    """Make the vertical axis logarithmic, and quick to draw."""
    ax.set_yscale("log")
    ax.minorticks_off()
    ax.yaxis.set_major_formatter("{x:g}")  # 1e-16 as plain text: mathtext takes most of a redraw
    return ax


def plot_samples(
    x: ArrayLike,
    samples: ArrayLike,
    theory: ArrayLike | None = None,
    *,
    ax: Axes,
    center: Callable[..., NDArray] = np.median,
    every: int = 1,
    label: str | None = None,
    color: str = BLUE,
    marker: str = "o",
) -> Axes:
    """Draw the central 95 % of `samples` (networks, points) as a band, their center as markers, and `theory`.

    `center` is np.median or np.mean; every `every`-th point has a marker.
    """
    low, high = np.percentile(samples, [2.5, 97.5], axis=0)
    ax.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)
    ax.plot(x[::every], center(samples, axis=0)[::every], marker, color=color, label=label)
    if theory is not None:
        ax.plot(x, theory, "k--")
    return ax


def plot_signal(samples: ArrayLike, theory: ArrayLike | None = None, *, ax: Axes, **look: str) -> Axes:
    """Draw a quantity by layer: median and central 95 % of `samples`, shape (networks, layers), and `theory`.

    The vertical axis is logarithmic; samples and theory must be positive. `look`: label, color and marker.
    """
    layers = np.arange(np.shape(samples)[1])
    plot_samples(layers, samples, theory, ax=ax, every=max(1, len(layers) // 12), **look)
    ax.set_xlabel("layer (l)")
    return use_log_axis(ax)


def plot_history(
    history: Any, *, window: int = 10, ax: Axes, label: str, color: str = BLUE, marker: str = "o"
) -> Axes:
    """Draw the loss of a training history by step: median over networks and their full range as a band.

    `history` is a DataFrame with columns step, network and loss; each network is first averaged over `window`
    steps.
    """
    table = history.pivot(index="step", columns="network", values="loss")
    table = table.groupby(table.index // window * window).mean()
    ax.fill_between(table.index, table.min(axis=1), table.max(axis=1), color=color, alpha=0.2, linewidth=0)
    every = max(1, len(table) // 8)
    ax.plot(table.index, table.median(axis=1), f"{marker}-", color=color, markevery=every, label=label)
    ax.set_xlabel("step")
    return ax


def plot_fan(samples: ArrayLike, low: ArrayLike, middle: ArrayLike, high: ArrayLike, *, ax: Axes) -> Axes:
    """Draw `samples` (networks, layers) as a fan chart with five single networks, and predicted quantiles.

    The shades hold the central 95, 80 and 50 % of the networks; `low`, `middle`, `high` have shape (layers,).
    """
    samples = np.asarray(samples)
    edges = np.percentile(samples, [2.5, 10, 25, 75, 90, 97.5], axis=0)
    for i in range(3):
        ax.fill_between(range(samples.shape[1]), edges[i], edges[-1 - i], color=BLUE, alpha=0.18, linewidth=0)
    ax.plot(samples[:5].T, color=BLUE, linewidth=0.8)
    ax.plot(middle, "k--", linewidth=2, label="predicted median")
    ax.plot(low, "k:", linewidth=2, label="predicted 95 %")
    ax.plot(high, "k:", linewidth=2)
    ax.set_xlabel("layer (l)")
    return use_log_axis(ax)


def plot_cobweb(
    function: Callable[[NDArray], ArrayLike], start: float, steps: int, *, stop: float, ax: Axes
) -> Axes:
    """Draw the map x -> function(x) on [0, stop] and the staircase of `steps` iterations from `start`."""
    x = np.linspace(0, stop, 100)
    ax.plot(x, x, color=GREY, linewidth=1)
    ax.plot(x, function(x), "k--", linewidth=2)
    values = [start]
    for _ in range(steps):
        values.extend(function(np.array(values[-1:])))
    stairs = np.repeat(values, 2)
    ax.plot(stairs[:-1], [0, *stairs[2:]], "o-", color=ORANGE, markersize=3, linewidth=1)
    ax.set(xlim=(0, stop), ylim=(0, stop), aspect="equal")
    return ax


def plot_layer_histograms(
    values: dict[int, ArrayLike], limits: tuple[float, float], *, axes: Sequence[Axes], color: str = BLUE
) -> Sequence[Axes]:
    """Draw one histogram a layer, each into one of `axes`, all over the same 40 bins between `limits`.

    `values` maps a layer to its units' outputs. Heights are shares of the units, on a logarithmic axis; the
    RMS is in the title.
    """
    for ax, (layer, h) in zip(axes, values.items(), strict=True):
        h = np.ravel(h)
        ax.hist(h, bins=np.linspace(*limits, 41), weights=np.full(h.size, 1 / h.size), color=color)
        ax.set(xlim=limits, ylim=(5e-4, 1.5), yscale="log")
        ax.set_title(f"layer {layer}, RMS {np.sqrt(np.mean(h**2)):.2g}", fontsize=12)
        ax.tick_params(labelsize=10)
        ax.set_xlabel("output (h)", fontsize=11)
    return axes


def mark_level(ax: Axes, level: float, name: str, x: float, *, color: str = GREY, **style: Any) -> None:
    """Draw a horizontal line, and its name at `x`, a text of this `style`."""
    ax.axhline(level, color=color, linewidth=1)
    ax.text(x, level, name, color=color, **style)


def mark_dtype_limits(dtypes: Sequence[torch.dtype], *, tiny: bool = False, ax: Axes) -> Axes:
    """Draw the largest number of each dtype as a labelled line; with `tiny` its smallest subnormal."""
    style = {"transform": ax.get_yaxis_transform(), "ha": "right", "va": "bottom", "fontsize": 11}
    for dtype in dtypes:
        limits = torch.finfo(dtype)
        level = limits.smallest_normal * limits.eps if tiny else limits.max
        name = f"{'smallest' if tiny else 'largest'} {str(dtype).removeprefix('torch.')}"
        mark_level(ax, level, name, 1, **style)
    return ax
