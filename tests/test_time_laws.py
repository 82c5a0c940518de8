"""Laws of memory in time, against closed forms, plain integration and drawn matrices."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from course_utils import time_laws
from course_utils.comparison import compare, mean_of


def test_one_gate_step_adds_two_squares_and_many_multiply_their_sum():
    assert time_laws.leaky_gradient(0.5, 0.3, 0) == 1
    assert time_laws.leaky_gradient(0.5, 0.3, 1) == pytest.approx(0.34)
    assert time_laws.leaky_gradient(0.5, 0.3, 2) == pytest.approx(0.25**2 + 4 * 0.25 * 0.09 + 0.09**2)
    late = time_laws.leaky_gradient(0.5, 0.3, 401) / time_laws.leaky_gradient(0.5, 0.3, 400)
    assert late == pytest.approx(0.8**2, rel=0.002)


def test_gradients_of_wide_matrices_have_the_law():
    generator = torch.Generator().manual_seed(0)
    G = torch.randn(400, 200, 200, generator=generator) / math.sqrt(200)
    g = torch.eye(200)[:1].expand(400, 200)[..., None]
    for _ in range(4):
        g = 0.5 * g + 0.4 * G @ g
    measured = mean_of(g.square().sum(dim=(1, 2)).numpy())
    compare(("four steps", time_laws.leaky_gradient(0.5, 0.4, 4), measured))
    assert abs(measured.value - 0.41**4) > 20 * measured.standard_error  # fresh matrices


@pytest.mark.parametrize("lag", [0.0, 0.3, 5.0, 70.0, 400.0])
def test_memories_are_the_integrals_that_they_say(lag):
    log_mean = quad(lambda u: math.exp(-lag / math.exp(u)), math.log(2), math.log(90), epsabs=0)[0]
    found = time_laws.mean_memory(lag, 2, 90, "log-uniform")
    assert found == pytest.approx(log_mean / math.log(45), rel=1e-7)
    mean = quad(lambda T: math.exp(-lag / T), 2, 90, epsabs=0)[0] / 88
    assert time_laws.mean_memory(lag, 2, 90, "uniform") == pytest.approx(mean, rel=1e-7)


def test_memories_take_arrays_and_refuse_what_is_no_law():
    assert time_laws.mean_memory(np.arange(6).reshape(2, 3), 1, 10, "log-uniform").shape == (2, 3)
    with pytest.raises(ValueError, match="log-uniform"):
        time_laws.mean_memory(1, 1, 3, "normal")
    with pytest.raises(ValueError, match="lag"):
        time_laws.mean_memory(-1, 1, 3, "uniform")


@pytest.mark.parametrize(
    ("shortest", "longest"), [(0, 3), (-1, 3), (3, 3), (3, 2), (1, math.inf), (math.nan, 3)]
)
def test_time_scales_are_positive_finite_and_two(shortest, longest):
    with pytest.raises(ValueError, match="shortest < longest"):
        time_laws.mean_memory(1, shortest, longest, "uniform")
