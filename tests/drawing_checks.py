"""What the tests of the demos share: reading lines, bands and sentences, and planting faults in them."""

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from course_utils.comparison import Estimate, mean_of

Check = Callable[[Figure, str], None]
KEYS = {"●": ("o", "full"), "○": ("o", "none"), "▲": ("^", "full"), "✖": ("x", "full")}
KEYS |= {"dashed:": "--", "dotted:": ":", "dash-dotted:": "-."}
NUMBER = re.compile(r"(?<![\w.])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[+-]\d+)?(?!\d)")


def check_numbers(text: str, *expected: object) -> None:
    """Assert that the numbers in the text are the `expected` ones, all of them, in this order."""
    assert NUMBER.findall(text) == [str(number) for number in expected], text


def two(estimate: Estimate) -> list[str]:
    """Return value and standard error, with two digits of the latter, as text."""
    return f"{estimate}".split(" ± ")


def title(ax: Axes) -> str:
    """Return the title of the axes, wherever the style puts it."""
    return ax.get_title() or ax.get_title(loc="left")


def check_words(ax: Axes, xlabel: str, ylabel: str, heading: str) -> None:
    """Assert the labels of the axes and their title."""
    assert (ax.get_xlabel(), ax.get_ylabel(), title(ax)) == (xlabel, ylabel, heading)


def check_line(line: Line2D, y: ArrayLike, x: ArrayLike | None = None, rtol: float = 1e-6) -> None:
    """Assert that the line has the ordinates `y`, and the abscissae `x` if given."""
    np.testing.assert_allclose(line.get_ydata(), y, rtol=rtol, atol=1e-12)
    if x is not None:
        np.testing.assert_allclose(line.get_xdata(), x, rtol=1e-6)


def named(ax: Axes, label: str) -> Line2D:
    """Return the line that bears this label."""
    (line,) = (line for line in ax.lines if line.get_label() == label)
    return line


def band_edges(band: PolyCollection, x: ArrayLike) -> NDArray:
    """Return lower and upper edge of the band at each `x`, (2, points)."""
    vertices = band.get_paths()[0].vertices
    heights = [vertices[np.isclose(vertices[:, 0], place), 1] for place in np.asarray(x, dtype=float)]
    return np.array([[h.min() for h in heights], [h.max() for h in heights]])


def check_samples(
    ax: Axes, markers: Line2D, x: ArrayLike, samples: NDArray, center: Callable = np.median
) -> None:
    """Assert that markers show the center of `samples` (networks, points), the band of their color 95 %.

    Markers may stand at some of the `x` only.
    """
    shown = np.isclose(np.asarray(x)[:, None], markers.get_xdata()).any(axis=1)
    assert 5 <= shown.sum() == len(markers.get_xdata())
    check_line(markers, center(samples, axis=0)[shown])
    color = to_rgb(markers.get_color())
    (band,) = (
        b for b in ax.collections if isinstance(b, PolyCollection) and to_rgb(b.get_facecolor()[0]) == color
    )
    expected = np.percentile(samples, [2.5, 97.5], axis=0)
    np.testing.assert_allclose(band_edges(band, x), expected, rtol=1e-6, atol=1e-12)


def check_legends(ax: Axes) -> None:
    """Assert that each name beside a marker is that of one line, in its color, and that each line has one."""
    keys = [text.get_text().partition(" ")[0] for text in ax.texts]
    assert all(keys.count(key) == 1 for key in keys if key in KEYS)
    for text in ax.texts:
        key, _, label = text.get_text().partition(" ")
        if key in KEYS:
            line = named(ax, label)
            style = line.get_linestyle()
            assert KEYS[key] == ((line.get_marker(), line.get_fillstyle()) if style == "None" else style)
            assert to_rgb(text.get_color()) == to_rgb(line.get_color())
    if not ax.get_legend():
        labels = {line.get_label() for line in ax.lines if not line.get_label().startswith("_")}
        texts = [text.get_text().partition(" ") for text in ax.texts]
        assert {label for key, _, label in texts if key in KEYS} == labels


def guides(ax: Axes) -> list[Line2D]:
    """Return the lines that cross the axes at one height."""
    return [line for line in ax.lines if line.get_transform() == ax.get_yaxis_transform()]


