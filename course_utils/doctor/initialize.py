"""One call that gives every layer of any model the law that its fan-in and what follows it call for.

`initialize_` runs the model once on a batch to see what follows what, plans a law for each parameter, draws
all of them, and only then writes. What it cannot read it leaves alone, and says so.
"""

import copy
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Generator, Tensor, nn

from course_utils.doctor.graph import analyse, branch_ends
from course_utils.doctor.recording import (
    KINDS,
    NAN,
    Node,
    Recorder,
    check_model_and_inputs,
    cloned,
    is_expanded,
    restored,
    tensors_in,
)
from course_utils.doctor.tables import markdown, rounded
from course_utils.initializers import constant_, normal_, orthogonal_

Fill = Callable[[Tensor, Generator | None], Any]


@dataclass(frozen=True, eq=False)
class Law:
    """What one use of a parameter asks for: a row of the report, and the function that draws it."""

    layer: str
    kind: str
    law: str
    std: float
    fill_: Fill
    follows: str = ""
    fan_in: float = NAN
    gain: float = NAN

    def agrees(self, other: "Law") -> bool:
        """Whether another use of the same parameter asks for the same."""
        return self.law == other.law and math.isclose(self.std, other.std, abs_tol=1e-300)


@dataclass(frozen=True, eq=False)
class Initialization:
    """What `initialize_` did: the law of each parameter that it drew, and why it left others alone.

    table: parameter, shape, layer, kind, follows (the activation, or "norm"), fan_in, gain, std (of one
    weight), law. left_alone: parameter, reason.
    """

    table: pd.DataFrame
    left_alone: pd.DataFrame

    def _parts(self) -> tuple[str, list[pd.DataFrame]]:
        head = f"{len(self.table)} parameters initialized, {len(self.left_alone)} left alone."
        return head, [rounded(table, 4) for table in (self.table, self.left_alone) if len(table)]

    def __str__(self) -> str:
        head, tables = self._parts()
        return "\n\n".join([head, *(table.to_string(index=False) for table in tables)])

    def _repr_markdown_(self) -> str:
        head, tables = self._parts()
        return "\n\n".join([head, *map(markdown, tables)])


def initialize_(model: nn.Module, inputs: Any, *, generator: Generator | None = None) -> Initialization:
    """Initialize `model` in place, each layer by its fan-in and what follows it, and return what was done.

    inputs: one batch, as for `diagnosis.diagnose`; only shapes and types matter, and who calls whom.
    Weights of layers: N(0, gain**2 / fan_in). The gain takes a second moment of 1 through the activation that
    follows: the root of E phi(gain Z)**2 = 1, by quadrature, is sqrt(2) for ReLU, 1.47 for GELU. It is 1
    before bounded odd functions (critical at the origin), sigmoids (no gain helps), norms, and nothing.
    Residual branches: of N, the last layer, or norm if that comes last, gets 1 / sqrt(N) of it.
    Biases: 0; norms: 1 and 0; embeddings: N(0, 1). Recurrent modules: orthogonal blocks over time, N(0, 1 /
    fan_in) for the inputs, an LSTM's forget gates bias 1. Attention: N(0, 1 / fan_in) for each projection.

    Trap: it is for fresh networks. Trained weights are overwritten, too, unless they are frozen.
    Trap: in plain stacks of GELU, SiLU or Mish the second moment of 1 is an unstable fixed point; what is off
    by 1 % grows by 1.08, 1.15 and 1.05 per layer. Beyond twenty or so, they need norms or residual branches.
    Deep plain stacks of softplus or sigmoids lose what depends on the input, whatever their gain.

    Left alone, with the reason: what is frozen, lazy, meta or parametrized, what the pass did not use, what
    is tied and would need two laws at once, and what no rule here reads, such as a positional embedding that
    is added. All else that the pass changes is put back. An error leaves the model as it was.

    Raises: TypeError or ValueError as `diagnose`; whatever the model raises on `inputs`.
    Source: He et al. (2015) for the gain; Radford et al. (2019) for 1 / sqrt(N); Jozefowicz et al. (2015) for
    the forget gate.
    """
    check_model_and_inputs(model, inputs)
    parameters = dict(model.named_parameters())
    reasons = _overlapping(parameters)
    reasons |= {name: reason for name, p in parameters.items() if (reason := _unreadable(name, p))}
    used, wishes = _wishes_by_name(model, inputs) if reasons.keys() != parameters.keys() else (set(), {})
    plan = {}
    for name in parameters.keys() - reasons.keys():
        if reason := _objection(wishes.get(name, []), name in used):
            reasons[name] = reason
        else:
            plan[name] = wishes[name][0]
    _write({parameters[name]: plan[name].fill_ for name in parameters if name in plan}, generator)
    return _report(parameters, plan, reasons)


