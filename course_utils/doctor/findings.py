"""What judges work with: a case, the findings that they make of it, and the order in which they are heard."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from course_utils.doctor.graph import Node
from course_utils.doctor.laws import laws_of
from course_utils.doctor.thresholds import FANS_DIFFER


@dataclass(frozen=True)
class Finding:
    """A verdict on a layer: a fault, one of FAULTS, or, if not `is_fault`, a remark.

    `others` are further layers of which the same is true.
    """

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


@dataclass(frozen=True)
class Case:
    """What was measured: the nodes of the graph, the loss, and what equal probabilities cost (NaN: unknown)."""

    nodes: list[Node]
    loss: float
    expected_loss: float
    broken: list[str]  # names of inputs and parameters that are not finite
    has_gradient: bool

    def __post_init__(self) -> None:
        for node in self.nodes:
            if not (math.isnan(node.weight_ratio) or node.call.weight.identical):
                node.laws = laws_of(node)

    @cached_property
    def rows(self) -> list[Node]:
        """The rows of the table."""
        return [n for n in self.nodes if n.is_row]

    @cached_property
    def trained(self) -> list[Node]:
        """The layers with weights that are trained."""
        return [n for n in self.nodes if n.call.weight and n.call.weight.trained]

    @cached_property
    def judged(self) -> list[Node]:
        """Those of them whose weights' scale matters: no norm follows, and no path leads around."""
        return [n for n in self.trained if not (math.isnan(n.weight_ratio) or n.bypassed)]

    @cached_property
    def telling(self) -> list[Node]:
        """Those of them whose fans differ."""
        return [n for n in self.judged if not 1 / FANS_DIFFER < n.call.fan_in / n.call.fan_out < FANS_DIFFER]

    @cached_property
    def shared(self) -> set[str]:
        """The laws that depend on fan_out, too, and that at least two layers follow whose fans differ."""
        counts = Counter(law for n in self.telling for law in n.laws)
        return {law for law in ("fan_out", "fan_avg", "Xavier") if counts[law] > 1}


def say(
    nodes: list[Node], fault: str, evidence: str, cause: str, remedy: str, is_fault: bool = True
) -> Iterator[Finding]:
    """Yield a finding on the first node that names the others, too; none if there is no node.

    The texts may have fields of the first node, as "{n.growth:.2g}".
    """
    if nodes:
        texts = [text.format(n=nodes[0]) for text in (evidence, cause, remedy)]
        others = tuple(node.layer for node in nodes[1:])
        if others:
            more = ", ".join(others[:3]) + " and others" * (len(others) > 3)
            texts[0] += f" The same with {len(others)} more: {more}."
        yield Finding(nodes[0].layer, fault, *texts, is_fault, others)


Judge = Callable[[Case], Iterator[Finding]]
_JUDGES: dict[int, list[Judge]] = {}
_NAMES: list[str] = []


def judge(stage: int, *faults: str) -> Callable[[Judge], Judge]:
    """Register a judge, which yields these faults, or remarks; it is heard after those of earlier stages."""

    def register(function: Judge) -> Judge:
        _JUDGES.setdefault(stage, []).append(function)
        _NAMES.extend(faults)
        return function

    return register


def names_of_faults() -> tuple[str, ...]:
    """Return the names of all faults that the registered judges find."""
    return tuple(dict.fromkeys(_NAMES))


def verdict_on(case: Case) -> tuple[Finding, ...]:
    """Return the findings of the first stage that finds a fault, one a layer, and the remarks made until then.

    What later stages see may be its consequence.
    """
    faults: dict[str, Finding] = {}
    remarks: list[Finding] = []
    for stage in sorted(_JUDGES):
        for finding in (finding for judge in _JUDGES[stage] for finding in judge(case)):
            if finding.is_fault:
                faults.setdefault(finding.layer, finding)  # one root cause a layer
            else:
                remarks.append(finding)
        if faults:
            break
    named = {finding.fault for finding in faults.values()}
    return (*faults.values(), *(remark for remark in remarks if remark.fault not in named))
