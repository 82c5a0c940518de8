"""The laws that weights may follow, number by number, how near a std has to be, and how findings read."""

import math

import pytest
import torch

from course_utils.doctor.faults import JUDGES
from course_utils.doctor.findings import LAWS, Case, Finding, Losses, is_right, laws_of, say
from course_utils.doctor.recording import Call


def layer(std=1.0, shape=(600, 40, 3, 3), **known):
    """Return a layer of 3 x 3 kernels, of fans 360 and 5400, which wants a gain of 2 for the 320 seen."""
    area = math.prod(shape[2:])
    own = {"fan_in": shape[1] * area, "fan_out": shape[0] * area, "seen": 320, "area": area, "gain": 2.0}
    own |= {"weight": torch.zeros(shape), "weight_std": std, "largest": 9.0}
    return Call("layer", "conv2d", **own | known)


STDS = {
    "torch default": 1 / math.sqrt(3 * 360),
    "fan_in": 2 / math.sqrt(360),
    "wanted": 2 / math.sqrt(320),
    "fan_avg": 2 / math.sqrt(2880),
    "fan_out": 2 / math.sqrt(5400),
    "LeCun": 1 / math.sqrt(360),
    "Xavier": 1 / math.sqrt(2880),
    "He": math.sqrt(2 / 360),
    "no kernel": 2 / math.sqrt(40),
    "twice": 4 / 360,
    "N(0, 1)": 1,
    "N(0, 0.01²)": 0.01,
    "N(0, 0.02²)": 0.02,
}


@pytest.mark.parametrize("name", LAWS)
def test_each_law_has_its_std(name):
    assert LAWS[name].std(layer()) == pytest.approx(STDS[name])


@pytest.mark.parametrize("name", sorted(LAWS.keys() - {"torch default"}))
@pytest.mark.parametrize("way", [1, -1])
def test_a_law_is_followed_to_three_percent_by_many_weights(name, way):
    assert name in laws_of(layer(STDS[name] * (1 + way * 0.029)))
    assert name not in laws_of(layer(STDS[name] * (1 + way * 0.031)))


@pytest.mark.parametrize("way", [1, -1])
def test_a_law_is_followed_to_four_standard_errors_by_few(way):
    few = {"shape": (5, 10)}  # the std is known to a tenth
    assert "He" in laws_of(layer(math.sqrt(2 / 10) * (1 + way * 0.39), **few))
    assert "He" not in laws_of(layer(math.sqrt(2 / 10) * (1 + way * 0.41), **few))


def test_torchs_default_is_uniform_and_known_to_three_standard_errors():
    std = 1 / math.sqrt(30)
    bound, few = math.sqrt(3) * std, {"shape": (5, 10)}
    assert laws_of(layer(std * 1.29, largest=bound, **few)) == ["torch default"]
    assert laws_of(layer(std * 0.71, largest=bound, **few)) == ["torch default"]
    assert "torch default" not in laws_of(layer(std * 1.31, largest=bound, **few))
    assert "torch default" not in laws_of(layer(std, largest=1.002 * bound, **few))
    many, std = {"shape": (500, 100)}, 1 / math.sqrt(300)
    assert laws_of(layer(std * 1.029, largest=math.sqrt(3) * std, **many)) == ["torch default"]


def test_orthogonal_weights_are_as_large_as_the_larger_fan_says():
    for gain, law in ((2, "fan_in"), (1, "LeCun"), (math.sqrt(2), "He")):
        assert laws_of(layer(gain / math.sqrt(5400), orthogonal=True)) == [law]
        assert law not in laws_of(layer(gain / math.sqrt(360), orthogonal=True))


def test_which_laws_are_right():
    assert [name for name in LAWS if is_right(layer(laws=[name]))] == ["fan_in", "wanted", "fan_avg"]


def case(*nodes):
    nodes = list(nodes)
    for index, node in enumerate(nodes):
        node.index, node.activated, node.trained = index, node, True
    return Case(nodes, Losses(), [], True, False, [], {}, {}, [], [], [], [], [], [])


@pytest.mark.parametrize("name", ["fan_out", "fan_avg", "Xavier"])
def test_a_law_of_two_layers_whose_fans_differ_is_shared(name):
    def one(shape):
        fans = {"fan_in": shape[1], "fan_out": shape[0], "seen": shape[1]}
        return layer(LAWS[name].std(layer(shape=shape, **fans)), shape, **fans)

    assert case(one((500, 100)), one((900, 100))).shared == {name}
    assert case(one((500, 100))).shared == set()
    assert case(one((500, 100)), one((199, 100))).shared == set()  # a factor below 2
    assert case(one((500, 100)), one((100, 199))).shared == set()
    assert len(case(one((200, 100)), one((100, 200))).telling) == 2


def test_a_finding_names_three_others_and_counts_all():
    nodes = [layer(0.5, layer=f"layer {k}", largest=k) for k in range(6)]
    (one,) = say(nodes[:1], "fault", "Std {n.weight_std:g}.", "Cause {n.largest:g}.", "Remedy.")
    assert one == Finding("layer 0", "fault", "Std 0.5.", "Cause 0.", "Remedy.", True, ())
    assert str(one) == "layer 0: fault. Std 0.5. Cause 0. Remedy."
    (four,) = say(nodes[:4], "fault", "Std.", "", "", False)
    assert four.evidence == "Std. The same with 3 more: layer 1, layer 2, layer 3."
    assert (four.others, four.is_fault) == (("layer 1", "layer 2", "layer 3"), False)
    (six,) = say(nodes, "fault", "Std.", "", "")
    assert six.evidence == "Std. The same with 5 more: layer 1, layer 2, layer 3 and others."
    assert list(say([], "fault", "", "", "")) == []
    assert str(Finding("", "no layers", "None.", "", "")) == "No layers. None."


STAGES = {  # what is heard earlier is a cause of what comes later, which then is not reported
    0: "_broken_values",
    1: "_input_scale _fresh_statistics _identical _zero _gains _wrong_fan _step _copies _softmax_twice",
    2: "_constants _dead",
    3: "_signal _huge",
    4: "_broken_signal _broken_gradient",
    5: "_saturated _decided",
    6: "_gradient _drowned _stuck",
    7: "_loss _lost",
    8: "_remarks _over_time _prior",
}


def test_causes_are_heard_before_their_consequences():
    stages = {judge.__name__: stage for stage, _, judge in JUDGES}
    for stage, names in STAGES.items():
        assert {stages[name] for name in names.split()} == {stage}
