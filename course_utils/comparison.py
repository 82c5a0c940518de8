"""Predicted against measured: estimates with standard errors, the table, the assertion, the verdict."""

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from reprlib import repr as shortened
from types import EllipsisType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

# How many standard errors part agreement from refutation: chance alone goes beyond once in 16,000 rows.
Z_LIMIT = 4.0

# The rows with a guess that this notebook has compared, by quantity: a cell run twice counts once.
_guessed: dict[str, "Row"] = {}

# What Markdown would take for markup, so that a cell shows its text and nothing else.
_ESCAPES = str.maketrans({c: f"\\{c}" for c in "\\|*_`$"} | {"&": "&amp;", "<": "&lt;", "\n": " "})


class Estimate(NamedTuple):
    """A measured number and its standard error, in the same unit; an error of 0 means an exact number."""

    value: float
    standard_error: float

    def __format__(self, spec: str) -> str:
        """Return "value ± standard error", both in this format; without one, as tables round them."""
        if spec:
            return f"{self.value:{spec}} ± {self.standard_error:{spec}}"
        value, error = _rounded([self.value], self.standard_error)
        return f"{value} (exact)" if error == "exact" else f"{value} ± {error}"


def _rounded(values: Sequence[float], error: float) -> tuple[str, ...]:
    """Return the values and their standard error as text, all to two significant digits of the latter."""
    if not (np.isfinite(values).all() and 0 <= error < math.inf):
        return tuple(f"{x:g}" for x in (*values, error))
    if error <= np.spacing(np.abs(values).max()):  # 0, or no more than rounding
        return *(f"{x:.15g}" if error else repr(float(x)) for x in values), "exact"
    rounded = float(f"{error:.1e}")  # first, which keeps 0.0996 from becoming 0.100
    size = math.floor(math.log10(max(*np.abs(values), rounded)))
    power = size if size < -3 or size > 5 else 0
    decimals = max(0, power + 1 - math.floor(math.log10(rounded)))  # 1 - log10 leaves two digits
    suffix = f"e{power:+03d}" if power else ""
    return tuple(f"{x / 10.0**power:.{decimals}f}{suffix}" for x in (*values, error))


def _samples(samples: ArrayLike) -> np.ndarray:
    if isinstance(samples, list | tuple) and any(isinstance(x, Estimate) for x in (samples, *samples)):
        raise TypeError(f"expected samples, one number for each network; got an Estimate: {samples}")
    x = np.asarray(samples).ravel()
    if x.size and x.dtype.kind not in "biuf":
        raise TypeError(f"samples must be real numbers; got {x.dtype} in {shortened(samples)}")
    if x.size < 2:
        raise ValueError(f"a standard error needs at least 2 independent samples; got {x.size}")
    if not np.isfinite(x).all():
        raise ValueError(f"samples must be finite; {(~np.isfinite(x)).sum()} of {x.size} are not")
    return x.astype(float)


def mean_of(samples: ArrayLike) -> Estimate:
    """Estimate a mean from independent samples: standard error s / sqrt(N), where s**2 divides by N - 1.

    Like its siblings it takes an array of any shape, and raises TypeError for Estimates and what is no real
    number, ValueError for fewer than two samples or one that is not finite.
    """
    x = _samples(samples)
    return Estimate(float(x.mean()), float(x.std(ddof=1) / math.sqrt(x.size)))


def root_mean_of(samples: ArrayLike) -> Estimate:
    """Estimate sqrt(E x), the root of a mean: an RMS from mean squares, a pooled std from variances.

    Raises: ValueError as `mean_of`, and for a mean that is not positive.
    """
    mean, error = mean_of(samples)
    if mean <= 0:
        raise ValueError(f"the root of a mean needs a positive mean; got {mean}")
    return Estimate(math.sqrt(mean), error / (2 * math.sqrt(mean)))


def std_of(samples: ArrayLike) -> Estimate:
    """Estimate a standard deviation: standard error sqrt((m4 - s**4) / N) / (2 s), no law assumed.

    Raises: ValueError as `mean_of`, and for samples with two equally frequent values, whose error to first
    order is 0 though they are not exact.
    """
    x = _samples(samples)
    scale = np.abs(x - x.mean()).max()
    if scale == 0:
        return Estimate(0.0, 0.0)
    d = (x - x.mean()) / scale  # so that no power of it overflows or underflows
    variance = (d**2).mean()
    spread = (d**4).mean() - variance**2
    if spread < 1e-12 * variance**2:
        raise ValueError("two-valued samples: their standard deviation has no error to first order")
    return Estimate(float(scale * d.std(ddof=1)), float(scale * math.sqrt(spread / (4 * variance * x.size))))


