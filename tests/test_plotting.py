"""Figures: what is drawn, not how it looks."""

from io import BytesIO

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.colors import to_rgba
from PIL import Image

from course_utils import plotting

matplotlib.use("agg")

RNG = np.random.default_rng(0)
SAMPLES = np.exp(RNG.standard_normal((40, 25)))  # (networks, layers)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def one_axes():
    return plt.figure().subplots()


def row(count):
    return plt.figure().subplots(1, count, squeeze=False)[0]


def lines(ax, style):
    return [line for line in ax.lines if line.get_linestyle() == style]


def test_plot_signal_draws_theory_as_a_line_and_medians_as_markers():
    theory = np.geomspace(1, 1e-3, 25)
    ax = plotting.plot_signal(SAMPLES, theory, ax=one_axes())
    (dashed,) = lines(ax, "--")
    np.testing.assert_array_equal(dashed.get_ydata(), theory)
    assert dashed.get_color() == "k"
    (markers,) = lines(ax, "None")
    np.testing.assert_array_equal(markers.get_ydata(), np.median(SAMPLES, axis=0)[::2])
    assert ax.get_yscale() == "log"


def test_a_log_axis_has_plain_numbers_and_no_minor_ticks():
    ax = one_axes()
    ax.plot([1.0, 20.0])
    plotting.use_log_axis(ax)
    assert ax.yaxis.get_major_formatter()(1e-16) == "1e\N{MINUS SIGN}16"
    assert not len(ax.get_yticks(minor=True))


def test_plot_signal_band_holds_95_percent():
    ax = plotting.plot_signal(SAMPLES, ax=one_axes())
    vertices = ax.collections[0].get_paths()[0].vertices
    low, high = np.percentile(SAMPLES, [2.5, 97.5], axis=0)
    assert vertices[:, 1].min() == pytest.approx(low.min())
    assert vertices[:, 1].max() == pytest.approx(high.max())


def test_plot_samples_draws_the_law_dashed_over_all_points():
    ax, x = one_axes(), np.arange(25) / 2
    plotting.plot_samples(x, SAMPLES, x**2, ax=ax, every=4)
    (law,) = lines(ax, "--")
    np.testing.assert_array_equal(law.get_xydata(), np.column_stack([x, x**2]))
    assert law.get_color() == "k"


def test_plot_samples_marks_the_chosen_center_of_every_nth_point():
    ax, x = plt.figure().subplots(), np.arange(25) / 2
    plotting.plot_samples(x, SAMPLES, ax=ax, center=np.mean, every=4)
    (markers,) = ax.lines
    np.testing.assert_allclose(markers.get_xydata(), np.column_stack([x, SAMPLES.mean(axis=0)])[::4])


def test_functions_draw_into_the_given_axes_and_return_it():
    ax = plt.figure().subplots()
    one = np.ones(25)
    assert plotting.plot_signal(SAMPLES, ax=ax) is ax
    assert plotting.plot_fan(SAMPLES, one / 2, one, one * 2, ax=ax) is ax
    assert plotting.mark_dtype_limits([torch.float32], ax=ax) is ax
    assert plotting.plot_samples(np.arange(25), SAMPLES, ax=ax) is ax
    assert plotting.use_log_axis(ax) is ax
    ax = plt.figure().subplots()
    assert plotting.plot_cobweb(np.sqrt, 0.1, 3, stop=1, ax=ax) is ax


def test_plot_samples_band_is_the_central_95_percent_at_each_point():
    ax = plotting.plot_samples(
        np.arange(25), SAMPLES, ax=one_axes(), color=plotting.GREEN, marker="^", label="He"
    )
    low, high = np.percentile(SAMPLES, [2.5, 97.5], axis=0)
    (band,), (markers,) = ax.collections, ax.lines
    vertices = band.get_paths()[0].vertices
    for x in range(25):
        there = vertices[vertices[:, 0] == x, 1]
        assert {there.min(), there.max()} == {low[x], high[x]}
    np.testing.assert_array_equal(markers.get_ydata(), np.median(SAMPLES, axis=0))
    assert (markers.get_label(), markers.get_marker(), markers.get_color()) == ("He", "^", plotting.GREEN)
    assert to_rgba(band.get_facecolor()[0])[:3] == to_rgba(plotting.GREEN)[:3]


def test_plot_history_draws_median_and_range_of_window_means():
    values = RNG.standard_normal((40, 3))  # (steps, networks)
    steps, networks = np.indices(values.shape)
    history = pd.DataFrame({"step": steps.ravel(), "network": networks.ravel(), "loss": values.ravel()})
    ax = plt.figure().subplots()
    assert plotting.plot_history(history, window=20, ax=ax, label="He") is ax
    means = values.reshape(2, 20, 3).mean(axis=1)
    (line,) = ax.lines
    np.testing.assert_allclose(line.get_xydata(), np.column_stack([[0, 20], np.median(means, axis=1)]))
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((means.min(), means.max()))


