"""What passes through a network: every call of a layer, what it returns, and the gradient that comes back.

A `Recorder` sees one forward pass of any module without touching it; `propagate_back` adds the gradients, and
`restored` puts everything back that the pass changed. `diagnosis` draws the conclusions.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from course_utils import activations

NAN = math.nan

# Names of torch's functions, whether called in torch, in nn.functional or as a method.
_CONVOLUTIONS = {f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3)}
_EMBEDDINGS = {"embedding", "embedding_bag"}
_LAYERS = _CONVOLUTIONS | _EMBEDDINGS | {"linear", "bilinear"}
# Layers if just one factor is a parameter.
_PRODUCTS = {"matmul", "rmatmul", "mm", "bmm", "addmm", "baddbmm", "einsum"}
_NORMS = {"batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "local_response_norm"}
_NORMS |= {"normalize"}
_COMPOSITES = {"lstm", "gru", "rnn_tanh", "rnn_relu", "multi_head_attention_forward"}
_COMPOSITES |= {"lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"}
_ARITHMETIC = {"mul": "mul", "imul": "mul", "add": "add", "iadd": "add", "sub": "sub", "div": "div"}
_SUMS, _JOINS = {"add", "sub", "rsub"}, {"cat", "concat", "concatenate", "stack", "hstack", "vstack"}
SIGMOIDS, ODD = {"sigmoid", "hardsigmoid", "logsigmoid"}, {"tanh", "softsign", "hardtanh"}
_CUT_OFF = {"relu", "relu6"}  # exactly 0 on a whole interval: a unit may be dead
_ACTIVATIONS = {"leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish"}
_ACTIVATIONS |= {"softplus", "tanhshrink"} | _CUT_OFF | SIGMOIDS | ODD
_SPELLINGS = {"where", "div", "mul", "clamp", "clamp_min", "maximum"}  # other ways to write an activation
KINDS = {name.lower(): name for name in dir(nn)} | {"batchnorm": "BatchNorm", "instancenorm": "InstanceNorm"}
KINDS |= {"multiheadattentionforward": "MultiheadAttention", "rnntanh": "RNN", "rnnrelu": "RNN"}
ROWS = {"layer", "norm", "composite", "activation"}


@dataclass(eq=False)
class Weight:
    """A layer's weight as it is kept: `(out, in, *kernel)`, or with its units in dimension `out_dim`."""

    shape: tuple[int, ...]
    out_dim: int
    area: int  # of the kernel
    trained: bool
    identical: bool
    orthogonal: bool
    second_moment: Any
    largest: Any
    gradient: float = NAN  # second moment


@dataclass(eq=False)
class Node:
    """A call in the network's graph. Roles: input, layer, norm, composite, activation, sum, join, other.

    An activation that follows a row of another role becomes "folded" into it. `out` and `entered` hold the
    mean, and the parts of the second moment that are constant and that vary over the batch. Any stands for a
    tensor that becomes a float, or a list of them, once the model has run.
    """

    role: str
    name: str = ""  # of the torch function
    layer: str = ""
    parents: tuple[int, ...] = ()
    units: int = -1  # the dimension of units, or channels
    batch: int = 0
    numel: int = 0
    out: Any = (NAN,) * 3
    entered: Any = (NAN,) * 3
    gradient: Any = NAN
    off: Any = (NAN, NAN)  # shares of dead units and of saturated outputs
    width: int = 0  # how many units, where `off` has a share of dead ones
    phi: Callable[[Tensor], Tensor] = torch.clone
    part: tuple[int, int] | None = (
        None  # an activation that reads only some units: the first (or -1), how many
    )
    weight: Weight | None = None
    module: nn.Module | None = None
    held: tuple[Tensor, ...] = ()  # the parameters of the call
    added: tuple[Tensor, ...] = ()  # a norm: those of them that are added
    alike: bool = False  # a sum: its terms have the same shape
    fan_in: float = NAN
    fan_out: float = NAN
    # What follows is known once all calls are.
    index: int = 0
    end: Any = None  # the activation that follows, else the node itself
    follows: str = ""
    gain: float = 1.0
    received: list[float] = field(default_factory=list)  # second moments as the next layers receive it
    normalized: bool = False  # a norm comes before the next weights
    bypassed: bool = False  # another path leads around, up to a sum or product
    last: bool = True  # no weights come after
    signal: float = 1.0  # second moment after it, relative to the first layer's input
    varying: float = 1.0  # the same for the part that varies over the batch
    moment: float = NAN
    entered_moment: float = NAN
    growth: float = NAN
    weight_std: float = NAN
    wanted_std: float = NAN
    ratio: float = NAN
    laws: list[str] = field(default_factory=list)


