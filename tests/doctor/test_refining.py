"""Where 1 arrives between two sizes: the steps towards it, on maps that are known."""

import math

import pytest

from course_utils.doctor.experiment import _crossing, _logarithm, _refined
from course_utils.doctor.measuring import Moments
from course_utils.doctor.recording import Call


@pytest.mark.parametrize(
    ("one", "other", "between"),
    [
        ((0, -1), (1, 3), 0.25),
        ((2, 3), (1, -1), 1.25),
        ((0, -20), (1, 5), 0.8),
        ((0, -5), (1, 20), 0.2),
        ((0, -20.1), (1, 5), 0.5),  # of what is far off only the sign is believed
        ((0, -5), (1, 20.1), 0.5),
    ],
)
def test_a_line_crosses_0_between_two_points(one, other, between):
    assert _crossing(one, other) == pytest.approx(between)


@pytest.mark.parametrize(
    ("second", "known"),
    [(2, 2), (0, 1e-30), (1e-40, 1e-30), (1e40, 1e30), (math.inf, 1e30), (math.nan, 1e30)],
)
def test_logarithms_of_what_has_none(second, known):
    assert _logarithm(second) == pytest.approx(math.log(known))


class Known:
    """A laboratory with one layer, of which exp(function(ln size)) arrives."""

    def __init__(self, function) -> None:
        self.function, self.runs, self.wanted = function, 0, {"layer": 1.0}

    def arriving(self, sizes):
        self.runs += 1
        return {
            "next": Call("layer", entered=Moments(0, math.exp(self.function(math.log(sizes["layer"]))), 0))
        }


MAPS = {  # the logarithm of what arrives, where it is 0, and in how many runs that is found
    "power": (lambda a: 2 * (a - 0.3), 0.3, 1),
    "steeper": (lambda a: math.exp(3 * a) - math.exp(0.9), 0.3, 6),
    "flatter": (lambda a: math.exp(-3 * 0.3) - math.exp(-3 * a), 0.3, 5),
    "falling": (lambda a: math.exp(0.9) - math.exp(3 * a), 0.3, 6),
    "near one end": (lambda a: (a - 0.99) * (1 + a) ** 3, 0.99, 4),
    "a bend": (lambda a: a - 0.05 if a < 0.05 else 9 * (a - 0.05), 0.05, 9),
}


@pytest.mark.parametrize("name", MAPS)
def test_the_size_is_found_in_a_few_runs(name):
    function, root, runs = MAPS[name]
    laboratory, ends = Known(function), [(a, function(a)) for a in (0.0, 1.0)]
    found = _refined(laboratory, {"layer": "next"}, {"layer": 0.0}, {"layer": ends})
    assert abs(function(math.log(found["layer"]))) < 1e-3
    assert found["layer"] == pytest.approx(math.exp(root), rel=1e-3)
    assert laboratory.runs <= runs


def test_an_end_that_is_the_crossing_is_taken_as_it_is():
    laboratory = Known(lambda a: a)
    ends = {"layer": [(0.0009, 0.0009), (-1.0, -1.0)]}
    assert _refined(laboratory, {"layer": "next"}, {"layer": 0.0}, ends) == {
        "layer": pytest.approx(math.exp(0.0009))
    }
    assert laboratory.runs == 0
    _refined(laboratory, {"layer": "next"}, {"layer": 0.0}, {"layer": [(0.0011, 0.0011), (-1.0, -1.0)]})
    assert laboratory.runs == 1


def test_what_never_arrives_is_sought_for_twelve_runs():
    laboratory = Known(lambda a: -1 if a < 0.5 else 1)
    _refined(laboratory, {"layer": "next"}, {"layer": 0.0}, {"layer": [(0.0, -1.0), (1.0, 1.0)]})
    assert laboratory.runs == 12
