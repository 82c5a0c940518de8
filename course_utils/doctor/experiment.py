"""What follows a layer, found by experiment: noise takes the place of what layers and norms return.

Each hands on s ε, with ε of mean 0 and variance 1, instead of what it computed. The second moment that
arrives at the next weights, as a function of s, is all that a gain depends on; its elasticity in s, where
several of them meet, is the share that each has there. No name decides: a GELU that is written out, a gate, a
norm, a sum over experts are measured like a ReLU and an `x + f(x)`. Where what follows mixes positions
(neighbours, time, masks) real outputs go on in the size s: signals are correlated there, noise is not.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn

from course_utils.doctor.graph import Contributions, places
from course_utils.doctor.measuring import NAN, Moments, cloned, is_share, second_moment, tensors_in
from course_utils.doctor.recording import Call, Recorder
from course_utils.doctor.thresholds import OFF, SAME_MAP
from course_utils.doctor.vocabulary import ACTIVATIONS, CONVOLUTIONS, FACTORS, ODD, SPELLINGS
from course_utils.mean_field import sign_changes
from course_utils.quadrature import gaussian_expectation

_DROPOUTS = {f"{kind}dropout{size}" for kind in ("", "alpha_", "feature_") for size in ("", "1d", "2d", "3d")}
_SKIPPED = CONVOLUTIONS | {"linear"}  # what takes long; the others are few
_SIZES = [4.0**k for k in range(-7, 6)]  # at which a map that is not known is looked at
_HUGE = 1e3  # the root mean square at which all that has a bound has reached it
_STEPS = 12  # at most, to find where 1 arrives between two of them; four as a rule
_NEAR, _FAR_OFF = 1e-3, 20.0  # logarithms of what arrives: that is 1, and nothing to draw a line through
_ROUGH = 0.05  # the error of what branches add that is aimed at
_ROUNDS = 16  # at most, in which noise is drawn for it
_FEW, _SMALL = 4, 0.1  # of so many sources a share below that is measured on its own
_KEPT = 1000  # entries of what enters a layer, to see whether they depend on s at all

MEASURED = ("measured", "pooled")  # instead of an activation's name: a map without one, or of many positions

Pairs = dict[Call, Call]  # a layer, and the next one, or the part of what that takes
Sizes = Mapping[Call, Any]  # the root mean square that sources return, 1 by default


class _Probe(Recorder):
    """A Recorder whose sources return noise, or, if in `laboratory.real`, what they compute in another size.

    sizes: the root mean square of what each returns, 1 by default; numbers, or leaves to differentiate by.
    shuffled: the same noise, but all positions in another order.
    """

    def __init__(self, laboratory: "Laboratory", sizes: Sizes, shuffled: bool) -> None:
        super().__init__(laboratory.model)
        self._looks = False
        if not torch.is_grad_enabled():  # else the calls have to be the same, one by one, as of a Recorder
            self._notes = {k: note for k, note in self._notes.items() if k not in ACTIVATIONS | SPELLINGS}
        self._laboratory, self._sizes, self._shuffled = laboratory, sizes, shuffled
        self.sources: list[Call] = []
        self.outputs: dict[int, Tensor] = {}  # of calls where several sources meet
        self.returned: Any = None  # by the model

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Call the function, and replace what a source returns."""
        if getattr(func, "__name__", "") in _DROPOUTS:
            return args[0]
        before = len(self.calls)
        result = super().__torch_function__(func, types, args, kwargs)
        if len(self.calls) == before or not self.calls[-1].is_source:
            return result
        first = next(tensors_in(result))
        replaced = self._instead(first, self._next)
        self.sources.append(self.calls[-1])
        self._origin[replaced] = self.sources[-1]
        return replaced if first is result else (replaced, *result[1:])

    @property
    def _next(self) -> Call | None:
        """The source that is called next, as it was recorded without noise; None if there were no more."""
        return next(iter(self._laboratory.sources[len(self.sources) :]), None)

    def _call(self, func: Callable, name: str, args: tuple, kwargs: dict) -> Any:
        """Call the function, but of what will be replaced compute only the shape."""
        x, weight = args[:2] if len(args) > 1 else (None, None)
        wanted = name not in _SKIPPED or self._next in self._laboratory.real or not isinstance(weight, Tensor)
        if wanted or self._is_made(weight) or torch.is_autocast_enabled(x.device.type) or not weight.numel():
            return func(*args, **kwargs)
        if name == "linear":
            return x.new_empty(*x.shape[:-1], weight.shape[0])
        shape = func(*(a.detach().to("meta") if isinstance(a, Tensor) else a for a in args), **kwargs)
        return torch.empty_like(shape, device=x.device)

    def _instead(self, result: Tensor, source: Call | None) -> Tensor:
        size, number, unit_dim = self._sizes.get(source, 1.0), len(self.sources), self.calls[-1].unit_dim
        if source in self._laboratory.real:
            return result * (size / (math.sqrt(second_moment(result)) or 1.0))
        shift = 7919 * number**2 + 104729 * number  # so that no two pairs are equally far apart
        noise = _quantiles(result.numel()).roll(shift).view(result.shape)
        if self._shuffled:
            positions = noise.movedim(unit_dim, -1)
            rows = positions.reshape(-1, positions.shape[-1])
            order = torch.randperm(len(rows), generator=Generator().manual_seed(1))
            noise = rows[order].view(positions.shape).movedim(-1, unit_dim)
        mean = self._laboratory.means.get(source, 0.0)
        share = math.sqrt(max(1 - (mean / torch.as_tensor(size).item()) ** 2, 0.0)) if mean else 1.0
        return noise.to(result.detach()) * (size * share) + mean

    def _add(self, call: Call, outputs: Iterable[Tensor]) -> Call:
        outputs = list(outputs)
        if call.is_meeting:
            self.outputs |= {len(self.calls): y for y in outputs[:1] if y.is_floating_point()}
        return super()._add(call, outputs)

    def _measure(self, call: Call, output: Tensor, _: int = 0, x: Tensor | None = None) -> None:
        call.numel = output.numel()
        if x is not None and not torch.is_grad_enabled():
            call.sample = x.flatten()[:_KEPT].double()
            second = second_moment(x) if x.is_floating_point() else NAN
            call.entered = Moments(NAN, second, NAN)