# ---- Reading the model -------------------------------------------------------------------------------------


def _has_no_values(parameter: Tensor) -> bool:
    return nn.parameter.is_lazy(parameter) or parameter.is_meta


def _overlapping(parameters: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the parameters whose memory overlaps with another one's, and say so."""
    reasons, spans = {}, []
    for name, p in parameters.items():
        if not _has_no_values(p) and p.layout == torch.strided and p.numel():
            last = sum((size - 1) * step for size, step in zip(p.shape, p.stride(), strict=True))
            spans.append((p.data_ptr(), p.data_ptr() + (last + 1) * p.element_size(), name))
    spans.sort()
    for i, (_, end, name) in enumerate(spans):
        for start, _, other in spans[i + 1 :]:
            if start >= end:
                break
            reasons[name] = f"in the same memory as {other}: what is written to one changes the other"
            reasons[other] = f"in the same memory as {name}: what is written to one changes the other"
    return reasons


def _unreadable(name: str, parameter: Tensor) -> str:
    """Return why a parameter cannot be drawn, whatever the model does with it, or ""."""
    if nn.parameter.is_lazy(parameter):
        return "lazy: it has no shape yet; run the model once on a batch, then call again"
    if parameter.is_meta:
        return "on the meta device: it has no values; use model.to_empty(device=...), then call again"
    if not parameter.numel():
        return "empty: it has no elements"
    if parameter.is_inference() and not torch.is_inference_mode_enabled():
        return "made in inference mode: it can be written to only there"
    if is_expanded(parameter):
        return "expanded: several of its elements are one number in memory"
    if not parameter.requires_grad:
        return "frozen: it does not require a gradient"
    if "parametrizations." in name:
        return "parametrized: the layer's weight is computed from it by a function that no rule here inverts"
    return ""


def _objection(wishes: list[Law | None], used: bool) -> str:
    """Return why a parameter with these wishes is left alone, or ""."""
    if not wishes or None in wishes:
        return "no rule here reads what the model does with it" if used else "not seen in use on these inputs"
    other = next((law for law in wishes if not law.agrees(wishes[0])), None)
    if other is None:
        return ""
    first, second = (f"{law.law} (std {law.std:.3g}) in {law.layer}" for law in (wishes[0], other))
    return f"tied: {first}, but {second}"


def _wishes_by_name(model: nn.Module, inputs: Any) -> tuple[set[str], dict[str, list[Law | None]]]:
    """Run the model, or a copy that can be run; return the parameters used, and the laws asked for."""
    tensors = [*model.parameters(), *model.buffers()]
    real = not any(map(_has_no_values, tensors))
    twin = model if real else _stand_in(model, inputs)
    names = {id(p): name for name, p in twin.named_parameters()}
    wishes: dict[str, list[Law | None]] = {}
    with restored(model if real else nn.Identity(), inputs) as altered, _gradients_kept(model):
        values = [p for p in twin.parameters() if not (nn.parameter.is_lazy(p) or p.is_inference())]
        altered += [(p, p.detach().clone()) for p in values]
        recorder = Recorder(twin, altered)
        recorder.run(cloned(inputs, False)[0])
        for parameter, law in _all_wishes(recorder):
            if id(parameter) in names:  # not so for a module that is not registered
                wishes.setdefault(names[id(parameter)], []).append(law)
    return {names[i] for i in recorder.seen & names.keys()}, wishes


@contextmanager
def _gradients_kept(model: nn.Module) -> Iterator[None]:
    """Put the parameters' gradients back: a model may need gradients to run, so they are not switched off."""
    kept = [(p, p.grad) for p in model.parameters()]
    for p, _ in kept:
        p.grad = None
    try:
        yield
    finally:
        for p, gradient in kept:
            p.grad = gradient


@torch.no_grad()
def _stand_in(model: nn.Module, inputs: Any) -> nn.Module:
    """Return a copy that can be run: what is on the meta device has random values, what is lazy stays so."""
    tensors = [*model.parameters(), *model.buffers()]
    device = next((x.device for x in (*tensors_in(inputs), *tensors) if not x.is_meta), "cpu")
    generator, memo = torch.Generator().manual_seed(0), {}
    for x in filter(_has_no_values, tensors):
        keywords = {"requires_grad": x.requires_grad} if isinstance(x, nn.Parameter) else {}
        if nn.parameter.is_lazy(x):
            memo[id(x)] = type(x)(device=x.device, dtype=x.dtype, **keywords)
        else:
            values = torch.randn(x.shape, generator=generator) / math.sqrt(x.shape[-1] if x.ndim else 1)
            values = values.to(device, x.dtype)
            memo[id(x)] = nn.Parameter(values, **keywords) if isinstance(x, nn.Parameter) else values
    return copy.deepcopy(model, memo)


def _all_wishes(recorder: Recorder) -> Iterator[tuple[Tensor, Law | None]]:
    nodes = analyse(recorder.nodes)
    ends = branch_ends(nodes)
    shares = {end.index: 1 / math.sqrt(len(ends)) for end in ends}
    for node in nodes:
        yield from _wishes(node, shares.get(node.index, 1.0), len(ends))


# ---- The laws ----------------------------------------------------------------------------------------------


def _wishes(node: Node, share: float, branches: int) -> Iterator[tuple[Tensor, Law | None]]:
    """Yield what a call asks of its parameters, None if no rule reads it; `share`: at the end of a branch."""
    ending = f", with 1/√{branches} for {branches} residual branches" if share != 1 else ""
    row = {"layer": node.layer, "kind": KINDS.get(node.name.replace("_", "").lower(), node.name)}
    if node.role == "layer":
        yield from _layer(node, share, ending, row)
    elif node.role == "norm":
        for parameter in node.held:
            bias = any(parameter is p for p in node.added)
            yield parameter, _constant(0.0 if bias else share, ending * (not bias), row)
    elif isinstance(node.module, nn.RNNBase | nn.RNNCellBase):
        yield from _recurrent(node.module, row)
    elif isinstance(node.module, nn.MultiheadAttention):
        yield from _attention(node.module, share, ending, row)


def _constant(value: float, ending: str, row: dict) -> Law:
    law = f"constant {value:g}" + ending
    return Law(**row, law=law, std=0.0, fill_=lambda tensor, _: constant_(tensor, value))


def _normal(
    fan_in: float,
    row: dict,
    gain: float = 1.0,
    ending: str = "",
    follows: str = "",
    pad: Any = None,
    law: str = "N(0, gain² / fan_in)",
) -> Law:
    std = gain / math.sqrt(fan_in)

    def fill_(tensor: Tensor, generator: Generator | None) -> None:
        normal_(tensor, 0.0, std, generator)
        if pad is not None:
            tensor[pad].zero_()

    return Law(**row, law=law + ending, std=std, fill_=fill_, follows=follows, fan_in=fan_in, gain=gain)


def _layer(node: Node, share: float, ending: str, row: dict) -> Iterator[tuple[Tensor, Law | None]]:
    for i, parameter in enumerate(node.held):
        if i or not node.weight.trained:
            yield parameter, _constant(0.0, "", row)
        elif parameter.ndim < 2:  # a matrix cut out of a vector, which may hold all else besides
            yield parameter, None
        elif math.isnan(node.fan_in):  # an embedding: each row is looked up on its own
            pad = getattr(node.module, "padding_idx", None)
            yield parameter, _normal(1, row, share, ending, node.follows, pad, "N(0, 1)")
        else:
            gain = 1.0 if math.isnan(node.gain) else node.gain
            first, count = node.end.part or (0, math.inf)
            units = parameter.shape[node.weight.out_dim :][:1]  # none where the call takes a view
            if count >= max(units, default=0):
                yield parameter, _normal(node.fan_in, row, gain * share, ending, node.follows)
            else:  # an activation that reads only some units, at a place that is known or not
                yield parameter, _gated(node, row, gain * share, share, ending) if first >= 0 else None


def _gated(node: Node, row: dict, gain: float, other: float, ending: str) -> Law:
    """Return the law of two or more matrices in one: the gain goes to the units that the activation reads."""
    dim, count = node.weight.out_dim, node.end.part[1]
    units = node.weight.shape[dim]
    start = node.end.part[0] % units
    share = count / units
    std = math.sqrt((share * gain**2 + (1 - share) * other**2) / node.fan_in)

    def fill_(tensor: Tensor, generator: Generator | None) -> None:
        normal_(tensor, 0.0, other / math.sqrt(node.fan_in), generator)
        tensor.narrow(dim, start, count).mul_(gain / other)

    law = f"N(0, gain² / fan_in), gain {gain:.3g} in units {start} to {start + count - 1}, else {other:.3g}"
    return Law(
        **row, law=law + ending, std=std, fill_=fill_, follows=node.follows, fan_in=node.fan_in, gain=gain
    )


def _recurrent(module: nn.Module, row: dict) -> Iterator[tuple[Tensor, Law]]:
    """Yield the laws of an RNN, LSTM or GRU, or of one of their cells, whose gates are blocks of rows."""
    width = module.hidden_size
    lstm = isinstance(module, nn.LSTM | nn.LSTMCell)

    def orthogonal_blocks_(tensor: Tensor, generator: Generator | None) -> None:
        for block in tensor.split(width):
            orthogonal_(block, generator=generator)

    def forget_(
        tensor: Tensor, _: Generator | None
    ) -> None:  # gates in the order input, forget, cell, output
        tensor.zero_()[width : 2 * width] = 1.0

    for name, parameter in module.named_parameters(recurse=False):
        if not re.fullmatch(r"(weight|bias)_(ih|hh|hr)(_l\d+(_reverse)?)?", name):
            continue  # a subclass's own, or half of a weight norm
        if name.startswith("weight_hh") and parameter.shape[1] == width:
            law = "an orthogonal block for each gate"
            yield parameter, Law(**row, law=law, std=1 / math.sqrt(width), fill_=orthogonal_blocks_)
        elif name.startswith("weight"):
            yield parameter, _normal(parameter.shape[1], row)
        elif name.startswith("bias_ih") and lstm:
            yield parameter, Law(**row, law="0, but 1 for the forget gates", std=0.0, fill_=forget_)
        else:
            yield parameter, _constant(0.0, "", row)


def _attention(
    module: nn.MultiheadAttention, share: float, ending: str, row: dict
) -> Iterator[tuple[Tensor, Law]]:
    for name, parameter in module.named_parameters():
        if name == "out_proj.weight":
            yield parameter, _normal(parameter.shape[1], row, share, ending)
        elif re.fullmatch("(in|q|k|v)_proj_weight", name):  # the first holds three, one above the other
            yield parameter, _normal(parameter.shape[1], row)
        elif name in ("in_proj_bias", "out_proj.bias"):
            yield parameter, _constant(0.0, "", row)


# ---- Writing, and saying so --------------------------------------------------------------------------------


@torch.no_grad()
def _write(plan: Mapping[Tensor, Fill], generator: Generator | None) -> None:
    """Draw everything, and only then write: a draw that fails, or a write, has changed nothing."""
    fresh, written = [], []
    for parameter, fill_ in plan.items():
        fill_(values := torch.empty_like(parameter, requires_grad=False), generator)
        fresh.append(values)
    try:
        for parameter, values in zip(plan, fresh, strict=True):
            before = parameter.clone()
            parameter.copy_(values)
            values.copy_(before)  # in the memory of the draw, now that it is written
            written.append((parameter, values))
    except BaseException:
        for parameter, before in written:
            parameter.copy_(before)
        raise


def _report(
    parameters: Mapping[str, Tensor], plan: Mapping[str, Law], reasons: Mapping[str, str]
) -> Initialization:
    columns = ["parameter", "shape", "layer", "kind", "follows", "fan_in", "gain", "std", "law"]
    rows = [
        (
            name,
            "×".join(map(str, p.shape)),
            law.layer,
            law.kind,
            law.follows,
            law.fan_in,
            law.gain,
            law.std,
            law.law,
        )
        for name, p in parameters.items()
        if (law := plan.get(name))
    ]
    alone = [(name, reasons[name]) for name in parameters if name in reasons]
    return Initialization(
        pd.DataFrame(rows, columns=columns), pd.DataFrame(alone, columns=["parameter", "reason"])
    )
