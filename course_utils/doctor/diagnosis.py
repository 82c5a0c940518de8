"""What one forward and one backward pass tell about the initialization of any network.

`diagnose` runs a model once on a batch, leaves no trace in it, and returns a table with one row a layer, and
verdicts that name the layer, the likely cause and the remedy. A fault rests on an effect: a signal, a
gradient or a loss of the wrong size, or units that cannot learn. The law that the weights follow (He's,
Xavier's, torch's default, a fixed number) explains it. Only a law that contradicts those of the other layers
is a fault by itself.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from course_utils.doctor.graph import analyse
from course_utils.doctor.recording import (
    KINDS,
    NAN,
    ODD,
    ROWS,
    SIGMOIDS,
    Node,
    Recorder,
    check_model_and_inputs,
    cloned,
    propagate_back,
    restored,
    second_moment,
    tensors_in,
)
from course_utils.doctor.tables import markdown, rounded

FAULTS = ("not finite", "input scale", "identical units", "zero layer", "misplaced gain", "missing gain")
FAULTS += ("wrong fan", "transposed weight", "double init", "dead", "exploding signal", "vanishing signal")
FAULTS += ("saturated", "exploding gradient", "vanishing gradient", "large initial loss")
REMARKS = ("input scale", "missing gain", "torch default", "no layers", "no gradient")

# Thresholds. A second moment of a healthy deep network wanders by a factor of 10 to 30.
FAR = 1e4  # from the first layer to the last
STEP = 4.0  # one layer changed it; forgetting or doubling a ReLU's gain does by 2
OFF = 1.5  # the second moment of weights that explain a drift is off by this factor at least
EXCESS_LOSS = 2.5  # above ln K; logits of variance 2, from He's law in the last layer, are worth 1
DEAD, SATURATED = 0.6, 0.5  # shares of a layer's units and outputs


@dataclass(frozen=True)
class Finding:
    """A verdict on a layer: a fault, one of FAULTS, or, if not `is_fault`, a remark, one of REMARKS.

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


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """The table of layers, the loss, what equal probabilities cost (NaN if unknown), and the findings."""

    table: pd.DataFrame
    loss: float
    expected_loss: float
    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether there is no fault."""
        return not any(finding.is_fault for finding in self.findings)

    @property
    def verdict(self) -> str:
        """The findings in plain words, one a line."""
        faults = [finding for finding in self.findings if finding.is_fault]
        remarks = [f"Remark: {finding}" for finding in self.findings if not finding.is_fault]
        lines = [f"{i}. {finding}" for i, finding in enumerate(faults, 1)]
        return "\n".join((lines or [f"No faults found in {len(self.table)} layers."]) + remarks)

    def __str__(self) -> str:
        table = "" if self.table.empty else f"\n\n{rounded(self.table, 2).to_string(index=False)}"
        return self.verdict + table

    def _repr_markdown_(self) -> str:
        return "\n\n".join([*self.verdict.split("\n"), markdown(rounded(self.table, 2))])


def diagnose(
    model: nn.Module, inputs: Any, targets: Any = None, loss: Callable[..., Tensor] | None = None
) -> Diagnosis:
    """Run `model` forward and backward once; return its layers' statistics and what is wrong with them.

    inputs: a tensor for `model(x)`, a tuple or list for `model(*inputs)`, a dict for `model(**inputs)`; the
    first dimension is the batch. The output is the first floating-point tensor among what is returned.
    targets, loss: `loss(outputs, targets)` must return a scalar. Without a loss, integer targets take the
    cross entropy (classes in dimension 1; last if targets (batch, time) meet outputs (batch, time, classes)),
    and floating targets the mean squared error. Without targets a fixed N(0, 1) error is propagated back.

    The model is left as it was: parameters, buffers, gradients, hooks, modes, attributes; so are the inputs
    and torch's random state. The table has one row for each call of a layer, a norm, a recurrent or attention
    module, in order, and for an activation that follows none of them. Its columns (NaN: does not apply):
    layer, kind, activation: where, what, and the activation that follows; "norm" if a norm comes first.
    mean, std, second_moment: of all entries of the output; input_second_moment: of the input's.
    growth: the second moment after the activation over that of the input.
    varies: share of the output's second moment that varies over the batch, so depends on the input.
    gradient_second_moment: of the derivatives of the loss with respect to the output.
    dead: share of units (channels) whose ReLU is 0 on the whole batch.
    saturated: share of the activation's outputs within 0.03 of a bound.
    fan_in, fan_out: the inputs that feed an output; the outputs that an input feeds, but for a stride.
    weight_std, wanted_std, weight_ratio: root of the weights' second moment; gain / sqrt(fan_in), the gain
    being that of the activation that follows; their quotient.
    weight_gradient_second_moment: of the derivatives with respect to the weights.
    fault: the name of the layer's fault, or "".

    What comes after a fault may be its consequence, so only the first kind of effect is reported: repair it,
    and diagnose again.
    Raises: TypeError or ValueError for arguments that do not fit together; whatever the model raises.
    """
    _check(model, inputs, loss)
    with restored(model, inputs) as altered, torch.inference_mode(False), torch.enable_grad():
        leaves = [p for p in model.parameters() if p.requires_grad]
        inputs, copies = cloned(inputs, not leaves)
        targets, _ = cloned(targets, False)
        recorder = Recorder(model, altered)
        outputs = recorder.run(inputs)
        root, error, classes = _root(outputs, targets, loss)
        gradients = propagate_back(root, error, leaves or copies)
        for held, weight in recorder.weights.values():
            weight.gradient = gradients.get(id(held), NAN)
        nodes = analyse(recorder.nodes)
        broken = [name for name, moment in _all_moments(recorder, model, inputs) if not math.isfinite(moment)]
        for node in nodes:
            judged = not math.isnan(node.ratio) and not node.weight.identical
            node.laws = _laws(node) if judged else []
    value = root.item() if error is None else NAN
    expected = math.log(classes) if classes else NAN
    findings = _judge(_Case(nodes, value, expected, broken, bool(gradients)))
    table = pd.DataFrame({name: [get(n) for n in nodes if n.role in ROWS] for name, get in _COLUMNS.items()})
    faulty = [finding for finding in findings if finding.is_fault]
    faults = {layer: finding.fault for finding in faulty for layer in (finding.layer, *finding.others)}
    faults |= {name.rpartition(".")[0]: "not finite" for name in broken[:1]}  # the layer of a parameter
    table["fault"] = [faults.get(layer, "") for layer in table["layer"]]
    return Diagnosis(table, value, expected, findings)


def _all_moments(recorder: Recorder, model: nn.Module, inputs: Any) -> Iterator[tuple[str, float]]:
    """Yield the names and second moments of inputs, parameters and buffers."""
    for name, x in (
        *(("inputs", x) for x in tensors_in(inputs)),
        *model.named_parameters(),
        *model.named_buffers(),
    ):
        if id(x) in recorder.weights:
            yield name, recorder.weights[id(x)][1].second_moment
        elif x.is_floating_point() and x.numel():
            yield name, second_moment(x).item()


def _check(model: nn.Module, inputs: Any, loss: Any) -> None:
    check_model_and_inputs(model, inputs)
    if not (loss is None or callable(loss)):
        raise TypeError(f"loss must be a function of (outputs, targets), or None; got {type(loss).__name__}")
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if nn.parameter.is_lazy(tensor):
            raise ValueError(f"{name} has no shape yet; run the model once on a batch first")
        if tensor.is_meta:
            raise ValueError(f"{name} is on the meta device and has no values; use model.to_empty")


def _root(outputs: Any, targets: Any, loss: Callable | None) -> tuple[Tensor, Tensor | None, int]:
    """Return what to differentiate, the error to start from (None: a loss), and the number of classes."""
    output = next((y for y in tensors_in(outputs) if y.is_floating_point()), None)
    if output is None and loss is None:
        raise TypeError(
            "the model must return a floating-point tensor, alone or in a tuple, list or dict; got "
            f"{type(outputs).__name__}: return one, or pass loss=..."
        )
    logits, labels = _classes(output, targets, loss is None)
    classes = 0 if logits is None else logits.shape[1]
    if loss is not None:
        value = loss(outputs, targets)
        if not isinstance(value, Tensor) or value.numel() != 1:
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"loss(outputs, targets) must return a tensor with one entry; got {got}")
        return value.reshape(()), None, classes
    if targets is None:
        error = torch.randn(output.shape, generator=torch.Generator().manual_seed(0))
        return output, error.to(output), 0
    if logits is not None:
        return nn.functional.cross_entropy(_wide(logits), labels), None, classes
    if targets.shape != output.shape:
        shapes = f"{tuple(output.shape)}; got {tuple(targets.shape)}"
        raise ValueError(f"floating-point targets must have the output's shape {shapes}")
    return nn.functional.mse_loss(_wide(output), _wide(targets)), None, 0


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _classes(output: Tensor | None, targets: Any, strict: bool) -> tuple[Tensor | None, Tensor | None]:
    """Return the logits, with classes in dimension 1, and the labels, if the targets are labels."""
    if strict and not (targets is None or isinstance(targets, Tensor)):
        raise TypeError(f"targets must be a tensor unless you pass loss=...; got {type(targets).__name__}")
    if output is None or not isinstance(targets, Tensor) or targets.is_floating_point():
        return None, None
    if output.ndim > 2 and output.shape[:-1] == targets.shape:
        output, targets = output.flatten(0, -2), targets.flatten()
    if output.ndim > 1 and output.shape[:1] + output.shape[2:] == targets.shape:
        return output, targets.long()
    if strict:
        raise ValueError(
            "integer targets must have the output's shape without its dimension of classes (1, or the last); "
            f"got targets {tuple(targets.shape)} for an output {tuple(output.shape)}"
        )
    return None, None


# ---- The table ---------------------------------------------------------------------------------------------

_COLUMNS: dict[str, Callable[[Node], Any]] = {
    "layer": lambda n: n.layer,
    "kind": lambda n: KINDS.get(n.name.replace("_", "").lower(), n.name),
    "activation": lambda n: n.follows,
    "mean": lambda n: n.out[0],
    "std": lambda n: _std(n),
    "second_moment": lambda n: n.moment,
    "input_second_moment": lambda n: n.entered_moment,
    "growth": lambda n: n.growth,
    "varies": lambda n: n.out[2] / n.moment if n.batch > 1 and n.moment > 0 else NAN,
    "gradient_second_moment": lambda n: n.gradient,
    "dead": lambda n: n.end.off[0],
    "saturated": lambda n: n.end.off[1],
    "fan_in": lambda n: n.fan_in,
    "fan_out": lambda n: n.fan_out,
    "weight_std": lambda n: n.weight_std,
    "wanted_std": lambda n: n.wanted_std,
    "weight_ratio": lambda n: n.ratio,
    "weight_gradient_second_moment": lambda n: n.weight.gradient if n.weight else NAN,
}


def _std(node: Node) -> float:
    return math.sqrt(max(node.moment - node.out[0] ** 2, 0.0)) if math.isfinite(node.moment) else NAN


# ---- The laws of weights -----------------------------------------------------------------------------------

_GAINLESS = "{law}'s law lacks the gain {n.gain:.3g} of {n.follows}."
_CONSTANT = "The weights look like {law}, whatever the fan-in of {n.fan_in:g}."
_LAWS: dict[str, tuple[Callable[[Node], float], str, str]] = {  # its std, the fault, the cause
    "torch default": (
        lambda n: 1 / math.sqrt(3 * n.weight.shape[1] * n.weight.area),
        "",
        "torch's default has variance 1 / (3 fan_in), a sixth of what a ReLU needs.",
    ),
    "fan_in": (lambda n: n.gain / math.sqrt(n.fan_in), "", ""),
    "fan_avg": (lambda n: n.gain / math.sqrt((n.fan_in + n.fan_out) / 2), "", ""),
    "fan_out": (
        lambda n: n.gain / math.sqrt(n.fan_out),
        "wrong fan",
        "The std is gain / sqrt(fan_out), not gain / sqrt(fan_in): either fan_out mode in this layer alone, "
        "or a matrix drawn for x @ W and put in transposed.",
    ),
    "LeCun": (lambda n: 1 / math.sqrt(n.fan_in), "missing gain", _GAINLESS),
    "Xavier": (lambda n: math.sqrt(2 / (n.fan_in + n.fan_out)), "missing gain", _GAINLESS),
    "He": (lambda n: math.sqrt(2 / n.fan_in), "", "He's law is meant for a ReLU."),
    "no kernel": (
        lambda n: n.gain * math.sqrt(n.weight.area / n.fan_in),
        "wrong fan",
        "The fan counts the channels but forgets the kernel's area of {n.weight.area}.",
    ),
    "twice": (lambda n: n.gain**2 / n.fan_in, "double init", "The std is gain² / fan_in: scaled twice."),
    "N(0, 1)": (lambda n: 1.0, "", _CONSTANT),
    "N(0, 0.01²)": (lambda n: 0.01, "", _CONSTANT),
    "N(0, 0.02²)": (lambda n: 0.02, "", _CONSTANT),
}


def _laws(node: Node) -> list[str]:
    """Return the laws whose std the weights have, within 3 % or four standard errors of a sample's std."""
    weight, error = node.weight, 1 / math.sqrt(2 * math.prod(node.weight.shape))
    stds = {law: std(node) for law, (std, *_) in _LAWS.items()}
    default = stds.pop("torch default")
    uniform = weight.largest < 1.001 * math.sqrt(3) * default  # so an error half as large
    if uniform and abs(node.weight_std / default - 1) < max(0.03, 3 * error):
        return ["torch default"]
    if weight.orthogonal:
        root = math.sqrt(max(node.fan_in, node.fan_out))
        stds = {"fan_in": node.gain / root, "LeCun": 1 / root, "He": math.sqrt(2) / root}
    return [law for law, std in stds.items() if abs(node.weight_std / std - 1) < max(0.03, 4 * error)]


