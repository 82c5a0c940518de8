"""What follows what in a network's graph: activations, norms, residual branches, and the gain called for."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from functools import reduce
from operator import and_, attrgetter, or_

import torch
from torch import Tensor

from course_utils.doctor.measuring import NAN
from course_utils.doctor.recording import ROWS, Call
from course_utils.doctor.thresholds import ADDITIVE, NEEDED
from course_utils.doctor.vocabulary import FACTORS, ODD, SIGMOIDS
from course_utils.mean_field import gain_in_front

_WEIGHTED = {"layer", "composite"}
_PROBE = torch.linspace(-12, 12, 49, dtype=torch.float64)
_GAINS: dict[tuple[float, ...], float] = {}  # of functions, by their values at the probe

# The second moment where several sources meet, and what each of them adds to it.
Contributions = dict[Call, tuple[float, dict[Call, float]]]


def analyse(nodes: list[Call]) -> list[Call]:
    """Return the calls, which know by then what follows, what leads around them, and what is wanted."""
    children: list[list[Call]] = [[] for _ in nodes]
    for node in nodes:
        node.activated, node.is_row = node, node.role in ROWS
        for parent in node.parents:
            children[parent.index].append(node)
    for node, after in zip(reversed(nodes), reversed(children), strict=True):
        _look_ahead(node, after)
    sources = sum(1 << n.index for n in nodes if n.is_source)
    for node in nodes:
        node.depth = (node.ancestors & sources).bit_count()
        node.fed = sorted({n for p in node.parents for n in p.hands_on}, key=attrgetter("index"))
    mark_bypassed(nodes)
    for uses in by_weight(n for n in nodes if n.role == "layer"):
        for node in uses:
            looked_up = any(math.isnan(use.fan_in) for use in uses)  # a language model's words, and its head
            node.recurrent = uses[-1].follows(uses[0]) and len(uses) > 1 and not looked_up
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
        elif child.norm_next:
            node.arriving.append(math.inf)
    weighted = any(child.role in _WEIGHTED for child in after)
    node.gated |= bool(after) and all(child.gated for child in after)
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


def mark_bypassed(nodes: list[Call], needed: Collection[tuple[Call, Call]] = ()) -> None:
    """Mark the nodes that another path leads around, up to a sum or the like.

    A join needs all of its parents. needed: pairs of a call and of a parent without which it would be 0.
    """
    dominators: list[int] = []  # the calls on every path, as bits
    bypassed = 0
    for node in nodes:
        every = [dominators[p.index] for p in node.parents]
        always = reduce(or_ if node.role in ("join", "layer") else and_, every or [0])
        for p in node.parents:
            always |= dominators[p.index] if (node, p) in needed else 0
        dominators.append(always | 1 << node.index)
        if node.is_meeting and node.role != "join":
            bypassed |= node.ancestors & ~dominators[-1]
    for node in nodes:
        node.bypassed = bool(bypassed >> node.index & 1)


def by_weight(nodes: Iterable[Call]) -> list[list[Call]]:
    """Return the calls of each weight."""
    calls: dict[int, list[Call]] = {}
    for node in nodes:
        calls.setdefault(id(node.weight), []).append(node)
    return [*calls.values()]


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


def needed(contributions: Contributions) -> set[tuple[Call, Call]]:
    """Return the pairs of a product and of a parent that all of it depends on."""
    return {
        (place, p)
        for place, (second, added) in contributions.items()
        for p in place.parents
        if place.function in FACTORS and sum(added.get(n, 0.0) for n in p.hands_on) >= NEEDED * second
    }


def places(nodes: list[Call]) -> list[Call]:
    """Return where sources of unequal depth, as a stream and the end of a branch, meet for the last time."""
    found, meets_again = [], set()
    for node in reversed(nodes):
        if node.is_meeting and node not in meets_again and len({n.depth for n in node.fed}) > 1:
            found.append(node)
        if node.is_meeting or (node in meets_again and not node.is_source):
            meets_again.update(node.parents)
    return found


def branches(nodes: list[Call], contributions: Contributions) -> dict[Call, float]:
    """Return how large all that is added to a stream is, for each source that ends a branch of it.

    The stream is what has the fewest sources behind it; a source that feeds some other alone is part of a
    path, and ends no branch.
    """
    alone = {n.fed[0] for n in nodes if n.is_source and len(n.fed) == 1}
    total: dict[Call, float] = {}
    for place, (second, added) in contributions.items():
        root = min(n.depth for n in place.fed)
        ends = [n for n in added if n.depth > root and n not in alone]
        pooled = {n for n in ends if place.last and place.numel < n.numel}  # as a score over time: no branch
        whole = sum(min(added[n], 1.0) if n in pooled else added[n] for n in ends)
        if sum(added.values()) > ADDITIVE * second:  # a product
            continue
        error = len(added) / math.sqrt(min((n.numel for n in ends), default=1))  # of products of noise
        if round(whole) and abs(whole - round(whole)) < 4 * error:
            whole = round(whole)
        for n in ends:
            total[n] = max(total.get(n, 0.0), whole)
    return total
