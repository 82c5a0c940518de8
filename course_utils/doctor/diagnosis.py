"""What one forward and one backward pass tell about the initialization of any network."""

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from course_utils.doctor import measuring as measure
from course_utils.doctor import relations  # noqa: F401
from course_utils.doctor.experiment import Laboratory, correct_gains
from course_utils.doctor.faults import verdict_on
from course_utils.doctor.findings import Case, Finding, Losses, Trial, two_softmaxes
from course_utils.doctor.graph import analyse, by_weight, mark_bypassed, needed, places
from course_utils.doctor.measuring import NAN, second_moment, tensors_in
from course_utils.doctor.recording import Call, Recorder, called
from course_utils.doctor.restoring import restored
from course_utils.doctor.thresholds import BIAS, LARGE_OUTPUTS, NO_GRADIENT
from course_utils.doctor.vocabulary import FACTORS, kind

Gradients = dict[Tensor, Tensor]
Squares = dict[Tensor, float]  # second moments of gradients
Start = Callable[[], None]  # what `restored` yields
Task = tuple[nn.Module, Any, Any, Callable | None]  # a model, its inputs, targets, and loss

_TRIED = 8  # large biases at most, one by one


def printed(head: str, digits: int, *tables: pd.DataFrame) -> str:
    """Return the head and, unless empty, the tables, with so many significant digits and NaN left out."""
    style = {"index": False, "na_rep": "", "float_format": f"{{:.{digits}g}}".format}
    return "\n\n".join([head, *(table.to_string(**style) for table in tables if len(table))])


@dataclass(frozen=True, eq=False, repr=False)
class Diagnosis:
    """The table of layers, the loss, what equal probabilities cost (NaN if unknown), and the findings.

    The table has one row for each call of a layer, a norm, a recurrent or attention module, in order, and for
    an activation that follows none of them. Its columns (NaN: does not apply, but for mean,
    std, second_moment, where it is what the layer returns, and is printed):
    layer, kind, activation: where, what, and the activation that follows; "norm" if a norm comes first,
    "measured" if what follows is none that has a name here, "pooled" if it adds up, or chooses from, many
    positions: the gain is then measured on noise.
    mean, std, second_moment: of all entries of the output; input_second_moment: of the input's.
    growth: the second moment after the activation over that of the input.
    varies: share of the output's second moment that varies over the batch, so depends on the input.
    gradient_second_moment: of the derivatives of the loss with respect to the output.
    dead: share of units (channels) whose ReLU is 0 on the whole batch.
    saturated: share of the activation's outputs within 0.03 of a bound.
    fan_in, fan_out: the inputs that feed an output; the outputs that an input feeds, but for a stride.
    weight_std, wanted_std, weight_ratio: root of the weights' second moment; gain / sqrt(fan_in), the gain
    being that of the activation that follows, fan_in without the zeros of a padding; their quotient.
    weight_gradient_second_moment: of the derivatives with respect to the weights.
    fault: the name of the layer's fault, or "".
    """

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
        faults = [f"{i}. {f}" for i, f in enumerate((f for f in self.findings if f.is_fault), 1)]
        remarks = [f"Remark: {finding}" for finding in self.findings if not finding.is_fault]
        none = f"No faults found in {len(self.table)} layers." if len(self.table) else "Nothing was judged."
        return "\n".join((faults or [none]) + remarks)

    def __repr__(self) -> str:
        # Every row returns something: what is NaN there is no number, elsewhere it does not apply.
        returned = ["mean", "std", "second_moment"]
        table = self.table.astype(dict.fromkeys(returned, object)).fillna(dict.fromkeys(returned, "nan"))
        return printed(self.verdict, 2, table)


def diagnose(
    model: nn.Module, inputs: Any, targets: Any = None, loss: Callable[..., Tensor] | None = None
) -> Diagnosis:
    """Run `model` forward and backward; return its layers' statistics and what is wrong with them.

    inputs: a tensor for `model(x)`, a tuple or list for `model(*inputs)`, a dict for `model(**inputs)`; the
    first dimension is the batch. The output is the first floating-point tensor among what is returned.
    targets, loss: `loss(outputs, targets)` must return a scalar. Without a loss, integer targets take the
    cross entropy (classes in dimension 1; last if targets (batch, time) meet outputs (batch, time, classes)),
    and floating targets the mean squared error. Without targets a fixed N(0, 1) error is propagated back.

    The model is left as it was: parameters, buffers, gradients, hooks, modes, attributes; so are the inputs
    and torch's random state. What comes after a fault may be its consequence, so only the first kind of
    effect is reported: repair it, and diagnose again.
    `loss` is called a few times more, on constant outputs among others. Remarks are no faults: a missing
    prior, a short memory, copies, a path that is drowned.
    Raises: TypeError or ValueError for arguments that do not fit together; whatever the model raises.
    """
    measure.check_can_run(model, inputs)
    if not (loss is None or callable(loss)):
        raise TypeError(f"loss must be a function of (outputs, targets), or None; got {type(loss).__name__}")
    if isinstance(loss, type):
        raise TypeError(
            f"loss must be a function of (outputs, targets); got the class {loss.__name__}: pass an object"
        )
    with torch.inference_mode(False), torch.enable_grad(), restored(model, inputs) as start:
        case = _examine((model, inputs, targets, loss), start)
    findings = verdict_on(case)
    return Diagnosis(_table(case, findings), case.losses.value, case.losses.equal, findings)