def _right(node: Node) -> bool:
    return not {"fan_in", "fan_avg"}.isdisjoint(node.laws)


# ---- The verdicts ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Case:
    nodes: list[Node]
    loss: float
    expected_loss: float
    broken: list[str]  # names of inputs and parameters that are not finite
    has_gradient: bool

    @property
    def rows(self) -> list[Node]:
        return [n for n in self.nodes if n.role in ROWS]

    @property
    def trained(self) -> list[Node]:
        return [n for n in self.nodes if n.weight and n.weight.trained]

    @property
    def judged(self) -> list[Node]:
        """The layers whose weights' scale matters: no norm follows, and no path leads around."""
        return [n for n in self.trained if not math.isnan(n.ratio) and not n.bypassed]

    @property
    def telling(self) -> list[Node]:
        """Those whose fans differ."""
        return [n for n in self.judged if not 0.5 < n.fan_in / n.fan_out < 2]

    @property
    def shared(self) -> set[str]:
        """The laws that depend on fan_out, too, and that at least two layers follow whose fans differ."""
        counts = Counter(law for n in self.telling for law in n.laws)
        return {law for law in ("fan_out", "fan_avg", "Xavier") if counts[law] > 1}


def _say(
    nodes: list[Node], fault: str, evidence: str, cause: str, remedy: str, is_fault: bool = True
) -> Iterator[Finding]:
    """Yield a finding on the first node that names the others, too; none if there is no node."""
    if nodes:
        texts = [text.format(n=nodes[0]) for text in (evidence, cause, remedy)]
        others = tuple(node.layer for node in nodes[1:])
        if others:
            more = ", ".join(others[:3]) + " and others" * (len(others) > 3)
            texts[0] += f" The same with {len(others)} more: {more}."
        yield Finding(nodes[0].layer, fault, *texts, is_fault, others)


