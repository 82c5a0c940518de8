"""Predicted against measured: estimates with standard errors, the table, the assertion."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Estimate(NamedTuple):
    """A measured number and its standard error, in the same unit."""

    value: float
    standard_error: float


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
    """Estimate sqrt(E x), the root of a mean: an RMS from mean squares, a pooled std from variances."""
    mean, error = mean_of(samples)
    if mean <= 0:
        raise ValueError(f"the root of a mean needs a positive mean; got {mean}")
    return Estimate(math.sqrt(mean), error / (2 * math.sqrt(mean)))


def std_of(samples: ArrayLike) -> Estimate:
    """Estimate a standard deviation: standard error sqrt((m4 - s**4) / N) / (2 s), no law assumed."""
    x = _samples(samples)
    deviations = x - x.mean()
    s, m4 = float(x.std(ddof=1)), float((deviations**4).mean())
    return Estimate(s, math.sqrt(max(m4 - s**4, 0) / x.size) / (2 * s) if s else 0.0)


def median_of(samples: ArrayLike) -> Estimate:
    """Estimate a median: its error is half the distance of the order statistics at N/2 +- sqrt(N)/2."""
    x = np.sort(_samples(samples))
    reach = math.sqrt(x.size) / 2
    low, high = math.floor(x.size / 2 - reach), min(math.ceil(x.size / 2 + reach), x.size - 1)
    return Estimate(float(np.median(x)), float(x[high] - x[low]) / 2)


def share_of(outcomes: ArrayLike) -> Estimate:
    """Estimate a probability from independent true/false outcomes."""
    return mean_of(np.asarray(outcomes, dtype=float))


class Row(NamedTuple):
    """One line of a comparison table."""

    quantity: str
    predicted: float
    measured: Estimate

    @property
    def z(self) -> float:
        """(measured - predicted) / standard error; 0 when an exact measurement hits, inf when it misses."""
        difference = self.measured.value - self.predicted
        if self.measured.standard_error:
            return difference / self.measured.standard_error
        return math.copysign(math.inf, difference) if difference else 0.0


def format_estimate(row: Row) -> tuple[str, str, str]:
    """Return predicted, measured and standard error as text.

    The standard error gets two significant digits and decides where the others end, so that a text that is
    compared between machines carries no digit that is noise.
    """
    value, error = row.measured
    if not error:
        return f"{row.predicted:.6g}", f"{value:.6g}", "exact"
    size = math.floor(math.log10(max(abs(value), error)))
    power = size if size < -3 or size > 5 else 0
    decimals = max(0, power + 1 - math.floor(math.log10(error)))
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
        header, *body = ("| " + " | ".join(line) + " |" for line in self.cells())
        return "\n".join([header, "|:--|--:|--:|--:|--:|", *body])


def compare(*rows: tuple[str, float, Estimate], z_limit: float = 4.0) -> Comparison:
    """Return the table of (quantity, predicted, measured) rows, having asserted |z| <= `z_limit` in each.

    Raises: AssertionError with the whole table when a prediction is refuted, or a z is nan.
    """
    table = Comparison([Row(*row) for row in rows])
    failed = [row.quantity for row in table.rows if not abs(row.z) <= z_limit]
    assert not failed, f"|z| > {z_limit:g} for: {', '.join(failed)}\n{table}"
    return table


def refute(*rows: tuple[str, float, Estimate], z_limit: float = 4.0) -> Comparison:
    """Return the table of rows whose predictions are wrong, having asserted |z| > `z_limit` in each.

    Raises: AssertionError with the whole table when a prediction survives.
    """
    table = Comparison([Row(*row) for row in rows])
    survived = [row.quantity for row in table.rows if not abs(row.z) > z_limit]
    assert not survived, f"|z| <= {z_limit:g}, not refuted: {', '.join(survived)}\n{table}"
    return table
