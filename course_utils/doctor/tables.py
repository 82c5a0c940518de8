"""Reports: a head in words, then tables, as `print` shows them and as Jupyter does."""

import math

import pandas as pd

from course_utils.comparison import markdown_table


def rounded(table: pd.DataFrame, digits: int) -> pd.DataFrame:
    """Return the table as text, its numbers with so many significant digits, NaN as an empty cell."""
    return table.map(lambda v: v if isinstance(v, str) else "" if math.isnan(v) else f"{v:.{digits}g}")


def _markdown(table: pd.DataFrame) -> str:
    return markdown_table([list(table.columns), *table.to_numpy().tolist()], "l" * table.shape[1])


class Report:
    """What is printed, and shown in Jupyter, as the two `_parts`: lines, and tables of text unless empty."""

    def __str__(self) -> str:
        head, tables = self._parts()
        return "\n\n".join(["\n".join(head), *(t.to_string(index=False) for t in tables if len(t))])

    def _repr_markdown_(self) -> str:
        head, tables = self._parts()
        return "\n\n".join([*head, *(_markdown(table) for table in tables if len(table))])