@lru_cache(maxsize=16)
def _quantiles(n: int) -> Tensor:
    """Return the quantiles of N(0, 1) in random order, of variance 1."""
    places = torch.randperm(n, generator=Generator().manual_seed(0)).double()
    noise = torch.special.ndtri((places + 0.5) / max(n, 1))
    return (noise / (noise.square().mean().sqrt() if n > 1 else 1)).float()


class Laboratory:
    """Runs a model on noise, each time from the start that `restored` yields, and says what arrives where."""

    def __init__(self, nodes: list[Call], model: nn.Module, inputs: Any, start: Callable[[], None]) -> None:
        self.nodes, self.model, self._inputs, self._start = nodes, model, inputs, start
        self.sources = [n for n in nodes if n.is_source]
        self.real: set[Call] = set()
        self.means: dict[Call, float] = {}  # of sources, added to the noise, whose size is that of both
        self.last = [n for n in self.sources if n.last]  # no other follows
        joins = {n: n.parents[0] for n in self.sources if n.parents and n.parents[0].role == "join"}
        self.parts = [  # the layer that takes it, the only source that it comes from, and what it is
            (n, p.hands_on[0], part)
            for n, join in joins.items()
            for p, part in join.parts.items()
            if len(p.feeders) == len(p.hands_on) == 1
        ]

    @property
    def wanted(self) -> dict[Call, float]:
        """The sizes at which the sources should return their noise."""
        return {n: n.gain if n.gain > 0 else 1.0 for n in self.sources}

    def _run(self, sizes: Sizes, shuffled: bool = False) -> _Probe:
        """Raises: whatever the model raises on noise, and RuntimeError if it takes another way."""
        probe = _Probe(self, sizes, shuffled)
        self._start()
        torch.default_generator.manual_seed(0)
        probe.returned = probe.run(cloned(self._inputs, False)[0])
        if [(n.role, n.function) for n in probe.sources] != [(n.role, n.function) for n in self.sources]:
            raise RuntimeError("on noise the model takes another way through its layers")
        return probe

    def arriving(self, sizes: Sizes, shuffled: bool = False) -> dict[Call | None, Call]:
        """Return what arrives at each source or part, and at None, the output; NaN if that failed."""
        unknown = Call("other", sample=torch.full((1,), NAN))
        try:
            with torch.no_grad():
                probe = self._run(sizes, shuffled)
        except Exception:  # of a model that nobody here wrote
            return dict.fromkeys([*self.sources, *(part for *_, part in self.parts), None], unknown)
        calls: dict[Call | None, Call] = dict(zip(self.sources, probe.sources, strict=True))
        output = next((y for y in tensors_in(probe.returned) if y.is_floating_point()), torch.empty(0))
        calls[None] = Call("other", entered=Moments(NAN, second_moment(output), NAN))
        joins = {n: calls[n].parents[0] for n, *_ in self.parts if calls[n].parents}
        return calls | {
            part: joins[n].parts.get(calls[m], unknown) for n, m, part in self.parts if n in joins
        }

    def returns_shares(self) -> bool:
        """Return whether outputs lie from 0 to 1 however large layers' outputs are: a sigmoid comes last."""
        try:
            with torch.no_grad():
                returned = self._run(dict.fromkeys(self.sources, _HUGE)).returned
        except Exception:  # of a model that nobody here wrote
            return False
        return all(is_share(y) for y in tensors_in(returned) if y.is_floating_point())

    def contributions(self, sizes: Sizes, products: bool = False) -> Contributions:
        """Return the second moment where several sources meet for the last time, and what each adds to it.

        By the elasticity in its size, which is 2 for all of it; nothing if the model cannot run on noise.
        products: the same wherever a product is taken.
        """
        asked = places(self.nodes)
        asked += [n for n in self.nodes if products and n.is_meeting and n.function in FACTORS]
        feeders = {place: [n for n in place.feeders if n.numel] for place in asked}  # no expert without work
        meeting = {place: sources for place, sources in feeders.items() if sources}
        roughest = max((len(s) ** 2 / min(n.numel for n in s) for s in meeting.values()), default=0)
        most = min(max(roughest / _ROUGH**2, 1), _ROUNDS, max(400 / len(self.nodes), 1))
        rounds = range(1 << math.ceil(math.log2(most)) if meeting else 0)
        try:
            with torch.inference_mode(False), torch.enable_grad():  # whatever the caller's mode is
                seen = [self._added(sizes, meeting, number) for number in rounds]
        except Exception:
            return {}
        found = {}
        for place in seen[0] if seen else ():
            second, *added = np.mean([moments[place] for moments in seen], axis=0).tolist()
            found[place] = second, dict(zip(meeting[place], added, strict=True))
        return found

    def _added(self, sizes: Sizes, meeting: Mapping[Call, list[Call]], number: int) -> dict[Call, list]:
        """Return what each source adds, with one of the signs over which products of two noises cancel."""
        signs = {n: (-1) ** ((i + 1) & number).bit_count() for i, n in enumerate(self.sources)}
        leaves = {n: torch.tensor(signs[n] * sizes.get(n, 1.0), requires_grad=True) for n in self.sources}
        outputs = self._run(leaves).outputs
        met = {place: outputs[place.index] for place in meeting if place.index in outputs}
        met = {place: y for place, y in met.items() if y.requires_grad}
        return {place: _shares(y, [leaves[n] for n in meeting[place]]) for place, y in met.items()}


