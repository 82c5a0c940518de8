"""What follows what in a network's graph: activations, norms, residual branches, and the gain called for."""

import math
from collections import Counter
from collections.abc import Callable
from functools import reduce
from operator import and_, or_

import torch
from torch import Tensor

from course_utils.doctor.measuring import NAN
from course_utils.doctor.recording import ROWS, Call
from course_utils.doctor.vocabulary import ODD, SIGMOIDS
from course_utils.mean_field import gain_in_front

_WEIGHTED = {"layer", "composite"}
_PROBE = torch.linspace(-12, 12, 49, dtype=torch.float64)
_GAINS: dict[tuple[float, ...], float] = {}  # of functions, by their values at the probe


def analyse(nodes: list[Call]) -> list[Call]:
    """Return the calls, which know by then what follows, what leads around them, and what is wanted."""
    children: list[list[Call]] = [[] for _ in nodes]
    for node in nodes:
        node.activated, node.is_row = node, node.role in ROWS
        for parent in node.parents:
            children[parent.index].append(node)
    for node, after in zip(reversed(nodes), reversed(children), strict=True):
        _look_ahead(node, after)
    _mark_bypassed(nodes)
    counts: Counter[str] = Counter()
    for node in nodes:
        if node.is_row:
            counts[node.layer] += 1
            node.layer += f" (call {counts[node.layer]})" if counts[node.layer] > 1 else ""
        _compare(node)
        if node.entered.second > 0:
            node.growth = node.activated.left.second / node.entered.second
    return nodes


def _look_ahead(node: Call, after: list[Call]) -> None:
    """Find what follows a node, all of which has been looked at; an activation joins the row before it."""
    for child in after:
        if child.role in _WEIGHTED:  # a norm that comes next makes up for a small signal
            node.arriving.append(math.inf if child.norm_next else child.entered.second)
        elif child.role == "activation":
            node.arriving += child.arriving
    weighted = any(child.role in _WEIGHTED for child in after)
    node.last = not weighted and all(child.last for child in after)
    normalized = all(child.role == "norm" or child.norm_next for child in after)
    node.norm_next = bool(after) and normalized and not weighted
    first = next((n for n in after if n.is_row and n.role in ("activation", "norm")), None)
    if first and node.role in ROWS - {"activation"}:
        node.activation = "norm" if first.role == "norm" else first.function
        if first.role == "activation":
            node.activated, first.is_row = first, False
            node.gain = _gain(node.activation, first.phi)


def _gain(name: str, phi: Callable[[Tensor], Tensor]) -> float:
    """Return the gain in front of an activation: 1 for bounded odd ones, critical at 0; NaN if none helps."""
    if name in SIGMOIDS | ODD:
        return NAN if name in SIGMOIDS else 1.0
    key = tuple(phi(_PROBE).mul(1e5).round().tolist())  # one for all layers whose slopes differ by rounding
    if key not in _GAINS:
        try:
            _GAINS[key] = gain_in_front(phi)
        except ValueError:
            _GAINS[key] = NAN
    return _GAINS[key]


def _mark_bypassed(nodes: list[Call]) -> None:
    """Mark the nodes that another path leads around, up to a sum or product; a join needs all parents."""
    dominators: list[int] = []  # the calls on every path, as bits
    bypassed = 0
    for node in nodes:
        above = reduce(or_, (p.ancestors for p in node.parents), 0)
        meet = or_ if node.role == "join" else and_
        always = reduce(meet, (dominators[p.index] for p in node.parents)) if node.parents else 0
        bypassed |= above & ~always if node.role in ("sum", "other") else 0
        node.ancestors = above | 1 << node.index
        dominators.append(always | 1 << node.index)
    for node in nodes:
        node.bypassed = bool(bypassed >> node.index & 1)


def _compare(node: Call) -> None:
    """Compare the signal with what entered the first layer, or the first after a norm or composite."""
    if not node.parents or node.role not in ("layer", "activation", "sum", "join"):
        return
    source = max(node.parents, key=lambda parent: parent.total)
    node.start, node.total, node.total_varying = source.start, source.total, source.total_varying
    start = source.start or (source.left if node.role == "sum" else node.entered)
    if start.second > 0 and node.role != "join":
        node.start, node.total = start, node.left.second / start.second
        if node.examples > 1 and start.varying > 0:
            node.total_varying = node.left.varying / start.varying


def branch_ends(nodes: list[Call]) -> list[Call]:
    """Return the last layer, norm or composite of each residual branch, once for each sum that it meets.

    A sum of two terms that come from one place and have the same shape; the branch is the term with more
    layers behind it. The other, the stream, may pass layers and norms (a projection), but no gate.
    """

    def bits(*roles: str) -> int:
        return sum(1 << n.index for n in nodes if n.role in roles)

    layers, norms, gates = bits(*_WEIGHTED), bits("norm"), bits("other", "sum")
    ends = []
    for node in nodes:
        lead = [p.ancestors for p in node.parents]
        if node.same_shape and len(lead) == 2 and (shared := lead[0] & lead[1]):
            stream, branch = sorted((b & ~shared for b in lead), key=lambda b: (b & layers).bit_count())
            if not stream & gates and (branch & layers).bit_count() > (stream & layers).bit_count():
                ends.append(nodes[(branch & (layers | norms)).bit_length() - 1])
    return ends