def second_moment(x: Tensor) -> Tensor:
    """Return the mean square, accumulated in float64: right from 1e-150 to 1e150."""
    numel, x = x.numel(), x.coalesce().values() if x.is_sparse else x.detach()
    longest = max(x.shape, default=1)
    # In pieces of 2 MB, as each is copied to float64.
    pieces = x.split(max(1, 2**18 * longest // numel), x.shape.index(longest)) if numel > 2**18 else (x,)
    return sum(torch.linalg.vector_norm(piece, dtype=torch.float64).square() for piece in pieces) / numel


def _quick_second_moment(x: Tensor) -> Tensor:
    """Return the mean square to six digits, three times faster where no square is far out."""
    if x.dtype == torch.float32 and x.device.type == "cpu" and not x.is_sparse:
        norm = torch.linalg.vector_norm(x.detach()).double()
        if 1e-12 < norm / math.sqrt(max(x.numel(), 1)) < 1e12:
            return norm.square() / x.numel()
    return second_moment(x)


def _moments(x: Tensor, batch_dim: int) -> Tensor:
    """Return the mean, and the second moment's parts that are constant and that vary over the batch."""
    x = x.detach() if x.ndim else x.detach()[None]
    if not x.numel():
        return x.new_full((3,), NAN)
    mean = x.mean(batch_dim, dtype=torch.float64)
    constant = mean.square().mean()
    varying = (second_moment(x) - constant).clamp_(min=0)  # rounding may leave -1e-16
    return torch.stack([mean.mean(), constant, varying])


def _sample(x: Tensor, limit: int = 2**18) -> Tensor:
    """Return a vector of at most `limit` evenly spaced entries, in float64."""
    steps, sizes = [1] * x.ndim, list(x.shape)
    while math.prod(sizes) > limit:
        i = sizes.index(max(sizes))
        steps[i] += 1
        sizes[i] = -(-x.shape[i] // steps[i])
    return x.detach()[tuple(slice(None, None, step) for step in steps)].flatten().double()


def tensors_in(values: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested tuples, lists, mappings and dataclasses, in order."""
    if isinstance(values, Tensor):
        yield values
        return
    if dataclasses.is_dataclass(values) and not isinstance(values, type | Mapping):
        values = vars(values)
    values = values.values() if isinstance(values, Mapping) else values
    for value in values if isinstance(values, Iterable) and not isinstance(values, str) else ():
        if isinstance(value, Tensor | tuple | list | Mapping) or dataclasses.is_dataclass(value):
            yield from tensors_in(value)


def _fans(name: str, x: Tensor, weight: Tensor, output: Tensor, args: tuple, kwargs: dict) -> tuple:
    """Return fan_in, fan_out and the dimension of units in `weight`; of strides only fan_in takes account."""
    if name == "einsum":
        terms, result = args[0].replace(" ", "").replace(".", "").split("->")
        first, second = terms.split(",")
        own, other = (second, first) if list(tensors_in(args))[-1] is weight else (first, second)
        kept = [i for i, letter in enumerate(own) if letter in result and letter not in other]
        summed = [i for i, letter in enumerate(own) if letter not in result]
        fan_in = math.prod(weight.shape[i] for i in summed)
        return fan_in, math.prod(weight.shape[i] for i in kept), min(kept, default=0)
    if name in _PRODUCTS:
        right = list(tensors_in((args, kwargs)))[-1] is weight
        return (*weight.shape[-2:], weight.ndim - 1) if right else (*weight.shape[:-3:-1], weight.ndim - 2)
    if name not in _CONVOLUTIONS:
        return math.prod(weight.shape[1:]), weight.shape[0], 0
    n, (first, second, *kernel) = weight.ndim - 2, weight.shape
    if "transpose" not in name:
        return second * math.prod(kernel), first * second // x.shape[-1 - n] * math.prod(kernel), 0
    stride = kwargs.get("stride", args[3] if len(args) > 3 else 1)
    stride = stride if isinstance(stride, tuple | list) else (stride,) * n
    reached = math.prod(max(k / s, 1) for k, s in zip(kernel, stride, strict=True))
    return first * second // output.shape[-1 - n] * reached, second * math.prod(kernel), 1


def _identical_units(weight: Tensor, bias: Tensor | None, out_dim: int) -> bool:
    units = weight.detach().movedim(out_dim, 0)
    if len(units) < 2 or not torch.equal(units[0], units[1]):
        return False
    return bool((units == units[:1]).all()) and (bias is None or bool((bias == bias[0]).all()))


def _orthogonal(weight: Tensor) -> bool:
    """Return whether eight of the rows, or of the columns if these are fewer, are orthogonal."""
    if weight.ndim < 2:
        return False
    matrix = weight.detach().flatten(1)
    matrix = (matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T)[:8].double()
    limit = 1e-4 * matrix[0] @ matrix[0]
    if len(matrix) < 2 or (matrix[0] @ matrix[1]).abs() >= limit:
        return False
    return bool((matrix @ matrix.T).fill_diagonal_(0).abs().max() < limit)


class Recorder(TorchFunctionMode):
    """Sees every call on tensors, and notes what comes out and, later, the gradient that comes back.

    What a call changes for good is added to `altered`, the list that `restored` yields.
    """

    def __init__(self, model: nn.Module, altered: list[tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.nodes: list[Node] = []
        self.seen: set[int] = set()  # the ids of the parameters whose values any call took
        self.weights: dict[int, tuple[Tensor, Weight]] = {}  # the tensor is kept lest its id be used again
        self._model, self._altered = model, altered
        self._modules = {id(module): name for name, module in model.named_modules()}
        self._parameters = {id(p): name for name, p in model.named_parameters()}
        self._origin = WeakIdKeyDictionary()  # the index of the node that a tensor comes from
        self._known = WeakIdKeyDictionary()  # a tensor's version and moments
        self._stack: list[tuple[nn.Module, int]] = []
        self._arithmetic: dict[int, set[str]] = {}  # what a parameter and a tensor that came in went into

    def run(self, inputs: Any) -> Any:
        """Return the model's outputs on a tensor, a tuple or list of arguments, or a dict of keyword ones."""
        named = inputs if isinstance(inputs, Mapping) else {}
        positional = () if named else inputs if type(inputs) in (tuple, list) else (inputs,)
        for x in tensors_in(inputs):
            self._add(Node("input", layer="inputs"), [x])
        hooks = (
            register_module_forward_pre_hook(lambda module, _: self._stack.append((module, len(self.nodes)))),
            register_module_forward_hook(self._leave, always_call=True),
        )
        try:
            with self:
                return self._model(*positional, **named)
        finally:
            for hook in hooks:
                hook.remove()

    def _leave(self, module: nn.Module, inputs: tuple, output: Any) -> None:
        """Note a norm written in elementary operations, which its class's name gives away."""
        _, before = self._stack.pop()
        elementary = all(node.role in ("sum", "other") for node in self.nodes[before:])
        norm = type(module).__name__.endswith("Norm") and any(x in self._origin for x in inputs[:1])
        if norm and elementary and isinstance(output, Tensor):
            place = self._modules.get(id(module), "")
            node = self._note("norm", type(module).__name__, place, inputs[0], output)
            used = {p: self._arithmetic.get(id(p)) for p in self._owned(module._parameters.values())}
            node.added = tuple(p for p, names in used.items() if names == {"add"})
            node.held = (*(p for p, names in used.items() if names == {"mul"}), *node.added)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").strip("_")
        if name in _EMBEDDINGS and kwargs.get("max_norm") is not None:  # the call will shrink long rows
            self._altered.append((args[1], args[1].detach().clone()))
        result = func(*args, **kwargs)
        if name.startswith("new_") or name.endswith("_like"):
            return result  # takes the argument's shape, not its values
        self._see(name, args, kwargs, result)
        if name == "setitem":
            self._pass(name, args, kwargs, args[0])
        elif isinstance(result, Tensor | tuple | list):
            output = next((y for y in tensors_in(result) if y.is_floating_point()), None)
            if output is None or not self._row(func, name, args, kwargs, result, output):
                self._pass(name, args, kwargs, result)
        return result

    def _see(self, name: str, args: tuple, kwargs: dict, result: Any) -> None:
        """Note which parameters a call takes, unless it only asks for their shape or type."""
        if name != "setitem" and next(tensors_in(result), None) is None:
            return
        owned = self._owned(tensors_in((args, kwargs)))
        self.seen.update(map(id, owned))
        if name in _ARITHMETIC:
            known = any(isinstance(x, Tensor) and x in self._origin for x in args)
            for p in owned:
                self._arithmetic.setdefault(id(p), set()).add(_ARITHMETIC[name] if known else "constant")

    def _row(self, func: Callable, name: str, args: tuple, kwargs: dict, result: Any, output: Tensor) -> bool:
        """Note a call that makes a row of the table, or return False."""
        x = args[0] if args else kwargs.get("input")
        known = isinstance(x, Tensor) and x in self._origin
        if name in _LAYERS:
            weight = kwargs["weight"] if "weight" in kwargs else args[2 if name == "bilinear" else 1]
            if not weight.numel():
                return False
            self._layer(name, x, weight, output, args, kwargs)
        elif name in _PRODUCTS and (factors := self._factors((*args, *kwargs.values()))):
            self._layer(name, *factors, output, args, kwargs)
        elif known and name in _NORMS:
            node = self._note("norm", name, self._place(name), x, output)
            node.units, node.added = -1 if name[0] in "lr" else 1, self._owned([kwargs.get("bias")])
            node.held = (*self._owned([kwargs.get("weight")]), *node.added)
        elif known and name in _COMPOSITES:  # either may keep time in front of the batch
            packed = len(args) > 1 and isinstance(args[1], Tensor) and not args[1].is_floating_point()
            batch_first = output.ndim < 3 or packed or args[-1] is True
            self._note("composite", name, self._place(name), x, output, int(not batch_first))
            for y in tensors_in(result):
                self._origin[y] = len(self.nodes) - 1
        elif known and name in _ACTIVATIONS:
            name = "relu6" if kwargs.get("min_val") == 0 else name  # nn.ReLU6 calls hardtanh
            options = {key: value for key, value in kwargs.items() if key != "input"}
            phi = lambda z: func(z, *args[1:], **options)  # noqa: E731
            if name == "prelu":  # one slope a channel
                phi = activations.leaky_relu(_sample(kwargs.get("weight", args[-1])).mean().item())
            if name == "rrelu" and kwargs.get("training"):  # the RMS of a slope that is drawn anew each time
                low, high = kwargs.get("lower", 1 / 8), kwargs.get("upper", 1 / 3)
                phi = activations.leaky_relu(math.sqrt((low * low + low * high + high * high) / 3))
            self._activation(name, phi, x, output)
        elif name in _SPELLINGS and not func.__name__.endswith("_"):
            found = next(filter(None, (self._recognize(z, output) for z in tensors_in(args))), None)
            if found:
                for t in tensors_in(args):  # the sigmoid in z * sigmoid(z) is only a part
                    part = self.nodes[self._origin.get(t, 0)]
                    part.role = "other" if part.role == "activation" else part.role
                self._activation(*found, output)
            return found is not None
        else:
            return False
        return True

    def _pass(self, name: str, args: tuple, kwargs: dict, result: Any) -> None:
        """Hand the origin of the arguments on to the results; several origins meet in a node of their own."""
        tensors = [t for t in tensors_in((args, kwargs)) if t in self._origin]
        floating = [t for t in tensors if t.is_floating_point()]
        parents = sorted({self._origin[t] for t in floating or tensors})
        results = [y for y in tensors_in(result) if y.dtype != torch.bool]
        if len(parents) > 1:
            role = "sum" if name in _SUMS else "join" if name in _JOINS else "other"
            node = Node(role, parents=tuple(parents), units=self.nodes[parents[-1]].units)
            if role == "sum" and result.is_floating_point():
                self._measure(node, result)
                node.alike = len(tensors) == 2 and tensors[0].shape == tensors[1].shape
            self._add(node, results)
        elif parents:
            for y in results:
                self._origin[y] = parents[0]

    def _add(self, node: Node, outputs: Iterable[Tensor]) -> Node:
        self.nodes.append(node)
        for output in outputs:
            self._origin[output] = len(self.nodes) - 1
        return node

    def _note(self, role: str, name: str, layer: str, x: Tensor, output: Tensor, batch_dim: int = 0) -> Node:
        node = Node(role, name, layer, (self._origin[x],) if x in self._origin else (), module=self._module())
        if x.is_floating_point():
            node.entered = self._moments(x, 0)
        self._measure(node, output, batch_dim)
        return self._add(node, [output])

    def _measure(self, node: Node, output: Tensor, batch_dim: int = 0) -> None:
        node.out, node.numel = self._moments(output, batch_dim), output.numel()
        node.batch = output.shape[batch_dim] if output.ndim else 1
        folded = node.role == "activation" and self.nodes[node.parents[0]].role in ROWS
        if output.requires_grad and not folded:  # the hook belongs to this value, even if it changes in place
            output.register_hook(lambda g: setattr(node, "gradient", _quick_second_moment(g)))

    def _moments(self, x: Tensor, batch_dim: int) -> Tensor:
        """Return the moments, computed once for a layer's output and the next one's input."""
        version = None if x.is_inference() else x._version, batch_dim
        if self._known.get(x, (None,))[0] != version:
            self._known[x] = version, _moments(x, batch_dim)
        return self._known[x][1]

    def _module(self) -> nn.Module:
        return self._stack[-1][0] if self._stack else self._model

    def _place(self, name: str) -> str:
        """Return the running module's name, and the function's with it unless the module is a leaf."""
        module = self._module()
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

    def _factors(self, args: tuple) -> tuple[Tensor, Tensor] | None:
        """Return the two factors of a product, the one that is a parameter last, if just one of them is."""
        if isinstance(args[0], str) and (args[0].count(",") != 1 or "->" not in args[0]):
            return None  # an einsum of other than two factors
        pair = list(tensors_in(args))[-2:]
        owned = [t.ndim > 1 and t.numel() > 0 and self._parameter(t) is not None for t in pair]
        terms = args[0].split("->")[0].split(",") if isinstance(args[0], str) else ("", "")
        if sum(owned) != 1 or "..." in terms[owned[1]]:  # its own dimensions need names
            return None
        return tuple(pair if owned[1] else pair[::-1])

    def _layer(self, name: str, x: Tensor, weight: Tensor, output: Tensor, args: tuple, kwargs: dict) -> None:
        parameter, module = self._parameter(weight), self._module()
        held = weight if parameter is None else parameter
        own = parameter is None or module._parameters.get("weight") is parameter
        layer = self._place(name) if own else self._parameters[id(held)].removesuffix(".weight")
        node = self._note("layer", "linear" if name in _PRODUCTS else name, layer, x, output)
        node.units, out_dim, bias = (1 if name in _CONVOLUTIONS else -1), 0, None
        if name not in _EMBEDDINGS:
            node.fan_in, node.fan_out, out_dim = _fans(name, x, weight, output, args, kwargs)
            turned = held.ndim == 2 and weight.stride() != held.stride()  # W.T
            out_dim = 1 - out_dim if turned else out_dim
            place = {"addmm": 0, "baddbmm": 0, "bilinear": 3}.get(name, 2 if name in _LAYERS else len(args))
            bias = kwargs.get("bias", args[place] if place < len(args) else None)
        if id(held) not in self.weights:
            area = math.prod(held.shape[2:]) if name in _CONVOLUTIONS else 1
            fits = name not in _EMBEDDINGS and out_dim < held.ndim  # not so where the call takes a view
            same = fits and _identical_units(held, bias, out_dim)
            trained = parameter is not None and held.requires_grad  # a weight norm's product has its own law
            known = held.shape, out_dim, area, trained, same
            low, high = torch.aminmax(held.detach())
            moment, largest = _quick_second_moment(held), torch.maximum(-low, high)
            self.weights[id(held)] = held, Weight(*known, _orthogonal(held), moment, largest)
        node.weight, node.held = self.weights[id(held)][1], self._owned((held, bias))

    def _recognize(self, z: Tensor, output: Tensor) -> tuple[str, Callable[[Tensor], Tensor], Tensor] | None:
        """Return the activation (name, function, input) that maps z, straight from a layer, to the output."""
        straight = z in self._origin and self.nodes[self._origin[z]].role in ("layer", "norm", "sum")
        if not straight or z.shape != output.shape:
            return None
        before, after = _sample(z, 1000), _sample(output, 1000)
        negative = before < 0
        if not negative.any() or negative.all():
            return None
        slope = (after[negative] / before[negative]).median().item()
        candidates = [activations.relu, activations.softsign, activations.silu]
        candidates += [activations.leaky_relu(slope)] if 0 < slope < 1 else []
        rounding = 8 * torch.finfo(output.dtype).eps
        matches = (phi for phi in candidates if torch.allclose(phi(before), after, rounding, 0))
        return next(((phi.name, phi.function, z) for phi in matches), None)

    def _activation(self, name: str, phi: Callable[[Tensor], Tensor], x: Tensor, output: Tensor) -> None:
        node = self._note("activation", name, self._place(name), x, output)
        node.units, node.phi = self.nodes[node.parents[0]].units, phi
        if x.ndim and x.numel() < self.nodes[node.parents[0]].numel:
            first = x.storage_offset() // max(x.stride(node.units), 1) if x._is_view() else -1
            node.part = first, x.shape[node.units]
        dead = saturated = torch.full((), NAN, dtype=torch.float64, device=output.device)
        if name in _CUT_OFF and node.batch > 1:
            others = [d for d in range(output.ndim) if d != node.units % output.ndim]
            dead = (output.detach().amax(others) <= 0).double().mean()
            node.width = output.shape[node.units]
        if name in ODD | SIGMOIDS - {"logsigmoid"}:
            sample = _sample(output)
            saturated = ((sample < (-0.97 if name in ODD else 0.03)) | (sample > 0.97)).double().mean()
        node.off = torch.stack([dead, saturated])


def check_model_and_inputs(model: nn.Module, inputs: Any) -> None:
    """Refuse what a Recorder cannot run: no module, a compiled one, inputs that are none or empty."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module; got {type(model).__name__}")
    compiled = any("_orig_mod" in m._modules or m._compiled_call_impl for m in model.modules())
    if compiled or isinstance(model, torch.jit.ScriptModule):
        raise TypeError(f"pass the model before it is compiled or scripted; got {type(model).__name__}")
    if not isinstance(inputs, Tensor | tuple | list | Mapping):
        raise TypeError(
            "inputs must be a tensor, a tuple or list of positional arguments, or a dict of keyword ones; "
            f"got {type(inputs).__name__}"
        )
    shapes = [tuple(x.shape) for x in tensors_in(inputs)]
    if shapes and not any(map(math.prod, shapes)):
        raise ValueError(f"inputs must hold at least one example; got shape {shapes[0]}")


def is_expanded(x: Tensor) -> bool:
    """Return whether several elements of a tensor are one number in memory."""
    strided = x.layout == torch.strided
    return strided and any(size > 1 and not step for size, step in zip(x.shape, x.stride(), strict=True))


@contextmanager
def restored(model: nn.Module, inputs: Any) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Put everything back that a forward pass may change, and what is added to the list that is yielded."""
    modules = list(model.modules())
    containers = [vars(module) for module in modules]
    containers += [v for attributes in containers for v in attributes.values() if isinstance(v, dict | list)]
    contents = [(container, container.copy()) for container in containers]
    held = [t for m in modules for t in (*m._buffers.values(), *vars(m).values()) if isinstance(t, Tensor)]
    kept = {id(tensor): tensor for tensor in held}
    altered = [(tensor, tensor.detach().clone()) for tensor in kept.values()]
    used = {t.device.index for t in (*model.parameters(), *kept.values(), *tensors_in(inputs)) if t.is_cuda}
    generators = [torch.default_generator, *(torch.cuda.default_generators[index] for index in used)]
    states = [generator.get_state() for generator in generators]
    try:
        yield altered
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        for container, content in contents:
            container.clear()
            container.extend(content) if isinstance(container, list) else container.update(content)
        for tensor, values in reversed(altered):
            if not is_expanded(tensor):  # what nothing can write to in place has not changed
                tensor.data.copy_(values)  # .data, lest a graph that waits for its backward pass take offence


def cloned(values: Any, differentiable: bool) -> tuple[Any, list[Tensor]]:
    """Return the inputs with every tensor cloned, and the floating ones as leaves if they are to be."""
    leaves: list[Tensor] = []

    def copied(value: Any) -> Any:
        if type(value) in (tuple, list):
            return type(value)(map(copied, value))
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*map(copied, value))
        if isinstance(value, Mapping):
            return {key: copied(item) for key, item in value.items()}
        if not isinstance(value, Tensor):
            return value
        copy = value.detach().clone()
        if not (value.is_floating_point() and (value.requires_grad or differentiable)):
            return copy
        leaves.append(copy.requires_grad_())
        return copy.clone()  # may be changed in place, unlike a leaf

    return copied(values), leaves


def propagate_back(root: Tensor, error: Tensor | None, leaves: list[Tensor]) -> dict[int, float]:
    """Propagate back; return the second moments of the leaves' gradients by id, and keep no gradient."""
    found: dict[int, Tensor] = {}
    if not leaves or not root.requires_grad:
        return {}

    def keep(leaf: Tensor, g: Tensor) -> Tensor | None:
        found[id(leaf)] = _quick_second_moment(g)
        return None if g.is_sparse else g.new_zeros(()).expand_as(g)  # stands for g, but takes no memory

    before = [leaf._backward_hooks for leaf in leaves]
    hooks = [leaf.register_hook(partial(keep, leaf)) for leaf in leaves]
    try:
        torch.autograd.grad(root, leaves, error, allow_unused=True)
    finally:
        for leaf, registered, hook in zip(leaves, before, hooks, strict=True):
            hook.remove()
            if registered is None:
                leaf._backward_hooks = None
    return {key: moment.item() for key, moment in found.items()}
