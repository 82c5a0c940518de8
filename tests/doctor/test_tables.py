"""Tables as text: digits, empty cells, Markdown."""

import math

import pandas as pd

from course_utils.doctor.tables import markdown, rounded

TABLE = pd.DataFrame({"layer": ["0", "2"], "std": [0.12345, math.nan], "fan_in": [64, 128]})


def test_numbers_are_rounded_and_nan_is_empty():
    assert rounded(TABLE, 2).to_numpy().tolist() == [["0", "0.12", "64"], ["2", "", "1.3e+02"]]
    assert rounded(TABLE, 4).to_numpy().tolist() == [["0", "0.1235", "64"], ["2", "", "128"]]


def test_markdown():
    assert markdown(rounded(TABLE, 4)) == (
        "| layer | std | fan_in |\n| --- | --- | --- |\n| 0 | 0.1235 | 64 |\n| 2 |  | 128 |"
    )
