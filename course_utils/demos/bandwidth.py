"""Notebook 18: what a bandwidth makes of a wave that is known at 32 points only."""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from course_utils import frequency_laws
from course_utils.demos import canvas, demo
from course_utils.plotting import BLUE, GREY, ORANGE

POINTS, SAMPLES, RATE, SHOWN = 2048, 32, 0.5, 64
FEATURES = {
    "Fourier features": ("normal", 0),
    "one sine layer": ("uniform", 0),
    "two, SIREN's law": ("uniform", 1),
    "two, He's law": ("uniform", 2),
}


@lru_cache(maxsize=64)
def _shares(law: str, hidden: int, bandwidth: float) -> NDArray:
    """Return the kernel's spectrum, of sum 1; hidden: a second sine layer, SIREN's law (1) or He's (2)."""
    shares = frequency_laws.frequency_shares(bandwidth, law, POINTS)
    if hidden:
        omega = math.pi * math.sqrt(3) * bandwidth  # coordinates from -1 to 1
        shares = frequency_laws.sine_layer(shares / 2, 2 * omega ** (2 * hidden - 2))
    return shares / shares.sum()


@demo.asks(
    "Which bandwidth draws the wave between the samples, too?",
    features=demo.choice("features", FEATURES),
    bandwidth=demo.log_slider("bandwidth (s), cycles", -0.3, 1.8, 0.05, ".2f"),
    cycles=demo.integers("cycles of the wave", 1, SAMPLES // 2 - 1, 1),
    steps=demo.one_of("steps (t)", (10, 30, 100, 300, 1000, 3000, 10000)),
)
def bandwidth_figure(
    features: str = "Fourier features", bandwidth: float = 10**1.5, cycles: int = 6, steps: int = 300
) -> demo.Drawing:
    """Draw how much of each frequency is in the features, and the wave that gradient descent has fitted."""
    shares = _shares(*demo.pick("features", FEATURES, features), bandwidth)
    learned, spread = frequency_laws.fit_law(shares, cycles, SAMPLES, RATE, steps)
    figure, (left, right) = canvas.new_figure(2)
    k = np.arange(SHOWN + 1)
    alike = np.array([j for j in k if j % SAMPLES in (cycles, SAMPLES - cycles) and j != cycles])
    left.plot(k, shares[k], "--", color=BLUE, label="share in the features")
    left.plot([cycles], shares[[cycles]], "o", color="k", label="the wave", markersize=9)
    left.plot(alike, shares[alike], "^", color=ORANGE, label="the same at the samples", markersize=9)
    left.set(xlabel="cycles (k)", ylabel="share (π)", title="What the features hold", yscale="log")
    left.set(xlim=(-2, SHOWN + 2), ylim=(1e-8, 1000))
    left.set_xticks([0, 16, 32, 48, 64], ["0", "16", "32", "48", "64"])
    left.set_yticks([1e-8, 1e-6, 1e-4, 0.01, 1], ["1e-8", "1e-6", "1e-4", "0.01", "1"])
    left.minorticks_off()
    canvas.name_lines(left, (0.03, 0.92), (0.03, 0.85), (0.03, 0.78))
    return figure, _draw_fit(right, learned, spread, cycles, steps)


def _draw_fit(ax: object, learned: float, spread: NDArray, cycles: int, steps: int) -> str:
    """Draw the first half of the circle: wave, samples and fit; and return the sentence."""
    x = np.arange(POINTS // 2 + 1) / POINTS
    wave, fit = np.cos(2 * math.pi * cycles * x), POINTS * np.fft.ifft(spread).real[: len(x)]
    ax.plot(x, wave, ":", color=GREY, label="wave", linewidth=2.5)
    ax.plot(x, fit, "--", color=BLUE, label="fit")
    ax.plot(x[:: POINTS // SAMPLES], wave[:: POINTS // SAMPLES], "o", color="k", label="samples")
    ax.set(xlabel="place on the circle (x)", ylabel="value", xlim=(-0.01, 0.51), ylim=(-1.3, 1.7))
    canvas.name_lines(ax, (0.03, 0.92), (0.5, 0.92), (0.03, 0.85))
    left, strayed = 1 - learned, learned - spread[cycles]
    total = math.sqrt((spread**2).sum() - spread[cycles] ** 2 + (1 - spread[cycles]) ** 2)
    ax.set_title(f"RMS error on the circle {total:.2g}")
    kind = "mostly blur" if left > strayed else "mostly noise between the samples"
    return (
        f"After {steps} steps {left:.3g} of the wave is left at the samples, and {strayed:.3g} of it went to "
        f"waves that look the same there. The relative RMS error on the whole circle is {total:.3g}, "
        f"{kind if total > 0.1 else 'which is small'}."
    )