def _say_weights(nodes: list[Node], evidence: str = "") -> Iterator[Finding]:
    """Yield the fault of layers whose weights have the wrong scale, explained by the law that they follow."""
    law = next(iter(nodes[0].laws), "")
    _, fault, cause = _LAWS.get(law, (None, "", "The weights follow no law known here."))
    remedy = "Draw the weights with std gain / sqrt(fan_in) = {n.wanted_std:.3g}"
    own = [f"{std:.3g}" for std in sorted({n.wanted_std for n in nodes[1:]} - {nodes[0].wanted_std})]
    remedy += (
        f", each with its own: {' to '.join(dict.fromkeys((own[0], own[-1])))} in the others" if own else ""
    )
    remedy += "."
    if law == "fan_out" and nodes[0].weight.out_dim == nodes[0].weight.area == 1:
        fault, remedy = "transposed weight", remedy + " Initialize W.T."
        cause = "The weight is kept (in, out), but was drawn as if it were (out, in)."
    evidence += "The layer multiplies the second moment by {n.growth:.2g}; "
    evidence += "its weights' std {n.weight_std:.2g} is {n.ratio:.2g} times the wanted {n.wanted_std:.2g}."
    signal = "exploding signal" if nodes[0].ratio > 1 else "vanishing signal"
    yield from _say(nodes, fault or signal, evidence, cause.replace("{law}", law), remedy)


