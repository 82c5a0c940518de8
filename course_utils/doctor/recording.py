"""What passes through a network: every call of a layer, what it returns, and the gradient that comes back."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import CheckpointFunction
from torch.utils.weak import WeakIdKeyDictionary

from course_utils.doctor import measuring as measure
from course_utils.doctor import vocabulary as words
from course_utils.doctor.measuring import NAN, UNKNOWN, Moments, tensors_in
from course_utils.doctor.recognizing import (
    Invocation,
    as_function,
    probabilities,
    recognized,
    takes_probabilities,
    with_leaf,
)
from course_utils.doctor.thresholds import AT_A_BOUND, SMALL_FACTOR

ROWS = {"layer", "norm", "composite", "activation"}  # the roles of calls that make rows of the table


@dataclass(eq=False)
class Call:
    """A call, what was recorded of it, and what the others tell about it.

    Roles: input, layer, norm, composite, activation, sum, join, other; part, of what a join takes.
    """

    role: str
    function: str = ""  # of torch
    layer: str = ""  # the name of the module or parameter, with the number of the call from the second on
    parents: tuple[Any, ...] = ()  # the calls whose outputs it takes
    index: int = 0
    ancestors: int = 0  # the calls that lead to it, and itself, as bits
    module: nn.Module | None = None
    entered: Moments = UNKNOWN
    left: Moments = UNKNOWN
    gradient: float = NAN  # second moment, with respect to its output
    examples: int = 0
    numel: int = 0
    taken: int = 0  # entries of its input
    taken_units: int = 0
    unit_dim: int = -1  # the dimension of units, or channels
    parts: dict[Any, Any] = field(default_factory=dict)  # of a join, by the parent that each comes from
    sample: Tensor | None = None  # of the numbers that enter it, in an experiment
    phi: Callable[[Tensor], Tensor] | None = None  # of an activation
    reads: tuple[int, int] | None = None  # if not all units: the first, -1 if unknown, and how many
    unit_stride: int = 0  # of what it returned
    unit_count: int = 0
    units: int = 0  # how many there are, if `dead` is a number
    dead: float = NAN  # share of units that are 0 on the whole batch, of an activation that can be
    saturated: float = NAN  # share of outputs at a bound, of an activation that has one
    decided: float = 0.0  # of a softmax of what it returns: how near to 0 and 1 the probabilities are
    twice: bool = False  # a softmax takes probabilities that were made of what it returns
    over_time: float = NAN  # second moment of the gradient at the first step, over that at the best
    fan_in: float = NAN
    fan_out: float = NAN
    seen: float = NAN  # how many inputs feed an output on average; with padding fewer than fan_in
    weight: Tensor | None = None  # as it is kept: (out, in, *kernel), or with its units in dimension out_dim
    out_dim: int = 0
    area: int = 1  # of the kernel
    trained: bool = False
    identical: bool = False  # all units have the same weights and biases
    copies: int = 0  # how many units, if not all, have the weights of another one, and its gradient
    orthogonal: bool = False
    largest: float = NAN  # absolute value of a weight
    weight_std: float = NAN
    weight_gradient: float = NAN  # second moment
    has_gradient: bool = False  # of its weights, be it NaN
    parameters: tuple[Tensor | None, ...] = ()  # what multiplies and what is added, if these are parameters

    # From here on all is for `graph.analyse` to say. "Total" is relative to what entered the first layer.
    activated: Any = None  # the activation that follows and shares the row of the table, else the call itself
    activation: str = ""  # its name, or "norm"
    gain: float = 1.0  # that it calls for
    is_row: bool = True  # of the table
    depth: int = 0  # how many sources are among its ancestors
    fed: list[Any] = field(default_factory=list)  # the sources and inputs that feed it, none in between
    arriving: list[float] = field(default_factory=list)  # second moments, as the next layers receive it
    norm_next: bool = False  # a norm comes before the next weights
    bypassed: bool = False  # another path leads around, up to a sum or product
    last: bool = True  # no weights come after
    gated: bool = False  # what it returns goes on through a factor that is small on purpose, since it learns
    recurrent: bool = False  # some call of its weight takes what another has returned
    start: Moments | None = None  # what entered the first layer, or the first after a norm
    total: float = 1.0  # second moment
    total_varying: float = 1.0  # its part that varies over the batch
    growth: float = NAN  # second moment after the activation, over that of the input
    laws: list[str] = field(default_factory=list)  # that the weights follow

    @property
    def is_meeting(self) -> bool:
        """Whether it takes what comes from several calls."""
        return self.role in ("sum", "join", "other")

    @property
    def is_source(self) -> bool:
        """Whether the size of what it returns is up to its parameters."""
        weighted = self.role in ("layer", "composite")
        return weighted or (self.role == "norm" and any(p is not None for p in self.parameters))

    @property
    def hands_on(self) -> list["Call"]:
        """The sources and inputs whose signal it hands on; of a source itself."""
        return [self] if self.is_source or not self.parents else self.fed

    @property
    def feeders(self) -> list["Call"]:
        """The sources that feed it, with none in between."""
        return [n for n in self.fed if n.is_source]

    @property
    def bias(self) -> Tensor | None:
        """The parameter that is added to what it returns."""
        return self.parameters[1] if len(self.parameters) > 1 else None

    def follows(self, other: "Call") -> bool:
        """Whether the other leads to it, or is it."""
        return bool(self.ancestors >> other.index & 1)

    @property
    def wanted_std(self) -> float:
        """Of the weights; NaN if their scale does not matter, as in front of a norm, or if no gain helps."""
        return self.gain / math.sqrt(self.seen) if self.seen > 0 and not self.norm_next else NAN

    @property
    def weight_ratio(self) -> float:
        """Their std over the wanted one."""
        return self.weight_std / self.wanted_std


def called(model: nn.Module, inputs: Any) -> Any:
    """Return the model's outputs on a tensor, a tuple or list of arguments, or a dict of keyword ones."""
    named = inputs if isinstance(inputs, Mapping) else {}
    positional = () if named else inputs if type(inputs) in (tuple, list) else (inputs,)
    with patch.object(CheckpointFunction, "apply", _as_is):
        return model(*positional, **named)


