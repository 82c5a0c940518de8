"""What judges work with: a case, the findings that they make of it, and the order in which they are heard."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby

from course_utils.doctor.graph import Node
from course_utils.doctor.laws import laws_of
from course_utils.doctor.thresholds import FANS_DIFFER


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


class Case:
    """What was measured: the graph, the loss, and what equal probabilities cost (NaN: unknown).

    `broken` names inputs and parameters that are not finite.
    """

    def __init__(
        self, nodes: list[Node], loss: float, expected_loss: float, broken: list[str], has_gradient: bool
    ) -> None:
        self.nodes, self.loss, self.expected_loss = nodes, loss, expected_loss
        self.broken, self.has_gradient = broken, has_gradient
        self.rows = [n for n in nodes if n.is_row]
        self.trained = [n for n in nodes if n.call.weight and n.call.weight.trained]
        for n in nodes:
            n.laws = [] if math.isnan(n.weight_ratio) or n.call.weight.identical else laws_of(n)
        # The layers whose weights' scale matters: no norm follows, and no path leads around.
        self.judged = [n for n in self.trained if not (math.isnan(n.weight_ratio) or n.bypassed)]
        ratios = {n: n.call.fan_in / n.call.fan_out for n in self.judged}
        self.telling = [n for n, ratio in ratios.items() if not 1 / FANS_DIFFER < ratio < FANS_DIFFER]
        # The laws that depend on fan_out, too, and that at least two layers follow whose fans differ.
        counts = Counter(law for n in self.telling for law in n.laws)
        self.shared = {law for law in ("fan_out", "fan_avg", "Xavier") if counts[law] > 1}


def say(
    nodes: list[Node], fault: str, evidence: str, cause: str, remedy: str, is_fault: bool = True
) -> Iterator[Finding]:
    """Yield a finding on the first node, if there is one, that names the others, too.

    The texts may have fields of the first node, as "{n.growth:.2g}".
    """
    if nodes:
        evidence, cause, remedy = (text.format(n=nodes[0]) for text in (evidence, cause, remedy))
        others = tuple(node.layer for node in nodes[1:])
        if others:
            more = ", ".join(others[:3]) + " and others" * (len(others) > 3)
            evidence += f" The same with {len(others)} more: {more}."
        yield Finding(nodes[0].layer, fault, evidence, cause, remedy, is_fault, others)


Judge = Callable[[Case], Iterator[Finding]]
JUDGES: list[tuple[int, tuple[str, ...], Judge]] = []


def judge(stage: int, *faults: str) -> Callable[[Judge], Judge]:
    """Register a judge of a stage, and the names of the faults that it finds."""
    return lambda function: JUDGES.append((stage, faults, function)) or function


def verdict_on(case: Case) -> tuple[Finding, ...]:
    """Return what the first stage with a fault finds, one fault a layer, and the remarks made until then.

    What later stages see may be its consequence.
    """
    faults: dict[str, Finding] = {}
    remarks: list[Finding] = []
    for _, stage in groupby(JUDGES, lambda entry: entry[0]):
        for finding in (finding for *_, judge in stage for finding in judge(case)):
            if finding.is_fault:
                faults.setdefault(finding.layer, finding)  # one root cause a layer
            else:
                remarks.append(finding)
        if faults:
            break
    named = {finding.fault for finding in faults.values()}
    return (*faults.values(), *(remark for remark in remarks if remark.fault not in named))