def test_plot_fan_shades_hold_their_shares():
    one = np.ones(25)
    ax = plotting.plot_fan(SAMPLES, one / 2, one, one * 2, ax=one_axes())
    for shade, percentiles in zip(ax.collections, [(2.5, 97.5), (10, 90), (25, 75)], strict=True):
        heights = shade.get_paths()[0].vertices[:, 1]
        low, high = np.percentile(SAMPLES, percentiles, axis=0)
        assert (heights.min(), heights.max()) == pytest.approx((low.min(), high.max()))
    assert len(lines(ax, ":")) == 2


def test_plot_cobweb_climbs_the_stairs():
    ax = plotting.plot_cobweb(lambda q: q / 2, 0.8, 2, stop=1, ax=one_axes())
    stairs = ax.lines[-1]
    np.testing.assert_allclose(stairs.get_xdata(), [0.8, 0.8, 0.4, 0.4, 0.2])
    np.testing.assert_allclose(stairs.get_ydata(), [0.0, 0.4, 0.4, 0.2, 0.2])


def test_layer_histograms_show_shares_over_common_bins():
    axes = plotting.plot_layer_histograms({1: SAMPLES[0], 7: np.zeros(10)}, (0, 8), axes=row(2))
    heights = [[patch.get_height() for patch in ax.patches] for ax in axes]
    assert sum(heights[0]) == pytest.approx((SAMPLES[0] <= 8).mean())
    np.testing.assert_allclose(heights[1], [1] + [0] * 39)
    assert [ax.get_xlabel() for ax in axes] == ["output (h)"] * 2


def test_the_rms_in_a_histograms_title_is_an_rms():
    values = {1: [1.0, 7.0], 7: np.zeros(10)}  # mean 4, std 3, RMS 5
    axes = plotting.plot_layer_histograms(values, (0, 8), axes=row(2))
    assert [ax.get_title() for ax in axes] == ["layer 1, RMS 5", "layer 7, RMS 0"]


def test_dtype_limits_are_torchs():
    ax = plotting.mark_dtype_limits([torch.float16, torch.float32], ax=one_axes())
    assert [line.get_ydata()[0] for line in ax.lines] == [65504.0, torch.finfo(torch.float32).max]
    assert [(t.get_text(), t.get_position()[1]) for t in ax.texts] == [
        ("largest float16", 65504.0),
        ("largest float32", torch.finfo(torch.float32).max),
    ]
    tiny = plotting.mark_dtype_limits([torch.float16, torch.float32], tiny=True, ax=one_axes())
    assert [line.get_ydata()[0] for line in tiny.lines] == [2.0**-24, 2.0**-149]
    assert [text.get_text() for text in tiny.texts] == ["smallest float16", "smallest float32"]


def test_a_level_is_a_line_and_its_name_at_its_height():
    ax = one_axes()
    plotting.mark_level(ax, 0.3, "a third", 0.8, color=plotting.ORANGE, va="top")
    (line,), (text,) = ax.lines, ax.texts
    assert [*line.get_xdata(), *line.get_ydata()] == [0, 1, 0.3, 0.3]
    assert (text.get_text(), *text.get_position(), text.get_va()) == ("a third", 0.8, 0.3, "top")
    assert line.get_color() == text.get_color() == plotting.ORANGE


def test_palette_differs_in_grey_too():
    def luminance(color):
        return np.dot([0.2126, 0.7152, 0.0722], to_rgba(color)[:3])

    used_together = sorted(luminance(c) for c in (plotting.BLUE, plotting.ORANGE, plotting.GREEN))
    assert np.diff(used_together).min() > 0.02


def test_lines_in_a_jpeg_are_as_they_were():
    pixels = np.full((64, 64, 4), 255, np.uint8)
    for i, color in enumerate((plotting.BLUE, plotting.ORANGE, plotting.GREEN, plotting.PINK)):
        pixels[8 * i + 4] = pixels[:, 8 * i + 36] = np.round(255 * np.array(to_rgba(color)))
    shown = Image.open(BytesIO(plotting.to_jpeg(Image.fromarray(pixels))))
    assert shown.format == "JPEG"
    # At quality 90 it is 1.5 of 255, with colours at half the resolution 3.8.
    assert np.abs(np.asarray(shown, int) - pixels[..., :3]).mean() < 1


def test_plot_signal_takes_marker_color_and_label():
    ax = plotting.plot_signal(SAMPLES, ax=one_axes(), marker="s", color=plotting.PINK, label="He")
    (markers,) = lines(ax, "None")
    assert (markers.get_marker(), markers.get_color(), markers.get_label()) == ("s", plotting.PINK, "He")
    assert to_rgba(ax.collections[0].get_facecolor()[0])[:3] == to_rgba(plotting.PINK)[:3]


def check_fan(ax, low, middle, high):
    (dashed,) = lines(ax, "--")
    np.testing.assert_array_equal(dashed.get_ydata(), middle)
    for line, values in zip(lines(ax, ":"), (low, high), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), values)


def test_plot_fan_draws_each_quantile():
    low, middle, high = np.multiply.outer([0.5, 1, 3], np.geomspace(1, 2, 25))
    ax = plotting.plot_fan(SAMPLES, low, middle, high, ax=one_axes())
    check_fan(ax, low, middle, high)
    with pytest.raises(AssertionError):
        check_fan(ax, high, middle, low)
    with pytest.raises(AssertionError):
        check_fan(ax, low, low, high)