def median_of(samples: ArrayLike) -> Estimate:
    """Estimate a median: its error is half the distance of the order statistics at N/2 +- sqrt(N)/2."""
    x = np.sort(_samples(samples))
    low = max(math.floor((x.size - math.sqrt(x.size)) / 2), 0)
    return Estimate(float(np.median(x)), float(x[x.size - 1 - low] - x[low]) / 2)


def wide_limit(half: ArrayLike, full: ArrayLike) -> Estimate:
    """Estimate a mean at infinite width from samples at width n/2 and at n: 2 × full - half.

    What the mean owes to the width must fall as 1/n, and the two must be independent. Raises: as `mean_of`.
    """
    narrow, wide = mean_of(half), mean_of(full)
    error = math.hypot(2 * wide.standard_error, narrow.standard_error)
    return Estimate(2 * wide.value - narrow.value, error)


class Row(NamedTuple):
    """One line of a comparison table; guess: the learner's, ... for none yet, None if none was asked for."""

    quantity: str
    predicted: float
    measured: Estimate
    guess: float | EllipsisType | None = None

    @property
    def z(self) -> float:
        """(measured - predicted) / standard error; 0 when an exact measurement hits, inf when it misses.

        nan where one of the three is no finite number, or the standard error is negative.
        """
        difference, error = self.measured.value - self.predicted, self.measured.standard_error
        if not math.isfinite(difference) or not 0 <= error < math.inf:
            return math.nan
        if error:
            return difference / error
        return math.copysign(math.inf, difference) if difference else 0.0

    @property
    def near(self) -> bool:
        """Whether there is a guess between half and twice what was predicted; of 0 only 0 is near."""
        if not isinstance(self.guess, float):
            return False
        return 0.5 <= self.guess / self.predicted <= 2 if self.predicted else self.guess == 0


def format_estimate(row: Row) -> tuple[str, str, str]:
    """Return predicted, measured and standard error as text, rounded to two digits of the standard error."""
    return _rounded((row.predicted, row.measured.value), row.measured.standard_error)


def _format_guess(guess: float | EllipsisType | None) -> str:
    """Return a guess to three significant digits, in full up to six places."""
    if isinstance(guess, float):
        return f"{float(f'{guess:.3g}'):g}"
    return "" if guess is None else "–"


@dataclass(frozen=True)
class Comparison:
    """A table of predictions and measurements. Prints as text, shows as a table in Jupyter."""

    rows: Sequence[Row]

    def cells(self) -> list[tuple[str, ...]]:
        """Return the table's cells as text, header first; a column "you" where a guess was asked for."""
        header = ("quantity", "predicted", "measured", "standard error", "z")
        cells = [header, *((row.quantity, *format_estimate(row), f"{row.z:+.1f}") for row in self.rows)]
        if all(row.guess is None for row in self.rows):
            return cells
        you = ("you", *(_format_guess(row.guess) for row in self.rows))
        return [(line[0], guess, *line[1:]) for line, guess in zip(cells, you, strict=True)]

    def __str__(self) -> str:
        cells = self.cells()
        first, *others = (max(map(len, column)) for column in zip(*cells, strict=True))
        return "\n".join("  ".join([row[0].ljust(first), *map(str.rjust, row[1:], others)]) for row in cells)

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        cells = self.cells()
        header, *body = (f"| {' | '.join(text.translate(_ESCAPES) for text in row)} |" for row in cells)
        return "\n".join([header, "|:--" + "|--:" * (len(cells[0]) - 1) + "|", *body])


def _guess(quantity: str, guess: Any) -> float | EllipsisType:
    """Return a checked guess: the dots that stand for none yet, or a finite number."""
    if guess is ...:
        return guess
    with contextlib.suppress(OverflowError):  # an integer beyond the largest float
        if isinstance(guess, Real) and math.isfinite(guess):
            return float(guess)
    raise ValueError(f"{quantity}: a guess is one finite number, or ... for none yet; got {shortened(guess)}")


