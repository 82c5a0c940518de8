"""Reports: a head in words, then tables, as `print` shows them and as Jupyter does."""

import math

import pandas as pd


def _markdown(table: pd.DataFrame) -> str:
    rows = [list(table.columns), ["---"] * table.shape[1], *table.to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


class Report:
    """What is printed as the lines of `_head`, and those of `_tables` that are not empty."""

    _digits = 2  # significant ones

    def _shown(self) -> list[pd.DataFrame]:
        """Return the tables as text, NaN as an empty cell."""
        show = lambda v: v if isinstance(v, str) else "" if math.isnan(v) else f"{v:.{self._digits}g}"  # noqa: E731
        return [table.map(show) for table in self._tables() if len(table)]

    def __str__(self) -> str:
        return "\n\n".join(["\n".join(self._head()), *(t.to_string(index=False) for t in self._shown())])

    def _repr_markdown_(self) -> str:
        return "\n\n".join([*self._head(), *map(_markdown, self._shown())])