def _examine(task: Task, start: Start) -> Case:
    """Run the model once, and make a case of that and of experiments, each of which starts anew."""
    model, inputs, targets, loss = task
    recorder = Recorder(model)
    given, copies = measure.cloned(inputs, not any(p.requires_grad for p in model.parameters()))
    outputs, wanted = recorder.run(given), measure.cloned(targets, False)[0]
    nodes = recorder.calls
    (root, error, classes), reached = recorder.trace(_objective, outputs, wanted, loss)
    leaves = [p for p in model.parameters() if p.requires_grad] or copies
    steps = _differentiate(recorder, root, error, leaves)
    squares = {p: second_moment(g) for p, g in steps.items()}
    for call in nodes:
        call.has_gradient, call.weight_gradient = call.weight in squares, squares.get(call.weight, NAN)
    for first, *_ in by_weight(n for n in nodes if n.has_gradient and n.fan_in > 0 and not n.identical):
        if first.out_dim < first.weight.ndim:
            first.copies = measure.copied_units(first.weight, steps[first.weight], first.out_dim)
    named = [*(("inputs", x) for x in tensors_in(given)), *model.named_parameters(), *model.named_buffers()]
    named += [("targets", x) for x in tensors_in(wanted)]
    broken = [
        name
        for name, x in named
        if (x.is_floating_point() or x.is_complex()) and x.numel() and not math.isfinite(second_moment(x))
    ]
    losses = _losses(outputs, wanted, root, loss, classes) if error is None else Losses()
    analyse(nodes)
    may_step = not broken and math.isfinite(root.sum().item())
    names = {p: name for name, p in model.named_parameters()}
    multiplying = {n.parameters[0] for n in nodes if n.role == "norm" and n.parameters}
    multiplying |= {p for p in leaves if names.get(p) in recorder.factors}
    used = [p for p in leaves if (p.ndim > 1 or p in multiplying) and id(p) in recorder.seen and may_step]
    waiting, has_loss = _without_gradient(nodes, reached, used, squares), error is None
    unseen = [names[p] for p in squares if p in names and id(p) not in recorder.seen]
    ending = [n for n in nodes if n.trained and n.numel and not reached >> n.index & 1]
    idle = dict.fromkeys(n.layer for n in ending if not n.has_gradient)
    frozen = [name for p, name in names.items() if not p.requires_grad and id(p) in recorder.seen]
    del given, copies, outputs, wanted, root, error, leaves, named  # the first pass, before there are others
    laboratory = Laboratory(nodes, model, inputs, start)
    correct_gains(laboratory)
    if losses.second_softmax > 0 and not classes and not laboratory.returns_shares():
        losses = losses._replace(second_softmax=0.0)
    sizes = {n: math.sqrt(n.left.second) for n in laboratory.sources if n.left.second >= 0}
    # A gate's bias says how far it is open.
    laboratory.means = {n: n.left.mean for n in sizes if n.left.mean**2 > n.left.second / 2}
    added = laboratory.contributions(sizes, products=True)
    mark_bypassed(nodes, needed(added))
    meetings = [added[n] for n in places(nodes) if n in added and n.function not in FACTORS]
    still = {*_still_after(task, start, steps, waiting)} if waiting else ()
    stuck = dict.fromkeys(_layer_of(name) for p, name in names.items() if p in still)
    infinite = [name for p, name in names.items() if not math.isfinite(squares.get(p, 0.0))]
    suspects = _suspects(nodes, losses, {p: name for p, name in names.items() if name in recorder.offsets})
    trials = [_tried(task, start, *suspect) for suspect in suspects] if has_loss else []
    around = (meetings, recorder.added, recorder.factors)
    learning = ([*stuck], infinite, trials, unseen, [*idle], frozen)
    return Case(nodes, losses, broken, bool(steps), has_loss, *around, *learning)


