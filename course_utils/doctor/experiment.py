"""What follows a layer, found by experiment: noise takes the place of what the layers return.

Each layer hands on s ε, with ε of mean 0 and variance 1, instead of what it computed; the second moment that
arrives at the next weights, as a function of s, is all that a gain depends on. No name decides: a GELU that
is written out, a gate, a norm are measured like a ReLU. Where what follows mixes positions (neighbours, time,
masks) real outputs are handed on in the size s, since signals there are correlated and noise is not.
"""

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn

from course_utils.doctor.measuring import NAN, UNKNOWN, cloned, second_moment
from course_utils.doctor.recording import Call, Recorder
from course_utils.doctor.restoring import restored
from course_utils.doctor.thresholds import SAME_MAP
from course_utils.mean_field import sign_changes
from course_utils.quadrature import gaussian_expectation

_DROPOUTS = {f"{kind}dropout{size}" for kind in ("", "alpha_", "feature_") for size in ("", "1d", "2d", "3d")}
_WEIGHTED = ("layer", "composite")
_SIZES = [4.0**k for k in range(-7, 6)]  # at which a map that is not known is looked at
_ONE = _SIZES.index(1.0)
_STEPS = 9  # of halving a factor of 4 in the logarithm: to 0.3 %
_KEPT = 1000  # entries of what enters a layer, to see whether they depend on s at all

Sizes = Mapping[int, float]


