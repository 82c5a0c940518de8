"""A canvas for demos: figures that a slider can wait for.

Axes are emptied and used again, ticks and labels are kept as pixels while they stay the same, limits come in
steps that seldom change.
"""

from collections.abc import Callable, Sequence
from contextvars import Context, ContextVar, copy_context
from functools import cache, lru_cache
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from matplotlib.spines import Spine
from matplotlib.text import Text
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from course_utils.plotting import BLUE, GREY, ORANGE, plot_samples, to_jpeg, use_log_axis

Pair = NDArray | tuple  # of two
_reused: ContextVar[dict[int, tuple[Figure, Sequence[Axes]]]] = ContextVar("reused")  # by columns
_font = cache(ImageFont.truetype)  # of a path, in so many pixels


def set_decades(ax: Axes, low: float, high: float) -> None:
    """Make the vertical axis logarithmic, with few ticks, and room for 1 and all from `low` to `high`.

    The limits' exponents are powers of two or 0: limits that seldom change while a slider moves are easier to
    follow, and quicker to draw.
    """
    bottom, top = -_next_power_of_two(-np.log10(low)), _next_power_of_two(np.log10(high))
    step = 2 ** np.ceil(np.log2(max(5, top - bottom) / 5))
    use_log_axis(ax).set_ylim(10.0**bottom, 10.0**top)
    ax.set_yticks(10.0 ** np.arange(step * np.ceil(bottom / step), top + 1, step))


def set_layers(ax: Axes, depth: int, **settings: object) -> None:
    """Call `ax.set`, with room for `depth` layers, at most 300, and limits that seldom change."""
    room = next(layers for layers in (5, 10, 20, 30, 50, 100, 150, 200, 300) if layers >= depth)
    ax.set(**{"xlabel": "layer (l)", "xlim": (-0.03 * room, 1.03 * room), **settings})
    ax.locator_params(axis="x", integer=True)


def _next_power_of_two(x: float) -> float:
    """Return the least of 0, 1, 2, 4, 8, ... that is not below x."""
    return 2.0 ** np.ceil(np.log2(max(1, x))) if x > 0 else 0.0


_KEYS = {"o": "●", "^": "▲", "x": "✖", "--": "dashed:", ":": "dotted:", "-.": "dash-dotted:"}


def name_lines(ax: Axes, *places: tuple[float, float]) -> None:
    """Write each labelled line's label at its place, in shares of the axes, with its marker and in its color.

    The places are those of the labelled lines in the order in which they were drawn.
    """
    named = [line for line in ax.lines if not str(line.get_label()).startswith("_")]
    for line, (x, y) in zip(named, places, strict=True):
        style, hollow = line.get_linestyle(), line.get_fillstyle() == "none"
        key = "○" if hollow else _KEYS[line.get_marker() if style == "None" else style]
        ax.text(x, y, f"{key} {line.get_label()}", color=line.get_color(), transform=ax.transAxes)


def plot_two(
    ax: Axes, x: NDArray, laws: Pair, samples: Pair, labels: Pair, places: Pair, **style: object
) -> None:
    """Draw two quantities, the first in blue circles, the second in orange triangles, and their laws dashed.

    `samples` and `style` as for `plotting.plot_samples`, `places` of the labels as for `name_lines`.
    """
    for law, measured, label, color, marker in zip(laws, samples, labels, (BLUE, ORANGE), "o^", strict=True):
        plot_samples(x, measured, law, ax=ax, label=label, color=color, marker=marker, **style)
    name_lines(ax, *places)


