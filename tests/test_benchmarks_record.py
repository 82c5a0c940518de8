"""The comparison of `make bench` with its record, on planted records; nothing is timed."""

import copy
import json
import math

import benchmarks_record as record
import pytest

THEN = {
    "processor": "a",
    "versions": {"torch": "1", "jax": "2"},
    "ratios": {"fill": 1.0, "draw": 0.01, "grow": 2.0},
}


def compared(**changes):
    now = copy.deepcopy(THEN)
    now["ratios"] |= changes
    return record.report(THEN, now).splitlines()


def test_the_same_record_has_no_regression():
    assert compared() == ["0 of 3 ratios are worse by more than a factor 1.5"]


@pytest.mark.parametrize(
    ("now", "worse"), [(0.0149, False), (0.0151, True), (0.001, False), (float("nan"), True)]
)
def test_a_regression_is_what_got_worse_by_more_than_the_factor(now, worse):
    assert [row[0] for row in record.regressions(THEN["ratios"], {"draw": now})] == ["draw"] * worse


def test_the_table_names_then_and_now_worst_first():
    summary, _, *rows = compared(fill=1.6, grow=4.0)
    assert summary.startswith("2 of 3")
    assert [row.split() for row in rows] == [["grow", "2", "4"], ["fill", "1", "1.6"]]


def test_what_cannot_be_compared_is_named():
    now = {"processor": "b", "versions": {"torch": "1", "jax": "3"}, "ratios": {"fill": 1.0, "other": 9.0}}
    *lines, summary = record.report(THEN, now).splitlines()
    assert lines == [
        "processor: a then, b now",
        "jax: 2 then, 3 now",
        "not measured now: draw",
        "not measured now: grow",
        "not in the record: other",
    ]
    assert summary.startswith("0 of 1")


def test_a_record_is_stored_only_when_asked(tmp_path, capsys):
    path = tmp_path / "record.json"
    record.compare_or_store({"fill": 1.0}, False, path)
    assert not path.exists()
    record.compare_or_store({"fill": 1.23456}, True, path)
    record.compare_or_store({"fill": 2.0}, False, path)
    assert capsys.readouterr().out.splitlines()[-1].split() == ["fill", "1.23", "2"]


def test_a_record_loses_nothing(tmp_path):
    path = tmp_path / "record.json"
    record.compare_or_store({"fill": 1.0, "fill / JAX": 2.0}, True, path)
    with pytest.raises(SystemExit, match="not stored: 1 ratios are missing; install the extra bench"):
        record.compare_or_store({"fill": 1.0}, True, path)
    assert json.loads(path.read_text())["ratios"] == {"fill": 1.0, "fill / JAX": 2.0}


def test_the_stored_record_has_ratios_only():
    stored = json.loads(record.PATH.read_text())
    assert stored.keys() == {"processor", "versions", "ratios"}
    assert all(0 < ratio < math.inf for ratio in stored["ratios"].values())
