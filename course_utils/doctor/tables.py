"""Tables as text: what reports print, and what Jupyter shows."""

import math

import pandas as pd


def rounded(table: pd.DataFrame, digits: int) -> pd.DataFrame:
    """Return the table as text, its numbers with so many significant digits, NaN as an empty cell."""
    return table.map(lambda v: v if isinstance(v, str) else "" if math.isnan(v) else f"{v:.{digits}g}")


def markdown(table: pd.DataFrame) -> str:
    """Return a table of text in Markdown."""
    rows = [list(table.columns), ["---"] * table.shape[1], *table.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