def _broken_values(case: _Case) -> Iterator[Finding]:
    for name in case.broken[:1]:
        evidence = f"It is the first tensor with NaN or infinity, of {len(case.broken)} in all."
        cause = "A bad value in the data or the checkpoint, or a division by 0 in an initializer."
        yield Finding(name, "not finite", evidence, cause, "Replace the value where it comes from.")


def _input_scale(case: _Case) -> Iterator[Finding]:
    for n in case.rows:
        raw = n.role in ("layer", "composite") and any(case.nodes[p].role == "input" for p in n.parents)
        offset = n.entered[0] ** 2 > 0.9 * n.entered_moment
        if raw and (n.entered_moment > 10 or n.entered_moment < 1e-3 or offset):
            yield from _say(
                [n],
                "input scale",
                "Its inputs have mean {n.entered[0]:.2g} and second moment {n.entered_moment:.2g}.",
                "Initializations are made for inputs of mean 0 and second moment 1.",
                "Standardize the inputs: subtract their mean, divide by their standard deviation.",
                not n.normalized,
            )
            return


def _identical(case: _Case) -> Iterator[Finding]:
    yield from _say(
        [n for n in case.trained if n.weight.identical and n.weight.largest > 0],
        "identical units",
        "All its units have the same weights and biases.",
        "A constant initialization: its units are copies, and stay so unless their outgoing weights differ.",
        "Draw the weights at random.",
    )


