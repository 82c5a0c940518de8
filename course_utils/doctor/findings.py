"""What judges work with: the laws that weights may follow, told by their std, a case, and findings on it."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from course_utils.doctor.measuring import NAN
from course_utils.doctor.recording import Call
from course_utils.doctor.thresholds import FANS_DIFFER, SAME_STD


class Law(NamedTuple):
    """The std that it gives to a layer's weights, and what it explains: a fault and its cause, or neither."""

    std: Callable[[Call], float]
    fault: str = ""
    cause: str = ""


_GAINLESS = "{law}'s law lacks the gain {n.gain:.3g} of {n.activation}."
_CONSTANT = "The weights look like {law}, whatever the fan-in of {n.fan_in:g}."
_OUTWARDS = "The std is gain / sqrt(fan_out), not gain / sqrt(fan_in): either fan_out mode in this layer "
_OUTWARDS += "alone, or a matrix drawn for x @ W and put in transposed."
_NO_KERNEL = "The fan counts the channels but forgets the kernel's area of {n.area}."
_DEFAULT = "torch's default has variance 1 / (3 fan_in), a sixth of what a ReLU needs."
LAWS: dict[str, Law] = {
    "torch default": Law(lambda n: 1 / math.sqrt(3 * math.prod(n.weight.shape[1:2]) * n.area), "", _DEFAULT),
    "fan_in": Law(lambda n: n.gain / math.sqrt(n.fan_in)),
    "wanted": Law(lambda n: n.wanted_std),
    "fan_avg": Law(lambda n: n.gain / math.sqrt((n.fan_in + n.fan_out) / 2)),
    "fan_out": Law(lambda n: n.gain / math.sqrt(n.fan_out if n.fan_out > 1 else NAN), "wrong fan", _OUTWARDS),
    "LeCun": Law(lambda n: 1 / math.sqrt(n.fan_in), "missing gain", _GAINLESS),
    "Xavier": Law(lambda n: math.sqrt(2 / (n.fan_in + n.fan_out)), "missing gain", _GAINLESS),
    "He": Law(lambda n: math.sqrt(2 / n.fan_in), cause="He's law is meant for a ReLU."),
    "no kernel": Law(lambda n: n.gain / math.sqrt(n.fan_in / n.area), "wrong fan", _NO_KERNEL),
    "twice": Law(lambda n: n.gain**2 / n.fan_in, "double init", "The std is gain² / fan_in: scaled twice."),
    "N(0, 1)": Law(lambda n: 1.0, cause=_CONSTANT),
    "N(0, 0.01²)": Law(lambda n: 0.01, cause=_CONSTANT),
    "N(0, 0.02²)": Law(lambda n: 0.02, cause=_CONSTANT),
}


def standard_error(node: Call) -> float:
    """Return the relative standard error of the std of a layer's weights."""
    return 1 / math.sqrt(2 * node.weight.numel())


def laws_of(node: Call) -> list[str]:
    """Return the laws whose std the weights have, within SAME_STD or four standard errors of their std."""
    error, stds = standard_error(node), {name: law.std(node) for name, law in LAWS.items()}
    default = stds.pop("torch default")
    uniform = node.largest < 1.001 * math.sqrt(3) * default  # so an error half as large
    if uniform and abs(node.weight_std / default - 1) < max(SAME_STD, 3 * error):
        return ["torch default"]
    if node.orthogonal:
        root = math.sqrt(max(node.fan_in, node.fan_out))
        stds = {"fan_in": node.gain / root, "LeCun": 1 / root, "He": math.sqrt(2) / root}
    return [name for name, std in stds.items() if abs(node.weight_std / std - 1) < max(SAME_STD, 4 * error)]


def is_right(node: Call) -> bool:
    """Return whether the weights follow a law with the gain that is wanted."""
    return not {"fan_in", "wanted", "fan_avg"}.isdisjoint(node.laws)


def two_softmaxes(classes: float) -> float:
    """Return the least that a softmax of a softmax can cost, in nats."""
    return math.log1p((classes - 1) / math.e)


