"""The picture of the playground: every line and map against the numbers that it shows."""

import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from course_utils.playground import picture as drawing
from course_utils.playground.engine import EXPERIMENTS, Measures, Pair, Settings
from course_utils.playground.picture import Look, Picture, look_at

MEASURES = Measures(
    np.array([1.0, 10.0, 1e9]),
    np.array([1e-3, 0.0, np.nan]),
    np.array([0.0, np.inf, 1e-3]),
    np.array([0, 0.5]),
    0.5,
)
PAIR = Pair(Settings(depth=2), Settings(depth=2))
SIZE = drawing._MAP_SIDE * drawing._DENSITY


def looks(first=None):
    right = np.zeros((drawing.GRID, drawing.GRID, 2))  # class 1 in the right half, class 0 in the left
    right[:, drawing.GRID // 2 :, 1] = 1
    right[..., 0] = 1 - right[..., 1]
    return [Look(first or MEASURES, right.astype(np.float32)), Look(MEASURES, None)]


def map_pixels(picture, i=0):
    left, top = (drawing._DENSITY * x for x in (drawing._MAP_LEFT[i], drawing._MAP_TOP))
    return np.asarray(picture)[top : top + SIZE, left : left + SIZE].astype(int)


def test_charts_show_the_measures_and_clip_at_the_edges():
    picture = Picture(PAIR)
    picture.draw(PAIR, looks())
    lines = {name: chart[0].get_xydata() for name, chart in picture._charts.items()}
    assert lines["activation_rms"].tolist() == [[1, 0], [2, 1], [3, 6]]
    assert lines["gradient_rms"][:2].tolist() == [[1, pytest.approx(-3)], [2, -10]]
    assert math.isnan(lines["gradient_rms"][2, 1])
    assert lines["update_ratio"].tolist() == [[1, -6], [2, 0], [3, pytest.approx(-3)]]
    assert lines["stuck"].tolist() == [[1, 0], [2, 50]]


def test_the_edges_are_labelled_as_edges():
    picture = Picture(PAIR)
    labels = [label.get_text() for label in picture._charts["activation_rms"][0].axes.get_yticklabels()]
    assert labels == ["≤1e-6", "1e-3", "1", "1e3", "≥1e6"]


def test_the_loss_is_averaged_over_windows():
    pair = Pair(Settings(depth=1), Settings(depth=1))
    pair.steps = 500
    pair.sides[0].losses = [1.0, 3.0, 0.1, 0.1] * 50 + [1e9]
    picture = Picture(pair)
    picture.draw(pair, [look_at(side) for side in pair.sides])
    x, y = picture._losses[0].get_data()
    assert x[:2].tolist() == [1.5, 5.5]  # windows of 500 / 125 = 4 steps: 0 to 3, 4 to 7
    assert y[0] == pytest.approx(math.log10(1.05))
    assert (x[-1], y[-1]) == (200, 1)  # the last window holds one step, on the upper edge


def test_maps_have_class_1_where_it_is_probable_and_a_line_between():
    pixels = map_pixels(Picture(PAIR).draw(PAIR, looks()))
    row = pixels[5]  # above the points
    assert abs(row[20] - drawing._SHADES[0]).max() < 3
    assert abs(row[-20] - drawing._SHADES[255]).max() < 3
    dark = np.flatnonzero((row == 60).all(axis=1))
    assert abs(dark.mean() - SIZE / 2) < 3
    assert 1 <= len(dark) <= 4


def test_points_lie_where_the_map_says():
    picture = Picture(PAIR)
    alpha = np.asarray(picture._points)[..., 3]
    x, y = PAIR.task.coordinates(PAIR.task.train_inputs[:200]).numpy().T / PAIR.task.extent
    columns, rows = ((1 + x) / 2 * SIZE).astype(int), ((1 - y) / 2 * SIZE).astype(int)
    assert (alpha[rows, columns] > 200).all()
    assert (alpha[::-1][rows, columns] > 200).mean() < 0.9  # not so upside down


def test_a_tile_is_drawn_anew_for_a_new_map():
    picture, first = Picture(PAIR), looks()
    before = map_pixels(picture.draw(PAIR, first))
    assert np.array_equal(before, map_pixels(picture.draw(PAIR, first)))
    turned = [replace(first[0], map=np.ascontiguousarray(first[0].map[:, ::-1])), first[1]]
    assert not np.array_equal(before, map_pixels(picture.draw(PAIR, turned)))


def test_a_frame_keeps_nothing_of_the_frame_before():
    picture = Picture(PAIR)
    first = picture.draw(PAIR, looks())
    picture.draw(PAIR, looks(replace(MEASURES, activation_rms=np.array([1e-3, 1e-2, 1e-1]))))
    assert np.array_equal(np.asarray(first), np.asarray(picture.draw(PAIR, looks())))


def test_ten_classes_are_named_on_the_map():
    pair = Pair(Settings(depth=1), Settings(depth=1), "digits")
    probabilities = np.zeros((drawing.GRID, drawing.GRID, 10), np.float32)
    probabilities[:, :20, 3] = probabilities[:, 20:, 7] = 1
    picture = Picture(pair)
    tile = drawing._tile(probabilities, SIZE)
    assert (tile[5, 20] == drawing._PALETTE[3]).all()
    assert (tile[5, -20] == drawing._PALETTE[7]).all()
    named = Image.fromarray(tile)
    drawing._name_regions(named, probabilities, picture._fonts[14])
    changed = np.argwhere((np.asarray(named) != tile).any(axis=2))
    columns = changed[:, 1]
    assert {int(4 * c / SIZE) for c in columns} <= {0, 1, 2, 3}
    assert abs(np.median(columns[columns < SIZE / 2]) - SIZE / 4) < 0.05 * SIZE
    assert abs(np.median(columns[columns > SIZE / 2]) - 3 * SIZE / 4) < 0.05 * SIZE


def test_a_problem_is_written_on_the_map():
    diverged = Pair(Settings(depth=2), Settings(depth=2))
    plain = map_pixels(Picture(PAIR).draw(PAIR, looks()), 1)
    diverged.sides[1].problem = "diverged at step 5: the loss is no longer a finite number"
    words = map_pixels(Picture(diverged).draw(diverged, looks()), 1)
    middle = slice(SIZE // 2 - 20, SIZE // 2 + 20)
    assert (words[middle] < 50).any()
    assert not (plain[middle, 10:-10] < 50).any()


@pytest.mark.parametrize(
    ("change", "fits"),
    [
        ({}, True),
        ({"seed": 1}, False),
        ({"data_name": "circles"}, False),
        ({"b": Settings(depth=3)}, False),
        ({"b": Settings(depth=1, scheme="LSUV")}, True),
    ],
)
def test_axes_fit_the_same_task_depth_and_horizon(change, fits):
    arguments = {"a": Settings(depth=2), "b": Settings(depth=2), "data_name": "moons", "seed": 0}
    assert Picture(PAIR).fits(Pair(**{**arguments, **change})) == fits


@pytest.mark.parametrize(("steps", "horizon"), [(0, 250), (250, 250), (251, 500), (9000, 16000)])
def test_the_loss_chart_doubles(steps, horizon):
    assert drawing._horizon(steps) == horizon


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_every_experiment_draws_at_every_stage(experiment):
    pair = experiment.pair()
    for _ in range(3):
        picture = Picture(pair).draw(pair, [look_at(side) for side in pair.sides])
        assert picture.size == (2 * drawing.WIDTH, 2 * drawing.HEIGHT)
        pair.train(3)
    assert drawing.to_jpeg(picture).startswith(b"\xff\xd8")