def _zero(case: _Case) -> Iterator[Finding]:
    yield from _say(
        [n for n in case.trained if n.weight.largest == 0 and not (n.last or n.bypassed)],
        "zero layer",
        "All its weights are 0: what follows does not depend on the input.",
        "Only the last layer, of the network or of a residual branch, may start at 0.",
        "Draw the weights at random.",
    )


def _lacking(case: _Case) -> list[Node]:
    """Return the layers before a ReLU or the like whose law is right but for the gain."""
    lacking = [n for n in case.judged if n.gain > 1.2 and not _right(n) and {"LeCun", "Xavier"} & {*n.laws}]
    if any(n.gain > 1.2 and _right(n) and "fan_out" not in n.laws for n in case.telling):
        return lacking
    # LeCun's law is also He's with fan_out if fan_out = 2 fan_in.
    return [n for n in lacking if not {"fan_out"} & case.shared & {*n.laws}]


def _misplaced_gain(case: _Case) -> Iterator[Finding]:
    owners, lacking = [n for n in case.judged if n.gain < 1.2 and "He" in n.laws], _lacking(case)
    if not any(n.gain > 1.2 and _right(n) for n in case.judged):
        owners = [n for n in owners if not _right(n)]  # the others may be Xavier's, as the whole network
    if owners and lacking:
        yield from _say(
            owners,
            "misplaced gain",
            f"Its weights carry a ReLU's gain, but none follows; {lacking[0].layer}, before one, lacks it.",
            "The gain of an activation belongs to the weights in front of it.",
            f"Draw {lacking[0].layer} with std sqrt(2 / fan_in), and {{n.layer}} with sqrt(1 / fan_in).",
        )


