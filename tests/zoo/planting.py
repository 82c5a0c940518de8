"""Faults for any model, planted by rules that ask for nothing but its modules, and what they cost."""

import math
from collections.abc import Iterator
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor, nn

from zoo.batches import Batch

STEPS, RATE, FACTOR, SHARP = 20, 1e-3, 30.0, 8.0
QUERY = {"q", "q_proj", "query", "query_proj", "q_lin", "to_q"}
KEY = {"k", "k_proj", "key", "key_proj", "k_lin", "to_k"}
FUSED = {"qkv", "c_attn", "query_key_value", "qkv_proj"}
IDLE = (nn.Dropout, nn.Identity, nn.Flatten)


class Course(NamedTuple):
    """How training went: the loss at the start, its mean over the last five steps, and over all."""

    start: float
    end: float
    mean: float


class Plant(NamedTuple):
    """A fault: its name, and the parameter that it spoils."""

    fault: str
    parameter: str


def leaves_in_order(model: nn.Module, batch: Batch) -> list[tuple[str, nn.Module]]:
    """Return the modules without children, but for idle ones, in the order of their calls."""
    called: list[tuple[str, nn.Module]] = []
    leaves = [(n, m) for n, m in model.named_modules() if not [*m.children()] and not isinstance(m, IDLE)]
    hooks = [m.register_forward_pre_hook(lambda m, _, n=n: called.append((n, m))) for n, m in leaves]
    with torch.random.fork_rng(), torch.no_grad():
        forward(model, batch)
    for hook in hooks:
        hook.remove()
    return called


def forward(model: nn.Module, batch: Batch) -> Tensor:
    """Return the loss on the batch."""
    inputs = batch.inputs
    return batch.cost(model(**inputs) if isinstance(inputs, dict) else model(inputs))


def weights_in_order(model: nn.Module, batch: Batch) -> Iterator[tuple[str, bool]]:
    """Yield the names of the matrices that the model calls, and whether a norm comes right behind."""
    called = leaves_in_order(model, batch)
    for (name, module), (_, after) in zip(called, [*called[1:], ("", nn.Identity())], strict=True):
        weight = getattr(module, "weight", None)
        if isinstance(weight, nn.Parameter) and weight.ndim > 1 and not isinstance(module, nn.Embedding):
            yield f"{name}.weight", "Norm" in type(after).__name__


def plants(model: nn.Module, batch: Batch) -> list[Plant]:
    """Return the faults that this model can have, of these.

    A layer in the middle that no norm follows: weights thirty times too large, all the same, or one of them
    NaN. All layers, or the output layer: thirty times too large. Queries and keys in the middle: eight times.
    """
    weights = list(dict.fromkeys(weights_in_order(model, batch)))
    queries = [n for n, _ in weights if n.split(".")[-2] in QUERY | FUSED]
    middle = [n for n, normed in weights[1:-1] if not normed and n.split(".")[-2] not in QUERY | KEY | FUSED]
    middle = middle or [name for name, _ in weights]
    name = middle[len(middle) // 2]
    found = [Plant("large", name), Plant("output", weights[-1][0]), Plant("equal", name), Plant("all", name)]
    found += [Plant("attention", queries[len(queries) // 2])] if queries else []
    return [*found, Plant("nan", name)]


@torch.no_grad()
def plant(model: nn.Module, fault: str, name: str) -> set[str]:
    """Spoil a parameter; return the names that it and others that share the blame have."""
    weight, others = model.get_parameter(name), []
    if fault in ("large", "output"):
        enlarge(weight, FACTOR)
    elif fault == "all":
        others = [p for p in model.parameters() if p.ndim > 1 and p.requires_grad]
        for p in others:
            enlarge(p, FACTOR)
    elif fault == "equal":
        weight.fill_(weight.square().mean().sqrt())
    elif fault == "nan":
        weight.view(-1)[0] = math.nan
    else:
        others = sharpen(model, name, weight)
    spoilt = {id(weight), *map(id, others)}
    return {n for n, p in model.named_parameters(remove_duplicate=False) if id(p) in spoilt}


def enlarge(weight: Tensor, factor: float) -> None:
    """Make weights so much larger than 1 / sqrt(fan_in); a narrow model's own may be smaller than that."""
    size = weight.square().mean().sqrt() * math.sqrt(weight[0].numel())
    weight.mul_(factor / size if size > 0 else factor)


def sharpen(model: nn.Module, name: str, query: Tensor) -> list[Tensor]:
    """Make queries and keys eight times too large, so the logits of attention 64 times; return the keys."""
    path, _, leaf = name.removesuffix(".weight").rpartition(".")
    enlarge(query, SHARP)
    keys = [m.weight for n, m in model.get_submodule(path).named_children() if n in KEY]
    for key in keys if leaf in QUERY else []:
        enlarge(key, SHARP)
    return keys


def trained(model: nn.Module, batch: Batch) -> Course:
    """Train a model with Adam, for a few steps on the batch."""
    torch.default_generator.manual_seed(0)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], RATE)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = forward(model, batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            break
    return Course(losses[0], fmean(losses[-5:]), fmean(losses))


def costs(stock: Course, model: nn.Module, batch: Batch) -> bool:
    """Return whether a fault takes away a tenth of what training gains, and 0.1 at least."""
    try:
        end = trained(model, batch).end
    except (ValueError, RuntimeError):  # the model sees by itself that something is wrong
        return False
    return not math.isfinite(end) or end - stock.end > max(0.1, (stock.start - stock.end) / 10)


@torch.no_grad()
def treat(model: nn.Module, ratios: dict[str, float]) -> bool:
    """Give these layers' weights the wanted std, of which they have so much; return whether any has some."""
    weights = [(f"{layer}.weight", ratio) for layer, ratio in ratios.items() if ratio > 0]
    for name, ratio in weights:
        model.get_parameter(name).div_(ratio)
    return bool(weights)


def helps(stock: Course, model: nn.Module, batch: Batch) -> bool:
    """Return whether a treated model's loss is clearly lower, over all of its training."""
    return trained(model, batch).mean < stock.mean - 0.1
