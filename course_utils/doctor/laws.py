"""The laws that weights may follow, told by their std: the wanted ones, and those that explain a fault."""

import math
from collections.abc import Callable
from typing import NamedTuple

from course_utils.doctor.graph import Node
from course_utils.doctor.thresholds import SAME_STD


class Law(NamedTuple):
    """The std that it gives to a layer's weights, and what it explains: a fault and its cause, or neither."""

    std: Callable[[Node], float]
    fault: str = ""
    cause: str = ""


_GAINLESS = "{law}'s law lacks the gain {n.gain:.3g} of {n.activation}."
_CONSTANT = "The weights look like {law}, whatever the fan-in of {n.call.fan_in:g}."
_OUTWARDS = (
    "The std is gain / sqrt(fan_out), not gain / sqrt(fan_in): either fan_out mode in this layer alone, "
)
_OUTWARDS += "or a matrix drawn for x @ W and put in transposed."
_NO_KERNEL = "The fan counts the channels but forgets the kernel's area of {n.call.weight.area}."
LAWS: dict[str, Law] = {
    "torch default": Law(
        lambda n: 1 / math.sqrt(3 * n.call.weight.tensor.shape[1] * n.call.weight.area),
        cause="torch's default has variance 1 / (3 fan_in), a sixth of what a ReLU needs.",
    ),
    "fan_in": Law(lambda n: n.wanted_std),
    "fan_avg": Law(lambda n: n.gain / math.sqrt((n.call.fan_in + n.call.fan_out) / 2)),
    "fan_out": Law(lambda n: n.gain / math.sqrt(n.call.fan_out), "wrong fan", _OUTWARDS),
    "LeCun": Law(lambda n: 1 / math.sqrt(n.call.fan_in), "missing gain", _GAINLESS),
    "Xavier": Law(lambda n: math.sqrt(2 / (n.call.fan_in + n.call.fan_out)), "missing gain", _GAINLESS),
    "He": Law(lambda n: math.sqrt(2 / n.call.fan_in), cause="He's law is meant for a ReLU."),
    "no kernel": Law(lambda n: n.wanted_std * math.sqrt(n.call.weight.area), "wrong fan", _NO_KERNEL),
    "twice": Law(lambda n: n.wanted_std**2, "double init", "The std is gain² / fan_in: scaled twice."),
    "N(0, 1)": Law(lambda n: 1.0, cause=_CONSTANT),
    "N(0, 0.01²)": Law(lambda n: 0.01, cause=_CONSTANT),
    "N(0, 0.02²)": Law(lambda n: 0.02, cause=_CONSTANT),
}


def standard_error(node: Node) -> float:
    """Return the relative standard error of the std of a layer's weights."""
    return 1 / math.sqrt(2 * node.call.weight.tensor.numel())


def laws_of(node: Node) -> list[str]:
    """Return the laws whose std the weights have, within SAME_STD or four standard errors of their std."""
    weight, error = node.call.weight, standard_error(node)
    stds = {name: law.std(node) for name, law in LAWS.items()}
    default = stds.pop("torch default")
    uniform = weight.largest < 1.001 * math.sqrt(3) * default  # so an error half as large
    if uniform and abs(node.weight_std / default - 1) < max(SAME_STD, 3 * error):
        return ["torch default"]
    if weight.orthogonal:
        root = math.sqrt(max(node.call.fan_in, node.call.fan_out))
        stds = {"fan_in": node.gain / root, "LeCun": 1 / root, "He": math.sqrt(2) / root}
    return [name for name, std in stds.items() if abs(node.weight_std / std - 1) < max(SAME_STD, 4 * error)]


def is_right(node: Node) -> bool:
    """Return whether the weights follow a law with the gain that is wanted."""
    return not {"fan_in", "fan_avg"}.isdisjoint(node.laws)
