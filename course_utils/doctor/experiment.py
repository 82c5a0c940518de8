"""What follows a layer, found by experiment: noise takes the place of what the layers return.

Each layer hands on s ε, with ε of mean 0 and variance 1, instead of what it computed; the second moment that
arrives at the next weights, as a function of s, is all that a gain depends on. No name decides: a GELU that
is written out, a gate, a sum over neighbours are measured like a ReLU.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn

from course_utils.doctor.measuring import NAN, cloned
from course_utils.doctor.recording import Call, Recorder
from course_utils.doctor.thresholds import SAME_MAP
from course_utils.mean_field import sign_changes
from course_utils.quadrature import gaussian_expectation

_DROPOUTS = {f"{kind}dropout{size}" for kind in ("", "alpha_", "feature_") for size in ("", "1d", "2d", "3d")}
_SIZES = [4.0**k for k in range(-7, 6)]  # at which a map that is not known is looked at
_STEPS = 9  # of halving a factor of 4 in the logarithm: to 0.3 %


class _Probe(Recorder):
    """A Recorder whose layers return noise, of the std that `sizes` gives to the call of that index."""

    def __init__(self, model: nn.Module, sizes: Mapping[int, float]) -> None:
        super().__init__(model)
        self._sizes = sizes

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Call the function, and put noise in the place of what a layer returns."""
        if getattr(func, "__name__", "") in _DROPOUTS:
            return args[0]
        before = len(self.calls)
        result = super().__torch_function__(func, types, args, kwargs)
        added = self.calls[before:]
        if len(added) == 1 and added[0].role == "layer" and isinstance(result, Tensor):
            result = _noise(result).mul_(self._sizes.get(before, 1.0))
            self._origin[result] = added[0]
        return result


def _noise(like: Tensor) -> Tensor:
    """Return the quantiles of N(0, 1) in random order, of variance 1. Tensors of one shape get the same."""
    places = torch.randperm(like.numel(), generator=Generator().manual_seed(0)).double()
    noise = torch.special.ndtri((places + 0.5) / max(like.numel(), 1))
    return (noise / noise.square().mean().sqrt()).view(like.shape).to(like)


def correct_gains(nodes: list[Call], model: nn.Module, inputs: Any) -> None:
    """Measure what follows each layer; correct gains where that is not the map it was taken for.

    Only where nothing but this one layer feeds the next weights, entry by entry or by pairs; elsewhere, and
    if the model cannot run on noise, gains stay as they are.
    """
    pairs = _pairs(nodes)
    wanted = {k: nodes[k].gain if nodes[k].gain > 0 else 1.0 for k in pairs}
    try:
        arriving = _arriving(model, inputs, nodes, pairs, wanted)
        unknown = {k: j for k, j in pairs.items() if not _as_named(nodes[k], wanted[k], arriving[k])}
        if unknown:
            _solve(nodes, unknown, lambda sizes: _arriving(model, inputs, nodes, unknown, sizes))
    except Exception:
        return


def _pairs(nodes: list[Call]) -> dict[int, int]:
    """Return {layer: the next one} by index, where nothing else feeds that, and it feeds nothing else."""
    reach: list[int] = []  # the layers, inputs and composites that a call hands on, as bits
    sources: dict[int, int] = {}
    for node in nodes:
        above = 0
        for parent in node.parents:
            above |= reach[parent.index]
        own = node.role in ("layer", "composite", "input")
        if node.role in ("layer", "composite"):
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
        and nodes[k].activation != "norm"
        and nodes[consumers[0]].taken in (nodes[k].numel, nodes[k].numel / 2)
    }


def _arriving(
    model: nn.Module, inputs: Any, nodes: list[Call], pairs: Mapping[int, int], sizes: Mapping[int, float]
) -> dict[int, float]:
    """Return the second moment that arrives at the next layer, for noise of these sizes."""
    probe = _Probe(model, sizes)
    with torch.no_grad():
        probe.run(cloned(inputs, False)[0])
    if [(n.role, n.function) for n in probe.calls] != [(n.role, n.function) for n in nodes]:
        raise RuntimeError("on noise the model takes another way through its layers")
    return {k: probe.calls[j].entered.second for k, j in pairs.items()}


def _as_named(node: Call, size: float, arriving: float) -> bool:
    """Return whether what arrived is the second moment behind the activation that was recognized."""
    phi = node.activated.phi or (lambda z: z)
    expected = float(gaussian_expectation(lambda z: phi(z).square(), size))
    return abs(arriving / expected - 1) < SAME_MAP


def _solve(nodes: list[Call], pairs: Mapping[int, int], run: Callable[[Mapping[int, float]], dict]) -> None:
    """Set gains to the smallest size at which 1 arrives; if none does, to the critical one at the origin."""
    scan = [run(dict.fromkeys(pairs, size)) for size in _SIZES]
    brackets: dict[int, tuple[float, float, bool]] = {}
    for k in pairs:
        seen = np.nan_to_num([arriving[k] for arriving in scan], nan=1e300, posinf=1e300)
        before, after = sign_changes(seen - 1)
        nodes[k].activation, nodes[k].gain = "measured", NAN
        if before.size:
            brackets[k] = _SIZES[before[0]], _SIZES[after[0]], seen[before[0]] < 1
        elif seen.max() < (1 + SAME_MAP) * seen.min():
            nodes[k].activation, nodes[k].gain, nodes[k].norm_next = "norm", 1.0, True
        elif abs(seen[1] / seen[0] / 16 - 1) < SAME_MAP:  # linear at the origin
            nodes[k].gain = _SIZES[0] / math.sqrt(seen[0])
    for _ in range(_STEPS if brackets else 0):
        middle = {k: math.sqrt(low * high) for k, (low, high, _) in brackets.items()}
        arriving = run(middle)
        for k, (low, high, rising) in brackets.items():
            above = (arriving[k] < 1) == rising
            brackets[k] = (middle[k], high, rising) if above else (low, middle[k], rising)
    for k, (low, high, _) in brackets.items():
        nodes[k].gain = math.sqrt(low * high)
