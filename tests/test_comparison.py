"""Estimates, tables and assertions of predicted against measured."""

import math
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

from course_utils import comparison
from course_utils.comparison import (
    Z_LIMIT,
    Comparison,
    Estimate,
    Row,
    compare,
    format_estimate,
    mean_of,
    median_of,
    refute,
    root_mean_of,
    std_of,
    tally,
    verdict,
    wide_limit,
)

RNG_SEED = 11
ESTIMATORS = {
    # estimator: (true value for exponential samples of mean 2)
    mean_of: 2.0,
    root_mean_of: math.sqrt(2.0),
    std_of: 2.0,
    median_of: 2.0 * math.log(2),
}


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(0.12345, 0.00678), "0.1235 ± 0.0068"),
        (Estimate(1234.5, 21.4), "1234 ± 21"),
        (Estimate(1.234, 0.0996), "1.23 ± 0.10"),
        (Estimate(-0.9031e-24, 0.0123e-24), "-9.03e-25 ± 0.12e-25"),
        (Estimate(0.5, 0.0), "0.5 (exact)"),
        (Estimate(0.9375, 4e-17), "0.9375 (exact)"),  # of rounding
        (Estimate(1.0, 1e-15), "1.0000000000000000 ± 0.0000000000000010"),
        (Estimate(math.nan, math.nan), "nan ± nan"),
    ],
)
def test_an_estimate_in_a_sentence_is_rounded_as_in_a_table(estimate, text):
    assert f"{estimate}" == text
    _, value, error = format_estimate(Row("", estimate.value, estimate))
    assert text in (f"{value} ± {error}", f"{value} ({error})")


def test_an_estimate_has_the_digits_that_were_asked_for():
    assert f"{Estimate(-0.12345, 0.00678):.2f}" == "-0.12 ± 0.01"


@pytest.mark.parametrize(
    ("estimator", "samples", "value", "error"),
    [
        # the two deviations are 1; their squares over N - 1 = 1 give s = sqrt(2), and s / sqrt(2) = 1
        (mean_of, [3.0, 5.0], 4.0, 1.0),
        (mean_of, [1.0, 2.0, 6.0], 3.0, math.sqrt(7 / 3)),
        (root_mean_of, [3.0, 5.0], 2.0, 1 / 4),
        # deviations -2, 0, 2: s**2 = 4, m2 = 8 / 3, m4 = 32 / 3
        (std_of, [1.0, 3.0, 5.0], 2.0, math.sqrt((32 / 3 - 64 / 9) / 3) / (2 * math.sqrt(8 / 3))),
        (median_of, [1.0, 2.0, 4.0, 8.0], 3.0, 1.0),
        (median_of, [8.0, 0.0, 1.0, 2.0, 4.0], 2.0, 1.5),
    ],
)
def test_small_samples_by_hand(estimator, samples, value, error):
    assert tuple(estimator(samples)) == pytest.approx((value, error), rel=1e-12)


def test_the_limit_of_wide_networks_has_no_error_of_order_one_over_n():
    # a mean of 5 + 3 / n at n = 1 and 2; errors 1 and 2 x 1/2 add in squares
    assert tuple(wide_limit([7.0, 9.0], [6.0, 7.0])) == pytest.approx((5.0, math.sqrt(2)), rel=1e-12)


@cache
def rounds(estimator):
    """Return values and standard errors in 4,000 rounds of 2,000 exponential samples."""
    samples = np.random.default_rng(RNG_SEED).exponential(2.0, (4000, 2000))
    return np.transpose([estimator(x) for x in samples])


def check_standard_error(values, errors):
    """Compare the mean squared standard error with the variance of the estimates over rounds: |z| <= 5."""
    deviations = values - values.mean()
    variance = np.mean(deviations**2)
    relative_error = math.sqrt((np.mean(deviations**4) / variance**2 - 1) / len(values))
    assert abs(np.mean(errors**2) / variance - 1) <= 5 * relative_error


def check_value(values, truth):
    assert abs(values.mean() - truth) <= 5 * values.std() / math.sqrt(len(values))


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda f: f.__name__)
def test_standard_errors_are_the_spread_of_the_estimates(estimator):
    check_standard_error(*rounds(estimator))


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("factor", [0.9, 1.1, 2000**-0.5])
def test_a_standard_error_off_by_10_percent_or_a_root_is_caught(estimator, factor):
    values, errors = rounds(estimator)
    with pytest.raises(AssertionError):
        check_standard_error(values, factor * errors)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda f: f.__name__)
