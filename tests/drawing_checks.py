"""What the tests of the demos' drawings share: reading lines and sentences, and planting faults in them."""

import math
import re
from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from course_utils.comparison import mean_of

Check = Callable[[Figure, str], None]


def check_numbers(sentence: str, *expected: str) -> None:
    """Assert that each of the `expected` numbers stands in the sentence."""
    found = re.findall(r"-?\d[\d,]*(?:\.\d+)?(?:e[+-]\d+)?", sentence)
    assert [text for text in expected if text not in found] == []


def check_line(line: Line2D, y: ArrayLike, x: ArrayLike | None = None) -> None:
    """Assert that the line has the ordinates `y`, and the abscissae `x` if given."""
    np.testing.assert_allclose(line.get_ydata(), y, rtol=1e-6, atol=1e-12)
    if x is not None:
        np.testing.assert_allclose(line.get_xdata(), x, rtol=1e-6)


def check_finite(figure: Figure, sentence: str) -> None:
    """Assert that everything drawn and said is a finite number."""
    for ax in figure.axes:
        assert np.isfinite([*ax.get_xlim(), *ax.get_ylim()]).all()
        assert all(np.isfinite(line.get_xydata()).all() for line in ax.lines)
    assert not re.search(r"\b(nan|inf)\b", sentence), sentence


def z_score(one: ArrayLike, other: ArrayLike) -> float:
    """Return the difference of two sample means, in standard errors."""
    a, b = mean_of(one), mean_of(other)
    return (a.value - b.value) / math.hypot(a.standard_error, b.standard_error)


def check_drawing(check: Check, figure: Figure, sentence: str) -> None:
    """Assert `check`, and that it fails when a line is off by 1 %, and when the sentence has lost digits."""
    check(figure, sentence)
    for line in (line for ax in figure.axes for line in ax.lines if len(line.get_ydata())):
        right = np.array(line.get_ydata())
        line.set_ydata(1.01 * right)
        with pytest.raises(AssertionError):
            check(figure, sentence)
        line.set_ydata(right)
    with pytest.raises(AssertionError):
        check(figure, re.sub(r"\d\b", "", sentence))
