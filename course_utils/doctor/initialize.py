"""One call that gives every layer of any model the law that its fan-in and what follows it call for."""

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import pandas as pd
import torch
from torch import Generator, Tensor, nn

from course_utils.doctor.defaults import described, fresh_parameters, same_law
from course_utils.doctor.diagnosis import printed
from course_utils.doctor.experiment import MEASURED, Laboratory, correct_gains
from course_utils.doctor.graph import analyse, branches
from course_utils.doctor.measuring import NAN, check_can_run, cloned, is_fixed, second_moment
from course_utils.doctor.recording import Call, Recorder
from course_utils.doctor.restoring import restored
from course_utils.doctor.thresholds import SAME_MAP
from course_utils.doctor.vocabulary import kind
from course_utils.initializers import constant_, normal_, orthogonal_

Fill = Callable[[Tensor, Generator | None], Any]


@dataclass(eq=False)
class Wish:
    """What one use of a parameter asks for: a row of the report, and the function that draws it."""

    law: str
    std: float
    fill_: Fill
    follows: str = ""
    fan_in: float = NAN
    gain: float = NAN
    layer: str = ""
    kind: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class Initialization:
    """What `initialize_` did: the law of each parameter that it drew, and why it left others alone.

    table: parameter, shape, layer, kind, follows (the activation, or "norm"), fan_in, gain, std (of one
    weight), law. left_alone: parameter, reason.
    """

    table: pd.DataFrame
    left_alone: pd.DataFrame

    def __repr__(self) -> str:
        head = f"{len(self.table)} parameters initialized, {len(self.left_alone)} left alone."
        return printed(head, 4, self.table, self.left_alone)


def initialize_(
    model: nn.Module,
    inputs: Any,
    *,
    overwrite: bool | Collection[str] = False,
    skip: Collection[str] = (),
    generator: Generator | None = None,
) -> Initialization:
    """Initialize `model` in place, each layer by its fan-in and what follows it, and return what was done.

    inputs: one batch, as for `diagnose`; only shapes and types matter, and who calls whom.
    Only what still follows torch's own law for its module is drawn anew: any other law somebody has set on
    purpose, or training has. overwrite: draw that, too; True, or the names of parameters or modules.
    skip: names of parameters or modules to leave alone in any case.
    Weights of layers: N(0, gain**2 / fan_in). The gain takes a second moment of 1 through what follows up to
    the next weights: measured with noise in the place of the layer's output, and by quadrature where that is
    a known activation; sqrt(2) for ReLU, 1.47 for GELU. It is critical at the origin for bounded functions
    (1 for tanh), and 1 before sigmoids (no gain helps), norms, and nothing. Where a product of what several
    layers return arrives too large, as in a dot product, those that return most share what makes it 1.
    fan_in: the inputs that an output sees on average: with padding fewer than the shape says.
    Residual branches: the last layer, or norm if that comes last, gets 1 / sqrt(N) of it, N being what all
    branches add to the second moment of the stream, measured on noise: experts that share the examples count
    as one branch, a gate at 0 as none. Weights that take what they returned before, over time: orthogonal.
    Biases: 0; norms: 1 and 0; embeddings: N(0, 1), smaller where rows are added
    up. Recurrent modules: orthogonal blocks over time, N(0, 1 /
    fan_in) for the inputs, an LSTM's forget gates bias 1. Attention: N(0, 1 / fan_in) for each projection.

    Trap: in plain stacks of GELU, SiLU or Mish the second moment of 1 is an unstable fixed point; what is off
    by 1 % grows by 1.08, 1.15 and 1.05 per layer. Beyond twenty or so, they need norms, residual branches or
    biases: `mean_field.critical_point` at q = 10 for GELU and Mish, at 30 for SiLU, holds a hundred layers.
    Deep plain stacks of softplus or sigmoids lose what depends on the input, whatever their gain.

    Left alone, with the reason: what was set on purpose, what is frozen or parametrized, what the pass did
    not use, what is tied and would need two laws at once (but for an embedding that is the last layer, too:
    N(0, 1 / width)), and what no rule here reads, such as a positional embedding that is added.
    Trap: weights that training has hardly moved still look like torch's own.
    Trap: a start that keeps sizes is not the best for every task. Biases of 0 make a network of odd functions
    odd, for targets that may be even; what is normalized right behind a layer gets a rate, not a size, from
    the layer's scale: `skip` what you know better.
    All else that the pass changes is put back. An error leaves the model as it was.

    Raises: TypeError or ValueError as `diagnose`, and for names that nothing has; whatever the model raises
    on `inputs`.
    Source: He et al. (2015) for the gain; Radford et al. (2019) for 1 / sqrt(N); Jozefowicz et al. (2015) for
    the forget gate.
    """
    check_can_run(model, inputs)
    parameters, wishes = dict(model.named_parameters()), _wishes_by_name(model, inputs)
    reasons = {name: _objection(name, p, wishes.get(name)) for name, p in parameters.items()}
    aliases: dict[Tensor, list[str]] = {}  # all the names of each parameter, several of one that is tied
    for name, p in model.named_parameters(remove_duplicate=False):
        aliases.setdefault(p, []).append(name)
    _check_names(aliases, skip, overwrite)
    torch_law = cache(fresh_parameters)
    for name in [name for name, why in reasons.items() if not why]:
        p = parameters[name]
        if _among(aliases[p], skip):
            reasons[name] = "skipped, as you asked"
        elif overwrite is not True and not _among(aliases[p], overwrite or ()):
            owners = [alias.rpartition(".") for alias in aliases[p]]
            fresh = [torch_law(model.get_submodule(owner)).get(leaf) for owner, _, leaf in owners]
            objections = [_intention(p, draws, wishes[name][0]) for draws in fresh]
            reasons[name] = "" if "" in objections else objections[0]
    plan = {name: wishes[name][0] for name, why in reasons.items() if not why}
    for name, original in _copies(parameters, plan).items():
        reasons[name] += f"; it was equal to {original}, which is drawn: copy that again"
    _write({parameters[name]: wish.fill_ for name, wish in plan.items()}, generator)
    shapes = {name: "×".join(map(str, parameters[name].shape)) for name in plan}
    rows = [{"parameter": name, "shape": shapes[name], **vars(wish)} for name, wish in plan.items()]
    columns = ["parameter", "shape", "layer", "kind", "follows", "fan_in", "gain", "std", "law"]
    alone = pd.DataFrame([item for item in reasons.items() if item[1]], columns=["parameter", "reason"])
    return Initialization(pd.DataFrame(rows, columns=columns), alone)