def _suspects(nodes: list[Call], losses: Losses, offsets: dict[Tensor, str]) -> list[tuple[Tensor, str, str]]:
    """Return large biases, and weights of what is returned where nothing tells which loss is a large one."""
    biases = {p: (name, "it") for p, name in offsets.items()}
    biases |= {n.bias: (n.layer, "its biases") for n in reversed(nodes) if n.bias is not None}
    sizes = {p: measure.largest(p) for p in biases}
    large = sorted((p for p in biases if sizes[p] > BIAS), key=sizes.get, reverse=True)[:_TRIED]
    unknown = math.isnan(losses.equal) and not losses.plain > 0
    lasts = [n for n in nodes if n.last and n.left.second > LARGE_OUTPUTS and unknown and n.parameters]
    weights = {n.parameters[0]: (n.layer, "its weights") for n in lasts if n.parameters[0] is not None}
    return [(p, *biases[p]) for p in large] + [(p, *what) for p, what in weights.items()]


def _tried(task: Task, start: Start, parameter: Tensor, name: str, what: str) -> Trial:
    """Return what the loss would be, were a parameter 0."""
    model, inputs, targets, loss = task
    value = NAN
    start()
    with suppress(Exception), torch.no_grad():  # of a model that nobody here wrote, on weights it never had
        parameter.zero_()
        outputs = called(model, measure.cloned(inputs, False)[0])
        value = _objective(outputs, measure.cloned(targets, False)[0], loss)[0].item()
    return Trial(name, what, value)


def _gradients(root: Tensor, error: Tensor | None, leaves: list[Tensor]) -> Gradients:
    """Return the gradients of those leaves that get one."""
    leaves = [x for x in leaves if x.requires_grad] if root.requires_grad else []
    gradients = torch.autograd.grad(root, leaves, error, allow_unused=True) if leaves else ()
    return {x: g for x, g in zip(leaves, gradients, strict=True) if g is not None}


def _differentiate(recorder: Recorder, root: Tensor, error: Tensor | None, leaves: list[Tensor]) -> Gradients:
    """Return the gradients of leaves; note them in the calls, and how they compare over time."""
    gradients = _gradients(root, error, leaves + [x for _, x, _ in recorder.sequences])
    for call, x, dim in recorder.sequences:
        if x in gradients:
            by_step = gradients[x].double().movedim(dim, 0).flatten(1).square().mean(1)
            call.over_time = (by_step[0] / by_step.max()).item() if by_step.max() > 0 else NAN
    return {p: gradients[p] for p in leaves if p in gradients}


def _without_gradient(nodes: list[Call], reached: int, among: list[Tensor], squares: Squares) -> list[Tensor]:
    """Return the parameters that lead to the loss, but get no gradient."""
    using: dict[Tensor, list[Call]] = {}  # the calls that take a parameter, or whose module owns it
    for n in nodes:
        own = measure.owned(n.module) if n.role in ("layer", "composite") else ()
        for p in {*n.parameters, *own} - {None}:
            using.setdefault(p, []).append(n)

    def leads_on(p: Tensor) -> bool:
        calls = using.get(p)
        if calls is None:
            return p in squares
        # An expert that no example reaches takes nothing, the queries of DETR take zeros.
        idle = all(not n.numel or (n.entered.second == 0 and not n.parents) for n in calls)
        return not idle and any(reached >> n.index & 1 for n in calls)

    return [p for p in _waiting(among, squares) if leads_on(p)]


def _layer_of(name: str) -> str:
    return name.partition(".parametrizations.")[0].removesuffix(".weight")


def _waiting(parameters: list[Tensor], squares: Squares) -> list[Tensor]:
    least = NO_GRADIENT * max(filter(math.isfinite, squares.values()), default=0.0)
    return [p for p in parameters if squares.get(p, 0.0) <= least]


