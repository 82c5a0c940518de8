"""Mean-field theory where rounding decides, found by faults that outlived other tests (`make mutants`)."""

from course_utils import mean_field
from course_utils.activations import tanh


def test_a_correlation_that_rounding_cannot_tell_from_1_is_1():
    assert 1e-13 < 1 - mean_field.correlation_fixed_point(tanh, 1e4, 1e7) < 1e-12
    assert mean_field.correlation_fixed_point(tanh, 1e4, 3e7) == 1
