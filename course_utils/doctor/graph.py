"""What follows what in a network's graph: activations, norms, residual branches, and the gain they call for.

It turns the calls that a `Recorder` saw into numbers; `diagnosis` judges them, `initialize` acts on them.
"""

import math
from collections import Counter
from collections.abc import Callable
from functools import cache, reduce
from operator import and_, or_

import torch
from torch import Tensor

from course_utils.doctor.recording import NAN, ODD, ROWS, SIGMOIDS, Node


def analyse(nodes: list[Node]) -> list[Node]:
    """Turn the records into numbers, and find out what follows each call and what leads around it."""
    for i, node in enumerate(nodes):
        node.index, node.end = i, node
        for name in ("out", "entered", "off", "gradient"):
            value = getattr(node, name)
            setattr(node, name, value.tolist() if isinstance(value, Tensor) else value)
        if node.weight:
            node.weight.second_moment = float(node.weight.second_moment)
            node.weight.largest = float(node.weight.largest)
        node.moment, node.entered_moment = sum(node.out[1:]), sum(node.entered[1:])
    _follow(nodes)
    _bypass(nodes)
    calls: Counter[str] = Counter()
    for node in (node for node in nodes if node.role in ROWS):
        calls[node.layer] += 1
        node.layer += f" (call {calls[node.layer]})" if calls[node.layer] > 1 else ""
    for node in nodes:
        _accumulate(node, [nodes[p] for p in node.parents])
        node.growth = node.end.moment / node.entered_moment if node.entered_moment > 0 else NAN
        if node.weight:
            node.weight_std = math.sqrt(node.weight.second_moment)
        if node.fan_in > 0 and not node.normalized:
            node.wanted_std = node.gain / math.sqrt(node.fan_in)
            node.ratio = node.weight_std / node.wanted_std
    return nodes


@cache
def _normal_grid() -> tuple[Tensor, Tensor]:
    z = torch.linspace(-10, 10, 4001, dtype=torch.float64)
    density = torch.exp(-z.square() / 2)
    return z, density / density.sum()


def _gain(name: str, phi: Callable[[Tensor], Tensor]) -> float:
    """Return the factor on the weights' std that keeps a second moment of 1: E phi(gain Z)**2 = 1.

    Bounded odd functions get 1, critical at the origin; NaN for sigmoids and what else no gain helps.
    """
    if name in SIGMOIDS | ODD:
        return NAN if name in SIGMOIDS else 1.0
    z, density = _normal_grid()
    log_gain, slope, last = 0.0, 2.0, None  # for a ReLU the slope of ln E phi(gain Z)**2 is 2: one step does
    for _ in range(20):
        log_moment = math.log((density @ phi(math.exp(log_gain) * z).square()).item() or NAN)
        if abs(log_moment) < 1e-9:
            return math.exp(log_gain)
        if last:
            slope = (log_moment - last[1]) / (log_gain - last[0])
        last = log_gain, log_moment
        if not slope > 0 or abs(log_moment / slope) > 20:
            return NAN  # clamped to (0, 1), say: flat before it reaches 1
        log_gain -= log_moment / slope
    return NAN


def _follow(nodes: list[Node]) -> None:
    """Find what follows each call, and fold activations into the rows of what they follow."""
    children: list[list[Node]] = [[] for _ in nodes]
    for node in nodes:
        for parent in node.parents:
            children[parent].append(node)
    for node, after in zip(reversed(nodes), reversed(children), strict=True):
        for child in after:
            if child.role in ("layer", "composite"):  # a norm that comes next makes up for a small signal
                node.received.append(math.inf if child.normalized else child.entered_moment)
            elif child.role in ("activation", "folded"):
                node.received += child.received
        weighted = any(child.role in ("layer", "composite") for child in after)
        node.last = not weighted and all(child.last for child in after)
        node.normalized = bool(after) and all(child.role == "norm" or child.normalized for child in after)
        node.normalized &= not weighted
        first = next((child for child in after if child.role in ("activation", "norm")), None)
        if node.role in ROWS - {"activation"} and first:
            node.follows = "norm" if first.role == "norm" else first.name
            if first.role == "activation":
                node.end, node.gain, first.role = first, _gain(first.name, first.phi), "folded"


def _bypass(nodes: list[Node]) -> None:
    """Mark the calls that another path leads around, up to a sum or product; a join needs all parents."""
    ancestors: list[int] = []  # as bits
    dominators: list[int] = []  # the calls on every path
    bypassed = 0
    for node in nodes:
        above = reduce(or_, (ancestors[p] for p in node.parents), 0)
        meet = or_ if node.role == "join" else and_
        always = reduce(meet, (dominators[p] for p in node.parents)) if node.parents else 0
        bypassed |= above & ~always if node.role in ("sum", "other") else 0
        ancestors.append(above | 1 << node.index)
        dominators.append(always | 1 << node.index)
    for node in nodes:
        node.bypassed = bool(bypassed >> node.index & 1)


def _accumulate(node: Node, parents: list[Node]) -> None:
    """Multiply the factors on the second moment, and on its varying part, of the calls up to this one.

    What lies between them (pooling averages noise away, NTK layers are divided by sqrt(fan_in)) counts only
    as far as it leads back towards 1. Norms and composites start anew.
    """
    if not parents or node.role not in ("layer", "activation", "folded", "sum", "join"):
        return
    source = max(parents, key=lambda parent: parent.signal)
    node.signal, node.varying = source.signal, source.varying
    before = source.out if node.role == "sum" else node.entered
    if node.role in ("layer", "activation", "folded"):
        node.signal = _towards_one(node.signal, source.moment, node.entered_moment)
        node.varying = _towards_one(node.varying, source.out[2], node.entered[2])
    if before[1] + before[2] > 0 and node.role != "join":
        node.signal *= node.moment / (before[1] + before[2])
        node.varying *= node.out[2] / before[2] if node.batch > 1 and before[2] > 0 else 1.0


def _towards_one(signal: float, left: float, entered: float) -> float:
    factor = entered / left if entered > 0 and left > 0 else 1.0
    return max(min(signal * factor, 1.0), signal) if signal < 1 else min(max(signal * factor, 1.0), signal)


def branch_ends(nodes: list[Node]) -> list[Node]:
    """Return the last layer, norm or composite of each residual branch, once for each sum that it meets.

    A sum of two terms that come from one place and have the same shape; the branch is the term with more
    layers behind it. The other, the stream, may pass layers and norms (a projection), but no gate.
    """
    above: list[int] = []  # the calls that lead to each, and itself, as bits
    roles = {role: sum(1 << n.index for n in nodes if n.role == role) for role in {n.role for n in nodes}}
    layers, gates = (
        sum(roles.get(r, 0) for r in names) for names in (("layer", "composite"), ("other", "sum"))
    )
    ends = []
    for node in nodes:
        lead = [above[p] for p in node.parents]
        above.append(reduce(or_, lead, 0) | 1 << node.index)
        if not (node.alike and len(lead) == 2 and lead[0] & lead[1]):
            continue
        shared = lead[0] & lead[1]
        stream, branch = sorted(
            (bits & ~shared for bits in lead), key=lambda bits: (bits & layers).bit_count()
        )
        if not stream & gates and (branch & layers).bit_count() > (stream & layers).bit_count():
            ends.append(nodes[(branch & (layers | roles.get("norm", 0))).bit_length() - 1])
    return ends