def _copies(parameters: Mapping[str, Tensor], plan: Collection[str]) -> dict[str, str]:
    """Return {name: the original} of parameters that are not planned, but equal to one that is."""
    keys = {name: (p.shape, second_moment(p)) for name, p in parameters.items() if p.ndim > 1}
    keys = {name: key for name, key in keys.items() if key[1] > 0}
    originals = {keys[name]: name for name in reversed(plan) if name in keys}
    pairs = {name: originals[key] for name, key in keys.items() if name not in plan and key in originals}
    return {name: one for name, one in pairs.items() if parameters[name].equal(parameters[one])}


def _objection(name: str, p: Tensor, wishes: list[Wish | None] | None) -> str:
    """Return why a parameter with these wishes, None if it is not used, is left alone, or ""."""
    if is_fixed(p):
        return "expanded, or made in inference mode: it cannot be written to"
    if not p.requires_grad:
        return "frozen: it does not require a gradient"
    if "parametrizations." in name:
        return "parametrized: the layer's weight is computed from it by a function that no rule here inverts"
    if wishes is None:
        return "not seen in use on these inputs"
    if not wishes or None in wishes:
        return "no rule here reads what the model does with it"
    first, text = wishes[0], "{0.law} (std {0.std:.3g}) in {0.layer}".format
    for w in wishes:
        if w.law != first.law or not math.isclose(w.std, first.std, rel_tol=SAME_MAP, abs_tol=1e-300):
            return f"tied: {text(first)}, but {text(w)}"
    return ""