def _missing_gain(case: _Case) -> Iterator[Finding]:
    """Blame a minority of layers without the gain; a whole shallow network without it gets a remark."""
    lacking = _lacking(case)
    having = [n for n in case.judged if n.gain > 1.2 and n not in lacking]
    others = [n for n in having if _right(n) or "fan_out" in n.laws]
    if not any(_misplaced_gain(case)):
        yield from _say(
            lacking,
            "missing gain",
            "Its weights' std is {n.ratio:.2g} times the wanted {n.wanted_std:.2g}.",
            f"LeCun's or Xavier's law without {{n.follows}}'s gain; other layers with it: {len(others)}.",
            "Multiply the weights by {n.gain:.3g}.",
            len(others) >= len(lacking) > 0,
        )


def _wrong_fan(case: _Case) -> Iterator[Finding]:
    """Blame fan_out where at least as many layers use fan_in; all of them may use it."""
    outwards = [n for n in case.telling if "fan_out" in n.laws and not _right(n)]
    if any(n.gain > 1.2 and _right(n) for n in case.judged):  # He's law throughout, with fan_out = fan_in / 2
        outwards = [n for n in outwards if not (n.gain < 1.2 and "He" in n.laws)]
    inwards = [n for n in case.telling if {"fan_in", "LeCun"} & {*n.laws} and n not in outwards]
    if outwards and len(inwards) >= len(outwards):
        yield from _say_weights(outwards)


def _step(case: _Case) -> Iterator[Finding]:
    """Blame layers whose weights change the second moment, also as next layers receive it, by over STEP."""
    found: dict[tuple, list[Node]] = {}
    for n in case.judged:
        received = (n.end.moment, *n.received)
        slack = (1 + 4 / math.sqrt(2 * math.prod(n.weight.shape))) ** 2  # four standard errors of the std
        large = n.growth > STEP and min(received) > STEP * n.entered_moment and n.end.name not in ODD
        small = n.growth < 1 / STEP and max(received) < n.entered_moment / STEP
        large &= n.ratio**2 > slack * STEP / 2
        small &= 0 < n.ratio**2 < 2 / STEP / slack
        known = n.laws if n.weight.orthogonal else {"torch default", *case.shared} & {*n.laws}
        if n.last and (small or not math.isnan(case.expected_loss)):
            continue  # a last layer may be small, and the loss shows whether it is too large
        if (large or small) and not known:
            found.setdefault((*n.laws[:1], large), []).append(n)
    for nodes in found.values():
        yield from _say_weights(nodes)


def _dead(case: _Case) -> Iterator[Finding]:
    def limit(
        width: int,
    ) -> float:  # of aligned inputs half the units are dead: that, and four standard errors
        return max(DEAD, 0.5 + 2 / math.sqrt(max(width, 1)))

    yield from _say(
        [n for n in case.rows if n.end.off[0] > limit(n.end.width) and n.moment > 0],
        "dead",
        "{n.end.off[0]:.0%} of its units are 0 on the whole batch.",
        "What enters the activation lies too far below 0, on average at {n.out[0]:.2g}.",
        "Set the biases to 0, and centre the inputs and the weights.",
    )