def _shares(y: Tensor, sizes: list[Tensor]) -> list[float]:
    """Return the second moment, and what each source adds to it, by its size."""
    second = y.double().square().mean()
    options = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
    slopes = torch.autograd.grad(second, sizes, **options)
    halves = [(s * slope).item() / 2 for s, slope in zip(sizes, slopes, strict=True)]
    small = _SMALL * max(halves) if len(sizes) <= _FEW else -math.inf
    added = [_own(y, s) if half and half < small else half for s, half in zip(sizes, halves, strict=True)]
    return [second.item(), *added]


def _own(y: Tensor, size: Tensor) -> float:
    """Return the second moment of what a source adds alone: small shares drown in products of two noises."""
    weights = torch.zeros_like(y, requires_grad=True)
    slope = torch.autograd.grad(y, size, weights, create_graph=True)[0]
    added = torch.autograd.grad(slope, weights, retain_graph=True)[0] * size
    return added.double().square().mean().item()


def correct_gains(laboratory: Laboratory) -> None:
    """Measure what follows each layer; correct gains where that is not the map it was taken for.

    Only where nothing but this one layer feeds the next weights, entry by entry or by pairs, or where what
    several feed is a product that comes out too large; elsewhere, and if the model cannot run on noise,
    gains stay as they are.
    """
    _correct_alone(laboratory)
    _correct_products(laboratory)