def test_plot_fan_names_its_lines():
    one = np.ones(25)
    ax = plotting.plot_fan(SAMPLES, one / 2, one, one * 2, ax=one_axes())
    names = {text.get_text() for text in ax.legend().get_texts()}
    by_name = {line.get_label(): line for line in ax.lines if line.get_label() in names}
    np.testing.assert_array_equal(by_name["predicted median"].get_ydata(), one)
    np.testing.assert_array_equal(by_name["predicted 95 %"].get_ydata(), one / 2)
    assert (names, ax.get_xlabel()) == ({"predicted median", "predicted 95 %"}, "layer (l)")


def test_plot_fan_shows_five_single_networks():
    one = np.ones(25)
    solid = lines(plotting.plot_fan(SAMPLES, one / 2, one, one * 2, ax=one_axes()), "-")
    np.testing.assert_array_equal([line.get_ydata() for line in solid], SAMPLES[:5])


def test_plot_cobweb_draws_the_map_and_the_diagonal():
    ax = plotting.plot_cobweb(np.sqrt, 0.1, 3, stop=2, ax=one_axes())
    (dashed,) = lines(ax, "--")
    np.testing.assert_allclose(dashed.get_ydata(), np.sqrt(dashed.get_xdata()))
    diagonal = ax.lines[0]
    np.testing.assert_array_equal(diagonal.get_xdata(), diagonal.get_ydata())
    for line in (dashed, diagonal):
        assert (line.get_xdata()[0], line.get_xdata()[-1]) == (0, 2)


def test_layer_histograms_take_a_color():
    (ax,) = plotting.plot_layer_histograms({1: SAMPLES[0]}, (0, 8), axes=row(1), color=plotting.GREEN)
    assert {patch.get_facecolor() for patch in ax.patches} == {to_rgba(plotting.GREEN)}


def test_the_band_of_a_history_has_the_color_of_its_line():
    history = pd.DataFrame({"step": [0, 0], "network": [0, 1], "loss": [1.0, 2.0]})
    ax = plotting.plot_history(history, ax=one_axes(), label="He", color=plotting.PINK)
    assert ax.lines[0].get_color() == plotting.PINK
    assert to_rgba(ax.collections[0].get_facecolor()[0])[:3] == to_rgba(plotting.PINK)[:3]


def described_figure():
    figure, (left, right) = plt.subplots(1, 2)
    x = np.arange(9)
    left.plot(x, 2.0**x, "--", color=plotting.BLUE, label="theory")
    left.plot(x, 3.0**x, "o", color=plotting.ORANGE, label="measured")
    left.fill_between(x, 1, 2, color=plotting.GREEN, label="spread")
    left.set(title="It grows", xlabel="layer", ylabel="signal", yscale="log")
    left.legend()
    right.axhline(0.125, ls=":", color="k")
    right.text(0, 1, "level", color=plotting.GREY)
    right.text(1, 2, "97 %")
    right.bar(["one", "two"], [1, 2])
    right.axhspan(0.1, 0.9, color=plotting.PINK)
    right.set_yticks([0.5], ["half"])
    right.set_title("It stays", loc="left")
    figure.add_axes((0, 0, 1, 1), title="It is hidden", visible=False)
    return figure


DESCRIPTION = """\
Figure of signal over layer
* It grows [layer, linear; signal, log]
  blue dashed: (0, 1) (2, 4) (4, 16) (6, 64) (8, 256)
  key blue dashed: theory
  key orange o: measured
  key green: spread
* It stays [no label, linear, one, two; no label, linear, half]
  black dotted: (0, 0.125) (1, 0.125)
  pink span: x 0 to 1, y 0.1 to 0.9
  text grey: level"""


def test_describe_says_all_words_keys_and_lines_of_theory():
    assert plotting.describe(described_figure()) == DESCRIPTION


def test_describe_says_no_more_than_every_machine_would():
    ax = one_axes()
    ax.plot([0, 1], [1.125, 1e-17], "--")
    exact = plotting.describe(ax.figure)
    ax.lines[0].set_ydata([1.125 - 2e-16, -3e-17])
    assert plotting.describe(ax.figure) == exact
    assert "(0, 1.13) (1, 0)" in exact
    ax.set_yscale("log")
    ax.lines[0].set_ydata([1, 1e-17])
    assert "(1, 1e-17)" in plotting.describe(ax.figure)


def test_describe_of_a_figure_without_panels():
    figure = plt.figure()
    figure.suptitle("Nothing")
    figure.supxlabel("to the right")
    figure.supylabel("up")
    assert plotting.describe(figure) == "Figure of no axes\nNothing\nto the right\nup"


def test_jupyter_shows_the_description_as_text_of_a_figure():
    shell = InteractiveShell.instance()
    try:
        plotting.use_course_style()
        data, _ = shell.display_formatter.format(described_figure(), include=["text/plain"])
    finally:
        InteractiveShell.clear_instance()
    assert data["text/plain"] == DESCRIPTION