def _culprits(case: _Case, last: Node, factor: float) -> list[Node]:
    """Return the layers up to `last` whose weights explain a factor on the second moment, or its root."""
    off = [n for n in case.judged if n.index <= last.index and n.ratio > 0 and (n.ratio > 1) == (factor > 1)]
    off = [n for n in off if abs(math.log(n.ratio**2)) > math.log(OFF)]
    explained = sum(abs(math.log(n.ratio**2)) for n in off)
    return off if factor > 0 and explained >= abs(math.log(factor)) / 2 else []


def _signal(case: _Case) -> Iterator[Finding]:
    """Blame what makes the signal, or the part of it that depends on the input, leave [1 / FAR, FAR]."""
    layer, depth = "inputs", 0
    for n in case.nodes:
        layer, depth = n.layer if n.role in ROWS else layer, depth + (n.role == "layer")
        if n.role not in ("layer", "activation", "sum") or n.bypassed or n.normalized:
            continue
        faded = min(n.end.signal, n.end.varying) < 1 / FAR and not n.last and n.end.name not in SIGMOIDS
        if faded or n.end.signal > FAR:
            what, value = "The second moment of the signal", n.end.signal
            if faded and n.end.varying < n.end.signal:
                what, value = "The part of the second moment that depends on the input", n.end.varying
            evidence = f"{what} at {layer} is {value:.2g} of what entered the first layer, "
            evidence += f"a factor of {value ** (1 / max(depth, 1)):.2g} per layer. "
            off = _culprits(case, n, value)
            later = [m for m in case.judged if m.index > n.index and not m.last]
            off += [m for m in later if off and off[0].laws and m.laws[:1] == off[0].laws[:1]]
            fault = "vanishing signal" if faded else "exploding signal"
            cause = "The weights do not explain it: look at biases, and at branches that are added."
            other = Finding(layer, fault, evidence.strip(), cause, "Normalize, or scale the branches down.")
            yield from _say_weights(off, evidence) if off else [other]
            return


def _broken_signal(case: _Case) -> Iterator[Finding]:
    layers = [n.layer for n in case.rows if not math.isfinite(n.moment + n.end.moment)]
    layers += ["loss"] * (math.isnan(case.loss) and not math.isnan(case.expected_loss))
    for layer in layers[:1]:
        cause = "The parameters and inputs are finite: an overflow, or an operation outside its domain."
        yield Finding(layer, "not finite", "It returns NaN or infinity.", cause, "Scale down what enters it.")


def _saturated(case: _Case) -> Iterator[Finding]:
    nodes = [n for n in case.rows if n.end.off[1] > SATURATED and not n.bypassed]
    weights = "; the weights' std is {n.ratio:.2g} times the wanted one" * bool(nodes and nodes[0].ratio > 2)
    yield from _say(
        nodes,
        "saturated",
        "{n.end.off[1]:.0%} of its outputs are at a bound, where the derivative is about 0.",
        "What enters the activation is large: second moment {n.moment:.2g}" + weights + ".",
        "Draw weights with std 1 / sqrt(fan_in), and set the biases to 0.",
    )


def _gradient(case: _Case) -> Iterator[Finding]:
    """Compare the squared gradient, summed over a layer, at the first and at the deepest hidden layer.

    A composite, whose gates have laws of their own, starts anew.
    """
    segments: list[list[Node]] = [[]]
    for n in case.nodes:
        segments += [[]] if n.role == "composite" else []
        hidden = n.role in ROWS | {"sum"} and not (n.bypassed or n.last)
        if hidden and (n.role == "norm" or not n.normalized) and not math.isnan(n.gradient):
            segments[-1].append(n)
    for path in segments:
        first, deepest = (
            (n.gradient * n.numel / max(n.batch, 1) for n in (path[0], path[-1])) if path else (1, 1)
        )
        if deepest > 0 and not deepest / FAR <= first <= deepest * FAR:
            yield from _gradient_fault(case, path, first / deepest)
            return


