"""What passes through a network: every call of a layer, what it returns, and the gradient that comes back.

A `Recorder` sees one forward pass of any module without touching it, and writes down `Call`s; hooks add the
gradients on the way back. What follows from them is for `graph` to say.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from course_utils import activations
from course_utils.doctor import measuring as measure
from course_utils.doctor import vocabulary as words
from course_utils.doctor.measuring import NAN, UNKNOWN, Moments, tensors_in
from course_utils.doctor.thresholds import AT_A_BOUND

ROWS = {"layer", "norm", "composite", "activation"}  # the roles of calls that make rows of the table


@dataclass(eq=False)
class Weight:
    """A layer's weight as it is kept: `(out, in, *kernel)`, or with its units in dimension `out_dim`."""

    tensor: Tensor  # kept, lest its id be used again
    out_dim: int
    area: int  # of the kernel
    trained: bool
    identical: bool  # all units have the same weights and biases
    orthogonal: bool
    second_moment: float
    largest: float  # absolute value
    gradient: float = NAN  # second moment


@dataclass(eq=False)
class Call:
    """A call, what was recorded of it, and what the others tell about it.

    Roles: input, layer, norm, composite, activation, sum, join, other.
    """

    role: str
    function: str = ""  # of torch
    layer: str = ""  # the name of the module or parameter, with the number of the call from the second on
    parents: tuple[int, ...] = ()  # the calls whose outputs it takes
    module: nn.Module | None = None
    entered: Moments = UNKNOWN
    left: Moments = UNKNOWN
    gradient: float = NAN  # second moment, with respect to its output
    examples: int = 0
    numel: int = 0
    unit_dim: int = -1  # the dimension of units, or channels
    phi: Callable[[Tensor], Tensor] | None = None  # of an activation
    reads: tuple[int, int] | None = None  # if not all units: the first, -1 if unknown, and how many
    units: int = 0  # how many there are, if `dead` is a number
    dead: float = NAN  # share of units that are 0 on the whole batch, of an activation that can be
    saturated: float = NAN  # share of outputs at a bound, of an activation that has one
    weight: Weight | None = None
    fan_in: float = NAN
    fan_out: float = NAN
    parameters: tuple[Tensor, ...] = ()
    added: tuple[Tensor, ...] = ()  # those of a norm's parameters that are added
    same_shape: bool = False  # a sum of two terms of one shape

    # From here on all is for `graph.analyse` to say. "Total" is relative to what entered the first layer.
    index: int = 0
    activated: Any = None  # the activation that follows and shares the row of the table, else the call itself
    activation: str = ""  # its name, or "norm"
    gain: float = 1.0  # that it calls for
    is_row: bool = True  # of the table
    ancestors: int = 0  # the calls that lead to it, and itself, as bits
    arriving: list[float] = field(default_factory=list)  # second moments, as the next layers receive it
    norm_next: bool = False  # a norm comes before the next weights
    bypassed: bool = False  # another path leads around, up to a sum or product
    last: bool = True  # no weights come after
    start: Moments | None = None  # what entered the first layer, or the first after a norm
    total: float = 1.0  # second moment
    total_varying: float = 1.0  # its part that varies over the batch
    growth: float = NAN  # second moment after the activation, over that of the input
    weight_std: float = NAN
    wanted_std: float = NAN
    weight_ratio: float = NAN
    laws: list[str] = field(default_factory=list)  # that the weights follow


class Invocation(NamedTuple):
    """A function of torch with its arguments, what it returned, and the first floating tensor of that."""

    func: Callable
    name: str
    args: tuple
    keywords: dict
    result: Any
    output: Tensor | None

    def argument(self, name: str, place: int | None) -> Any:
        """Return an argument by its name, or else by its place; None if it was not given."""
        positional = self.args[place] if place is not None and place < len(self.args) else None
        return self.keywords.get(name, positional)


