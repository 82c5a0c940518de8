"""The picture of two networks in training, made anew at every frame: maps, losses, four charts by layer.

What stands still (axes, labels, the points of the data) is drawn once and kept as pixels: a frame has no time
for more than a dozen lines and two small maps.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from course_utils.playground.engine import Measures, Pair, Task, Trainer
from course_utils.plotting import BLUE, GREEN, ORANGE, PINK

WIDTH, HEIGHT, DENSITY = 960, 480, 2  # of the picture as it is shown; it has DENSITY² times as many pixels
MAP_SIDE, MAP_TOP, MAP_LEFTS = 222, 24, (8, 252)  # where the maps of A and B lie, in the shown picture
GRID = 40  # points of a map in each direction
SHORTEST = 250  # steps that the loss chart has room for at first
STYLES = (
    {"color": BLUE, "linestyle": "-", "marker": "o", "markersize": 4.5},
    {"color": ORANGE, "linestyle": "--", "marker": "s", "markersize": 4.5, "markerfacecolor": "white"},
)
# Title, and the exponents of ten at the lower and upper edge: what lies beyond is drawn on the edge.
_CHARTS = {
    "loss": ("training loss (nats)", -3, 1),
    "activation_rms": ("RMS of outputs (h)", -6, 6),
    "gradient_rms": ("RMS of gradients (∂loss/∂h)", -10, 2),
    "update_ratio": ("update ratio (|ΔW|/|W|)", -6, 0),
    "stuck": ("dead or stuck units (%)", 0, 100),
}
_BY_LAYER = [*_CHARTS][1:]
_MARKS = {"o": "●", "^": "▲"}  # of the points of two classes, on a map and in words
_LEGENDS = (  # for two classes, and for more
    "Maps: training points {} class 0, {} class 1; ".format(*_MARKS.values())
    + "colour: the more probable class; line: even odds.",
    "Maps: the plane of the first two principal components; bold: the class predicted there.",
)
_TINTS = "b8e0f0 f7d0b5 bfe6cf f0cfe2 e8e4b0 cfcff2 dddddd d9c6b0 c3ecec f4c0c0"
# From class 0 by way of white to class 1, none so dark that a point is lost on it: (256, 3).
_AWAY = np.linspace(-1, 1, 256)[:, None]
_ENDS = np.where(_AWAY < 0, *(np.array([*bytes.fromhex(colour[1:])]) for colour in (GREEN, PINK)))
_SHADES = (255 - 0.45 * np.abs(_AWAY) * (255 - _ENDS)).astype(np.uint8)
_font = cache(partial(ImageFont.truetype, findfont("DejaVu Sans:bold")))  # in so many pixels
CLASS_COLOURS = np.frombuffer(bytes.fromhex(_TINTS), np.uint8).reshape(10, 3)


@dataclass(frozen=True)
class Snapshot:
    """What is drawn of a network: its measures and its map, None without a network or finite outputs."""

    measures: Measures | None
    map: Image.Image | None


def take_snapshot(trainer: Trainer) -> Snapshot:
    """Return what there is to see of a network now."""
    if trainer.network is None:
        return Snapshot(None, None)
    probabilities = trainer.probability_map(GRID)
    shown = class_map(probabilities) if np.isfinite(probabilities).all() else None
    return Snapshot(trainer.measures(), shown)


def draw(pair: Pair, snapshots: Sequence[Snapshot]) -> Image.Image:
    """Return the picture, of WIDTH × HEIGHT at twice the density, for the pair and what is seen of it."""
    depth = max(trainer.settings.depth for trainer in pair.trainers)
    # The loss chart has room for 2^k times as many steps, so that axes are drawn anew only when they double.
    room = SHORTEST * 2 ** max(0, math.ceil(math.log2(max(pair.steps, 1) / SHORTEST)))
    return picture_of(pair.task, depth, room).draw(pair.trainers, snapshots)


class Picture:
    """Axes for one task, one depth and so many steps, drawn once; `draw` adds what changes.

    `lines` holds those of A and B in each chart: "loss", and the names of `Measures`.
    """

    def __init__(self, task: Task, depth: int, room: int) -> None:
        self._depth, self._room = depth, room
        self._canvas = _canvas(WIDTH, HEIGHT)
        self.lines: dict[str, list[Line2D]] = {}
        legend = _LEGENDS[task.classes > 2]
        self._canvas.figure.text(MAP_LEFTS[0] / WIDTH, 1 - 260 / HEIGHT, legend, fontsize=8.5)
        self._make_loss_axes(task.classes)
        for column, name in enumerate(_BY_LAYER):
            self._make_chart(column, name)
        self._canvas.draw()
        self._background = self._canvas.copy_from_bbox(self._canvas.figure.bbox)
        self._points = data_points(task)

    def draw(self, trainers: Sequence[Trainer], snapshots: Sequence[Snapshot]) -> Image.Image:
        """Return the picture of trainers A and B and what is seen of them."""
        self._canvas.restore_region(self._background)
        both = list(enumerate(zip(trainers, snapshots, strict=True)))
        for i, (trainer, snapshot) in both:
            if trainer.losses:
                self._draw_line("loss", i, *averaged(trainer.losses, self._room // 125))
            for name in _BY_LAYER if snapshot.measures else ():
                values = getattr(snapshot.measures, name)
                self._draw_line(name, i, np.arange(1, len(values) + 1), values)
        picture = Image.fromarray(np.asarray(self._canvas.buffer_rgba())).convert("RGB")
        for i, (trainer, snapshot) in both:
            self._paste_map(picture, i, trainer, snapshot.map)
        return picture

    def _make_loss_axes(self, classes: int) -> None:
        ax = self._axes("loss", (548, MAP_TOP, 396, 190), "step", margin=0.0)
        ax.set_xlim(0, self._room)
        guess = math.log10(math.log(classes))
        ax.axhline(guess, color="k", linestyle="--", linewidth=1)
        ax.text(self._room, guess, f"guessing: ln {classes}", ha="right", va="bottom", fontsize=8)
        place = {"loc": "lower right", "bbox_to_anchor": (1, 0.98), "borderaxespad": 0}
        ax.legend(self.lines["loss"], "AB", **place, fontsize=9, ncols=2, handlelength=3, frameon=False)
        for line in self.lines["loss"]:
            line.set_markevery([-1])

    def _make_chart(self, column: int, name: str) -> None:
        ax = self._axes(name, (46 + 238 * column, 284, 184, 152), "layer", margin=0.04)
        layers, every = self._depth + (name != "stuck"), -(-self._depth // 8)
        ticks = [*range(1, layers + 1 - every, every), layers]
        ax.set_xlim(0.5, layers + 0.5)
        ax.set_xticks(ticks, [*ticks[:-1], layers if name == "stuck" else "out"])
        if name == "update_ratio":
            ax.axhline(-3, color="k", linestyle=":", linewidth=1)

    def _axes(self, name: str, place: tuple[int, ...], xlabel: str, margin: float) -> Axes:
        """Return axes for two lines; `place` is (left, top, width, height) in shown pixels."""
        (left, top, width, height), (title, low, high) = place, _CHARTS[name]
        box = (left / WIDTH, 1 - (top + height) / HEIGHT, width / WIDTH, height / HEIGHT)
        ax = self._canvas.figure.add_axes(box)
        self.lines[name] = [ax.plot([], [], linewidth=1.5, animated=True, **style)[0] for style in STYLES]
        ax.set_title(title, fontsize=9.5, loc="left", y=1.0, pad=4)
        ax.set_xlabel(xlabel, fontsize=8.5, labelpad=2)
        ax.set_ylim(low - margin * (high - low), high + margin * (high - low))
        if name != "stuck":  # powers of ten as plain text on a linear axis of exponents: mathtext is slow
            ticks = range(low, high + 1, math.ceil((high - low) / 4))
            texts = [f"1e{tick}" if tick else "1" for tick in ticks]
            ax.set_yticks(ticks, [f"≤{texts[0]}", *texts[1:-1], f"≥{texts[-1]}"])
        ax.tick_params(labelsize=8, pad=2, length=2)
        ax.grid(True, alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
        return ax

    def _draw_line(self, name: str, i: int, x: NDArray, values: NDArray) -> None:
        line = self.lines[name][i]
        with np.errstate(divide="ignore"):  # a 0 is drawn on the lower edge
            heights = 100 * values if name == "stuck" else np.clip(np.log10(values), *_CHARTS[name][1:])
        line.set_data(x, heights)
        line.axes.draw_artist(line)

    def _paste_map(self, picture: Image.Image, i: int, trainer: Trainer, tile: Image.Image | None) -> None:
        side, left, top = (DENSITY * x for x in (MAP_SIDE, MAP_LEFTS[i], MAP_TOP))
        pen = ImageDraw.Draw(picture)
        pen.rectangle((left, top, left + side, top + side), fill="#dddddd")
        if tile is not None:
            picture.paste(tile, (left, top))
            picture.paste(self._points, (left, top), self._points)
        pen.rectangle((left - 1, top - 1, left + side, top + side), outline=STYLES[i]["color"], width=3)
        caption = f"{'AB'[i]}  {trainer.settings.scheme} × {trainer.settings.gain:.3g}"
        pen.text((left, top - 6), caption, fill="black", font=_font(11 * DENSITY), anchor="ls")
        if trainer.problem:
            _write(pen, (left + side / 2, top + side / 2), trainer.problem.split(":")[0], 11)


# Axes take much longer to make than to draw on; two, for a playground that goes back and forth.
picture_of = lru_cache(maxsize=2)(Picture)


def averaged(losses: Sequence[float], window: int) -> tuple[NDArray, NDArray]:
    """Return the middle step and the mean loss of each `window` steps; the last may hold fewer."""
    starts = np.arange(0, len(losses), window)
    counts = np.diff([*starts, len(losses)])
    return starts + (counts - 1) / 2, np.add.reduceat(losses, starts) / counts


def _canvas(width: float, height: float) -> FigureCanvasAgg:
    return FigureCanvasAgg(Figure(figsize=(width / 100, height / 100), dpi=100 * DENSITY, layout="none"))


def _write(pen: ImageDraw.ImageDraw, centre: tuple[float, float], text: str, size: int) -> None:
    pen.text(centre, text, "black", _font(size * DENSITY), "mm", stroke_width=5, stroke_fill="white")


def data_points(task: Task) -> Image.Image:
    """Return the points of the data as they lie on a map, on a transparent ground."""
    canvas = _canvas(MAP_SIDE, MAP_SIDE)
    canvas.figure.patch.set_alpha(0)
    ax = canvas.figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(-task.extent, task.extent), ylim=(-task.extent, task.extent))
    ax.axis("off")
    shown = task.coordinates(task.train_inputs).numpy()
    if task.classes == 2:
        for label, (marker, color) in enumerate(zip(_MARKS, (GREEN, PINK), strict=True)):
            x, y = shown[:200][task.train_labels[:200] == label].T
            ax.plot(x, y, marker, color=color, markersize=4, markeredgecolor="black", markeredgewidth=0.5)
    else:
        for (x, y), label in zip(shown[:120], task.train_labels[:120].tolist(), strict=True):
            ax.text(x, y, str(label), fontsize=6, color="#444444", ha="center", va="center")
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba()))


def class_map(probabilities: NDArray) -> Image.Image:
    """Return a map of probabilities (size, size, classes): colours by class, a dark line between winners.

    Two classes fade into each other by way of white; of ten, each has a colour, and large ones a name.
    """
    side = DENSITY * MAP_SIDE
    if probabilities.shape[2] == 2:
        p = _enlarge(probabilities[..., 1], side)
        winner, colours = p > 0.5, _SHADES[(p * 255).astype(np.uint8)]
    else:  # half the pixels are enough for ten classes
        layers = [_enlarge(np.ascontiguousarray(p), side // 2) for p in np.moveaxis(probabilities, 2, 0)]
        winner = np.argmax(layers, axis=0).repeat(2, axis=0).repeat(2, axis=1)
        colours = CLASS_COLOURS[winner]
    # np.roll goes round, but the map's frame covers that.
    edges = [winner != np.roll(winner, shift, axis) for axis in (0, 1) for shift in (-1, 1, 2)]
    tile = Image.fromarray(np.where(np.any(edges, axis=0)[..., None], np.uint8(60), colours))
    if probabilities.shape[2] > 2:
        _name_regions(tile, probabilities.argmax(axis=2))
    return tile


def _enlarge(values: NDArray, side: int) -> NDArray:
    return np.asarray(Image.fromarray(values).resize((side, side), Image.Resampling.BILINEAR))


def _name_regions(tile: Image.Image, winner: NDArray) -> None:
    """Write each class that holds a hundredth of the map or more at the cell of it nearest to its centre."""
    pen, scale = ImageDraw.Draw(tile), tile.width / len(winner)
    for label in np.flatnonzero(np.bincount(winner.ravel()) >= winner.size / 100):
        cells = np.argwhere(winner == label)
        row, column = cells[np.square(cells - cells.mean(axis=0)).sum(axis=1).argmin()]
        _write(pen, ((column + 0.5) * scale, (row + 0.5) * scale), str(label), 14)