def _gradient_fault(case: _Case, path: list[Node], factor: float) -> Iterator[Finding]:
    rows, large = [n for n in path if n.layer], factor > 1
    guilty, cause = _culprits(case, path[-1], factor), "The weights are far from the wanted std."
    remedy = "Draw the weights with std gain / sqrt(fan_in)."
    if not large and (sigmoids := [n for n in rows if n.end.name in SIGMOIDS]):
        guilty, cause = sigmoids, "A sigmoid's derivative is at most 1/4, so its square at most 1/16."
        remedy = "Use ReLU with He's initialization, or tanh with Xavier's."
    elif large and (norms := [n for n in rows if n.role == "norm" and n.end.name == "relu"]):
        guilty = norms
        cause = "Batch norm with ReLU multiplies the squared gradient by pi / (pi - 1) = 1.467 per layer."
        remedy = "Add residual connections, or use fewer layers."
    elif not guilty:
        guilty, cause = rows, "The activations are far from critical, or branches that are added too large."
    evidence = f"The squared gradient at {rows[0].layer} is {factor:.2g} of that at {rows[-1].layer}, "
    evidence += f"a factor of {factor ** (1 / max(len(path) - 1, 1)):.2g} per layer on the way back."
    yield from _say(guilty, f"{'exploding' if large else 'vanishing'} gradient", evidence, cause, remedy)


def _loss(case: _Case) -> Iterator[Finding]:
    if case.loss > case.expected_loss + EXCESS_LOSS:
        last = [n for n in case.rows if n.last and n.weight] or case.rows
        tied = [n.layer for n in case.rows if n.weight and n.weight is last[-1].weight and n is not last[-1]]
        remedy = "Scale the last layer's weights down; 0 is fine."
        if tied:
            remedy = f"Draw the weight with std 1 / sqrt(fan_in), and not 0: {tied[0]} uses it, too."
        cause = "Its inputs have second moment {n.entered_moment:.2g}."
        if last and last[-1].ratio > 1.5:
            cause = "Its weights' std is {n.ratio:.2g} times the wanted one."
        yield from _say(
            last[-1:],
            "large initial loss",
            f"The loss is {case.loss:.3g}; equal probabilities cost ln K = {case.expected_loss:.3g}.",
            cause,
            remedy,
        )


def _remarks(case: _Case) -> Iterator[Finding]:
    yield from _say(
        [n for n in case.judged if n.gain > 1.2 and "torch default" in n.laws],
        "torch default",
        "The layer multiplies the second moment by {n.growth:.2g}.",
        _LAWS["torch default"][2],
        "Harmless in a shallow network; draw a deep one from He's law.",
        False,
    )
    if not case.rows:
        yield Finding("", "no layers", "No layer, norm or activation was called.", "", "", False)
    if not case.has_gradient:
        cause = "The output depends on no parameter that requires a gradient, nor on a floating-point input."
        yield Finding("", "no gradient", "The gradients are NaN.", cause, "", False)


# A group is judged only if those before it found no fault: what it sees may be a consequence.
_RULES = (
    (_broken_values,),
    (_input_scale, _identical, _zero, _misplaced_gain, _missing_gain, _wrong_fan, _step),
    (_dead,),
    (_signal,),
    (_broken_signal,),
    (_saturated,),
    (_gradient,),
    (_loss,),
    (_remarks,),
)


def _judge(case: _Case) -> tuple[Finding, ...]:
    faults: dict[str, Finding] = {}
    remarks: list[Finding] = []
    for group in _RULES:
        for finding in (finding for rule in group for finding in rule(case)):
            if finding.is_fault:
                faults.setdefault(finding.layer, finding)  # one root cause a layer
            else:
                remarks.append(finding)
        if faults:
            break
    named = {finding.fault for finding in faults.values()}
    return (*faults.values(), *(remark for remark in remarks if remark.fault not in named))