def test_values_are_those_of_the_law(estimator):
    values, _ = rounds(estimator)
    check_value(values[:400], ESTIMATORS[estimator])
    with pytest.raises(AssertionError):
        check_value(values[:400], 1.02 * ESTIMATORS[estimator])


def check_median_at_30(estimator):
    """Neighbours among 30 uniform numbers are 1/31 apart on average: no nearer than half of that."""
    samples = np.random.default_rng(RNG_SEED).random((2000, 30))
    forward, mirrored = ([estimator(x) for x in sign * samples] for sign in (1, -1))
    np.testing.assert_allclose(np.array(forward), np.array(mirrored) * [-1, 1])
    errors = np.array(forward)[:, 1]
    # Var((U_(15) + U_(16)) / 2) from the covariances i (N + 1 - j) / ((N + 1)**2 (N + 2)) of order statistics
    truth = math.sqrt((15 * 16 + 15 * 15) / (2 * 31**2 * 32))
    assert abs(errors.mean() - truth) <= 0.5 / 31 + 5 * errors.std() / math.sqrt(len(errors))


def test_median_has_its_error_in_small_samples():
    check_median_at_30(median_of)


@pytest.mark.parametrize(("low", "high"), [(12, 18), (11, 17), (11, 18), (13, 16)])
def test_order_statistics_off_by_one_are_caught(low, high):
    def wrong(samples):
        x = np.sort(samples)
        return Estimate(np.median(x), (x[high] - x[low]) / 2)

    with pytest.raises(AssertionError):
        check_median_at_30(wrong)


@pytest.mark.parametrize("values", [[1, -1] * 500, [0.1, 0.7] * 3], ids=["exact", "rounded"])
def test_the_std_of_two_equally_frequent_values_has_no_error_to_give(values):
    with pytest.raises(ValueError, match="two-valued"):
        std_of(values)


def check_scale(estimator, scale):
    samples = np.random.default_rng(RNG_SEED).exponential(1.0, 50)
    np.testing.assert_allclose(estimator(scale * samples), scale * np.array(estimator(samples)), rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_std_of_tiny_and_huge_samples(scale):
    check_scale(std_of, scale)


def test_a_square_that_underflows_is_caught():
    with pytest.raises(AssertionError):
        check_scale(lambda x: Estimate(np.sqrt(np.var(x)), 0.1 * np.sqrt(np.var(x))), 1e-200)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([], "at least 2 independent samples; got 0"),
        ([1.0], "got 1"),
        ([1.0, np.nan, np.inf], "2 of 3 are not"),
    ],
)
def test_samples_that_carry_no_error(estimator, samples, message):
    with pytest.raises(ValueError, match=message):
        estimator(samples)


def test_root_of_a_negative_mean():
    with pytest.raises(ValueError, match=r"positive mean; got -1\.0"):
        root_mean_of([-1.0, -1.0])


def test_booleans_are_shares():
    assert mean_of(np.array([True, False, True, False])).value == 0.5


def test_constant_samples_are_exact():
    for estimator in ESTIMATORS:
        assert estimator([4.0, 4.0, 4.0]).standard_error == 0


def test_z():
    assert Row("x", 1.0, Estimate(1.2, 0.1)).z == pytest.approx(2)
    assert Row("x", 1.0, Estimate(1.0, 0.0)).z == 0
    assert Row("x", 1.0, Estimate(0.9, 0.0)).z == -math.inf


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (Row("", math.sqrt(512), Estimate(22.6298, 0.01043)), ("22.627", "22.630", "0.010")),
        (Row("", 1.0, Estimate(0.98, 0.213)), ("1.00", "0.98", "0.21")),
        (Row("", 512.0, Estimate(510.7, 3.4)), ("512.0", "510.7", "3.4")),
        (Row("", 262144.0, Estimate(263261.0, 5163.0)), ("262144", "263261", "5163")),
        (Row("", 1.012e-24, Estimate(0.9031e-24, 0.0123e-24)), ("1.012e-24", "0.903e-24", "0.012e-24")),
        (Row("", 0.0, Estimate(0.0002, 0.001)), ("0.0000", "0.0002", "0.0010")),
        (Row("", 1.0, Estimate(1.04, 0.0996)), ("1.00", "1.04", "0.10")),
        (Row("", 10.0, Estimate(10.4, 0.996)), ("10.0", "10.4", "1.0")),
        (Row("", 0.0, Estimate(0.0002, 0.000996)), ("0.0000", "0.0002", "0.0010")),
        (Row("", 3.0, Estimate(3.0, 0.0)), ("3.0", "3.0", "exact")),
    ],
)
def test_digits_follow_from_the_standard_error(row, expected):
    assert format_estimate(row) == expected


