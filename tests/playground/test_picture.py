"""The picture of the playground: every line and map against the numbers that it shows."""

import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from course_utils.playground import picture as drawing
from course_utils.playground.engine import Measures, Pair, Settings, make_task
from course_utils.playground.picture import (
    CLASS_COLOURS,
    DENSITY,
    GRID,
    MAP_LEFTS,
    MAP_SIDE,
    MAP_TOP,
    STYLES,
    Snapshot,
    averaged,
    class_map,
    data_points,
    draw,
    picture_of,
    take_snapshot,
)
from course_utils.plotting import GREEN, PINK

MEASURES = Measures(
    np.array([1.0, 10.0, 1e9]),
    np.array([1e-3, 0.0, np.nan]),
    np.array([0.0, np.inf, 1e-3]),
    np.array([0, 0.5]),
    0.5,
)
PAIR = Pair(Settings(depth=2), Settings(depth=2))
SIZE = MAP_SIDE * DENSITY
RIGHT = np.zeros((GRID, GRID, 2), np.float32)  # class 1 in the right half, class 0 in the left
RIGHT[:, GRID // 2 :, 1] = RIGHT[:, : GRID // 2, 0] = 1


@pytest.fixture(scope="module")
def picture():
    return picture_of(PAIR.task, 2, 250)


def snapshots(first=MEASURES, probabilities=RIGHT):
    return [Snapshot(first, class_map(probabilities)), Snapshot(MEASURES, None)]


def map_pixels(image, i=0):
    left, top = (DENSITY * x for x in (MAP_LEFTS[i], MAP_TOP))
    return np.asarray(image)[top : top + SIZE, left : left + SIZE].astype(int)


def rgb(colour):
    return np.array([*bytes.fromhex(colour[1:])])


def test_charts_show_the_measures_and_clip_at_the_edges(picture):
    draw(PAIR, snapshots())
    lines = {name: lines[0].get_xydata() for name, lines in picture.lines.items()}
    assert lines["activation_rms"].tolist() == [[1, 0], [2, 1], [3, 6]]
    assert lines["gradient_rms"][:2].tolist() == [[1, pytest.approx(-3)], [2, -10]]
    assert math.isnan(lines["gradient_rms"][2, 1])
    assert lines["update_ratio"].tolist() == [[1, -6], [2, 0], [3, pytest.approx(-3)]]
    assert lines["stuck"].tolist() == [[1, 0], [2, 50]]


def test_the_charts_say_what_they_show_and_the_edges_that_they_are_edges(picture):
    axes = {name: lines[0].axes for name, lines in picture.lines.items()}
    texts = " ".join(text.get_text() for text in axes["loss"].figure.texts)
    assert "training points ● class 0, ▲ class 1; colour: the more probable class; line: even odds." in texts
    titles = {name: ax.get_title(loc="left") for name, ax in axes.items()}
    assert titles == {
        "loss": "training loss (nats)",
        "activation_rms": "RMS of outputs (h)",
        "gradient_rms": "RMS of gradients (∂loss/∂h)",
        "update_ratio": "update ratio (|ΔW|/|W|)",
        "stuck": "dead or stuck units (%)",
    }
    labels = [label.get_text() for label in axes["activation_rms"].get_yticklabels()]
    assert labels == ["≤1e-6", "1e-3", "1", "1e3", "≥1e6"]
    assert [label.get_text() for label in axes["stuck"].get_xticklabels()] == ["1", "2"]
    assert [label.get_text() for label in axes["update_ratio"].get_xticklabels()] == ["1", "2", "out"]


def test_guides_stand_at_the_loss_of_guessing_and_at_updates_of_a_thousandth(picture):
    for name, height in (("loss", math.log10(math.log(2))), ("update_ratio", -3)):
        lines = picture.lines[name]
        (guide,) = (line for line in lines[0].axes.lines if line not in lines)
        assert guide.get_ydata() == pytest.approx([height] * 2)


def test_a_and_b_look_as_the_legend_says(picture):
    legend = picture.lines["loss"][0].axes.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["A", "B"]
    for i, handle in enumerate(legend.get_lines()):
        for line in [lines[i] for lines in picture.lines.values()]:
            assert line.get_color() == handle.get_color() == STYLES[i]["color"]
            assert line.get_marker() == handle.get_marker()
            assert line.get_linestyle() == handle.get_linestyle()


def test_the_loss_is_averaged_over_windows():
    pair = Pair(Settings(depth=1), Settings(depth=1))
    pair.steps = 500
    pair.trainers[0].losses = [1.0, 3.0, 0.1, 0.1] * 50 + [1e9]
    draw(pair, snapshots())
    picture = picture_of(pair.task, 1, 500)
    x, y = picture.lines["loss"][0].get_data()
    assert x[:2].tolist() == [1.5, 5.5]  # windows of 500 / 125 = 4 steps: 0 to 3, 4 to 7
    assert y[0] == pytest.approx(math.log10(1.05))
    assert (x[-1], y[-1]) == (200, 1)  # the last window holds one step, on the upper edge
    assert averaged([2.0], 2)[1].tolist() == [2.0]


def test_maps_have_class_1_where_it_is_probable_and_a_line_between(picture):
    row = map_pixels(draw(PAIR, snapshots()))[5]  # above the points
    for pixel, colour in [(row[20], GREEN), (row[-20], PINK)]:
        assert abs(pixel - (255 - 0.45 * (255 - rgb(colour)))).max() < 3
    dark = np.flatnonzero((row == 60).all(axis=1))
    assert abs(dark.mean() - SIZE / 2) < 3
    assert 1 <= len(dark) <= 4


def test_points_lie_where_the_map_says_and_have_the_colours_of_their_classes(picture):
    pixels = np.asarray(data_points(PAIR.task)).astype(int)
    x, y = PAIR.task.coordinates(PAIR.task.train_inputs[:200]).numpy().T / PAIR.task.extent
    columns, rows = ((1 + x) / 2 * SIZE).astype(int), ((1 - y) / 2 * SIZE).astype(int)
    alpha = pixels[..., 3]
    assert (alpha[rows, columns] > 200).all()
    assert (alpha[::-1][rows, columns] > 200).mean() < 0.9  # not so upside down
    for label, colour in enumerate((GREEN, PINK)):
        own = PAIR.task.train_labels[:200].numpy() == label
        shown = pixels[rows[own], columns[own], :3]
        assert (abs(shown - rgb(colour)).max(axis=1) < 3).mean() > 0.5  # some lie under a neighbour
    drawn = map_pixels(draw(PAIR, snapshots()))
    bare = np.asarray(class_map(RIGHT)).astype(int)
    changed = (drawn != bare).any(axis=2)[3:-3, 3:-3]  # but for the frame
    assert (changed <= (alpha > 0)[3:-3, 3:-3]).all()
    assert changed.any()


def test_a_frame_keeps_nothing_of_the_frame_before(picture):
    first = draw(PAIR, snapshots())
    other = replace(MEASURES, activation_rms=np.array([1e-3, 1e-2, 1e-1]))
    second = draw(PAIR, snapshots(other, RIGHT[:, ::-1].copy()))
    assert not np.array_equal(map_pixels(first), map_pixels(second))
    assert np.array_equal(np.asarray(first), np.asarray(draw(PAIR, snapshots())))


def test_ten_classes_are_named_on_the_map():
    probabilities = np.zeros((GRID, GRID, 10), np.float32)
    probabilities[:, :20, 3] = probabilities[:, 20:, 7] = 1
    tile = np.asarray(class_map(probabilities))
    assert (tile[5, 20] == CLASS_COLOURS[3]).all()
    assert (tile[5, -20] == CLASS_COLOURS[7]).all()
    black = np.argwhere((tile == 0).all(axis=2))[:, 1]  # columns of what is written
    assert abs(np.median(black[black < SIZE / 2]) - SIZE / 4) < 0.05 * SIZE
    assert abs(np.median(black[black > SIZE / 2]) - 3 * SIZE / 4) < 0.05 * SIZE


@pytest.mark.parametrize(("rows", "named"), [(4, True), (3, False)])
def test_a_class_is_named_from_a_hundredth_of_the_map_on(rows, named):
    winner = np.full((GRID, GRID), 7)
    winner[:rows, :4] = 3  # of 1,600 cells
    tile = Image.new("RGB", (SIZE, SIZE), "white")
    drawing._name_regions(tile, winner)
    assert (np.asarray(tile)[: SIZE // 4, : SIZE // 4] == 0).any() == named


@pytest.mark.parametrize("upright", [True, False])
def test_the_line_between_winners_is_three_pixels_wide(upright):
    tile = np.asarray(class_map(RIGHT if upright else RIGHT.transpose(1, 0, 2)))
    line = tile[SIZE // 4] if upright else tile[:, SIZE // 4]
    dark = np.flatnonzero((line == 60).all(axis=1))
    assert dark[(dark > 2) & (dark < SIZE - 3)].tolist() == [SIZE // 2 + k for k in (-1, 0, 1)]


def test_digits_lie_on_their_map_as_digits():
    assert (np.asarray(data_points(make_task("digits", 0)))[..., 3] > 0).mean() > 0.02


def test_a_problem_is_written_on_the_map(picture):
    diverged = Pair(Settings(depth=2), Settings(depth=2))
    middle = slice(SIZE // 2 - 20, SIZE // 2 + 20)
    assert not (map_pixels(draw(diverged, snapshots()), 1)[middle, 10:-10] < 50).any()
    diverged.trainers[1].problem = "diverged at step 5: the loss is no longer a finite number"
    assert (map_pixels(draw(diverged, snapshots()), 1)[middle] < 50).any()


@pytest.mark.parametrize(
    ("change", "steps", "depth", "room"),
    [
        ({"seed": 1}, 0, 2, 250),
        ({"data_name": "circles"}, 250, 2, 250),
        ({"a": Settings(depth=3)}, 0, 3, 250),
        ({"b": Settings(depth=3)}, 0, 3, 250),
        ({"b": Settings(depth=1, scheme="LSUV")}, 251, 2, 500),
    ],
)
def test_axes_are_made_for_a_task_the_deeper_network_and_so_many_steps(
    change, steps, depth, room, picture, monkeypatch
):
    arguments = {"a": Settings(depth=2), "b": Settings(depth=2), "data_name": "moons", "seed": 0} | change
    pair, asked = Pair(**arguments), []
    pair.steps = steps
    monkeypatch.setattr(drawing, "picture_of", lambda *key: asked.append(key) or picture)
    draw(pair, snapshots())
    assert asked == [(make_task(arguments["data_name"], arguments["seed"]), depth, room)]


def test_axes_are_made_once(picture):
    assert picture_of(make_task("moons", 0), 2, 250) is picture


@pytest.mark.parametrize(("steps", "room"), [(0, 250), (250, 250), (251, 500), (9000, 16000)])
def test_the_loss_chart_doubles(steps, room, monkeypatch):
    pair, rooms = Pair(Settings(depth=2), Settings(depth=2)), []
    pair.steps = steps
    monkeypatch.setattr(drawing, "picture_of", lambda *key: rooms.append(key[-1]) or picture_of(*key))
    draw(pair, snapshots())
    assert rooms == [room]


def test_a_snapshot_has_no_map_where_outputs_are_not_finite():
    pair = Pair(Settings(scheme="N(0, 1)", depth=20), Settings(scheme="looks-linear", width=5))
    assert take_snapshot(pair.trainers[0]).map is not None
    assert take_snapshot(pair.trainers[1]) == Snapshot(None, None)
    pair.train(12)
    assert [take_snapshot(trainer).map for trainer in pair.trainers] == [None, None]