class Recorder(TorchFunctionMode):
    """Sees every call on tensors, and notes what comes out and, later, the gradient that comes back."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.seen: set[int] = set()  # the ids of the parameters whose values any call took
        self.weights: dict[int, Weight] = {}
        self._model = model
        self._modules = {id(module): name for name, module in model.named_modules()}
        self._parameters = {id(p): name for name, p in model.named_parameters()}
        self._origin = WeakIdKeyDictionary()  # the index of the call that a tensor comes from
        self._known = WeakIdKeyDictionary()  # a tensor's version and moments
        self._stack = [(model, 0)]  # the modules that run, and how many calls there were before each

    def run(self, inputs: Any) -> Any:
        """Return the model's outputs on a tensor, a tuple or list of arguments, or a dict of keyword ones."""
        named = inputs if isinstance(inputs, Mapping) else {}
        positional = () if named else inputs if type(inputs) in (tuple, list) else (inputs,)
        for x in tensors_in(inputs):
            self._add(Call("input", layer="inputs"), [x])
        enter = register_module_forward_pre_hook(lambda m, _: self._stack.append((m, len(self.calls))))
        with enter, register_module_forward_hook(self._leave, always_call=True), self:
            return self._model(*positional, **named)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Call the function, and note it: as a row of the table, or as one that hands the signal on."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").strip("_")
        result = func(*args, **kwargs)
        if name.startswith("new_") or name.endswith("_like"):
            return result  # takes the argument's shape, not its values
        output = next((y for y in tensors_in(result) if y.is_floating_point()), None)
        call = Invocation(func, name, args, kwargs, result, output)
        if name == "setitem":
            self._hand_on(call, args[0])
        elif next(tensors_in(result), None) is not None:  # else it only asks for a shape or type
            self.seen.update(map(id, self._owned(tensors_in((args, kwargs)))))
            note = _NOTES.get(name)
            if output is None or note is None or not note(self, call):
                self._hand_on(call, result)
        return result

    def _note_layer(self, call: Invocation) -> bool:
        weight = call.argument("weight", 2 if call.name == "bilinear" else 1)
        return weight.numel() > 0 and self._add_layer(call, call.argument("input", 0), weight)

    def _note_product(self, call: Invocation) -> bool:
        """Note a product of which just one factor is a parameter."""
        values = (*call.args, *call.keywords.values())
        if isinstance(values[0], str) and (values[0].count(",") != 1 or "->" not in values[0]):
            return False  # an einsum of other than two factors
        pair = list(tensors_in(values))[-2:]
        owned = [t.ndim > 1 and t.numel() > 0 and self._parameter(t) is not None for t in pair]
        terms = values[0].split("->")[0].split(",") if isinstance(values[0], str) else ("", "")
        if sum(owned) != 1 or "..." in terms[owned[1]]:  # its own dimensions need names
            return False
        return self._add_layer(call, *(pair if owned[1] else pair[::-1]))

    def _note_known(self, call: Invocation) -> bool:
        """Note a norm, a recurrent or attention module, or an activation of what came in."""
        name, x = call.name, call.argument("input", 0)
        if x not in self._origin:
            return False
        if name in words.NORMS:
            row = self._add_row("norm", name, self._place(name), x, call.output)
            row.unit_dim, row.added = words.NORMS[name], self._owned([call.keywords.get("bias")])
            row.parameters = (*self._owned([call.keywords.get("weight")]), *row.added)
        elif name in words.COMPOSITES:
            lengths = call.args[1] if len(call.args) > 1 else None  # of packed sequences; else it is floating
            packed = isinstance(lengths, Tensor) and not lengths.is_floating_point()
            time_first = not (call.output.ndim < 3 or packed or call.args[-1] is True)
            self._add_row("composite", name, self._place(name), x, call.output, int(time_first))
            for y in tensors_in(call.result):
                self._origin[y] = len(self.calls) - 1
        else:
            name = "relu6" if call.keywords.get("min_val") == 0 else name  # nn.ReLU6 calls hardtanh
            self._add_activation(name, _as_function(call), x, call.output)
        return True

    def _note_spelling(self, call: Invocation) -> bool:
        """Note an activation that is written in other functions."""
        terms = [z for z in tensors_in(call.args) if z in self._origin]
        straight = (z for z in terms if self.calls[self._origin[z]].role in ("layer", "norm", "sum"))
        found = next(((z, phi) for z in straight if (phi := _recognize(z, call.output))), None)
        if found is None:
            return False
        for term in terms:  # the sigmoid in z * sigmoid(z) is only a part
            part = self.calls[self._origin[term]]
            part.role = "other" if part.role == "activation" else part.role
        self._add_activation(found[1].name, found[1].function, found[0], call.output)
        return True

    def _leave(self, module: nn.Module, inputs: tuple, output: Any) -> None:
        """Note a norm written in elementary operations, which its class's name gives away."""
        _, before = self._stack.pop()
        elementary = all(call.role in ("sum", "other") for call in self.calls[before:])
        norm = type(module).__name__.endswith("Norm") and any(x in self._origin for x in inputs[:1])
        if norm and elementary and isinstance(output, Tensor):
            place = self._modules.get(id(module), "")
            self._add_row("norm", type(module).__name__, place, inputs[0], output)

    def _add(self, call: Call, outputs: Iterable[Tensor]) -> Call:
        self.calls.append(call)
        for output in outputs:
            self._origin[output] = len(self.calls) - 1
        return call

    def _add_row(self, role: str, name: str, layer: str, x: Tensor, y: Tensor, batch_dim: int = 0) -> Call:
        parents = (self._origin[x],) if x in self._origin else ()
        call = Call(role, name, layer, parents, self._stack[-1][0])
        if x.is_floating_point():
            call.entered = self._moments(x, 0)
        self._measure(call, y, batch_dim)
        return self._add(call, [y])

    def _add_layer(self, call: Invocation, x: Tensor, weight: Tensor) -> bool:
        name, parameter = call.name, self._parameter(weight)
        held = weight if parameter is None else parameter
        own = parameter is None or self._stack[-1][0]._parameters.get("weight") is parameter
        layer = self._place(name) if own else self._parameters[id(held)].removesuffix(".weight")
        row = self._add_row("layer", "linear" if name in words.PRODUCTS else name, layer, x, call.output)
        row.unit_dim, out_dim, bias = (1 if name in words.CONVOLUTIONS else -1), 0, None
        if name not in words.EMBEDDINGS:
            row.fan_in, row.fan_out, out_dim = measure.fans(call, x, weight)
            turned = held.ndim == 2 and weight.stride() != held.stride()  # W.T
            out_dim = 1 - out_dim if turned else out_dim
            bias = call.argument("bias", words.BIAS_PLACE.get(name))
        if id(held) not in self.weights:
            fits = name not in words.EMBEDDINGS and out_dim < held.ndim  # not so where the call takes a view
            identical = fits and measure.has_identical_units(held, bias, out_dim)
            area = math.prod(held.shape[2:]) if name in words.CONVOLUTIONS else 1
            trained = parameter is not None and held.requires_grad  # a weight norm's product has its own law
            size = measure.second_moment(held), torch.linalg.vector_norm(held.detach(), math.inf).item()
            orthogonal = measure.is_orthogonal(held)
            self.weights[id(held)] = Weight(held, out_dim, area, trained, identical, orthogonal, *size)
        row.weight, row.parameters = self.weights[id(held)], self._owned((held, bias))
        return True

    def _add_activation(self, name: str, phi: Callable[[Tensor], Tensor], x: Tensor, output: Tensor) -> None:
        row = self._add_row("activation", name, self._place(name), x, output)
        before, row.phi = self.calls[row.parents[0]], phi
        row.unit_dim, dim = before.unit_dim, before.unit_dim % max(output.ndim, 1)
        if x.ndim and x.numel() < before.numel:
            first = x.storage_offset() // max(x.stride(row.unit_dim), 1) if x._is_view() else -1
            row.reads = first, x.shape[row.unit_dim]
        if name in words.CUT_OFF and row.examples > 1:
            largest = output.detach().amax([d for d in range(output.ndim) if d != dim])
            row.units, row.dead = len(largest), (largest <= 0).double().mean().item()
        if name in words.ODD | words.SIGMOIDS - {"logsigmoid"}:
            lowest, values = -1 if name in words.ODD else 0, output.detach().double()
            distance = torch.minimum(values - lowest, 1 - values)
            row.saturated = (distance < AT_A_BOUND).double().mean().item()

    def _measure(self, call: Call, output: Tensor, batch_dim: int = 0) -> None:
        call.left, call.numel = self._moments(output, batch_dim), output.numel()
        call.examples = output.shape[batch_dim] if output.ndim else 1
        in_a_row = call.role == "activation" and self.calls[call.parents[0]].role in ROWS
        if output.requires_grad and not in_a_row:  # the hook is for this value, even if it changes in place
            output.register_hook(lambda g: setattr(call, "gradient", measure.second_moment(g)))

    def _moments(self, x: Tensor, batch_dim: int) -> Moments:
        """Return the moments, computed once for a layer's output and the next one's input."""
        version = None if x.is_inference() else x._version, batch_dim
        if self._known.get(x, (None,))[0] != version:
            self._known[x] = version, measure.moments(x, batch_dim)
        return self._known[x][1]

    def _hand_on(self, call: Invocation, result: Any) -> None:
        """Hand the origin of the arguments on to the results; several origins meet in a call of their own."""
        tensors = [t for t in tensors_in((call.args, call.keywords)) if t in self._origin]
        floating = [t for t in tensors if t.is_floating_point()]
        parents = sorted({self._origin[t] for t in floating or tensors})
        results = [y for y in tensors_in(result) if y.dtype != torch.bool]
        if len(parents) > 1:
            role = "sum" if call.name in words.SUMS else "join" if call.name in words.JOINS else "other"
            meeting = Call(role, parents=tuple(parents), unit_dim=self.calls[parents[-1]].unit_dim)
            if role == "sum" and result.is_floating_point():
                self._measure(meeting, result)
                meeting.same_shape = len(tensors) == 2 and tensors[0].shape == tensors[1].shape
            self._add(meeting, results)
        elif parents:
            for y in results:
                self._origin[y] = parents[0]

    def _place(self, name: str) -> str:
        """Return the running module's name, and the function's with it unless the module is a leaf."""
        module = self._stack[-1][0]
        place = self._modules.get(id(module), "")
        inner = {child for child, _ in module.named_children()} - {"parametrizations"}
        if inner and not isinstance(module, nn.MultiheadAttention):
            return f"{place}.{name}" if place else name
        return place or type(module).__name__

    def _parameter(self, x: Tensor) -> Tensor | None:
        """Return the parameter that x is, or is a view of."""
        return next((p for p in (x, x._base) if id(p) in self._parameters), None)

    def _owned(self, values: Iterable[Any]) -> tuple[Tensor, ...]:
        """Return the parameters among the values, and those of which they are views."""
        found = (self._parameter(x) for x in values if isinstance(x, Tensor))
        return tuple(p for p in found if p is not None)


