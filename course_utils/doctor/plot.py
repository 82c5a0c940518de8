"""The picture of a diagnosis."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from course_utils.plotting import BLUE, ORANGE, use_log_axis


def plot_diagnosis(table: pd.DataFrame, *, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
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
        use_log_axis(ax).set(xlabel="", title=f"Second moment of the {quantity}")
        ax.set_xticks(named, table["layer"].iloc[named], rotation=60, ha="right", fontsize=10)
    axes[0].tick_params(labelbottom=False)  # both share the names below
    if faulty.any():
        axes[0].legend()
    axes[-1].set_xlabel("layer")
    return axes