def test_tables_name_what_they_show():
    table = Comparison([Row("growth", 2.0, Estimate(2.02, 0.01))])
    header = " ".join(str(table).splitlines()[0].split())
    assert header == "quantity predicted measured standard error z"
    assert str(table).splitlines()[1].split() == ["growth", "2.000", "2.020", "0.010", "+2.0"]
    assert table._repr_markdown_().splitlines()[2] == "| growth | 2.000 | 2.020 | 0.010 | +2.0 |"


def test_the_limit_is_the_one_that_notebook_00_states():
    (path,) = (Path(__file__).parent.parent / "notebooks").glob("00_*.ipynb")
    prose = "".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
    assert f"$|z| > {Z_LIMIT:g}$" in prose


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("z", "agrees"), [(Z_LIMIT - 0.01, True), (Z_LIMIT, True), (Z_LIMIT + 0.01, False)])
def test_compare_and_refute_part_at_the_limit_on_both_sides(sign, z, agrees):
    row = ("x", 0.0, Estimate(sign * z, 1.0))
    assert Row(*row).z == sign * z
    passes, fails = (compare, refute) if agrees else (refute, compare)
    assert passes(row).rows == [Row(*row)]
    with pytest.raises(
        AssertionError,
        match=rf"\|z\| <= {Z_LIMIT:g}, not refuted: x\n" if agrees else rf"\|z\| > {Z_LIMIT:g} for: x\n",
    ):
        fails(row)


def test_one_row_that_fails_is_enough_and_is_named():
    near, far = ("near", 1.0, Estimate(1.1, 0.1)), ("far", 1.0, Estimate(2.0, 0.1))
    with pytest.raises(AssertionError, match=r"\|z\| > .* for: far\n"):
        compare(near, far)
    with pytest.raises(AssertionError, match="not refuted: near\n"):
        refute(near, far)


@pytest.mark.parametrize(
    "call",
    ["compare(('x', 0, Estimate(99, 1)))", "refute(('x', 0, Estimate(1, 1)))", "verdict('x', [False])"],
)
def test_an_assertion_outlives_the_switch_that_removes_assertions(call):
    code = f"from course_utils.comparison import *; {call}"
    run = subprocess.run([sys.executable, "-O", "-c", code], capture_output=True, text=True, check=False)
    assert "AssertionError" in run.stderr


ONE = Estimate(1.0, 0.1)


@pytest.mark.parametrize("check", [compare, refute])
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("RMS", 22, 22.6), r"each row is one tuple \(quantity, predicted, measured\), .* got 'RMS'"),
        ((["RMS", 22, ONE],), "each row is one tuple .* got \\['RMS', 22, "),
        ((("RMS", 22),), "each row is one tuple .* got \\('RMS', 22\\)"),
        ((("RMS", 22, ONE, 20, 21),), "perhaps with a guess as fourth.* got \\('RMS', 22, "),
        (((22, "RMS", ONE),), "each row is one tuple .* got \\(22, 'RMS', "),
        ((("RMS", 22, 22.6),), r"RMS: measured .* got 22\.6: wrap it in mean_of\(samples\)"),
        ((("RMS", 22, None),), "RMS: measured .* got None"),
        ((("RMS", 22, [1.0, 2.0]),), r"RMS: measured .* got \[1\.0, 2\.0\]: wrap it in mean_of"),
        ((("RMS", 22, np.ones(3)),), "wrap it in mean_of"),
        ((("RMS", 22, torch.ones(3)),), "wrap it in mean_of"),
        ((("RMS", ONE, 22),), "the predicted number comes first, the measured Estimate last"),
        ((("RMS", [1.0, 2.0], ONE),), r"RMS: the prediction must be one real number; got \[1\.0, 2\.0\]"),
        ((("RMS", "22", ONE),), "RMS: the prediction must be one real number; got '22'"),
        ((("RMS", 22j, ONE),), "RMS: the prediction must be one real number; got 22j"),
        ((("RMS", 22, Estimate("22", 1)),), "RMS: what was measured must be one real number; got '22'"),
    ],
)
def test_a_first_mistake_is_answered_in_a_sentence(check, rows, message):
    with pytest.raises(TypeError, match=message):
        check(*rows)