def _intention(p: Tensor, fresh: Tensor | None, wish: Wish) -> str:
    """Return what somebody set on purpose: a law other than the wish's and torch's own, if it has one."""
    if fresh is not None and same_law(p, fresh):
        return ""
    law, own = described(p), "torch has no law of its own for it"
    if law == wish.law.replace("constant", "all"):
        return ""
    if fresh is not None:
        own = f"torch's own would be {described(fresh[0])}"
    return f"set on purpose: {law}; {own}"


def _check_names(aliases: Mapping[Tensor, list[str]], *given: bool | Collection[str]) -> None:
    """Raise TypeError for a name that is not in a list, and ValueError for one that no parameter has."""
    every = [alias for names in aliases.values() for alias in names]
    for names in given:
        if isinstance(names, str):
            raise TypeError(f"expected a list of names of parameters or modules; got the string {names!r}")
        for name in () if isinstance(names, bool) else names:
            if not _among(every, [name]):
                raise ValueError(f"no parameter and no module with parameters is called {name!r}")


def _among(aliases: Collection[str], names: Collection[str]) -> bool:
    return any(alias == name or alias.startswith(f"{name}.") for alias in aliases for name in names)


def _wishes_by_name(model: nn.Module, inputs: Any) -> dict[str, list[Wish | None]]:
    """Run the model; return what is asked of each parameter that it uses."""
    recorder, names = Recorder(model), {id(p): name for name, p in model.named_parameters()}
    with restored(model, inputs) as start:
        recorder.run(cloned(inputs, False)[0])
        nodes = analyse(recorder.calls)
        laboratory = Laboratory(nodes, model, inputs, start)
        correct_gains(laboratory)
        added = branches(nodes, laboratory.contributions(laboratory.wanted))
    wishes = {i: [] for i in recorder.seen}
    for node in nodes:
        for parameter, wish in _wishes(node, added.get(node, 1.0)):
            wishes.setdefault(id(parameter), []).append(wish)
            if wish:
                wish.layer, wish.kind = node.layer, kind(node.function)
    return {name: _settled(wishes[i]) for i, name in names.items() if i in wishes}


def _settled(wishes: list[Wish | None]) -> list[Wish | None]:
    """Return one wish of calls on other sizes; of an embedding that is a layer, too, what the layer asks."""
    if not wishes or None in wishes:
        return wishes
    first, layers = wishes[0], [w for w in wishes if w.kind != "Embedding"]
    if 0 < len(layers) < len(wishes):
        layers[0].law += ", tied: multiply the rows that are looked up by √width"
        return layers
    one_layer = len({(w.law, w.layer.partition(" ")[0]) for w in wishes}) == 1
    same = one_layer and all(math.isclose(w.gain, first.gain, rel_tol=SAME_MAP) for w in wishes)
    return [first] if same else wishes


def _wishes(node: Call, added: float) -> Iterator[tuple[Tensor | None, Wish | None]]:
    """Yield what a call asks of its parameters, None if no rule reads it; added: what all branches add."""
    share = 1 / math.sqrt(max(added, 1.0))
    ending = f", with 1/√{added:.3g} for {added:.3g} residual branches" if share != 1 else ""
    if node.parameters:
        first = _constant(share, ending) if node.role == "norm" else _weight(node, share, ending)
        yield from zip(node.parameters, (first, _constant(0.0)), strict=True)
    if node.role == "composite":
        yield from _composite(node.module, share, ending)


def _constant(value: float, ending: str = "") -> Wish:
    return Wish(f"constant {value:g}" + ending, 0.0, lambda tensor, _: constant_(tensor, value))


def _draw_(
    tensor: Tensor, generator: Generator | None, std: float, part: tuple = (0, 0, 0), factor: float = 1.0
) -> None:
    """Draw from N(0, std²), with a factor in a part: a dimension, its first unit, how many."""
    normal_(tensor, 0.0, std, generator)
    tensor.narrow(*part).mul_(factor)


def _scaled(fan_in: float, gain: float = 1.0, ending: str = "", follows: str = "") -> Wish:
    std = gain / math.sqrt(fan_in)
    return Wish("N(0, gain² / fan_in)" + ending, std, partial(_draw_, std=std), follows, fan_in, gain)


