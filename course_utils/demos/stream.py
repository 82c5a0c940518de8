"""Notebook 13: which branch scale a residual stream of L blocks needs, with and without norms."""

import math

import numpy as np

from course_utils import comparison, network_laws, plotting, propagation
from course_utils.demos import canvas, demo

NETWORKS, MOST_BLOCKS, FACTOR = 200, 96, 10
NORMS = ("no norm", "pre-norm", "post-norm")
_draws = demo.remembered(propagation.branch_draws)


@demo.asks(
    "Which branch scale keeps the stream of L blocks, and its input's share, within a factor of ten?",
    scale=demo.log_slider("branch scale (s)", -2, 0, 0.02, ".3f"),
    blocks=demo.integers("blocks (L)", 4, MOST_BLOCKS, 4),
    norm=demo.choice("norm", NORMS),
    width=demo.WIDTH,
)
def stream_figure(
    scale: float = 1.0, blocks: int = 48, norm: str = "no norm", width: int = 512
) -> demo.Drawing:
    """Draw a residual stream's second moment and its input's share, by branch times `scale`, two a block."""
    k = np.arange(2 * blocks + 1)
    draws = [table[: k[-1]] for table in _draws(2 * MOST_BLOCKS, width, count=NETWORKS)]
    moments, shares = propagation.residual_stream(scale, norm, draws)
    theory, share_theory = network_laws.stream_law(scale, 2 * blocks, norm, width)
    figure, (ax,) = canvas.new_figure()
    plotting.plot_signal(moments, theory, ax=ax, label="stream (mₖ)")
    # Means, because unrelated directions have a skewed share in common.
    style = {"color": plotting.ORANGE, "marker": "^", "label": "share of its input"}
    plotting.plot_samples(k, shares, share_theory, ax=ax, center=np.mean, every=max(1, len(k) // 12), **style)
    canvas.name_lines(ax, (0.02, 0.92), (0.02, 0.85))
    canvas.shade(ax, FACTOR, end=0.48)  # beside, not on, the line of a stream that leaves the band
    canvas.set_layers(ax, 2 * blocks, xlabel="branch (k)", ylabel="second moment, and share")
    canvas.set_decades(ax, min(1e-2, share_theory[-1] / 30), max(1e3, 10 * theory[-1]))
    log, share = math.log10(theory[-1]), share_theory[-1]
    stream = f"stream {demo.power_of_ten(log)}, share of its input {share:.2g}"
    ax.set_title(f"{blocks} blocks, predicted: {stream}")
    stream = "the norm sets its second moment to 1"
    if norm != "post-norm":
        median = comparison.median_of(np.log10(moments[:, -1]))
        stream = f"log10 of its mean second moment is predicted to be {log:.3f}; "
        stream += f"the median of {NETWORKS} networks is {median}"
    one = "the stream only" if theory[-1] <= FACTOR else "its input's share only"
    kept = int(theory[-1] <= FACTOR) + int(share >= 1 / FACTOR)
    return figure, (
        f"The stream after {2 * blocks} branches: {stream}. Share of its input: predicted {share:.3g}, "
        f"measured mean {comparison.mean_of(shares[:, -1])}. Predicted to "
        f"be within a factor of ten: {('neither', one, 'both')[kept]}."
    )
