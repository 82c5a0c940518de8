"""The gain in front of an activation."""

import math
from collections.abc import Callable

from torch import Tensor

from course_utils.quadrature import gaussian_expectation


def gain_in_front(function: Callable[[Tensor], Tensor]) -> float:
    """Return the gain of weights in front of phi that keeps a second moment of 1: E phi(gain Z)**2 = 1.

    Raises: ValueError if no gain does, or none that the secant method finds.
    """
    log_gain, slope, last = 0.0, 2.0, None  # for a ReLU the slope of ln E phi(gain Z)**2 is 2: one step does
    for _ in range(20):
        moment = float(gaussian_expectation(lambda z: function(z).square(), math.exp(log_gain)))
        log_moment = math.log(moment or math.nan)
        if abs(log_moment) < 1e-9:
            return math.exp(log_gain)
        if last:
            slope = (log_moment - last[1]) / (log_gain - last[0])
        last = log_gain, log_moment
        if not slope > 0 or abs(log_moment / slope) > 20:
            break  # clamped to (0, 1), say: flat before it reaches 1
        log_gain -= log_moment / slope
    raise ValueError("found no gain with E phi(gain Z)**2 = 1")