@pytest.mark.parametrize("number", [1, 1.0, np.float32(1), np.int64(1), np.array(1.0), torch.tensor(1.0)])
def test_any_one_number_may_be_predicted(number):
    (row,) = compare(("x", number, ONE)).rows
    assert (row.predicted, type(row.predicted)) == (1.0, float)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda f: f.__name__)
def test_an_estimate_is_no_sample(estimator):
    for samples in (ONE, [ONE, ONE], (ONE, ONE)):  # two Estimates would pass for an array of four numbers
        with pytest.raises(TypeError, match=r"expected samples, .* got an Estimate"):
            estimator(samples)
    for samples in (["1", "2"], [1j, 2]):
        with pytest.raises(TypeError, match=r"samples must be real numbers; got \S+ in "):
            estimator(samples)


@pytest.mark.parametrize("check", [compare, refute])
@pytest.mark.parametrize(
    ("predicted", "value", "error"),
    [
        (math.nan, 1.0, 0.1),
        (1.0, math.nan, 0.1),
        (1.0, math.inf, 0.1),
        (1.0, -math.inf, 0.1),
        (1.0, 1.0, math.nan),
        (1.0, 1.0, math.inf),
        (1.0, math.inf, math.inf),
        (1.0, 1.0, -0.1),
        (1.0, 9.0, -0.1),
        (1.0, 1.0, -math.inf),
    ],
)
def test_what_is_no_number_is_neither_agreement_nor_refutation(check, predicted, value, error):
    with pytest.raises(AssertionError, match=r"lost\n *quantity .*\nlost .*"):
        check(("lost", predicted, Estimate(value, error)))


@pytest.mark.parametrize("check", [compare, refute])
def test_a_comparison_of_nothing_is_refused(check):
    with pytest.raises(ValueError, match="at least one row"):
        check()


@pytest.mark.parametrize("predicted", [1e8, 1e-8, -1e8, 1e-300])
def test_digits_of_the_measurement_survive_a_prediction_of_another_size(predicted):
    _, value, error = map(float, format_estimate(Row("", predicted, Estimate(1.234, 0.0231))))
    assert (value, error) == (1.234, 0.023)


def test_an_exact_number_that_misses_shows_it():
    row = Row("", 0.3, Estimate(0.1 + 0.2, 0.0))
    assert format_estimate(row) == ("0.3", "0.30000000000000004", "exact")


def test_cells_show_their_text_in_markdown():
    quantities = "|x|", "a\\|b", "__init__ * `y`", "<b>&\n$z$"
    table = compare(*((quantity, 2.0, Estimate(2.02, 0.01)) for quantity in quantities))
    assert table._repr_markdown_().splitlines() == [
        "| quantity | predicted | measured | standard error | z |",
        "|:--|--:|--:|--:|--:|",
        r"| \|x\| | 2.000 | 2.020 | 0.010 | +2.0 |",
        r"| a\\\|b | 2.000 | 2.020 | 0.010 | +2.0 |",
        r"| \_\_init\_\_ \* \`y\` | 2.000 | 2.020 | 0.010 | +2.0 |",
        r"| &lt;b>&amp; \$z\$ | 2.000 | 2.020 | 0.010 | +2.0 |",
    ]


def test_a_comparison_in_jupyter_is_that_table():
    table = compare(("|h| of E[x|y]", 2.0, Estimate(2.02, 0.01)))
    assert len(re.findall(r"(?<!\\)\|", table._repr_markdown_().splitlines()[2])) == 6
    assert "|h| of E[x|y]" in str(table)


def test_one_percent_is_caught():
    samples = np.random.default_rng(0).standard_normal(200_000)
    compare(("std", 1.0, std_of(samples)))
    with pytest.raises(AssertionError):
        compare(("std", 1.0, std_of(1.01 * samples)))


def test_a_verdict_counts_and_asserts(capsys):
    verdict("He: above 0.9", np.array([0.95, 0.97]) > 0.9)
    assert capsys.readouterr().out == "He: above 0.9: 2 of 2\n"
    verdict("one truth value", True)
    assert capsys.readouterr().out == "one truth value: 1 of 1\n"
    with pytest.raises(AssertionError, match=r"He: above 0\.9: 1 of 2"):
        verdict("He: above 0.9", [True, False])


