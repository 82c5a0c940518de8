"""Notebook 16: which layer's change grows with the width when one rule of muP is left out."""

import numpy as np

from course_utils import plotting, width_laws
from course_utils.demos import canvas, demo

BASE, WIDTHS = 16, 2 ** np.arange(4, 15)
PIXELS, ERROR = np.ones(64), np.full(10, 0.1) - np.eye(10)[0]  # an image of RMS 1, ten equal guesses
LEFT_OUT = {"none": (), **{rule: (rule,) for rule in width_laws.RULES}, "all four": width_laws.RULES}
NAMES = ("layer 1", "layer 2", "logits")
_STYLES = ((plotting.BLUE, "--", "o"), (plotting.ORANGE, ":", "^"), (plotting.GREEN, "-.", "s"))


@demo.asks(
    "Which line rises, which falls, when one rule of μP is left out?",
    without=demo.choice("rule left out", LEFT_OUT),
    optimizer=demo.choice("optimizer", ("Adam", "SGD")),
    width=demo.one_of("width (n)", [int(n) for n in WIDTHS[1:]]),
)
def width_figure(without: str = "none", optimizer: str = "Adam", width: int = 512) -> demo.Drawing:
    """Draw how far one step moves each layer, relative to width 16, by `first_step_law`."""
    rules = [width_laws.mup(int(n), BASE, optimizer, demo.pick("without", LEFT_OUT, without)) for n in WIDTHS]
    moves = [
        width_laws.first_step_law(int(n), *rule, PIXELS, ERROR, optimizer)[:, 0]
        for n, rule in zip(WIDTHS, rules, strict=True)
    ]
    grown = np.array(moves) / moves[0]
    figure, (ax,) = canvas.new_figure()
    for line, name, (color, style, marker) in zip(grown.T, NAMES, _STYLES, strict=True):
        ax.plot(WIDTHS, line, style, color=color, label=name, linewidth=2.5)
        ax.plot([width], line[width == WIDTHS], marker, color=color, markersize=9)
    canvas.name_lines(ax, (0.02, 0.92), (0.02, 0.85), (0.02, 0.78))
    ax.set_xscale("log")
    ax.set_xticks(WIDTHS[::2], [str(n) for n in WIDTHS[::2]])
    ax.minorticks_off()
    ax.set(xlabel="width (n)", ylabel=f"change in one step (width {BASE}: 1)")
    canvas.set_decades(ax, min(0.1, grown.min()), max(100, grown.max()))
    here = grown[width == WIDTHS][0]
    factors = ", ".join(f"{name} × {factor:.2g}" for name, factor in zip(NAMES, here, strict=True))
    ax.set_title(f"{optimizer}, width {BASE} to {width}: {factors}")
    rising = [name for name, line in zip(NAMES, grown.T, strict=True) if line[-1] > 1.2 * line[-2]]
    falling = [name for name, line in zip(NAMES, grown.T, strict=True) if line[-1] < line[-2] / 1.2]
    slopes = np.log2(grown[-1] / grown[-2])
    powers = ", ".join(f"{abs(slope) if abs(slope) < 0.005 else slope:.2f}" for slope in slopes)
    return figure, (
        f"Rising in wide networks: {' and '.join(rising) or 'no line'}; falling: "
        f"{' and '.join(falling) or 'no line'}. Powers of n at the right end: {powers}."
    )
