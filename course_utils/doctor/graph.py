"""What follows what in a network's graph: activations, norms, residual branches, and the gain they call for.

It turns the calls that a `Recorder` saw into numbers; `faults` judges them, `initialize` acts on them.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from operator import and_, or_
from typing import Any

from torch import Tensor

from course_utils.doctor.measuring import NAN
from course_utils.doctor.recording import ROWS, Call
from course_utils.doctor.vocabulary import ODD, SIGMOIDS
from course_utils.mean_field import gain_in_front

_WEIGHTED = {"layer", "composite"}


@dataclass(eq=False)
class Node:
    """A call and what the others tell about it. "Total" is relative to what entered the first layer."""

    call: Call
    index: int
    layer: str = ""  # with the number of the call, if there are several
    activated: Any = None  # the activation that follows and shares the row of the table, else the node itself
    activation: str = ""  # its name, or "norm"
    gain: float = 1.0  # that it calls for
    is_row: bool = True  # of the table
    arriving: list[float] = field(default_factory=list)  # second moments, as the next layers receive it
    norm_next: bool = False  # a norm comes before the next weights
    bypassed: bool = False  # another path leads around, up to a sum or product
    last: bool = True  # no weights come after
    total: float = 1.0  # second moment
    total_varying: float = 1.0  # its part that varies over the batch
    growth: float = NAN  # second moment after the activation, over that of the input
    weight_std: float = NAN
    wanted_std: float = NAN
    weight_ratio: float = NAN
    laws: list[str] = field(default_factory=list)  # that the weights follow

    def __post_init__(self) -> None:
        self.layer, self.activated, self.is_row = self.call.layer, self, self.call.role in ROWS


def analyse(calls: list[Call]) -> list[Node]:
    """Return the calls as nodes that know what follows them, what leads around them, and what is wanted."""
    nodes = [Node(call, index) for index, call in enumerate(calls)]
    children: list[list[Node]] = [[] for _ in nodes]
    for node in nodes:
        for parent in node.call.parents:
            children[parent].append(node)
    for node, after in zip(reversed(nodes), reversed(children), strict=True):
        _look_ahead(node, after)
    _mark_bypassed(nodes)
    counts: Counter[str] = Counter()
    for node in nodes:
        if node.is_row:
            counts[node.layer] += 1
            node.layer += f" (call {counts[node.layer]})" if counts[node.layer] > 1 else ""
        _add_up(node, [nodes[parent] for parent in node.call.parents])
        _compare_weights(node)
    return nodes


def _look_ahead(node: Node, after: list[Node]) -> None:
    """Find what follows a node, all of which has been looked at; an activation joins the row before it."""
    for child in after:
        if child.call.role in _WEIGHTED:  # a norm that comes next makes up for a small signal
            node.arriving.append(math.inf if child.norm_next else child.call.entered.second)
        elif child.call.role == "activation":
            node.arriving += child.arriving
    weighted = any(child.call.role in _WEIGHTED for child in after)
    node.last = not weighted and all(child.last for child in after)
    normalized = all(child.call.role == "norm" or child.norm_next for child in after)
    node.norm_next = bool(after) and normalized and not weighted
    first = next((n for n in after if n.is_row and n.call.role in ("activation", "norm")), None)
    if first and node.call.role in ROWS - {"activation"}:
        node.activation = "norm" if first.call.role == "norm" else first.call.function
        if first.call.role == "activation":
            node.activated, first.is_row = first, False
            node.gain = _gain(node.activation, first.call.activation)


@lru_cache(256)
def _gain(name: str, function: Callable[[Tensor], Tensor]) -> float:
    """Return the gain in front of an activation: 1 for bounded odd ones, critical at 0; NaN if none helps."""
    if name in SIGMOIDS | ODD:
        return NAN if name in SIGMOIDS else 1.0
    try:
        return gain_in_front(function)
    except ValueError:
        return NAN


def _mark_bypassed(nodes: list[Node]) -> None:
    """Mark the nodes that another path leads around, up to a sum or product; a join needs all parents."""
    ancestors: list[int] = []  # as bits
    dominators: list[int] = []  # the calls on every path
    bypassed = 0
    for node in nodes:
        role, parents = node.call.role, node.call.parents
        above = reduce(or_, (ancestors[p] for p in parents), 0)
        meet = or_ if role == "join" else and_
        always = reduce(meet, (dominators[p] for p in parents)) if parents else 0
        bypassed |= above & ~always if role in ("sum", "other") else 0
        ancestors.append(above | 1 << node.index)
        dominators.append(always | 1 << node.index)
    for node in nodes:
        node.bypassed = bool(bypassed >> node.index & 1)


def _add_up(node: Node, parents: list[Node]) -> None:
    """Multiply the factors on the second moment, and on its varying part, of the calls up to this one.

    What lies between them (pooling averages noise away, NTK layers are divided by sqrt(fan_in)) counts only
    as far as it leads back towards 1. Norms and composites start anew.
    """
    if not parents or node.call.role not in ("layer", "activation", "sum", "join"):
        return
    source, left = max(parents, key=lambda parent: parent.total), node.call.left
    node.total, node.total_varying = source.total, source.total_varying
    before = source.call.left if node.call.role == "sum" else node.call.entered
    if node.call.role in ("layer", "activation"):
        node.total = _towards_one(node.total, source.call.left.second, before.second)
        node.total_varying = _towards_one(node.total_varying, source.call.left.varying, before.varying)
    if before.second > 0 and node.call.role != "join":
        node.total *= left.second / before.second
        varies = node.call.examples > 1 and before.varying > 0
        node.total_varying *= left.varying / before.varying if varies else 1.0


def _towards_one(total: float, left: float, entered: float) -> float:
    factor = entered / left if entered > 0 and left > 0 else 1.0
    return max(min(total * factor, 1.0), total) if total < 1 else min(max(total * factor, 1.0), total)


def _compare_weights(node: Node) -> None:
    """Compare a layer's growth with 1, and its weights with gain / sqrt(fan_in)."""
    call, left = node.call, node.activated.call.left
    node.growth = left.second / call.entered.second if call.entered.second > 0 else NAN
    if call.weight:
        node.weight_std = math.sqrt(call.weight.second_moment)
    if call.fan_in > 0 and not node.norm_next:
        node.wanted_std = node.gain / math.sqrt(call.fan_in)
        node.weight_ratio = node.weight_std / node.wanted_std


def branch_ends(nodes: list[Node]) -> list[Node]:
    """Return the last layer, norm or composite of each residual branch, once for each sum that it meets.

    A sum of two terms that come from one place and have the same shape; the branch is the term with more
    layers behind it. The other, the stream, may pass layers and norms (a projection), but no gate.
    """

    def bits(*roles: str) -> int:
        return sum(1 << n.index for n in nodes if n.call.role in roles)

    layers, norms, gates = bits(*_WEIGHTED), bits("norm"), bits("other", "sum")
    above: list[int] = []  # the calls that lead to each, and itself, as bits
    ends = []
    for node in nodes:
        lead = [above[p] for p in node.call.parents]
        above.append(reduce(or_, lead, 0) | 1 << node.index)
        if node.call.same_shape and len(lead) == 2 and (shared := lead[0] & lead[1]):
            stream, branch = sorted((b & ~shared for b in lead), key=lambda b: (b & layers).bit_count())
            if not stream & gates and (branch & layers).bit_count() > (stream & layers).bit_count():
                ends.append(nodes[(branch & (layers | norms)).bit_length() - 1])
    return ends