_NOTES = {  # how a function of torch is noted, by its name
    **dict.fromkeys(words.LAYERS, Recorder._note_layer),
    **dict.fromkeys(words.PRODUCTS, Recorder._note_product),
    **dict.fromkeys({*words.NORMS} | words.COMPOSITES | words.ACTIVATIONS, Recorder._note_known),
    **dict.fromkeys(words.SPELLINGS, Recorder._note_spelling),
}


def _as_function(call: Invocation) -> Callable[[Tensor], Tensor]:
    """Return an activation as a function of one tensor, with one slope where they differ."""
    if call.name == "prelu":
        return activations.leaky_relu(call.argument("weight", 1).mean(dtype=torch.float64).item()).function
    options = {key: value for key, value in call.keywords.items() if key != "input"}
    return lambda z: call.func(z.clone(), *call.args[1:], **options)


def _recognize(z: Tensor, output: Tensor) -> activations.Activation | None:
    """Return the activation that maps z to the output, if z has entries of either sign."""
    if z.shape != output.shape:
        return None
    step = z.numel() // 1000 | 1  # odd, lest it meet one unit only
    before, after = (x.detach().flatten()[::step].double() for x in (z, output))
    negative = before < 0
    if not negative.any() or negative.all():
        return None
    slope = (after[negative] / before[negative]).median().item()
    known = [activations.relu, activations.softsign, activations.silu]
    known += [activations.leaky_relu(slope)] * (0 < slope < 1)
    rounding = 8 * torch.finfo(output.dtype).eps
    return next((phi for phi in known if torch.allclose(phi(before), after, rounding, 0)), None)