def _weight(node: Call, share: float, ending: str) -> Wish | None:
    """Return the law of a layer's weight; the gain goes to the units that the activation reads."""
    if node.weight.ndim < 2:  # a matrix cut out of a vector, which may hold all else besides
        return None
    if math.isnan(node.fan_in):  # rows that are looked up, each on its own; the padding is 0
        padding = getattr(node.module, "padding_idx", None)
        gain = min(node.gain, 1.0) if node.activation in MEASURED else 1.0  # less if rows are added up
        std, law = gain * share, "N(0, 1)" if gain == 1 else "N(0, gain²)"
        fill_ = partial(_draw_, std=std, part=(0, padding or 0, int(padding is not None)), factor=0.0)
        return Wish(law + ending, std, fill_, node.activation, 1, std)
    fan_in, dim = node.seen, node.out_dim
    gain = share if math.isnan(node.gain) else node.gain * share
    units = max(node.weight.shape[dim:][:1], default=0)  # none where the call takes a view
    first, count = (node.activation not in MEASURED and node.activated.reads) or (0, units)
    if node.recurrent and node.weight.ndim == 2 and units % node.weight.shape[1 - dim] == 0:
        gain = gain if count >= units else share
        std = gain / math.sqrt(fan_in)
        fill_ = partial(_orthogonal_blocks_, gain=gain, dim=dim)
        return Wish("orthogonal, over time" + ending, std, fill_, node.activation, fan_in, gain)
    if count >= units:
        return _scaled(fan_in, gain, ending, node.activation)
    if first < 0:  # nobody knows which units
        return None
    first %= units
    std = math.sqrt((count * gain**2 + (units - count) * share**2) / units / fan_in)
    law = f"N(0, gain² / fan_in), gain {gain:.3g} in units {first} to {first + count - 1}, else {share:.3g}"
    fill_ = partial(_draw_, std=share / math.sqrt(fan_in), part=(dim, first, count), factor=gain / share)
    return Wish(law + ending, std, fill_, node.activation, fan_in, gain)


def _orthogonal_blocks_(tensor: Tensor, generator: Generator | None, gain: float = 1.0, dim: int = 0) -> None:
    """Draw square blocks along the dimension of units, as many as fit: one for each gate."""
    for block in tensor.split(tensor.shape[1 - dim], dim):
        orthogonal_(block, gain, generator=generator)


# Of recurrent and attention modules; else a subclass's own, or half of a weight norm.
_OWN = r"(weight|bias)_(ih|hh|hr)(_l\d+(_reverse)?)?|(in|q|k|v)_proj_weight|in_proj_bias|out_proj\.\w+"


def _composite(module: nn.Module, share: float, ending: str) -> Iterator[tuple[Tensor, Wish]]:
    """Yield the laws of an attention module, or of a recurrent one, whose gates are blocks of rows."""
    known = isinstance(module, nn.RNNBase | nn.RNNCellBase | nn.MultiheadAttention)
    for name, parameter in module.named_parameters():
        if not (known and re.fullmatch(_OWN, name)):
            continue
        if name.startswith("weight_hh") and parameter.shape[1] == module.hidden_size:
            std = 1 / math.sqrt(module.hidden_size)
            yield parameter, Wish("an orthogonal block for each gate", std, _orthogonal_blocks_)
        elif name == "out_proj.weight":
            yield parameter, _scaled(parameter.shape[1], share, ending)
        elif "weight" in name:
            yield parameter, _scaled(parameter.shape[1])
        elif name.startswith("bias_ih") and isinstance(module, nn.LSTM | nn.LSTMCell):
            law = "0, but 1 for the forget gates"  # the second of four: input, forget, cell, output
            yield parameter, Wish(law, 0.0, lambda bias, _: bias.zero_().chunk(4)[1].fill_(1.0))
        else:
            yield parameter, _constant(0.0)


@torch.no_grad()
def _write(plan: Mapping[Tensor, Fill], generator: Generator | None) -> None:
    """Draw everything, and only then write, so that a draw that fails has changed nothing."""
    fresh = [torch.empty_like(parameter, requires_grad=False) for parameter in plan]
    for values, fill_ in zip(fresh, plan.values(), strict=True):
        fill_(values, generator)
    for parameter, values in zip(plan, fresh, strict=True):
        parameter.copy_(values)
