"""The first step by width: lines, their factors and their powers, written anew."""

import math

import numpy as np
import pytest
from drawing_checks import check_line, check_numbers, check_words, named

from course_utils.demos.width import width_figure

SETTINGS = {"without": "output std", "optimizer": "Adam", "width": 512}
CONTROLS = {
    "without": ("none", "input rate", "hidden rate", "output rate", "output std", "all four"),
    "optimizer": ("Adam", "SGD"),
    "width": [2**k for k in range(5, 15)],
}
LABELS = ["rule left out", "optimizer", "width (n)"]


def moves(n):
    """Return how far Adam moves the three layers at width n, with muP rates and a standard output."""
    own, first, error = 16 / math.sqrt(math.pi), 64, np.array([-0.9, *[0.1] * 9])
    Q = own**2 + 4 / math.pi * own * first + (1 + 2 / math.pi) * first**2
    passed = math.sqrt(n / (2 * math.pi)) * (own + first) * error / math.sqrt(0.9)
    logits = ((own * np.sign(error) + passed) ** 2).mean() + Q / 2
    return np.array([first / math.sqrt(2), math.sqrt(Q / 2), math.sqrt(logits)])


def check(figure, sentence):
    (ax,), widths = figure.axes, 2 ** np.arange(4, 15)
    grown = np.array([moves(n) for n in widths]) / moves(16)
    assert len(ax.lines) == 6
    for k, name in enumerate(("layer 1", "layer 2", "logits")):
        line, marker = named(ax, name), ax.lines[2 * k + 1]
        check_line(line, grown[:, k], widths)
        check_line(marker, grown[widths == 512, k], [512])
        assert line.get_color() == marker.get_color()
    factors = f"layer 1 × 1, layer 2 × 1, logits × {grown[widths == 512, 2][0]:.2g}"
    check_words(ax, "width (n)", "change in one step (width 16: 1)", f"Adam, width 16 to 512: {factors}")
    check_numbers(sentence, "0.00", "0.00", f"{np.log2(grown[-1, 2] / grown[-2, 2]):.2f}")
    assert sentence.startswith("Rising in wide networks: logits; falling: no line.")


@pytest.mark.parametrize(
    ("without", "optimizer", "said"),
    [
        ("none", "Adam", "networks: no line; falling: no line"),
        ("none", "SGD", "networks: no line; falling: no line"),
        ("hidden rate", "Adam", "networks: layer 2 and logits; falling: no line"),
        ("all four", "SGD", "networks: layer 2 and logits; falling: layer 1"),
    ],
)
def test_the_lines_that_rise_and_fall_are_named(without, optimizer, said):
    assert said in width_figure(without, optimizer)[1]
