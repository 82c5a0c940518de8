"""The canvas of the demos: kept frames, axes that are used again, limits that seldom change."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from course_utils import plotting
from course_utils.demos import canvas

CHANGES = [
    {"xlim": (0, 3)},
    {"xlabel": "depth"},
    {"xticks": [0, 1]},
    {"yscale": "log"},
    {"ylabel": "gain"},
    {"yticks": [1, 1.5], "yticklabels": ["1", "2"]},
    {"yticks": [1, 2], "yticklabels": ["one", "two"]},
    {"title": "Another"},
    {"aspect": "equal"},
    {"label": "there"},
    {"label_x": 0.6},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_figure_drawn_over_its_kept_frame_looks_as_if_new(change):
    def drawn(label="here", label_x=0.5, **change):
        figure, (ax,) = canvas.new_figure()
        ax.text(label_x, 0.5, label, transform=ax.transAxes)
        ax.plot([1, 2], [1, 2], "o", label="points")
        ax.legend()
        ax.set(**{"yticks": [1, 2], "yticklabels": ["1", "2"], **change})
        return canvas.draw_jpeg(figure)

    reusing = canvas.reusing().run
    first, again = reusing(drawn), reusing(drawn)
    changed, back = reusing(drawn, **change), reusing(drawn)
    assert first == again == back == drawn()
    assert changed == drawn(**change) != first
    assert first.startswith(b"\xff\xd8")


def test_lines_lie_over_bands_and_ticks_are_few():
    figure, (ax,) = canvas.new_figure()
    ax.plot([0, 100], [0.5, 0.5], "k", linewidth=20)
    ax.fill_between([0, 100], 0, 1, color="w")
    canvas.draw_jpeg(figure)
    pixels = np.asarray(figure.canvas.buffer_rgba())
    x, y = ax.transData.transform((50, 0.5)).astype(int)
    assert pixels[-1 - y, x].tolist() == [0, 0, 0, 255]
    assert len(ax.get_xticks()) <= 7


def test_a_figure_is_emptied_before_it_is_used_again():
    reused = canvas.reusing()
    figure, (ax,) = reused.run(canvas.new_figure)
    ax.plot([1, 2])
    ax.fill_between([1, 2], 3)
    ax.axhspan(0, 1)
    ax.text(0, 0, "here")
    ax.legend(["line"])
    assert len(ax.get_children()) > len(canvas.new_figure()[1][0].get_children())
    again, (same,) = reused.run(canvas.new_figure)
    assert (again, same) == (figure, ax)
    assert len(same.get_children()) == len(canvas.new_figure()[1][0].get_children())


def test_a_kept_frame_does_not_change_what_is_saved(tmp_path):
    def saved(figure):
        figure.savefig(tmp_path / "figure.png")
        return (tmp_path / "figure.png").read_bytes()

    figure, (ax,) = canvas.new_figure()
    ax.plot([1, 2])
    before = saved(figure)
    canvas.draw_jpeg(figure)
    assert saved(figure) == before


@pytest.mark.parametrize(
    ("low", "high", "limits", "ticks"),
    [
        (0.1, 10, (-1, 1), [-1, 0, 1]),
        (1e-3, 2, (-4, 1), [-4, -3, -2, -1, 0, 1]),
        (0.05, 2e3, (-2, 4), [-2, 0, 2, 4]),
        (1e-40, 1e40, (-64, 64), [-64, -32, 0, 32, 64]),
        (3, 1e5, (0, 8), [0, 2, 4, 6, 8]),
        (1e-9, 1e-2, (-16, 0), [-16, -12, -8, -4, 0]),
    ],
)
def test_decades_hold_the_range_and_one_and_seldom_change(low, high, limits, ticks):
    ax = plt.figure().subplots()
    canvas.set_decades(ax, low, high)
    assert np.log10(ax.get_ylim()) == pytest.approx(limits)
    assert np.log10(ax.get_yticks()) == pytest.approx(ticks)


def test_two_quantities_have_their_laws_and_names():
    _, (ax,) = canvas.new_figure()
    x, laws = np.arange(5), ([1, 2, 3, 4, 5], [5, 4, 3, 2, 1])
    samples = np.add.outer([-1, 0, 1], laws).swapaxes(0, 1)  # (quantities, networks, points)
    canvas.plot_two(ax, x, laws, samples, ("up", "down"), ((0.1, 0.9), (0.5, 0.9)))
    up, up_law, down, down_law = ax.lines
    for line, law in ((up, 0), (up_law, 0), (down, 1), (down_law, 1)):
        np.testing.assert_array_equal(line.get_ydata(), laws[law])
    assert [line.get_linestyle() for line in (up_law, down_law)] == ["--", "--"]
    places = [(t.get_text(), *t.get_position(), t.get_color()) for t in ax.texts]
    assert places == [("● up", 0.1, 0.9, plotting.BLUE), ("▲ down", 0.5, 0.9, plotting.ORANGE)]


@pytest.mark.parametrize(("depth", "every"), [(10, 1), (60, 5), (100, 8)])
def test_a_signal_and_its_gradient_have_a_dozen_markers(depth, every):
    ax, ones = canvas.new_figure()[1][0], np.ones((2, 3, depth + 1))
    canvas.plot_relative(ax, range(depth + 1), ones[:, 0], ones, ("a", "b"), 0.5, np.median)
    markers = [line for line in ax.lines if line.get_label() in ("a", "b")]
    assert [list(line.get_xdata()) for line in markers] == [list(range(0, depth + 1, every))] * 2


def test_every_labelled_line_needs_a_place():
    _, (ax,) = canvas.new_figure()
    ax.plot([1, 2], "o", label="named")
    ax.plot([2, 1], "--", label="forgotten")
    with pytest.raises(ValueError, match="shorter"):
        canvas.name_lines(ax, (0, 0))


@pytest.mark.parametrize(
    ("ha", "va", "angle"), [("left", "top", 0), ("right", "bottom", 0), ("center", "top", 90)]
)
def test_texts_stand_where_matplotlib_puts_them(ha, va, angle):
    def extent(figure):
        figure.canvas.draw()
        red, green, *_ = np.moveaxis(np.asarray(figure.canvas.buffer_rgba()).astype(int), 2, 0)
        assert (red - green).max() > 225  # in full colour
        rows, columns = (np.flatnonzero((red - green > 128).any(axis=axis)) for axis in (1, 0))
        return rows[0], rows[-1], columns[0], columns[-1]

    figure, (ax,) = canvas.new_figure()
    style = {"ha": ha, "va": va, "rotation": angle, "color": "r", "transform": ax.transAxes}
    ax.text(0.5, 0.5, "χ₁ = 0.84, √(L/2n) ≪ mₖ", **style)
    ours = extent(figure)
    FigureCanvasAgg(figure)
    np.testing.assert_allclose(ours, extent(figure), atol=6)
