"""Notebook 15: what units of many time scales remember, beside units that all have one."""

import math

import numpy as np

from course_utils import time_laws
from course_utils.demos import canvas, demo
from course_utils.plotting import BLUE, ORANGE

_LAGS = np.geomspace(1, 10_000, 200)


@demo.asks(
    "How long does a layer remember: with one time scale, and with many around it?",
    scale=demo.log_slider("middle scale (τ)", 0.5, 3, 0.05, ".0f"),
    spread=demo.slider("decades of scales", 0.5, 4, 0.25),
    law=demo.choice("law of the scales", time_laws.LAWS),
    horizon=demo.one_of("lag (t)", (10, 30, 100, 300, 1000)),
)
def memory_figure(
    scale: float = 10.0, spread: float = 1.0, law: str = "log-uniform", horizon: int = 100
) -> demo.Drawing:
    """Draw the mean memory of units whose scales span `spread` decades around `scale`, and of one scale."""
    ends = scale * 10 ** (-spread / 2), scale * 10 ** (spread / 2)
    figure, (ax,) = canvas.new_figure()
    many, one = time_laws.mean_memory(_LAGS, *ends, law), np.exp(-_LAGS / scale)
    ax.plot(_LAGS, many, "--", color=BLUE, label="many time scales")
    ax.plot(_LAGS, one, ":", color=ORANGE, label="one time scale")
    left = float(time_laws.mean_memory(horizon, *ends, law))
    ax.plot([horizon] * 2, [left, math.exp(-horizon / scale)], "o", color="k", label="at the lag")
    canvas.set_decades(ax, 1e-8, 1)
    ax.set(xscale="log", xlim=(1, 1e4), xlabel="lag in steps (t)", ylabel="share of the state left")
    ax.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1000"])  # a label at the end would be cut
    ax.minorticks_off()
    canvas.name_lines(ax, (0.03, 0.21), (0.03, 0.13), (0.03, 0.05))
    kept, alone = demo.power_of_ten(math.log10(left)), demo.power_of_ten(-horizon / scale / math.log(10))
    ax.set_title(f"At lag {horizon} many scales keep {kept}, one scale keeps {alone}")
    return figure, (
        f"Time scales from {ends[0]:.3g} to {ends[1]:.3g} steps, {law}: after {horizon} steps the mean unit "
        f"keeps {kept} of its state. If all units had {scale:.3g} steps, {alone} would be left."
    )