@pytest.mark.parametrize("holds", [[], [0.95, 0.97], 1, None, "yes"])
def test_a_verdict_on_what_is_no_truth_value(holds):
    with pytest.raises(ValueError, match="expected at least one truth value; got"):
        verdict("He", holds)


@pytest.fixture
def none_guessed(monkeypatch):
    monkeypatch.setattr(comparison, "_guessed", {})


def tallied(capsys):
    capsys.readouterr()
    tally()
    return capsys.readouterr().out


def test_a_guess_gets_a_column_of_its_own(none_guessed):
    table = compare(("asked", 1.0, ONE, 1234567), ("untouched", 1.0, ONE, ...), ("not asked", 1.0, ONE))
    assert [row[1] for row in table.cells()] == ["you", "1.23e+06", "–", ""]
    assert [row[2] for row in table.cells()] == ["predicted", "1.00", "1.00", "1.00"]
    assert table._repr_markdown_().splitlines()[1] == "|:--|--:|--:|--:|--:|--:|"
    assert " ".join(str(table).splitlines()[0].split()) == "quantity you predicted measured standard error z"


@pytest.mark.parametrize(
    ("guess", "shown"),
    [
        (22.6274, "22.6"),
        (512, "512"),
        (-0.0012345, "-0.00123"),
        (12345, "12300"),
        (0, "0"),
        (1e135, "1e+135"),
    ],
)
def test_a_guess_is_shown_to_three_digits(guess, shown, none_guessed):
    assert compare(("x", 1.0, ONE, guess)).cells()[1][1] == shown


@pytest.mark.parametrize("guess", [1, 2.5, np.float32(2.5), np.int64(3), math.sqrt(2)])
def test_any_real_number_may_be_guessed(guess, none_guessed):
    (row,) = compare(("x", 1.0, ONE, guess)).rows
    assert (row.guess, type(row.guess)) == (float(guess), float)


@pytest.mark.parametrize("guess", [None, "22.6", math.nan, math.inf, 10**400, 1j, [1.0], ONE, torch.ones(3)])
def test_what_is_no_number_is_no_guess(guess, none_guessed, capsys):
    with pytest.raises(
        ValueError, match=r"^RMS: a guess is one finite number, or \.\.\. for none yet; got ."
    ):
        compare(("RMS", 1.0, ONE, guess))
    assert tallied(capsys).startswith("No guesses yet")


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("predicted", "guess", "near"),
    [
        (3.0, 1.5, True),
        (3.0, 1.499, False),
        (3.0, 6.0, True),
        (3.0, 6.001, False),
        (3.0, -3.0, False),
        (3.0, 0.0, False),
        (0.0, 0.0, True),
        (0.0, 1e-300, False),
        (1e-300, 1e300, False),
        (3.0, ..., False),
    ],
)
def test_near_is_within_a_factor_of_two_on_either_side(sign, predicted, guess, near):
    guess = guess if guess is ... else sign * guess
    assert Row("x", sign * predicted, Estimate(sign * predicted, 0.1), guess).near is near


def test_the_tally_counts_the_guesses_that_were_made(none_guessed, capsys):
    compare(("near", 3.0, Estimate(3.0, 0.1), 2), ("far", 3.0, Estimate(3.0, 0.1), 30))
    compare(("untouched", 3.0, Estimate(3.0, 0.1), ...), ("not asked", 3.0, Estimate(3.0, 0.1)))
    assert tallied(capsys) == "Guesses within a factor of two: 1 of 2.\n"


@pytest.mark.parametrize("rows", [[], [("untouched", 1.0, ONE, ...)], [("not asked", 1.0, ONE)]])
def test_the_tally_of_no_guess_says_what_to_do(rows, none_guessed, capsys):
    for row in rows:
        compare(row)
    expected = "No guesses yet: write a number over the dots (...) and run the notebook again.\n"
    assert tallied(capsys) == expected


def test_a_cell_run_again_counts_once_with_its_last_guess(none_guessed, capsys):
    for guess, line in [(1.0, "1 of 1."), (1.0, "1 of 1."), (9.0, "0 of 1."), (..., "No guesses yet")]:
        compare(("x", 1.0, ONE, guess))
        assert line in tallied(capsys)


def test_a_table_that_failed_is_not_tallied(none_guessed, capsys):
    with pytest.raises(AssertionError, match=r"quantity +you +predicted"):
        compare(("x", 9.0, ONE, 9.0))
    assert tallied(capsys).startswith("No guesses yet")