def _real(number: Any, what: str) -> float:
    """Return a number of Python, NumPy or torch as a float."""
    plain = number.item() if hasattr(number, "item") and np.ndim(number) == 0 else number
    if not isinstance(plain, Real):
        raise TypeError(f"{what} must be one real number; got {shortened(number)}")
    return float(plain)


def _row(row: Any) -> Row:
    """Return a checked row; what a learner may have written instead is named."""
    if not isinstance(row, tuple) or len(row) not in (3, 4) or not isinstance(row[0], str):
        raise TypeError(
            "each row is one tuple (quantity, predicted, measured), perhaps with a guess as fourth, such as "
            f'compare(("RMS", 22.6, mean_of(samples))); got {shortened(row)}'
        )
    quantity, predicted, measured, *guesses = row
    if not isinstance(measured, Estimate):
        hint = "wrap it in mean_of(samples), or an exact number in Estimate(number, 0.0)"
        if isinstance(predicted, Estimate):
            hint = "the predicted number comes first, the measured Estimate last"
        raise TypeError(f"{quantity}: measured must have a standard error; got {shortened(measured)}: {hint}")
    guess = _guess(quantity, guesses[0]) if guesses else None
    measured = Estimate(*(_real(number, f"{quantity}: what was measured") for number in measured))
    return Row(quantity, _real(predicted, f"{quantity}: the prediction"), measured, guess)


def _asserted(rows: Sequence[Any], holds: Callable[[Row], bool], otherwise: str) -> Comparison:
    if not rows:
        raise ValueError("expected at least one row (quantity, predicted, measured); got none")
    table = Comparison([_row(row) for row in rows])
    failed = [row.quantity for row in table.rows if not holds(row)]  # nan never holds
    if failed:
        raise AssertionError(f"{otherwise}: {', '.join(failed)}\n{table}")
    return table


def compare(
    *rows: tuple[str, float, Estimate] | tuple[str, float, Estimate, float | EllipsisType],
) -> Comparison:
    """Return the table of (quantity, predicted, measured) rows, having asserted |z| <= `Z_LIMIT` in each.

    A row may have a fourth entry, the learner's guess or ... for none yet; it is shown as "you", and
    `tally` counts it.

    Raises: AssertionError with the whole table when a prediction is refuted or a number is not sound, under
    `python -O` too; ValueError without rows, or for a guess that is no finite number; TypeError for what is
    no such row.
    """
    table = _asserted(rows, lambda row: abs(row.z) <= Z_LIMIT, f"|z| > {Z_LIMIT:g} for")
    _guessed.update({row.quantity: row for row in table.rows if row.guess is not None})
    return table


def refute(*rows: tuple[str, float, Estimate]) -> Comparison:
    """Return the table of rows whose predictions are wrong, having asserted |z| > `Z_LIMIT` in each.

    Raises: AssertionError with the whole table when a prediction survives or a number is not sound; else as
    `compare`.
    """
    return _asserted(rows, lambda row: abs(row.z) > Z_LIMIT, f"|z| <= {Z_LIMIT:g}, not refuted")


def guesses() -> list[Row]:
    """Return the rows of this notebook's `compare` tables with a guess that was made."""
    return [row for row in _guessed.values() if row.guess is not ...]


def tally() -> None:
    """Print how many of the guesses in this notebook's `compare` tables were near what was predicted."""
    if made := guesses():
        print(f"Guesses within a factor of two: {sum(row.near for row in made)} of {len(made)}.")
    else:
        print("No guesses yet: write a number over the dots (...) and run the notebook again.")


def verdict(claim: str, holds: ArrayLike) -> None:
    """Print in how many networks or settings the claim holds, and assert that it does in all.

    holds: truth values. For what is trained: curves differ between processors, but a verdict with a wide
    margin does not.
    Raises: AssertionError if it fails in one of them; ValueError for none, or for what is no truth value.
    """
    holds = np.atleast_1d(holds)
    if holds.dtype != bool or not holds.size:
        raise ValueError(f"expected at least one truth value; got {holds.size} of type {holds.dtype}")
    line = f"{claim}: {holds.sum()} of {holds.size}"
    print(line)
    if not holds.all():
        raise AssertionError(line)