class _Probe(Recorder):
    """A Recorder whose layers return noise, or what they compute in another size, by their number.

    sizes: the root mean square of what each returns, 1 by default. real: the layers that return no noise.
    shuffled: with the same noise, but all positions in another order.
    """

    def __init__(self, model: nn.Module, sizes: Sizes, real: set[int], shuffled: bool) -> None:
        super().__init__(model)
        self._sizes, self._real, self._shuffled = sizes, real, shuffled
        self.weighted: list[Call] = []
        self.samples: list[Tensor] = []  # of what enters each of these

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Call the function, and replace what a layer returns."""
        if getattr(func, "__name__", "") in _DROPOUTS:
            return args[0]
        before = len(self.weighted)
        result = super().__torch_function__(func, types, args, kwargs)
        if (
            len(self.weighted) == before + 1
            and self.weighted[-1].role == "layer"
            and isinstance(result, Tensor)
        ):
            result = self._instead(result, before)
            self._origin[result] = self.weighted[-1]
        return result

    def _instead(self, result: Tensor, number: int) -> Tensor:
        size = self._sizes.get(number, 1.0)
        if number in self._real:
            return result * (size / (math.sqrt(second_moment(result)) or 1.0))
        noise = _noise(result.shape)
        if self._shuffled:
            dim = self.weighted[-1].unit_dim
            positions = noise.movedim(dim, -1)
            rows = positions.reshape(-1, positions.shape[-1])
            order = torch.randperm(len(rows), generator=Generator().manual_seed(1))
            noise = rows[order].view(positions.shape).movedim(-1, dim)
        return noise.to(result).mul(size)

    def _add_row(self, role: str, name: str, layer: str, x: Tensor, y: Tensor, batch_dim: int = 0) -> Call:
        call = super()._add_row(role, name, layer, x, y, batch_dim)
        if role in _WEIGHTED:
            self.weighted.append(call)
            self.samples.append(x.detach().flatten()[:_KEPT].double())
        return call

    def _measure(self, call: Call, output: Tensor, batch_dim: int = 0) -> None:  # noqa: ARG002
        call.left, call.numel, call.examples = UNKNOWN, output.numel(), 1


@lru_cache(maxsize=16)
def _noise(shape: torch.Size) -> Tensor:
    """Return the quantiles of N(0, 1) in random order, of variance 1. Tensors of one shape get the same."""
    n = math.prod(shape)
    places = torch.randperm(n, generator=Generator().manual_seed(0)).double()
    noise = torch.special.ndtri((places + 0.5) / max(n, 1))
    return (noise / (noise.square().mean().sqrt() if n > 1 else 1)).float().view(shape)


class _Laboratory:
    """Runs a model on noise, and says what arrives at the layers that are fed by one layer alone."""

    def __init__(self, nodes: list[Call], model: nn.Module, inputs: Any) -> None:
        self._model, self._inputs = model, inputs
        weighted = [n for n in nodes if n.role in _WEIGHTED]
        self._number = {n.index: i for i, n in enumerate(weighted)}
        self._way = [(n.role, n.function) for n in weighted]
        self.pairs = _pairs(nodes)
        self.real: set[int] = set()

    def run(self, sizes: Sizes, shuffled: bool = False) -> dict[int, tuple[float, Tensor]]:
        """Return the second moment that arrives behind each layer, and some of the numbers.

        Raises: whatever the model raises on noise, and RuntimeError if it takes another way.
        """
        numbered = {self._number[k]: size for k, size in sizes.items()}
        probe = _Probe(self._model, numbered, {self._number[k] for k in self.real}, shuffled)
        with restored(self._model, self._inputs), torch.no_grad():
            torch.default_generator.manual_seed(0)
            probe.run(cloned(self._inputs, False)[0])
        if [(n.role, n.function) for n in probe.weighted] != self._way:
            raise RuntimeError("on noise the model takes another way through its layers")
        entered = {k: self._number[j] for k, j in self.pairs.items()}
        return {k: (probe.weighted[j].entered.second, probe.samples[j]) for k, j in entered.items()}

    def tried(self, sizes: Sizes) -> dict[int, tuple[float, Tensor]]:
        """Return the same, NaN if the model raises at these sizes."""
        try:
            return self.run(sizes)
        except Exception:  # of a model that nobody here wrote
            return dict.fromkeys(self.pairs, (NAN, torch.full((1,), NAN)))


def correct_gains(nodes: list[Call], model: nn.Module, inputs: Any) -> None:
    """Measure what follows each layer; correct gains where that is not the map it was taken for.

    Only where nothing but this one layer feeds the next weights, entry by entry or by pairs; elsewhere, and
    if the model cannot run on noise, gains stay as they are.
    """
    laboratory = _Laboratory(nodes, model, inputs)
    wanted = {k: nodes[k].gain if nodes[k].gain > 0 else 1.0 for k in laboratory.pairs}
    arriving = laboratory.tried(wanted)
    gated = {
        k for k, j in laboratory.pairs.items() if nodes[j].taken < nodes[k].numel and nodes[k].activated.reads
    }
    unknown = {k for k in wanted if not _as_named(nodes[k], wanted[k], arriving[k][0], k in gated)}
    laboratory.pairs = {k: j for k, j in laboratory.pairs.items() if k in unknown}
    if not unknown or not any(math.isfinite(arriving[k][0]) for k in unknown):
        return
    try:
        shuffled = laboratory.run(wanted, shuffled=True)
    except Exception:
        return
    local = {k for k in unknown if math.isclose(arriving[k][0], shuffled[k][0], rel_tol=1e-3)}
    laboratory.real = unknown - local
    for k, (name, gain) in _solve(laboratory).items():
        nodes[k].activation, nodes[k].gain = name, gain
        nodes[k].norm_next |= name == "norm"


def _pairs(nodes: list[Call]) -> dict[int, int]:
    """Return {layer: the next one} by index, where nothing else feeds that, and it feeds nothing else."""
    reach: list[int] = []  # the layers, inputs and composites that a call hands on, as bits
    sources: dict[int, int] = {}
    for node in nodes:
        above = 0
        for parent in node.parents:
            above |= reach[parent.index]
        own = node.role in ("layer", "composite", "input")
        if node.role in _WEIGHTED:
            sources[node.index] = above
        reach.append(1 << node.index if own or not node.parents else above)
    feeds: dict[int, list[int]] = {}
    for consumer, above in sources.items():
        for k in (k for k in range(above.bit_length()) if above >> k & 1):
            feeds.setdefault(k, []).append(consumer)
    return {
        k: consumers[0]
        for k, consumers in feeds.items()
        if nodes[k].role == "layer"
        and len(consumers) == 1
        and sources[consumers[0]] == 1 << k
        and not (nodes[k].activation == "norm" or nodes[k].norm_next)
        and nodes[k].numel > 1
        and nodes[consumers[0]].taken in (nodes[k].numel, nodes[k].numel / 2)
    }


def _as_named(node: Call, size: float, arriving: float, gated: bool) -> bool:
    """Return whether what arrived is the second moment behind the activation that was recognized.

    gated: times the other half of what the layer returns; the noise, in pairs, is rougher there.
    """
    phi = node.activated.phi or (lambda z: z)
    expected = float(gaussian_expectation(lambda z: phi(z).square(), size)) * (size**2 if gated else 1)
    return abs(arriving / expected - 1) < SAME_MAP * (5 if gated else 1)


def _solve(laboratory: _Laboratory) -> dict[int, tuple[str, float]]:
    """Return name and gain: the smallest size at which 1 arrives; if none does, the critical one at 0."""
    scan = [laboratory.tried(dict.fromkeys(laboratory.pairs, size)) for size in _SIZES]
    found: dict[int, tuple[str, float]] = {}
    brackets: dict[int, tuple[float, float, bool]] = {}
    for k in laboratory.pairs:
        seen = np.array([arriving[k][0] for arriving in scan])
        one, four = scan[_ONE][k][1], scan[_ONE + 1][k][1]
        if not np.isfinite(seen).any():
            continue
        seen = np.nan_to_num(seen, nan=1e300, posinf=1e300)
        before, after = sign_changes(np.where(abs(seen - 1) < SAME_MAP, 0.0, seen - 1))
        found[k] = "measured", NAN
        if (four - one).norm() < SAME_MAP * one.norm():
            found[k] = "norm", 1.0
        elif before.size and seen[0] < 0.5:  # else what does not come from this layer is 1 already
            brackets[k] = _SIZES[before[0]], _SIZES[after[0]], seen[before[0]] < 1
        elif seen[0] > 0 and abs(seen[1] / seen[0] / 16 - 1) < SAME_MAP:  # linear at the origin
            found[k] = "measured", _SIZES[0] / math.sqrt(seen[0])
    return found | _bisected(brackets, laboratory.tried)


def _bisected(
    brackets: dict[int, tuple[float, float, bool]], tried: Callable[[Sizes], dict[int, tuple[float, Tensor]]]
) -> dict[int, tuple[str, float]]:
    """Return name and gain where 1 arrives between two sizes, which rises there or falls."""
    for _ in range(_STEPS if brackets else 0):
        middle = {k: math.sqrt(low * high) for k, (low, high, _) in brackets.items()}
        arriving = tried(middle)
        for k, (low, high, rising) in brackets.items():
            above = (arriving[k][0] < 1) == rising
            brackets[k] = (middle[k], high, rising) if above else (low, middle[k], rising)
    return {k: ("measured", math.sqrt(low * high)) for k, (low, high, _) in brackets.items()}