def levels(ax: Axes) -> dict[str, float]:
    """Return the height of each guide line by its name, which has to stand there in its color."""
    found = {}
    for line in guides(ax):
        height, color = line.get_ydata()[0], to_rgb(line.get_color())
        here = [t for t in ax.texts if (t.get_position()[1], to_rgb(t.get_color())) == (height, color)]
        assert len(here) == 1, f"{len(here)} names at {height}"
        found[here[0].get_text()] = height
    return found


def check_shades(ax: Axes) -> None:
    """Assert that what is shaded as "within a factor of f" goes from 1/f to f, in the color of its name."""
    texts = [text for text in ax.texts if text.get_text().startswith("within a factor of ")]
    assert len(texts) == len(ax.patches)
    for text, shade in zip(texts, ax.patches, strict=True):
        factor, scale = float(text.get_text().split()[-1]), float if ax.get_yscale() == "log" else math.log10
        ends = shade.get_y(), shade.get_y() + shade.get_height()
        assert ends == pytest.approx((scale(1 / factor), scale(factor)))
        assert to_rgb(shade.get_facecolor()) == to_rgb(text.get_color())


def check_finite(figure: Figure, sentence: str) -> None:
    """Assert that everything drawn and said is a finite number."""
    for ax in figure.axes:
        assert np.isfinite([*ax.get_xlim(), *ax.get_ylim()]).all()
        assert all(np.isfinite(line.get_xydata()).all() for line in ax.lines)
    assert not re.search(r"\b(nan|inf)\b", sentence), sentence


def z_score(one: ArrayLike, other: ArrayLike) -> float:
    """Return the difference of two sample means, in standard errors."""
    a, b = mean_of(one), mean_of(other)
    return (a.value - b.value) / math.hypot(a.standard_error, b.standard_error)


@contextmanager
def changed(artist: object, name: str, value: object) -> Iterator[None]:
    """Set a property of an artist to another value for a while."""
    before = getattr(artist, f"get_{name}")()
    getattr(artist, f"set_{name}")(value)
    yield
    getattr(artist, f"set_{name}")(before)


@contextmanager
def taller(band: PolyCollection) -> Iterator[None]:
    vertices = band.get_paths()[0].vertices
    before = vertices.copy()
    vertices[:, 1] *= 1.01
    yield
    vertices[:] = before


def faults(ax: Axes) -> Iterator:
    """Yield a fault in each thing that the axes show: lines, bands, shades, names, labels."""
    for line in ax.lines:
        if len(line.get_ydata()) and np.any(line.get_ydata()):
            yield changed(line, "ydata", 1.01 * np.asarray(line.get_ydata()))
    for band in ax.collections:
        if isinstance(band, PolyCollection) and band.get_transform() == ax.transData:
            yield taller(band)
    for shade in ax.patches:
        yield changed(shade, "height", 10 * shade.get_height())
    for text in ax.texts:
        if text.get_text().partition(" ")[0] in KEYS:
            yield changed(text, "text", text.get_text() + "s")
            yield changed(text, "text", "")
            yield changed(text, "color", "magenta")
    heights = [line.get_ydata()[0] for line in guides(ax)]
    for text in ax.texts:
        x, y = text.get_position()
        if y in heights:
            yield changed(text, "position", (x, 1.1 * y))
            yield changed(text, "text", text.get_text() + "s")
    for name in ("xlabel", "ylabel"):
        yield changed(ax, name, "another")
    place = "center" if ax.get_title() else "left"
    text = ax.get_title(loc=place)
    yield from (
        changed_title(ax, place, text[: m.end()] + "7" + text[m.end() :]) for m in NUMBER.finditer(text)
    )
    yield changed_title(ax, place, text + "s")


@contextmanager
def changed_title(ax: Axes, place: str, text: str) -> Iterator[None]:
    before = ax.get_title(loc=place)
    ax.set_title(text, loc=place)
    yield
    ax.set_title(before, loc=place)


def check_drawing(check: Check, figure: Figure, sentence: str) -> None:
    """Assert `check`, legends and shades; and that a fault in anything drawn or said makes them fail."""

    def all_checks(sentence: str = sentence) -> None:
        check(figure, sentence)
        for ax in figure.axes:
            check_legends(ax)
            check_shades(ax)
            levels(ax)

    all_checks()
    for ax in figure.axes:
        for fault in faults(ax):
            with fault, pytest.raises((AssertionError, ValueError)):
                all_checks()
    for number in NUMBER.finditer(sentence):
        with pytest.raises(AssertionError):
            all_checks(sentence[: number.end()] + "7" + sentence[number.end() :])
