"""Predicted against measured: estimates with standard errors, the table, the assertion, the verdict."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Estimate(NamedTuple):
    """A measured number and its standard error, in the same unit; an error of 0 means an exact number."""

    value: float
    standard_error: float

    def __format__(self, spec: str) -> str:
        """Return "value ± standard error", both in this format; without one, with two digits of the error."""
        if not spec:
            digits = 1 - math.floor(math.log10(self.standard_error)) if self.standard_error else 6
            spec = f".{max(0, digits)}f"
        return f"{self.value:{spec}} ± {self.standard_error:{spec}}"


def _samples(samples: ArrayLike) -> np.ndarray:
    flat = np.asarray(samples, dtype=float).ravel()
    if flat.size < 2:
        raise ValueError(f"a standard error needs at least 2 independent samples; got {flat.size}")
    if not np.isfinite(flat).all():
        raise ValueError(f"samples must be finite; {(~np.isfinite(flat)).sum()} of {flat.size} are not")
    return flat


def mean_of(samples: ArrayLike) -> Estimate:
    """Estimate a mean from independent samples: standard error s / sqrt(N).

    Like its siblings it raises ValueError for fewer than two samples, or one that is not finite.
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
    """Estimate a median: its error is half the distance of the order statistics at N/2 +- sqrt(N)/2.

    Raises: ValueError as `mean_of`.
    """
    x = np.sort(_samples(samples))
    low = max(math.floor((x.size - math.sqrt(x.size)) / 2), 0)
    return Estimate(float(np.median(x)), float(x[x.size - 1 - low] - x[low]) / 2)


class Row(NamedTuple):
    """One line of a comparison table."""

    quantity: str
    predicted: float
    measured: Estimate

    @property
    def is_sound(self) -> bool:
        """Whether prediction and measurement are numbers, with a standard error that is one too."""
        numbers = math.isfinite(self.predicted) and math.isfinite(self.measured.value)
        return numbers and 0 <= self.measured.standard_error < math.inf

    @property
    def z(self) -> float:
        """(measured - predicted) / standard error; 0 when an exact measurement hits, inf when it misses."""
        difference = self.measured.value - self.predicted
        if self.measured.standard_error:
            return difference / self.measured.standard_error
        return math.copysign(math.inf, difference) if difference else 0.0


def format_estimate(row: Row) -> tuple[str, str, str]:
    """Return predicted, measured and standard error as text.

    The standard error gets two significant digits and decides where the others end: further digits would be
    noise, and might differ between machines.
    """
    value, error = row.measured
    if not row.is_sound:
        return f"{row.predicted:g}", f"{value:g}", f"{error:g}"
    if error == 0:
        return repr(float(row.predicted)), repr(float(value)), "exact"
    size = math.floor(math.log10(max(abs(value), abs(row.predicted), error)))
    power = size if size < -3 or size > 5 else 0
    # 1 - log10 leaves two digits; rounding first keeps 0.0996 from becoming 0.100
    decimals = max(0, power + 1 - math.floor(math.log10(float(f"{error:.1e}"))))
    suffix = f"e{power:+03d}" if power else ""
    return tuple(f"{x / 10.0**power:.{decimals}f}{suffix}" for x in (row.predicted, value, error))


@dataclass(frozen=True)
class Comparison:
    """A table of predictions and measurements. Prints as text, shows as a table in Jupyter."""

    rows: Sequence[Row]

    def cells(self) -> list[tuple[str, ...]]:
        """Return the table's cells as text, header first."""
        header = ("quantity", "predicted", "measured", "standard error", "z")
        return [header, *((row.quantity, *format_estimate(row), f"{row.z:+.1f}") for row in self.rows)]

    def __str__(self) -> str:
        cells = self.cells()
        widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
        lines = [
            "  ".join(
                text.ljust(w) if i == 0 else text.rjust(w)
                for i, (text, w) in enumerate(zip(line, widths, strict=True))
            )
            for line in cells
        ]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        lines = ([text.replace("|", "\\|") for text in line] for line in self.cells())
        header, *body = ("| " + " | ".join(line) + " |" for line in lines)
        return "\n".join([header, "|:--|--:|--:|--:|--:|", *body])


def _table(rows: Sequence[tuple[str, float, Estimate]], z_limit: float) -> Comparison:
    if not rows or not z_limit > 0:
        raise ValueError(f"expected at least one row and z_limit > 0; got {len(rows)} rows, {z_limit}")
    return Comparison([Row(*row) for row in rows])


def compare(*rows: tuple[str, float, Estimate], z_limit: float = 4.0) -> Comparison:
    """Return the table of (quantity, predicted, measured) rows, having asserted |z| <= `z_limit` in each.

    Raises: AssertionError with the whole table when a prediction is refuted or a number is not sound;
    ValueError without rows.
    """
    table = _table(rows, z_limit)
    failed = [row.quantity for row in table.rows if not (row.is_sound and abs(row.z) <= z_limit)]
    assert not failed, f"|z| > {z_limit:g} for: {', '.join(failed)}\n{table}"
    return table


def refute(*rows: tuple[str, float, Estimate], z_limit: float = 4.0) -> Comparison:
    """Return the table of rows whose predictions are wrong, having asserted |z| > `z_limit` in each.

    Raises: AssertionError with the whole table when a prediction survives or a number is not sound;
    ValueError without rows.
    """
    table = _table(rows, z_limit)
    survived = [row.quantity for row in table.rows if not (row.is_sound and abs(row.z) > z_limit)]
    assert not survived, f"|z| <= {z_limit:g}, not refuted: {', '.join(survived)}\n{table}"
    return table


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
    assert holds.all(), line