def _still_after(task: Task, start: Start, steps: Gradients, waiting: list[Tensor]) -> list[Tensor]:
    """Take three steps, each of a hundredth of the weights; return what still waits for a gradient.

    One step frees what waits for a last layer of zeros, two what waits for two of them, one behind the other.
    What had no gradient at all is free with any.
    """
    model, inputs, targets, loss = task
    squares = {p: second_moment(g) for p, g in steps.items()}
    without = {p for p in waiting if squares.get(p, 0.0) == 0}
    values = {p: p.detach().clone() for p in model.parameters() if p.requires_grad}
    for _ in range(3):
        for p in steps.keys() - {*waiting}:
            size = max(second_moment(p), 1 / max(p.numel(), 1)) / (squares[p] or 1.0)
            values[p] -= 0.01 * math.sqrt(size) * steps[p].to(p.dtype) if math.isfinite(size) else 0.0
        try:
            start()
            for p, value in values.items():
                p.data.copy_(value)
            outputs = called(model, measure.cloned(inputs, False)[0])
            root, error, _ = _objective(outputs, measure.cloned(targets, False)[0], loss)
            steps = _gradients(root, error, [*values])
        except Exception:  # of a model that nobody here wrote, on weights that it never had
            return []
        squares = {p: second_moment(g) for p, g in steps.items()}
        waiting = [p for p in _waiting(waiting, squares) if p not in without or squares.get(p, 0.0) == 0]
        if not waiting:
            break
    return waiting


def _objective(outputs: Any, targets: Any, loss: Callable | None) -> tuple[Tensor, Tensor | None, int]:
    """Return what to differentiate, the error to start from (None: a loss), and the number of classes."""
    output = measure.first_floating(outputs)
    if output is not None:
        output = output.to(torch.promote_types(output.dtype, torch.float32))
    shape, wanted = getattr(output, "shape", ()), getattr(targets, "shape", None)
    is_labels = isinstance(targets, Tensor) and not targets.is_floating_point()
    last = len(shape) > 2 and shape[:-1] == wanted  # the dimension of classes, else it is 1
    fits = is_labels and len(shape) > 1 and (last or shape[:1] + shape[2:] == wanted)
    classes = shape[-1 if last else 1] if fits else 0
    if loss is not None:
        value = loss(outputs, targets)
        if not isinstance(value, Tensor) or value.numel() != 1:
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"loss(outputs, targets) must return a tensor with one entry; got {got}")
        return value.reshape(()), None, classes
    if output is None:
        expected = "the model must return a floating-point tensor, alone or in a tuple, list or dict; got"
        raise TypeError(f"{expected} {type(outputs).__name__}: return one, or pass loss=...")
    if targets is None:
        return output, torch.randn(output.shape, generator=torch.Generator().manual_seed(0)).to(output), 0
    if not isinstance(targets, Tensor):
        raise TypeError(f"targets must be a tensor unless you pass loss=...; got {type(targets).__name__}")
    if classes:
        labels = targets[targets != -100]
        if labels.numel() and (labels.min() < 0 or labels.max() >= classes):
            got = f"{labels.min()} to {labels.max()}"
            raise ValueError(f"labels must be from 0 to {classes - 1} for {classes} classes; got {got}")
        return cross_entropy(output.movedim(-1, 1) if last else output, targets.long()), None, classes
    if shape == wanted and not is_labels:
        return mse_loss(output, targets.to(output.dtype)), None, 0
    needs = "floating-point targets must have the output's shape"
    if is_labels:
        needs = "integer targets need its shape without the dimension of classes, 1 or last"
    raise ValueError(f"{needs}; got targets {tuple(wanted)} for an output {tuple(shape)}")


@torch.no_grad()
def _losses(y: Any, targets: Any, root: Tensor, loss: Callable | None, classes: int) -> Losses:
    zeros = plain = constant = sure = NAN
    second_softmax, equal, of_share = 0.0, math.log(classes) if classes else NAN, False
    with suppress(Exception):  # of a loss that nobody here wrote
        zeros = _of_outputs(0.0, y, targets, loss)
    with suppress(Exception):
        plain = zeros if math.isfinite(zeros) else _of_outputs(1.0, y, targets, loss)
    if not isinstance(y, Tensor):  # the first of what is returned, as if it were alone
        y, loss = measure.first_floating(y), _of_first(y, loss)
    with suppress(Exception):  # the same: it takes no logits, or no labels
        known = isinstance(y, Tensor) and y.is_floating_point() and targets.numel() > 0
        if known and targets.is_floating_point():
            constant, of_share = _of_numbers(y, targets, loss)
        elif known:
            constant, second_softmax = _of_labels(y, targets, root)
    if of_share:
        equal = math.log(2)
        if measure.is_share(y):  # if a sigmoid has made them
            second_softmax = loss(targets.to(y.dtype), targets).item()
    with suppress(Exception):
        sure = _of_sure_outputs(y, targets, loss) if loss is not None and classes else NAN
    if loss is not None and not classes and isinstance(y, Tensor):
        for dim in (dim for dim in {1, y.ndim - 1} if y.ndim > 1 and measure.is_probability(y.exp(), dim)):
            uniform = math.log(y.shape[dim])  # of log probabilities, whatever the shape of the targets
            if math.isclose(_of_outputs(-uniform, y, targets, loss), uniform, rel_tol=1e-3):
                equal = uniform
    numbers = isinstance(targets, Tensor) and targets.is_floating_point() and isinstance(y, Tensor)
    size = second_moment(targets) if numbers and y.shape == targets.shape else NAN
    outputs = second_moment(y) if isinstance(y, Tensor) else NAN
    return Losses(root.item(), equal, zeros, plain, constant, sure, size, outputs, second_softmax)