def _correct_products(laboratory: Laboratory) -> None:
    """Make the widest factors smaller where a product arrives too large, as of weights that are returned."""
    wanted, widest = laboratory.wanted, _widest(laboratory)
    whole = laboratory.arriving(wanted) if widest else {}
    large = {end: own for end, own in widest.items() if whole[end].entered.second > OFF}
    halves = {n: wanted[n] / 2 for own in large.values() for n in own}
    half = laboratory.arriving(wanted | halves) if large else {}
    pairs = {
        n: end
        for end, own in large.items()
        for n in own
        if half[end].entered.second < whole[end].entered.second / 2  # else most comes from elsewhere
    }
    for n, gain in _solve(laboratory, pairs, beside=True).items() if pairs else ():
        if gain > 0:
            n.activation, n.gain = MEASURED[0], gain


def _widest(laboratory: Laboratory) -> dict[Call | None, list[Call]]:
    """Return which layers return most, of several that feed the next weights, or None, the output.

    Only those that meet others not just in sums, and, with all calls of their weights, feed nothing else.
    """
    factors = {n for call in laboratory.nodes if call.role == "other" for n in call.feeders}
    ends = {n: n.feeders for n in laboratory.sources} | {None: laboratory.last}
    times = Counter(n for feeders in ends.values() for n in feeders)
    uses = Counter(id(n.weight) for n in laboratory.sources)
    found = {}
    for end, feeders in ends.items():
        own = [n for n in feeders if n in factors and n.role == "layer" and times[n] == 1]
        most = max((n.numel for n in own), default=0)
        own = [n for n in own if n.numel == most]
        shared = Counter(id(n.weight) for n in own)
        if len(feeders) > 1 and own and all(uses[weight] == count for weight, count in shared.items()):
            found[end] = own
    return found


def _correct_alone(laboratory: Laboratory) -> None:
    wanted, pairs = laboratory.wanted, _pairs(laboratory)
    one, four = (laboratory.arriving({n: k * size for n, size in wanted.items()}) for k in (1, 4))
    changes = {n: (four[n].sample - one[n].sample).norm() for n in laboratory.sources}
    _find_norms(laboratory.sources, {n for n in changes if changes[n] < SAME_MAP * one[n].sample.norm()})
    times = Counter(n for source in laboratory.sources for n in source.fed)
    large = {n for n, j in pairs.items() if _is_pooled(n, j) and one[j].entered.second > OFF}
    pairs = {n: j for n, j in pairs.items() if not n.norm_next and (times[n] == 1 or n in large)}
    unknown = {n: j for n, j in pairs.items() if not _as_named(n, j, wanted[n], one[j].entered.second)}
    if not any(math.isfinite(one[after].entered.second) for after in unknown.values()):
        return
    pooled = {n for n, j in unknown.items() if _is_pooled(n, j)}
    shuffled = laboratory.arriving(wanted, shuffled=True)
    laboratory.real = pooled | {
        n
        for n, j in unknown.items()
        if not math.isclose(one[j].entered.second, shuffled[j].entered.second, rel_tol=1e-3)
    }
    for n, gain in _solve(laboratory, unknown).items():
        # Where neighbours are alike, what drives a bounded function to its bounds is no gain.
        bounded = n.activated.function in ODD and n in laboratory.real
        n.activation, n.gain = MEASURED[n in pooled], min(gain, n.gain) if bounded else gain


def _find_norms(sources: list[Call], normalized: set[Call]) -> None:
    """Note which layers feed only what does not depend on their size."""
    sized = {n for source in sources if source not in normalized for n in source.fed}
    for n in {n for source in sources for n in source.fed} - sized:
        if n.role == "layer" and not n.norm_next:
            n.activation, n.gain, n.norm_next = "norm", 1.0, True


def _pairs(laboratory: Laboratory) -> Pairs:
    """Return {layer: the next one}, where nothing else feeds that or a part; of several a pool."""
    pairs = [(n.fed[0], n) for n in laboratory.sources if len(n.fed) == 1 and n.role != "norm"]
    pairs += [(m, part) for n, m, part in laboratory.parts if n.role != "norm"]
    layers = [(n, after) for n, after in pairs if n.role == "layer" and n.numel > 1]
    return dict(sorted((p for p in layers if _keeps_units(*p)), key=lambda pair: _is_pooled(*pair)))


