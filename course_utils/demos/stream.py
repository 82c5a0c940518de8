"""Notebook 13: which branch scale a residual stream of L blocks needs, with and without norms."""

import math
from functools import lru_cache

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from course_utils import architectures, chains, comparison, plotting
from course_utils.demos import canvas
from course_utils.demos.demo import Demo, choice, integers, log_slider, luck, power_of_ten, width_slider

NETWORKS, MOST_BLOCKS, FACTOR = 300, 96, 10
NORMS = ("no norm", "pre-norm", "post-norm")


def stream_demo() -> Demo:
    """Find the branch scale that a residual stream of L blocks needs, with and without norms."""
    return Demo(
        "Which branch scale keeps the stream of L blocks, and its input's share, within a factor of ten?",
        {
            "scale": log_slider("branch scale (s)", 1.0, -2, 0, 0.02, ".3f"),
            "blocks": integers("blocks (L)", 48, 4, MOST_BLOCKS, 4),
            "norm": choice("norm", NORMS, "no norm"),
            "width": width_slider(),
        },
        stream_figure,
    )


@lru_cache(maxsize=8)
def _draws(width: int) -> tuple[NDArray, ...]:
    return chains.branch_draws(2 * MOST_BLOCKS, width, count=NETWORKS, generator=luck())


def stream_figure(
    scale: float = 1.0, blocks: int = 48, norm: str = "no norm", width: int = 512
) -> tuple[Figure, str]:
    """Draw the second moment of a residual stream, and the share of its input in it, by branch (two a block).

    `scale` is the factor on every branch; `norm` is "no norm", "pre-norm" or "post-norm".
    """
    branches = 2 * blocks
    moments, shares = chains.residual_stream(scale, norm, [table[:branches] for table in _draws(width)])
    theory, share_theory = architectures.stream_law(scale, branches, norm, width)
    figure, (ax,) = canvas.new_figure()
    plotting.plot_signal(moments, theory, ax=ax, label="stream (mₖ)")
    _draw_shares(ax, shares, share_theory)
    canvas.name_lines(ax, (0.02, 0.92), (0.02, 0.85))
    canvas.shade(ax, FACTOR, end=0.48)  # beside, not on, the line of a stream that leaves the band
    canvas.set_layers(ax, branches)
    canvas.set_decades(ax, min(1e-2, share_theory[-1] / 30), max(1e3, 10 * theory[-1]))
    ax.set(
        xlabel="branch (k)",
        ylabel="second moment, and share",
        title=f"{blocks} blocks, predicted: stream {power_of_ten(math.log10(theory[-1]))}, "
        f"share of its input {share_theory[-1]:.2g}",
    )
    return figure, _sentence(norm, theory, moments[:, -1], share_theory[-1], shares[:, -1])


def _draw_shares(ax: Axes, shares: NDArray, theory: NDArray) -> None:
    # Means, because unrelated directions have a skewed share in common.
    k = np.arange(len(theory))
    style = {"every": max(1, len(k) // 12), "color": plotting.ORANGE, "marker": "s"}
    plotting.plot_samples(k, shares, ax=ax, center=np.mean, label="share of its input", **style)
    ax.plot(k, theory, "k--", linewidth=1.5)


def _sentence(norm: str, theory: NDArray, last: NDArray, share_theory: float, share: NDArray) -> str:
    stream = "the norm sets its second moment to 1"
    if norm != "post-norm":
        stream = (
            f"log10 of its second moment is predicted to be {math.log10(theory[-1]):.3f}; the median of "
            f"{NETWORKS} networks is {comparison.median_of(np.log10(last))}"
        )
    verdict = {
        (True, True): "both",
        (True, False): "the stream only",
        (False, True): "its input's share only",
        (False, False): "neither",
    }[bool(theory[-1] <= FACTOR), bool(share_theory >= 1 / FACTOR)]
    return (
        f"The stream after {len(theory) - 1} branches: {stream}. Share of its input: predicted "
        f"{share_theory:.3g}, measured mean {comparison.mean_of(share)}. Predicted to "
        f"be within a factor of ten: {verdict}."
    )
