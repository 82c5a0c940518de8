"""Figures of the course: theory as a line, measurements as points, the spread over networks as a band.

Every function takes arrays, draws into `ax` (a new one if None) and returns the Axes. Theory is dashed and
black wherever it appears; measurements carry markers, so that nothing is told by colour alone.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.spines import Spine
from matplotlib.text import Text
from matplotlib_inline.backend_inline import set_matplotlib_formats
from numpy.typing import ArrayLike, NDArray
from PIL import Image

if TYPE_CHECKING:
    import pandas as pd  # takes longer to import than a figure to draw, and drawing needs only its methods

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

Figures = dict[int, tuple[Figure, Sequence[Axes]]]
_reused: ContextVar[Figures | None] = ContextVar("reused", default=None)


def use_course_style() -> None:
    """Set fonts, colours and sizes for a projector, and images sharp on high-density screens."""
    plt.rcParams.update(_STYLE)
    set_matplotlib_formats("retina")


def _axes(ax: Axes | None) -> Axes:
    return plt.subplots()[1] if ax is None else ax


def use_log_axis(ax: Axes) -> Axes:
    """Make the vertical axis logarithmic, and quick to draw."""
    ax.set_yscale("log")
    ax.minorticks_off()
    ax.yaxis.set_major_formatter("{x:g}")  # 1e-16 as plain text: mathtext takes most of a redraw
    return ax


def set_decades(ax: Axes, low: float, high: float) -> None:
    """Make the vertical axis logarithmic, with few ticks, and room for 1 and all from `low` to `high`.

    The limits' exponents are powers of two or 0: limits that seldom change while a slider moves are easier to
    follow, and quicker to draw.
    """
    bottom, top = -_next_power_of_two(-np.log10(low)), _next_power_of_two(np.log10(high))
    step = 2 ** np.ceil(np.log2(max(5, top - bottom) / 5))
    use_log_axis(ax).set_ylim(10.0**bottom, 10.0**top)
    ax.set_yticks(10.0 ** np.arange(step * np.ceil(bottom / step), top + 1, step))


def set_layers(ax: Axes, depth: int) -> None:
    """Give the horizontal axis room for `depth` layers, at most 300, with limits that seldom change."""
    room = next(layers for layers in (5, 10, 20, 30, 50, 100, 150, 200, 300) if layers >= depth)
    ax.set_xlim(-0.03 * room, 1.03 * room)
    ax.locator_params(axis="x", integer=True)


def _next_power_of_two(x: float) -> float:
    """Return the least of 0, 1, 2, 4, 8, ... that is not below x."""
    return 2.0 ** np.ceil(np.log2(max(1, x))) if x > 0 else 0.0


def _log_layers(ax: Axes) -> Axes:
    ax.set_xlabel("layer (l)")
    return use_log_axis(ax)


def plot_samples(
    x: ArrayLike,
    samples: ArrayLike,
    *,
    ax: Axes,
    center: Callable[..., NDArray] = np.median,
    every: int = 1,
    label: str | None = None,
    color: str = BLUE,
    marker: str = "o",
) -> None:
    """Draw the central 95 % of `samples` (networks, points) as a band, and their center as markers.

    `center` is np.median or np.mean; every `every`-th point has a marker.
    """
    low, high = np.percentile(samples, [2.5, 97.5], axis=0)
    ax.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)
    ax.plot(x[::every], center(samples, axis=0)[::every], marker, color=color, label=label)


def plot_signal(
    samples: ArrayLike,
    theory: ArrayLike | None = None,
    *,
    ax: Axes | None = None,
    label: str = "measured",
    color: str = BLUE,
    marker: str = "o",
) -> Axes:
    """Draw a quantity by layer: median and central 95 % of `samples`, shape (networks, layers), and `theory`.

    The vertical axis is logarithmic; samples and theory must be positive.
    """
    ax = _axes(ax)
    layers = np.arange(np.shape(samples)[1])
    every = max(1, len(layers) // 12)
    plot_samples(layers, samples, ax=ax, every=every, label=label, color=color, marker=marker)
    if theory is not None:
        ax.plot(layers, theory, "k--", linewidth=1.5)
    return _log_layers(ax)


def plot_history(
    history: "pd.DataFrame",
    *,
    window: int = 10,
    ax: Axes | None = None,
    label: str | None = None,
    color: str = BLUE,
    marker: str = "o",
) -> Axes:
    """Draw the loss of a training history by step: median over networks and their full range as a band.

    `history` has the columns step, network and loss; each network is first averaged over `window` steps.
    """
    ax = _axes(ax)
    table = history.pivot(index="step", columns="network", values="loss")
    table = table.groupby(table.index // window * window).mean()
    ax.fill_between(table.index, table.min(axis=1), table.max(axis=1), color=color, alpha=0.2, linewidth=0)
    every = max(1, len(table) // 8)
    ax.plot(table.index, table.median(axis=1), f"{marker}-", color=color, label=label, markevery=every)
    ax.set_xlabel("step")
    return ax


def plot_fan(
    samples: ArrayLike, low: ArrayLike, middle: ArrayLike, high: ArrayLike, *, ax: Axes | None = None
) -> Axes:
    """Draw `samples` (networks, layers) as a fan chart with five single networks, and predicted quantiles.

    The shades hold the central 95, 80 and 50 % of the networks; `low`, `middle`, `high` have shape (layers,).
    """
    ax = _axes(ax)
    samples = np.asarray(samples)
    edges = np.percentile(samples, [2.5, 10, 25, 75, 90, 97.5], axis=0)
    for i in range(3):
        ax.fill_between(range(samples.shape[1]), edges[i], edges[-1 - i], color=BLUE, alpha=0.18, linewidth=0)
    ax.plot(samples[:5].T, color=BLUE, linewidth=0.8)
    ax.plot(middle, "k--", linewidth=2, label="predicted median")
    ax.plot(low, "k:", linewidth=2, label="predicted 95 %")
    ax.plot(high, "k:", linewidth=2)
    ax.legend(loc="lower left")
    return _log_layers(ax)


def plot_cobweb(
    function: Callable[[NDArray], ArrayLike], start: float, steps: int, *, stop: float, ax: Axes | None = None
) -> Axes:
    """Draw the map x -> function(x) on [0, stop] and the staircase of `steps` iterations from `start`."""
    ax = _axes(ax)
    x = np.linspace(0, stop, 200)
    ax.plot(x, x, color=GREY, linewidth=1)
    ax.plot(x, function(x), "k--", linewidth=2)
    corners = [(start, 0.0)]
    for _ in range(steps):
        image = float(np.asarray(function(np.array([corners[-1][0]])))[0])
        corners += [(corners[-1][0], image), (image, image)]
    ax.plot(*zip(*corners, strict=True), "o-", color=ORANGE, markersize=3, linewidth=1)
    ax.set(xlim=(0, stop), ylim=(0, stop), aspect="equal")
    return ax


def plot_layer_histograms(
    values: dict[int, ArrayLike],
    limits: tuple[float, float],
    *,
    axes: Sequence[Axes] | None = None,
    color: str = BLUE,
) -> Sequence[Axes]:
    """Draw one histogram a layer, all over the same 40 bins between `limits`; the RMS is in the title.

    `values` maps a layer to its units' outputs; heights are shares of the units, on a logarithmic axis.
    """
    if axes is None:
        axes = plt.subplots(1, len(values), figsize=(12, 2.8), sharey=True, squeeze=False)[1][0]
    for ax, (layer, h) in zip(axes, values.items(), strict=True):
        h = np.ravel(h)
        ax.hist(h, bins=np.linspace(*limits, 41), weights=np.full(h.size, 1 / h.size), color=color)
        ax.set(xlim=limits, ylim=(5e-4, 1.5), yscale="log")
        ax.set_title(f"layer {layer}, RMS {np.sqrt(np.mean(h**2)):.2g}", fontsize=12)
        ax.tick_params(labelsize=10)
        ax.set_xlabel("output (h)", fontsize=11)
    axes[0].set_ylabel("share of units")
    return axes


def mark_dtype_limits(ax: Axes, dtypes: Sequence[torch.dtype], *, tiny: bool = False) -> Axes:
    """Draw the largest number of each dtype as a labelled line; with `tiny` its smallest subnormal."""
    for dtype in dtypes:
        limits = torch.finfo(dtype)
        level = limits.smallest_normal * limits.eps if tiny else limits.max
        ax.axhline(level, color=GREY, linewidth=1)
        name = f"{'smallest' if tiny else 'largest'} {str(dtype).removeprefix('torch.')}"
        ax.annotate(
            name,
            (1, level),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            color=GREY,
            fontsize=11,
        )
    return ax


class _Canvas(FigureCanvasAgg):
    """A canvas that keeps ticks, grid and labels as pixels for as long as they stay the same.

    They take half of a redraw. Texts that are placed in shares of the axes belong to them. What is saved to a
    file is drawn as ever.
    """

    _frame: object = None

    def draw(self) -> None:
        """Draw what the axes hold over the kept frame, or over a new one where it has changed."""
        contents = [artist for ax in self.figure.axes for artist in _contents(ax)]
        for artist in contents:
            artist.set_animated(True)  # left out when a canvas draws
        frame = [_frame_of(ax) for ax in self.figure.axes]
        if frame != self._frame:
            super().draw()
            self._frame, self._pixels = frame, self.copy_from_bbox(self.figure.bbox)
        self.restore_region(self._pixels)
        for artist in sorted(contents, key=Artist.get_zorder):
            self.figure.draw_artist(artist)


def _contents(ax: Axes) -> list[Artist]:
    """Return the titles of the axes and what they hold, without what frames them."""
    frame = {ax.patch, *_labels(ax)}
    return [a for a in ax.get_children() if a not in frame and not isinstance(a, Spine | Axis)]


def _labels(ax: Axes) -> list[Text]:
    return [text for text in ax.texts if text.get_transform() is ax.transAxes]


def _frame_of(ax: Axes) -> list[object]:
    """Return all that a demo changes in the frame of its axes."""
    frame: list[object] = [ax.get_aspect()]
    frame += [(text.get_text(), *text.get_position()) for text in _labels(ax)]
    for axis in (ax.xaxis, ax.yaxis):
        ticks = axis.get_majorticklocs()
        texts = axis.get_major_formatter().format_ticks(ticks)
        frame += [axis.get_scale(), *axis.get_view_interval(), *ticks, *texts, axis.get_label_text()]
    return frame


@contextmanager
def reusing(figures: Figures) -> Iterator[None]:
    """Let `new_figure` put what it makes into `figures`, and later empty and return that again.

    A demo draws the same axes over and over, and to make them with their ticks takes a quarter of the time.
    """
    token = _reused.set(figures)
    try:
        yield
    finally:
        _reused.reset(token)


def _make_figure(columns: int) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(9, 4), dpi=120, layout="none")
    _Canvas(figure)
    figure.subplots_adjust(left=0.12, right=0.98, bottom=0.16, top=0.9, wspace=0.3)
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for ax in axes:
        ax.xaxis.set_label_coords(0.5, -0.11)
        ax.yaxis.set_label_coords(-0.085 / ax.get_position().width, 0.5)
    return figure, axes


def _empty(ax: Axes) -> None:
    """Remove what the axes hold, and bring back the frame they have when new, with about five ticks."""
    for artist in [*ax.lines, *ax.collections, *ax.patches, *ax.texts]:
        artist.remove()
    if legend := ax.get_legend():
        legend.remove()
    ax.set(title="", xlabel="", ylabel="", xscale="linear", yscale="linear", aspect="auto")
    ax.locator_params(nbins=5)
    ax.set_prop_cycle(None)
    ax.relim()
    ax.autoscale(True)


def new_figure(columns: int = 1) -> tuple[Figure, Sequence[Axes]]:
    """Return a figure of one row for a demo, and its axes: drawn in one go, denser than it is shown.

    Margins, places of labels and the number of ticks are fixed, because a slider waits for each of them.
    """
    figures = {} if (kept := _reused.get()) is None else kept
    if columns not in figures:
        figures[columns] = _make_figure(columns)
    figure, axes = figures[columns]
    for ax in axes:
        _empty(ax)
    return figure, axes


def to_jpeg(figure: Figure) -> bytes:
    """Return a `new_figure` as the bytes of a JPEG image, without visible loss.

    JPEG, because the compression of a PNG image takes as long as the drawing; and not by `savefig`, which
    draws everything twice.
    """
    buffer = io.BytesIO()
    figure.canvas.draw()
    pixels = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
    pixels.save(buffer, "jpeg", quality=95, subsampling=0)
    return buffer.getvalue()


def plot_diagnosis(table: "pd.DataFrame", *, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
    """Draw second moments by layer, of the signal above and of the gradient below, on logarithmic axes.

    `table` is that of a `Diagnosis`; a ring marks layers with a fault. Zeros and NaN leave gaps; at most 20
    layers are named.
    """
    if axes is None:
        axes = plt.subplots(2, 1, figsize=(9, 6), sharex=True)[1]
    layers, faulty = np.arange(len(table)), table["fault"].to_numpy() != ""
    named = layers[:: max(1, -(-len(table) // 20))]
    for ax, quantity, color, marker in zip(axes, ("signal", "gradient"), (BLUE, ORANGE), "os", strict=True):
        column = "second_moment" if quantity == "signal" else "gradient_second_moment"
        values = table[column].where(table[column] > 0).to_numpy()
        ax.plot(layers, values, f"{marker}-", color=color, linewidth=1)
        ax.plot(layers[faulty], values[faulty], "ko", fillstyle="none", markersize=14, label="fault")
        _log_layers(ax).set(xlabel="", title=f"Second moment of the {quantity}")
        ax.set_xticks(named, table["layer"].iloc[named], rotation=60, ha="right", fontsize=10)
    axes[0].tick_params(labelbottom=False)  # both share the names below
    if faulty.any():
        axes[0].legend()
    axes[-1].set_xlabel("layer")
    return axes
