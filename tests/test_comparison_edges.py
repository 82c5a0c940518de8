"""Comparison: where a limit lies, found by faults that outlived the other tests (`make mutants`)."""

import pytest

from course_utils.comparison import Estimate, median_of, root_mean_of, std_of


def test_constant_samples_have_no_spread():
    assert std_of([4.0, 4.0, 4.0]) == (0.0, 0.0)


@pytest.mark.parametrize("samples", [[-1.0, 1.0], [-1.0, 0.0]], ids=["0", "-0.5"])
def test_the_root_of_no_positive_mean_is_refused_in_words(samples):
    with pytest.raises(ValueError, match="the root of a mean needs a positive mean"):
        root_mean_of(samples)


@pytest.mark.parametrize(("samples", "error"), [([1.0, 4.0], 1.5), ([1.0, 2.0, 6.0], 2.5)])
def test_the_median_of_two_or_three_may_lie_anywhere_between(samples, error):
    assert median_of(samples).standard_error == error


def test_a_negative_error_is_shown_as_it_is():
    assert f"{Estimate(1.0, -0.5)}" == "1 ± -0.5"
