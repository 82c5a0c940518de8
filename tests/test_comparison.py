"""Estimates, tables and assertions of predicted against measured."""

import math

import numpy as np
import pytest

from course_utils.comparison import (
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
)

RNG_SEED = 11
ESTIMATORS = {
    # estimator: (true value for exponential samples of mean 2)
    mean_of: 2.0,
    root_mean_of: math.sqrt(2.0),
    std_of: 2.0,
    median_of: 2.0 * math.log(2),
}


def coverage(estimator, truth, rounds=2000, size=400):
    """Return the share of rounds in which |z| < 1.96 and the mean of z, for exponential samples."""
    rng = np.random.default_rng(RNG_SEED)
    estimates = [estimator(rng.exponential(2.0, size)) for _ in range(rounds)]
    z = np.array([(e.value - truth) / e.standard_error for e in estimates])
    return (np.abs(z) < 1.96).mean()


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda f: f.__name__)
def test_standard_errors_cover(estimator):
    # 95 % nominal; std and median of a skewed law converge slowly, hence 2 points below are allowed beside
    # the five standard errors of 2,000 rounds
    share, error = coverage(estimator, ESTIMATORS[estimator]), math.sqrt(0.95 * 0.05 / 2000)
    assert 0.93 - 5 * error < share < 0.95 + 5 * error


def test_a_standard_error_that_forgets_the_root_is_caught():
    def wrong(samples):
        return Estimate(samples.mean(), samples.std() / samples.size)

    assert coverage(wrong, 2.0, rounds=200) < 0.5


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
        (Row("", 1.012e-24, Estimate(0.9031e-24, 0.0123e-24)), ("10.12e-25", "9.03e-25", "0.12e-25")),
        (Row("", 0.0, Estimate(0.0002, 0.001)), ("0.0000", "0.0002", "0.0010")),
        (Row("", 3.0, Estimate(3.0, 0.0)), ("3", "3", "exact")),
    ],
)
def test_digits_follow_from_the_standard_error(row, expected):
    assert format_estimate(row) == expected


def test_tables_name_what_they_show():
    table = Comparison([Row("growth", 2.0, Estimate(2.02, 0.01))])
    assert str(table).splitlines()[0].split() == [
        "quantity",
        "predicted",
        "measured",
        "standard",
        "error",
        "z",
    ]
    assert str(table).splitlines()[1].split() == ["growth", "2.000", "2.020", "0.010", "+2.0"]
    assert table._repr_markdown_().splitlines()[2] == "| growth | 2.000 | 2.020 | 0.010 | +2.0 |"


def test_compare_passes_and_fails():
    near, far = ("near", 1.0, Estimate(1.1, 0.1)), ("far", 1.0, Estimate(2.0, 0.1))
    assert len(compare(near).rows) == 1
    with pytest.raises(AssertionError, match=r"\|z\| > 4 for: far\n"):
        compare(near, far)
    with pytest.raises(AssertionError, match=r"\|z\| > 0\.5 for: near"):
        compare(near, z_limit=0.5)


def test_refute_passes_and_fails():
    near, far = ("near", 1.0, Estimate(1.1, 0.1)), ("far", 1.0, Estimate(2.0, 0.1))
    assert len(refute(far).rows) == 1
    with pytest.raises(AssertionError, match="not refuted: near"):
        refute(near, far)


def test_nan_is_neither_agreement_nor_refutation():
    lost = ("lost", math.nan, Estimate(1.0, 0.1))
    for check in (compare, refute):
        with pytest.raises(AssertionError):
            check(lost)


def test_one_percent_is_caught():
    samples = np.random.default_rng(0).standard_normal(200_000)
    compare(("std", 1.0, std_of(samples)))
    with pytest.raises(AssertionError):
        compare(("std", 1.0, std_of(1.01 * samples)))