def _of_first(outputs: Any, loss: Callable | None) -> Callable | None:
    """Return the loss as a function of the first floating tensor of outputs, the others being as they are."""
    first = measure.first_floating(outputs)

    def of_one(y: Tensor, targets: Any) -> Tensor:
        return loss(measure.mapped(lambda x: y if x is first else x, outputs), targets)

    return of_one if loss else None


def _of_outputs(value: float, y: Any, targets: Any, loss: Callable | None) -> float:
    """Return the loss of outputs that are all one number."""
    outputs = measure.mapped(lambda x: torch.full_like(x, value) if x.is_floating_point() else x, y)
    return _objective(outputs, targets, loss)[0].item()


def _of_sure_outputs(y: Tensor, targets: Tensor, loss: Callable) -> float:
    """Return the loss of the right labels' probabilities of 1, or scores of 100; NaN of log probabilities."""
    dim = y.ndim - 1 if y.shape[:-1] == targets.shape else 1
    if measure.is_probability(y.exp(), dim):
        return NAN
    largest = 1.0 if measure.is_probability(y, dim) else 100.0
    sure = torch.zeros_like(y).scatter_(dim, targets.clamp(min=0).unsqueeze(dim), largest)
    return loss(sure, targets).item()


def _of_numbers(y: Tensor, targets: Tensor, loss: Callable | None) -> tuple[float, bool]:
    """Return the loss of a good constant output, NaN if unknown, and whether it is of one probability."""
    p = targets.double().mean()
    if loss is None:
        return targets.double().var(correction=0).item(), False
    if y.shape != targets.shape:
        return NAN, False
    if 0 < p < 1 and targets.max() <= 1:
        found = loss(torch.full_like(y, torch.logit(p).item()), targets).item()
        entropy = torch.special.entr(torch.stack([p, 1 - p])).sum().item()
        if math.isclose(found, entropy, rel_tol=1e-3):
            return found, True
    return loss(torch.full_like(y, p.item()), targets).item(), False


def _of_labels(y: Tensor, targets: Tensor, root: Tensor) -> tuple[float, float]:
    """Return the same, and the least that a second softmax can cost, or 0 if there is none."""
    value, _, classes = _objective(y, targets, None)
    if not classes or not math.isclose(value.item(), root.item(), rel_tol=1e-4):
        return NAN, 0.0
    twice = measure.is_probability(y, -1 if y.shape[:-1] == targets.shape else 1)
    labels = targets[targets >= 0]
    frequencies = labels.bincount(minlength=classes).double() / max(labels.numel(), 1)
    constant = torch.special.entr(frequencies).sum().item() if targets.numel() >= 10 * classes else NAN
    return constant, two_softmaxes(classes) if twice else 0.0


def _table(case: Case, findings: tuple[Finding, ...]) -> pd.DataFrame:
    columns = "layer kind activation mean std second_moment input_second_moment growth varies "
    columns += "gradient_second_moment dead saturated fan_in fan_out weight_std wanted_std weight_ratio "
    columns += "weight_gradient_second_moment"
    table = pd.DataFrame(map(_row, case.rows), columns=columns.split())
    faults = {layer: f.fault for f in findings if f.is_fault for layer in (f.layer, *f.others)}
    faults |= {name.rpartition(".")[0]: "not finite" for name in case.broken[:1]}  # the layer of a parameter
    table["fault"] = [faults.get(layer, "") for layer in table["layer"]]
    return table


def _row(n: Call) -> tuple:
    left = n.left
    std = math.sqrt(max(left.second - left.mean**2, 0.0)) if math.isfinite(left.second) else NAN
    varies = left.varying / left.second if n.examples > 1 and left.second > 0 else NAN
    signal = left.mean, std, left.second, n.entered.second, n.growth, varies, n.gradient
    weights = n.fan_in, n.fan_out, n.weight_std, n.wanted_std, n.weight_ratio
    activation = n.activated.dead, n.activated.saturated
    return (n.layer, kind(n.function), n.activation, *signal, *activation, *weights, n.weight_gradient)