def _is_pooled(node: Call, after: Call) -> bool:
    """Return whether what arrives has lost positions; two halves may be multiplied."""
    return after.taken not in (node.numel, node.numel / 2)


def _keeps_units(node: Call, after: Call) -> bool:
    """Return whether all of what a layer returns arrives, or halves multiplied, or a share of its positions.

    Not so in attention whose queries, keys and values one layer returns.
    """
    whole = after.taken in (node.numel, node.numel / 2)
    return whole or (after.taken_units * node.unit_count > 0 and 2 * after.taken_units % node.unit_count == 0)


def _as_named(node: Call, after: Call, size: float, arriving: float) -> bool:
    """Return whether what arrived is the second moment behind the activation that was recognized."""
    phi = node.activated.phi or (lambda z: z)
    gated = after.taken < node.numel and node.activated.reads  # times the other half of what it returns
    expected = float(gaussian_expectation(lambda z: phi(z).square(), size)) * (size**2 if gated else 1)
    slack = SAME_MAP * (5 if gated else 1)  # noise, in pairs, is rougher
    if after.taken < node.numel and not gated:  # four standard errors of a sample, if of a ReLU's squares
        slack += 4 * math.sqrt(5 / after.taken)
    return abs(arriving / expected - 1) < slack


def _solve(laboratory: Laboratory, pairs: Pairs, beside: bool = False) -> dict[Call, float]:
    """Return gains: the smallest size at which 1 arrives; if none does, the critical one at 0.

    beside: 1 beside what does not come from these layers, as a bias that another returns.
    """
    wanted = laboratory.wanted
    scan = [laboratory.arriving(wanted | dict.fromkeys(pairs, size)) for size in _SIZES]
    found: dict[Call, float] = {}
    given: dict[Call, float] = {}
    brackets: dict[Call, list[tuple[float, float]]] = {}
    for k, j in pairs.items():
        seen = np.nan_to_num([arriving[j].entered.second for arriving in scan], nan=1e300, posinf=1e300)
        given[k] = seen[0] if beside and seen[0] >= 0.5 else 0.0
        seen -= given[k]
        before, after = sign_changes(np.where(abs(seen - 1) < SAME_MAP, 0.0, seen - 1))
        found[k] = NAN
        if before.size and seen[0] < 0.5:  # else what does not come from this layer is 1 already
            brackets[k] = [(math.log(_SIZES[i]), _logarithm(seen[i])) for i in (before[0], after[0])]
        elif seen[0] > 0 and abs(seen[1] / seen[0] / 16 - 1) < SAME_MAP:  # linear at the origin
            found[k] = _SIZES[0] / math.sqrt(seen[0])
    return found | _refined(laboratory, pairs, given, brackets)


def _logarithm(second: float) -> float:
    """Return the logarithm, of what is not finite or 0 that of a number so far away."""
    return math.log(min(max(second, 1e-30), 1e30)) if second == second else math.log(1e30)


def _refined(
    laboratory: Laboratory, pairs: Pairs, given: Mapping[Call, float], brackets: dict[Call, list]
) -> dict[Call, float]:
    """Return gains where 1 arrives between two sizes: false position in logarithms, after Illinois."""
    best = {k: min(ends, key=lambda end: abs(end[1])) for k, ends in brackets.items()}
    for _ in range(_STEPS):
        waiting = [k for k, (_, off) in best.items() if abs(off) > _NEAR]
        if not waiting:
            break
        tried = {k: _crossing(*brackets[k]) for k in brackets}
        arriving = laboratory.arriving(laboratory.wanted | {k: math.exp(a) for k, a in tried.items()})
        for k in waiting:
            (a, f), (b, g) = brackets[k]
            best[k] = c, h = tried[k], _logarithm(arriving[pairs[k]].entered.second - given[k])
            # (b, g) is the end that moved last; one that stays counts for half, lest it stay for ever.
            brackets[k] = [(b, g), (c, h)] if (h < 0) != (g < 0) else [(a, f / 2), (c, h)]
    return {k: math.exp(a) for k, (a, _) in best.items()}


def _crossing(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Return where a line through two points is 0; the middle between them if one is far off."""
    (a, f), (b, g) = one, other
    return (a + b) / 2 if max(abs(f), abs(g)) > _FAR_OFF else a - f * (b - a) / (g - f)