def _as_is(function: Callable, _: bool, *args: Any) -> Any:
    """Run what a reentrant checkpoint holds; without inputs to differentiate by, it passes nothing back."""
    with torch.set_grad_enabled(torch.is_grad_enabled() and any(x.requires_grad for x in tensors_in(args))):
        return function(*args)


def _demote_parts(parents: list[Call]) -> None:
    """Make activations that meet what they are made of, as in z * sigmoid(z), parts of a map of one's own."""
    for part in (p for p in parents if p.role == "activation"):
        chain = [part]
        while chain[-1].role == "activation":
            chain.append(chain[-1].parents[0])
        if chain[-1] in parents and part.numel == chain[-1].numel:
            for call in chain[:-1]:
                call.role = "other"


def _part(tensors: list[Tensor], origin: Call) -> Call:
    """Return what a join takes of one origin, be it several tensors, as a mean and a maximum of the same."""
    first, every = tensors[0], torch.cat([x.detach().flatten() for x in tensors])
    units = first.shape[origin.unit_dim] if -first.ndim <= origin.unit_dim < first.ndim else 1
    return Call("part", entered=measure.moments(every, 0), taken=every.numel(), taken_units=units)


class Recorder(TorchFunctionMode):
    """Sees every call on tensors, and notes what comes out and, later, the gradient that comes back."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self._notes, self._looks = _NOTES, True  # what is noted of calls, and whether their weights matter
        self.seen: set[int] = set()  # the ids of the parameters whose values any call took
        self._model = model
        self._modules = {id(module): name for name, module in model.named_modules()}
        self._parameters = {id(p): name for name, p in model.named_parameters()}
        self.added: dict[str, float] = {}  # parameters that are added, in units of what they are added to
        self.factors: dict[str, tuple[float, Call]] = {}  # that multiply: root mean square, and which call's
        self.offsets: set[str] = set()  # parameters that are added as biases are
        self.sequences: list[tuple[Call, Tensor, int]] = []  # what recurrent modules take, dimension of time
        self._origin = WeakIdKeyDictionary()  # the call that a tensor comes from
        self._stack = [(model, 0)]  # the modules that run, and how many calls there were before each

    def run(self, inputs: Any) -> Any:
        """Return the model's outputs, and note all that happens."""
        for x in tensors_in(inputs):
            call = self._add(Call("input", layer="inputs"), [x])
            call.left = measure.moments(x, 0)
        enter = register_module_forward_pre_hook(lambda m, _: self._stack.append((m, len(self.calls))))
        leave = register_module_forward_hook(self._leave, always_call=True)
        with enter, leave, self:
            return called(self._model, inputs)

    def trace(self, function: Callable[..., tuple], *args: Any) -> tuple:
        """Return function(*args), and which calls lead to the first tensor of that, as bits."""
        self.calls, self._notes, self._looks = [*self.calls], {}, False
        with self:
            result = function(*args)
        return result, getattr(self._origin.get(result[0]), "ancestors", 0)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Call the function, and note it: as a row of the table, or as one that hands the signal on."""
        kwargs = kwargs or {}
        if any(map(is_functorch_wrapped_tensor, tensors_in((args, kwargs)))):
            return func(*args, **kwargs)  # inside torch.func.vmap or grad, where no number can be read
        name = getattr(func, "__name__", "").strip("_")
        if name in words.CELLS and torch.is_grad_enabled():
            args = with_leaf(self._origin, args)
        result = self._call(func, name, args, kwargs)
        if name.startswith("new_") or name.endswith("_like"):
            return result  # takes the argument's shape, not its values
        output = measure.first_floating(result)
        call = Invocation(func, name, args, kwargs, result, output)
        if name == "setitem":
            self._hand_on(call, args[0])
        elif next(tensors_in(result), None) is not None:  # else it only asks for a shape or type
            note = self._notes.get(name)
            if output is None or note is None or not note(self, call):
                self._hand_on(call, result)
            if self._looks:
                self._note_softmax(call)
                # A view of a parameter is no use of it.
                used = {self._parameter(x) for x in tensors_in((args, kwargs))} - {None}
                self.seen |= {id(p) for p in used if output is None or output._base is not p}
        return result

    def _call(self, func: Callable, name: str, args: tuple, kwargs: dict) -> Any:  # noqa: ARG002
        return func(*args, **kwargs)

    def _note_layer(self, call: Invocation) -> bool:
        weight = call.argument("weight", 2 if call.name == "bilinear" else 1)
        fits = weight.numel() > 0 and not self._is_made(weight)
        return fits and self._add_layer(call, call.argument("input", 0), weight)

    def _is_made(self, weight: Tensor) -> bool:
        """Return whether a weight is made from a signal: what takes it is a product, and no layer."""
        return weight in self._origin and self._parameter(weight) is None

    def _note_product(self, call: Invocation) -> bool:
        """Note a product of which just one factor is a parameter."""
        factors = list(tensors_in((call.args, call.keywords)))
        if call.name == "einsum" and not (len(factors) == 2 and isinstance(call.args[0], str)):
            return False
        pair = factors[-2:]
        owned = [t.ndim > 1 and t.numel() > 0 and self._parameter(t) is not None for t in pair]
        return sum(owned) == 1 and self._add_layer(call, *(pair if owned[1] else pair[::-1]))

    def _note_known(self, call: Invocation) -> bool:
        """Note a norm, a recurrent or attention module, or an activation of what came in."""
        name, x = call.name, call.argument("input", 0)
        if x not in self._origin:
            return False
        if name in words.NORMS:
            row = self._add_row("norm", name, self._place(name), x, call.output)
            row.parameters = tuple(self._parameter(call.keywords.get(key)) for key in ("weight", "bias"))
            row.largest = NAN if row.parameters[0] is None else measure.largest(row.parameters[0])
        elif name in words.COMPOSITES:
            time_first = call.output.ndim > 2 and call.args[-1] is not True  # the last says batch_first
            row = self._add_row("composite", name, self._place(name), x, call.output, int(time_first))
            self._origin.update(dict.fromkeys(tensors_in(call.result), row))
            if name in words.CELLS and x.ndim == 3 and x.requires_grad:
                self.sequences.append((row, x, 1 - time_first))
        else:
            name = "relu6" if call.keywords.get("min_val") == 0 else name  # nn.ReLU6 calls hardtanh
            self._add_activation(name, as_function(call), x, call.output)
        return True

    def _note_spelling(self, call: Invocation) -> bool:
        """Note an activation that is written in other functions."""
        terms = [z for z in tensors_in(call.args) if z in self._origin]
        straight = (z for z in terms if self._origin[z].role in ("layer", "norm", "sum"))
        found = next(((z, phi) for z in straight if (phi := recognized(z, call.output))), None)
        if found is None:
            return False
        for part in map(self._origin.get, terms):  # the sigmoid in z * sigmoid(z) is only a part
            part.role = "other" if part.role == "activation" else part.role
        self._add_activation(found[1].name, found[1].function, found[0], call.output)
        return True

    def _note_softmax(self, call: Invocation) -> None:
        """Note how sure a softmax is, at the call whose output it takes."""
        p, made_of = probabilities(call)
        for row in {self._origin[x] for x in made_of if x in self._origin}:
            row.decided = max(row.decided, measure.decided(p))
            row.twice |= row.role != "input" and takes_probabilities(call)

    def _leave(self, module: nn.Module, inputs: tuple, output: Any) -> None:
        """Note a norm written in elementary operations, which its class's name gives away."""
        _, before = self._stack.pop()
        elementary = all(call.role in ("sum", "other") for call in self.calls[before:])
        name = type(module).__name__
        norm = name.rstrip("123dD").endswith("Norm") or name in words.NORMS
        if norm and elementary and inputs and inputs[0] in self._origin and isinstance(output, Tensor):
            self._add_row("norm", name, self._modules.get(id(module), ""), inputs[0], output)

    def _add(self, call: Call, outputs: Iterable[Tensor]) -> Call:
        call.index = len(self.calls)
        call.ancestors = reduce(or_, (p.ancestors for p in call.parents), 1 << call.index)
        self.calls.append(call)
        for output in outputs:
            self._origin[output] = call
        return call

    def _add_row(self, role: str, name: str, layer: str, x: Tensor, y: Tensor, batch_dim: int = 0) -> Call:
        parents = (self._origin[x],) if x in self._origin else ()
        call = Call(role, name, layer, parents, module=self._stack[-1][0])
        dim = 1 if name in words.CONVOLUTIONS else words.NORMS.get(name, -1)
        call.unit_dim = dim if dim < y.ndim else -1  # of a vector that is normalized
        call.taken = x.numel()
        call.taken_units = x.shape[1 if name in words.CONVOLUTIONS else -1] if x.ndim else 1
        self._measure(call, y, batch_dim, x)
        if y.ndim and y.layout == torch.strided:
            call.unit_stride, call.unit_count = y.stride(call.unit_dim), y.shape[call.unit_dim]
        return self._add(call, [y])

    def _add_layer(self, call: Invocation, x: Tensor, weight: Tensor) -> bool:
        name, parameter = call.name, self._parameter(weight)
        held = weight if parameter is None else parameter
        own = parameter is None or self._stack[-1][0]._parameters.get("weight") is parameter
        layer = self._place(name) if own else self._parameters[id(held)].removesuffix(".weight")
        row = self._add_row("layer", "linear" if name in words.PRODUCTS else name, layer, x, call.output)
        bias = None if name in words.EMBEDDINGS else call.argument("bias", words.BIAS_PLACE.get(name))
        row.weight, row.parameters = held, (parameter, self._parameter(bias))
        if self._looks:
            self._look_at_weights(row, call, x, weight, bias)
        return True

    def _look_at_weights(self, row: Call, call: Invocation, x: Tensor, weight: Tensor, bias: Any) -> None:
        held, fits, convolution = row.weight, True, call.name in words.CONVOLUTIONS
        if call.name not in words.EMBEDDINGS:
            row.fan_in, row.fan_out, out_dim = measure.fans(call, x, weight)
            row.seen = measure.seen(call, x, weight) if convolution else row.fan_in
            turned = held.ndim == 2 and weight.stride() != held.stride()  # W.T
            row.out_dim = 1 - out_dim if turned else out_dim
            fits = row.out_dim < held.ndim  # not so where the call takes a view
        groups = call.argument("groups", 6) if convolution and row.out_dim == 0 else 1
        row.identical = fits and measure.has_identical_units(held, bias, row.out_dim, groups or 1)
        row.area = math.prod(held.shape[2:]) if convolution else 1
        # A weight norm's product has its own law.
        row.trained = row.parameters[0] is not None and held.requires_grad
        row.largest = measure.largest(held)
        row.orthogonal, row.weight_std = measure.is_orthogonal(held), math.sqrt(measure.second_moment(held))

    def _add_activation(self, name: str, phi: Callable[[Tensor], Tensor], x: Tensor, output: Tensor) -> None:
        row = self._add_row("activation", name, self._place(name), x, output)
        before, row.phi = row.parents[0], phi
        row.unit_dim, dim = before.unit_dim, before.unit_dim % max(output.ndim, 1)
        if x.ndim and x.numel() < before.numel:
            row.reads = self._read(x, before)
        if name in words.CUT_OFF and row.examples > 1 and output.ndim > 1:
            largest = output.detach().amax([d for d in range(output.ndim) if d != dim])
            row.units, row.dead = len(largest), (largest <= 0).double().mean().item()
        if name in words.ODD | words.SIGMOIDS - {"logsigmoid"}:
            lowest, values = -1 if name in words.ODD else 0, output.detach().double()
            distance = torch.minimum(values - lowest, 1 - values)
            row.saturated = (distance < AT_A_BOUND).double().mean().item()

    def _read(self, x: Tensor, before: Call) -> tuple[int, int] | None:
        """Return the first unit that a view takes of what a call returned, and how many; None if all."""
        dims = [d for d in range(x.ndim) if x.stride(d) == before.unit_stride and x.shape[d] > 1]
        count = x.shape[dims[0] if dims else before.unit_dim if before.unit_dim < x.ndim else -1]
        if count == before.unit_count:
            return None
        return x.storage_offset() // max(before.unit_stride, 1) if x._is_view() and dims else -1, count

    def _measure(self, call: Call, output: Tensor, batch_dim: int = 0, x: Tensor | None = None) -> None:
        if x is not None and x.is_floating_point():
            call.entered = measure.moments(x, 0)
        call.left, call.numel = measure.moments(output, batch_dim), output.numel()
        call.examples = output.shape[batch_dim] if output.ndim else 1
        if output.requires_grad:  # the hook is for this value, even if it changes in place
            second = measure.second_moment  # of None, in front of a quantized layer
            output.register_hook(lambda g: setattr(call, "gradient", NAN if g is None else second(g)))

    def _hand_on(self, call: Invocation, result: Any) -> None:
        """Hand the origin of the arguments on to the results; several origins meet in a call of their own."""
        tensors = [t for t in tensors_in((call.args, call.keywords)) if t in self._origin]
        floating = [t for t in tensors if t.is_floating_point()]
        parents = sorted({self._origin[t] for t in floating or tensors}, key=lambda parent: parent.index)
        results = [y for y in tensors_in(result) if y.dtype != torch.bool]
        if len(parents) > 1:
            _demote_parts(parents)
            role = "sum" if call.name in words.SUMS else "join" if call.name in words.JOINS else "other"
            meeting = Call(role, call.name, parents=tuple(parents), unit_dim=parents[-1].unit_dim)
            if role == "sum" and result.is_floating_point():
                self._measure(meeting, result)
            if role == "join":
                of = {p: [x for x in floating if self._origin[x] is p] for p in parents if floating}
                meeting.parts = {p: _part(tensors, p) for p, tensors in of.items()}
            self._add(meeting, results)
        elif parents:
            if call.name in words.SUMS and call.output is not None:
                self._note_constant(call)
            if call.name == "mul":
                self._note_factor(call.args, parents[0])
            for y in results:
                self._origin[y] = parents[0]

    def _note_constant(self, call: Invocation) -> None:
        """Note how large a parameter, or a part of it, is beside what it is added to, be it in place."""
        for x in call.args:
            p = self._parameter(x)
            if p is not None and x.ndim < 2:
                self.offsets.add(self._parameters[id(p)])
            if p is None or x.ndim < 2 or not x.numel() or id(p) in self.seen or call.name != "add":
                continue
            # Else it is a bias, the same at all positions.
            if call.output.numel() // x.numel() in call.output.shape[:2]:
                size = measure.second_moment(call.output.detach() - x.detach())
                self.added[self._parameters[id(p)]] = measure.second_moment(x) / size if size > 0 else 0.0

    def _note_factor(self, args: tuple, before: Call) -> None:
        for p in (p for x in args if (p := self._parameter(x)) is not None):
            rms = math.sqrt(measure.second_moment(p))
            self.factors[self._parameters[id(p)]] = rms, before
            before.gated |= rms < SMALL_FACTOR and p.requires_grad

    def _place(self, name: str) -> str:
        """Return the running module's name, and the function's with it unless the module is a leaf."""
        module = self._stack[-1][0]
        place = self._modules.get(id(module), "")
        inner = {child for child, _ in module.named_children()} - {"parametrizations"}
        if inner and not isinstance(module, nn.MultiheadAttention):
            return f"{place}.{name}" if place else name
        return place or type(module).__name__

    def _parameter(self, x: Any) -> Tensor | None:
        """Return the parameter that x is, or is a view of."""
        candidates = (x, x._base) if isinstance(x, Tensor) else ()
        return next((p for p in candidates if id(p) in self._parameters), None)


_NOTES = {  # how a function of torch is noted, by its name
    **dict.fromkeys(words.LAYERS, Recorder._note_layer),
    **dict.fromkeys(words.PRODUCTS, Recorder._note_product),
    **dict.fromkeys({*words.NORMS} | words.COMPOSITES | words.ACTIVATIONS, Recorder._note_known),
    **dict.fromkeys(words.SPELLINGS, Recorder._note_spelling),
}