def plot_relative(
    ax: Axes, layers: range, laws: Pair, samples: Pair, labels: Pair, x: float, center: Callable
) -> None:
    """Draw signal and gradient, relative to where they start, as `plot_two`, with their names at `x`."""
    style = {"every": max(1, layers[-1] // 12), "center": center}
    plot_two(ax, layers, laws, samples, labels, ((x, 0.92), (x, 0.85)), **style)
    values = np.concatenate([*laws, *(center(measured, axis=0) for measured in samples)])
    bottom = min(1e-4, values.min() / 10)
    set_decades(ax, bottom, max(1e4, 10 * values.max(), bottom**-0.4))


def shade(
    ax: Axes, factor: float, end: float = 0.99, *, below: bool = False, color: str = GREY, alpha: float = 0.12
) -> None:
    """Shade 1 / factor to factor, in log10 on a linear axis.

    Its name stands above, or `below` it, and ends at the share `end` of the axis.
    """
    low, high = (x if ax.get_yscale() == "log" else np.log10(x) for x in (1 / factor, factor))
    ax.axhspan(low, high, color=color, alpha=alpha, linewidth=0)
    y, va = (low, "top") if below else (high, "bottom")
    style = {"ha": "right", "va": va, "color": color, "transform": ax.get_yaxis_transform()}
    ax.text(end, y, f"within a factor of {factor:g}", **style)


class _Renderer(RendererAgg):
    """A renderer that draws a level line of text at once: Matplotlib does it glyph by glyph, 0.1 ms each."""

    def draw_text(self, gc, x, y, s, prop, angle, ismath=False, mtext=None) -> None:
        if angle or ismath:
            return super().draw_text(gc, x, y, s, prop, angle, ismath, mtext)
        font = _font(findfont(prop), prop.get_size_in_points() * self.dpi / 72)
        left, top, right, bottom = font.getbbox(s, anchor="ls")
        picture = Image.new("L", (int(right - left), int(bottom - top)))
        ImageDraw.Draw(picture).text((-left, -top), s, 255, font, anchor="ls")
        self._renderer.draw_text_image(np.array(picture), round(x + left), round(y + bottom), 0, gc)


class _Canvas(FigureCanvasAgg):
    """A canvas that keeps ticks, grid and labels as pixels, of the last frames that it has drawn.

    They take half of a redraw. Texts that are placed in shares of the axes, or at a height, belong to them.
    What is saved to a file is drawn as ever.
    """

    _size = None

    def __init__(self, figure: Figure) -> None:
        super().__init__(figure)
        self._pixels = lru_cache(maxsize=16)(self._draw_frame)  # 1.4 MB each

    def get_renderer(self) -> _Renderer:
        size = *self.get_width_height(physical=True), self.figure.dpi
        if size != self._size:
            self._size, self.renderer = size, _Renderer(*size)
        return self.renderer

    def draw(self) -> None:
        """Draw what the axes hold over their frame, kept from before or new."""
        contents = [artist for ax in self.figure.axes for artist in _contents(ax)]
        for artist in contents:
            artist.set_animated(True)  # left out when a canvas draws
        for ax in self.figure.axes:
            ax.apply_aspect()
        frame = [value for ax in self.figure.axes for value in _frame_of(ax)]
        self.restore_region(self._pixels(self.figure.dpi, *frame))
        for artist in sorted(contents, key=Artist.get_zorder):
            self.figure.draw_artist(artist)

    def _draw_frame(self, *_: object) -> Any:
        """Draw what does not animate, and return its pixels."""
        super().draw()
        return self.copy_from_bbox(self.figure.bbox)


def _contents(ax: Axes) -> list[Artist]:
    """Return the titles of the axes and what they hold, without what frames them."""
    frame = {ax.patch, *_labels(ax)}
    return [a for a in ax.get_children() if a not in frame and not isinstance(a, Spine | Axis)]


def _labels(ax: Axes) -> list[Text]:
    fixed = ax.transAxes, ax.get_yaxis_transform()
    return [text for text in ax.texts if text.get_transform() in fixed]


def _frame_of(ax: Axes) -> list[object]:
    """Return all that a demo changes in the frame of its axes."""
    frame: list[object] = [ax.get_aspect()]
    frame += [(text.get_text(), *text.get_position()) for text in _labels(ax)]
    for axis in (ax.xaxis, ax.yaxis):
        ticks = axis.get_majorticklocs()
        texts = axis.get_major_formatter().format_ticks(ticks)
        frame += [axis.get_scale(), *axis.get_view_interval(), *ticks, *texts, axis.get_label_text()]
    return frame


def reusing() -> Context:
    """Return a context in which `new_figure` keeps what it makes, and later empties and returns that again.

    A demo draws the same axes over and over, and to make them with their ticks takes a quarter of the time.
    """
    context = copy_context()
    context.run(_reused.set, {})
    return context


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
    figures = _reused.get({})
    if columns not in figures:
        figure = Figure(figsize=(9, 4), dpi=100, layout="none")
        _Canvas(figure)
        figure.subplots_adjust(left=0.12, right=0.98, bottom=0.16, top=0.9, wspace=0.3)
        figures[columns] = figure, figure.subplots(1, columns, squeeze=False)[0]
        for ax in figures[columns][1]:
            ax.xaxis.set_label_coords(0.5, -0.11)
            ax.yaxis.set_label_coords(-0.085 / ax.get_position().width, 0.5)
    for ax in figures[columns][1]:
        _empty(ax)
    return figures[columns]


def draw_jpeg(figure: Figure) -> bytes:
    """Return a `new_figure` as the bytes of a JPEG image; not by `savefig`, which draws everything twice."""
    figure.canvas.draw()
    return to_jpeg(Image.fromarray(np.asarray(figure.canvas.buffer_rgba())))
