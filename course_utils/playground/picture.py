"""The picture of two networks in training, made anew at every frame: maps, losses and four charts by layer.

What stands still (axes, labels, the points of the data) is drawn once and kept as pixels; a frame restores
these and adds a dozen lines and two small maps, which takes a few hundredths of a second.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from course_utils.playground.engine import Measures, Pair, Side, Task
from course_utils.plotting import BLUE, GREEN, ORANGE, PINK

WIDTH, HEIGHT = 960, 480  # of the picture as it is shown; it has twice as many pixels in each direction
GRID = 40  # points of a map in each direction
SHORTEST = 250  # steps that the loss chart has room for at first
_DENSITY = 2
_MAP_SIDE, _MAP_TOP, _MAP_LEFT = 222, 24, (8, 252)
_STYLES = (
    {"color": BLUE, "linestyle": "-", "marker": "o", "markersize": 4.5},
    {"color": ORANGE, "linestyle": "--", "marker": "s", "markersize": 4.5, "markerfacecolor": "white"},
)
# Title, and the exponents of ten at the lower and upper edge: what lies beyond is drawn on the edge.
_CHARTS = {
    "activation_rms": ("RMS of outputs (h)", -6, 6),
    "gradient_rms": ("RMS of gradients (∂loss/∂h)", -10, 2),
    "update_ratio": ("update ratio (|ΔW|/|W|)", -6, 0),
    "stuck": ("dead or stuck units (%)", 0, 100),
}
_LOSS_DECADES = (-3, 1)
_TINTS = "b8e0f0 f7d0b5 bfe6cf f0cfe2 e8e4b0 cfcff2 dddddd d9c6b0 c3ecec f4c0c0"  # of ten classes


@dataclass(frozen=True)
class Look:
    """What is drawn of a side: its measures and its map (size, size, classes), None without a network."""

    measures: Measures | None
    map: NDArray | None


def look_at(side: Side) -> Look:
    """Return what there is to see of a side now."""
    return Look(side.measures(), side.map(GRID))


class Picture:
    """Axes for one task, one depth and so many steps, drawn once; `draw` adds what changes."""

    def __init__(self, pair: Pair) -> None:
        self.key = self._key(pair)
        self._horizon = _horizon(pair.steps)
        self._depth = max(side.settings.depth for side in pair.sides)
        self._figure = Figure(figsize=(WIDTH / 100, HEIGHT / 100), dpi=100 * _DENSITY, layout="none")
        self._canvas = FigureCanvasAgg(self._figure)
        self._losses = _animated_lines(self._loss_axes(pair.task))
        self._figure.text(_MAP_LEFT[0] / WIDTH, 1 - 260 / HEIGHT, _legend(pair.task), fontsize=8.5)
        self._charts = {name: _animated_lines(self._chart_axes(i, name)) for i, name in enumerate(_CHARTS)}
        self._canvas.draw()
        self._background = self._canvas.copy_from_bbox(self._figure.bbox)
        self._points = _points(pair.task)
        self._tiles: dict[int, tuple[NDArray, Image.Image]] = {}  # of each side, with the map that it shows
        font = findfont("DejaVu Sans:bold")
        self._fonts = {size: ImageFont.truetype(font, size * _DENSITY) for size in (11, 14)}

    @staticmethod
    def _key(pair: Pair) -> tuple:
        depth = max(side.settings.depth for side in pair.sides)
        return pair.task.name, pair.seed, depth, _horizon(pair.steps)

    def fits(self, pair: Pair) -> bool:
        """Whether these axes are the right ones for the pair as it is now."""
        return self.key == self._key(pair)

    def draw(self, pair: Pair, looks: Sequence[Look]) -> Image.Image:
        """Return the picture, of WIDTH × HEIGHT at twice the density, for the pair and what is seen of it."""
        self._canvas.restore_region(self._background)
        for i, (side, look) in enumerate(zip(pair.sides, looks, strict=True)):
            self._draw_loss(self._losses[i], side.losses)
            if look.measures is not None:
                for name, lines in self._charts.items():
                    self._draw_chart(lines[i], name, getattr(look.measures, name))
        picture = Image.fromarray(np.asarray(self._canvas.buffer_rgba())).convert("RGB")
        for i, (side, look) in enumerate(zip(pair.sides, looks, strict=True)):
            self._paste_map(picture, i, side, look.map)
        return picture

    def _loss_axes(self, task: Task) -> Axes:
        ax = self._axes(548, _MAP_TOP, 396, 190, "training loss (nats)", "step")
        ax.set(xlim=(0, self._horizon), ylim=_LOSS_DECADES)
        _label_decades(ax, *_LOSS_DECADES, every=1)
        ax.axhline(math.log10(math.log(task.classes)), color="k", linestyle="--", linewidth=1)
        guess = f"guessing: ln {task.classes}"
        ax.text(self._horizon, math.log10(math.log(task.classes)), guess, ha="right", va="bottom", fontsize=8)
        handles = [Line2D([], [], label=label, **style) for label, style in zip("AB", _STYLES, strict=True)]
        place = {"loc": "lower right", "bbox_to_anchor": (1, 0.98), "borderaxespad": 0}
        ax.legend(handles=handles, **place, fontsize=9, ncols=2, handlelength=3, frameon=False)
        return ax

    def _chart_axes(self, column: int, name: str) -> Axes:
        title, low, high = _CHARTS[name]
        layers = self._depth + (name != "stuck")
        ax = self._axes(46 + 238 * column, 284, 184, 152, title, "layer")
        margin = 0.04 * (high - low)
        ax.set(xlim=(0.5, layers + 0.5), ylim=(low - margin, high + margin))
        every = -(-self._depth // 8)
        ticks = [layer for layer in range(1, self._depth + 1, every) if layer + every <= self._depth + 1]
        last = self._depth if name == "stuck" else "out"
        ax.set_xticks([*ticks, layers], [*ticks, last])
        if name != "stuck":
            _label_decades(ax, low, high, every=3 if high - low > 6 else 2)
        if name == "update_ratio":
            ax.axhline(-3, color="k", linestyle=":", linewidth=1)
        return ax

    def _axes(self, left: float, top: float, width: float, height: float, title: str, xlabel: str) -> Axes:
        """Return axes at a place in units of shown pixels, counted from the upper left corner."""
        box = (left / WIDTH, 1 - (top + height) / HEIGHT, width / WIDTH, height / HEIGHT)
        ax = self._figure.add_axes(box)
        ax.set_title(title, fontsize=9.5, loc="left", y=1.0, pad=4)
        ax.set_xlabel(xlabel, fontsize=8.5, labelpad=2)
        ax.tick_params(labelsize=8, pad=2, length=2)
        ax.grid(True, alpha=0.3)
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
        return ax

    def _draw_loss(self, line: Line2D, losses: list[float]) -> None:
        window = self._horizon // 125
        if losses:
            starts = np.arange(0, len(losses), window)
            counts = np.diff([*starts, len(losses)])
            means = np.add.reduceat(losses, starts) / counts
            line.set_data(starts + (counts - 1) / 2, np.clip(np.log10(means + 1e-30), *_LOSS_DECADES))
            line.set_markevery([-1])
            line.axes.draw_artist(line)

    def _draw_chart(self, line: Line2D, name: str, values: NDArray) -> None:
        _, low, high = _CHARTS[name]
        if name == "stuck":
            heights = 100 * values
        else:
            with np.errstate(divide="ignore"):  # a 0 is drawn on the lower edge
                heights = np.clip(np.log10(values), low, high)
        line.set_data(np.arange(1, len(values) + 1), heights)
        line.axes.draw_artist(line)

    def _paste_map(self, picture: Image.Image, i: int, side: Side, probabilities: NDArray | None) -> None:
        size, left, top = (_DENSITY * x for x in (_MAP_SIDE, _MAP_LEFT[i], _MAP_TOP))
        pen = ImageDraw.Draw(picture)
        if probabilities is None or not np.isfinite(probabilities).all():
            pen.rectangle((left, top, left + size, top + size), fill="#dddddd")
        else:
            if i not in self._tiles or self._tiles[i][0] is not probabilities:
                self._tiles[i] = probabilities, self._make_tile(probabilities, size)
            picture.paste(self._tiles[i][1], (left, top))
        pen.rectangle((left - 1, top - 1, left + size, top + size), outline=_STYLES[i]["color"], width=3)
        caption = f"{'AB'[i]}  {side.settings.scheme} × {side.settings.gain:.3g}"
        pen.text((left, top - 6), caption, fill="black", font=self._fonts[11], anchor="ls")
        if side.problem:
            words = side.problem.split(":")[0]
            centre = (left + size / 2, top + size / 2)
            pen.text(centre, words, "black", self._fonts[11], "mm", stroke_width=6, stroke_fill="white")

    def _make_tile(self, probabilities: NDArray, size: int) -> Image.Image:
        tile = Image.fromarray(_tile(probabilities, size))
        if probabilities.shape[2] > 2:
            _name_regions(tile, probabilities, self._fonts[14])
        tile.paste(self._points, (0, 0), self._points)
        return tile


def _legend(task: Task) -> str:
    if task.classes == 2:
        return "Maps: training points ● class 0, ▲ class 1; colour: the more probable class; line: even odds."
    return "Maps: the plane of the first two principal components; bold: the class predicted there."


def _horizon(steps: int) -> int:
    return SHORTEST * 2 ** max(0, math.ceil(math.log2(max(steps, 1) / SHORTEST)))


def _label_decades(ax: Axes, low: int, high: int, every: int) -> None:
    """Put powers of ten on a linear axis of exponents, as plain text: mathtext is slow."""
    ticks = range(low, high + 1, every)
    names = [f"1e{tick}" if tick else "1" for tick in ticks]
    names[0], names[-1] = f"≤{names[0]}", f"≥{names[-1]}"
    ax.set_yticks(list(ticks), names)


def _animated_lines(ax: Axes) -> list[Line2D]:
    return [ax.plot([], [], linewidth=1.5, animated=True, **style)[0] for style in _STYLES]


def _points(task: Task) -> Image.Image:
    """Return the points of the data as they lie on a map, on a transparent ground."""
    figure = Figure(figsize=(_MAP_SIDE / 100, _MAP_SIDE / 100), dpi=100 * _DENSITY, layout="none")
    figure.patch.set_alpha(0)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(-task.extent, task.extent), ylim=(-task.extent, task.extent))
    ax.axis("off")
    if task.classes == 2:
        shown = task.coordinates(task.train_inputs[:200]).numpy()
        for label, marker, color in ((0, "o", GREEN), (1, "^", PINK)):
            place = shown[task.train_labels[:200] == label]
            ax.plot(*place.T, marker, color=color, markersize=4, markeredgecolor="black", markeredgewidth=0.5)
    else:
        shown = task.coordinates(task.train_inputs[:120]).numpy()
        for (x, y), label in zip(shown, task.train_labels[:120].tolist(), strict=True):
            ax.text(x, y, str(label), fontsize=6, color="#444444", ha="center", va="center")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba()))


def _enlarge(values: NDArray, size: int) -> NDArray:
    return np.asarray(Image.fromarray(values).resize((size, size), Image.Resampling.BILINEAR))


def _tile(probabilities: NDArray, size: int) -> NDArray:
    """Return a map's pixels (size, size, 3): colours by class, and a dark line where the winner changes."""
    if probabilities.shape[2] == 2:
        p = _enlarge(probabilities[..., 1], size)
        colours, winner = _SHADES[(p * 255).astype(np.uint8)], p > 0.5
    else:  # half the pixels are enough for ten classes
        maps = np.ascontiguousarray(np.moveaxis(probabilities, 2, 0))
        layers = [_enlarge(layer, size // 2) for layer in maps]
        winner = np.argmax(layers, axis=0).repeat(2, axis=0).repeat(2, axis=1)
        colours = _PALETTE[winner]
    edge = np.zeros(winner.shape, bool)
    for axis in (0, 1):
        for shift in (-1, 1, 2):
            edge |= winner != np.roll(winner, shift, axis)
    edge[:2] = edge[-2:] = edge[:, :2] = edge[:, -2:] = False  # where np.roll has gone round
    return np.where(edge[..., None], np.uint8(60), colours)


def _rgb(colour: str) -> NDArray:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])


def _shades() -> NDArray:
    """Return 256 colours from class 0 by way of white to class 1, none so dark that a point is lost on it."""
    x = np.linspace(-1, 1, 256)[:, None]
    return (255 - 0.45 * np.abs(x) * np.where(x < 0, 255 - _rgb(GREEN), 255 - _rgb(PINK))).astype(np.uint8)


_SHADES, _PALETTE = _shades(), np.frombuffer(bytes.fromhex(_TINTS), np.uint8).reshape(10, 3)


def _name_regions(tile: Image.Image, probabilities: NDArray, font: ImageFont.FreeTypeFont) -> None:
    """Write each class that holds a hundredth of the map or more at the cell of it nearest to its centre."""
    winner, pen = probabilities.argmax(axis=2), ImageDraw.Draw(tile)
    scale = tile.width / len(winner)
    for label in range(probabilities.shape[2]):
        cells = np.argwhere(winner == label)
        if len(cells) >= winner.size / 100:
            row, column = cells[np.square(cells - cells.mean(axis=0)).sum(axis=1).argmin()]
            place = ((column + 0.5) * scale, (row + 0.5) * scale)
            pen.text(place, str(label), "black", font, "mm", stroke_width=4, stroke_fill="white")
