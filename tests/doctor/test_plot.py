"""The picture of a diagnosis shows what the table holds."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from course_utils.doctor.plot import plot_diagnosis


def diagnosed(layers):
    """Return a table like a Diagnosis's, whose second layer has a fault and passes no gradient."""
    gradients = np.geomspace(1e-6, 1, layers)
    gradients[1] = 0
    faults = ["", "dead", *[""] * (layers - 2)]
    names = [f"block.{i}" for i in range(layers)]
    columns = {
        "layer": names,
        "second_moment": np.geomspace(1, 1e3, layers),
        "gradient_second_moment": gradients,
    }
    return pd.DataFrame({**columns, "fault": faults})


def test_plot_diagnosis_draws_signal_above_gradient_and_rings_faults():
    table = diagnosed(6)
    axes = plot_diagnosis(table)
    for ax, column in zip(axes, ("second_moment", "gradient_second_moment"), strict=True):
        measured, rings = ax.lines
        np.testing.assert_array_equal(measured.get_ydata(), table[column].replace(0, np.nan))
        assert rings.get_xdata().tolist() == [1]
        assert ax.get_yscale() == "log"
    assert [label.get_text() for label in axes[1].get_xticklabels()] == table["layer"].tolist()
    assert axes[0].get_legend() is not None
    titles = [ax.get_title(loc="left") or ax.get_title() for ax in axes]
    assert titles == ["Second moment of the signal", "Second moment of the gradient"]


def test_plot_diagnosis_names_at_most_twenty_layers():
    ax = plot_diagnosis(diagnosed(70).assign(fault=""))[1]
    assert [label.get_text() for label in ax.get_xticklabels()] == [f"block.{i}" for i in range(0, 70, 4)]
    assert len(ax.lines[0].get_xdata()) == 70
    assert ax.get_legend() is None


def test_plot_diagnosis_draws_into_given_axes_and_takes_an_empty_table():
    axes = plt.figure().subplots(2)
    assert plot_diagnosis(diagnosed(3).iloc[:0], axes=axes) is axes