class Losses(NamedTuple):
    """What the outputs cost, and what others would; NaN if unknown, or if there is no loss."""

    value: float = NAN
    equal: float = NAN  # probabilities
    zeros: float = NAN
    plain: float = NAN  # zeros, too, or ones where these cost infinitely much, as scales do
    constant: float = NAN  # of a constant, the best one or one near it
    sure: float = NAN  # of outputs that are right and sure
    targets: float = NAN  # second moment of numbers that outputs should reach
    outputs: float = NAN  # second moment of what is returned, if that is one tensor
    second_softmax: float = 0.0  # the least that one can cost, if there are two; else 0


class Trial(NamedTuple):
    """What the loss would be, were a layer's biases or weights 0, or a parameter that is added."""

    name: str
    what: str  # is 0: its biases, its weights, or it
    loss: float


@dataclass(eq=False)
class Case:
    """What was measured."""

    nodes: list[Call]
    losses: Losses
    broken: list[str]  # the names of tensors that are not finite
    has_gradient: bool
    has_loss: bool
    meetings: list[tuple[float, dict[Call, float]]]  # the second moment in a sum, and what each source adds
    added: dict[str, float]  # parameters that are added: second moments, in units of what they are added to
    factors: dict[str, tuple[float, Call]]  # parameters that multiply: root mean squares, and what of
    stuck: list[str]  # what has weights without a gradient, after three steps, too
    infinite: list[str]  # the parameters whose gradient is not finite
    trials: list[Trial]
    unseen: list[str]  # parameters with a gradient that no call took where it can be seen
    idle: list[str]  # layers with trained weights, nothing of which gets to the loss
    frozen: list[str]  # parameters that are used

    def __post_init__(self) -> None:
        self.rows = [n for n in self.nodes if n.is_row]
        self.trained = [n for n in self.nodes if n.trained]
        for n in self.nodes:
            n.laws = [] if math.isnan(n.weight_ratio) or n.identical else laws_of(n)
        # The layers whose weights' scale matters: no norm follows, and no path leads around.
        self.judged = [n for n in self.trained if not (math.isnan(n.weight_ratio) or n.bypassed)]
        self.telling = [n for n in self.judged if not 1 / FANS_DIFFER < n.fan_in / n.fan_out < FANS_DIFFER]
        # The laws that depend on fan_out, too, and that at least two layers follow whose fans differ.
        counts = Counter(law for n in self.telling for law in n.laws)
        self.shared = {law for law in ("fan_out", "fan_avg", "Xavier") if counts[law] > 1}

    def is_scale_free(self, node: Call) -> bool:
        """Return whether nothing but norms sees what it returns, alone."""
        return node.norm_next and all(n.fed == [node] for n in self.nodes if node in n.fed)


@dataclass(frozen=True)
class Finding:
    """A verdict on a layer, and on `others`: a fault, one of FAULTS, or, if not `is_fault`, a remark."""

    layer: str
    fault: str
    evidence: str
    cause: str
    remedy: str
    is_fault: bool = True
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        head = f"{self.layer}: {self.fault}." if self.layer else f"{self.fault.capitalize()}."
        return " ".join(filter(None, (head, self.evidence, self.cause, self.remedy)))


Findings = Iterator[Finding]


def escaped(name: str) -> str:
    """Return a name that may have braces, for a text with fields."""
    return name.replace("{", "{{").replace("}", "}}")


def say(
    nodes: list[Call], fault: str, evidence: str, cause: str, remedy: str, is_fault: bool = True
) -> Findings:
    """Yield a finding on the first node, if there is one, that names the others, too.

    The texts may have fields of the first node, as "{n.growth:.2g}".
    """
    if nodes:
        texts = (text.format(n=nodes[0]) for text in (evidence, cause, remedy))
        yield from say_names([n.layer for n in nodes], fault, *texts, is_fault)


def say_names(
    names: list[str], fault: str, evidence: str, cause: str = "", remedy: str = "", is_fault: bool = False
) -> Findings:
    """Yield a finding on the first name, if there is one, that names the others, too."""
    if names:
        name, *others = names
        more = ", ".join(others[:3]) + " and others" * (len(others) > 3)
        evidence += f" The same with {len(others)} more: {more}." if others else ""
        yield Finding(name, fault, evidence, cause, remedy, is_fault, tuple(others))
