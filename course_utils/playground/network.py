"""A small network of the playground: its settings, its shape and its first weights."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor, nn

from course_utils import activations
from course_utils import initializers as init
from course_utils.checks import check_name
from course_utils.lsuv import lsuv_

SLOPE, CONSTANT, SMALL_STD, SPARSITY, MOMENTUM = 0.1, 0.1, 0.01, 0.8, 0.9  # each stands in a label below

Scheme = Callable[[nn.Sequential, Tensor, list[Generator]], None]  # network, inputs, a stream for each layer


def linear_maps(network: nn.Sequential) -> list[nn.Linear]:
    """Return the linear maps of a network from `build_network`, from the input to the output."""
    return [module for module in network.modules() if isinstance(module, nn.Linear)]


def _each(fill: Callable[..., object], **options: float | str) -> Scheme:
    """Return the scheme that fills one weight after the other, each from its own stream."""

    def scheme(network: nn.Sequential, inputs: Tensor, streams: list[Generator]) -> None:
        for layer, stream in zip(linear_maps(network), streams, strict=True):
            fill(layer.weight, generator=stream, **options)

    return scheme


def _torch_default(network: nn.Sequential, inputs: Tensor, streams: list[Generator]) -> None:
    _each(init.kaiming_uniform_, a=math.sqrt(5))(network, inputs, streams)
    for layer, stream in zip(linear_maps(network), streams, strict=True):
        bound = 1 / math.sqrt(layer.in_features)
        init.uniform_(layer.bias, -bound, bound, generator=stream)


def _looks_linear(network: nn.Sequential, inputs: Tensor, streams: list[Generator]) -> None:
    """Let half of the units mirror the other half: (relu(y), relu(-y)) is read as y by the next layer."""
    name, width = network[0].activation.name, network[0].linear.out_features
    if name != "relu" or width % 2:
        raise ValueError(f"looks-linear weights need ReLU and an even width; got {name} and width {width}")
    *hidden, output = (layer.weight for layer in linear_maps(network))
    for weight, stream in zip(hidden, streams[:-1], strict=True):
        fill_ = init.orthogonal_ if weight is hidden[0] else init.looks_linear_
        half = fill_(weight.new_empty(width // 2, weight.shape[1]), generator=stream)
        weight.copy_(torch.cat([half, -half]))
    init.looks_linear_(output, generator=streams[-1])


def _sparse(weight: Tensor, generator: Generator) -> Tensor:
    fan_out, fan_in = weight.shape
    kept = max(1, fan_out - math.ceil(SPARSITY * fan_out))  # in each column
    std = math.sqrt(fan_out / kept / fan_in)  # a mean square of 1 / fan_in, zeros included
    return init.sparse_(weight, SPARSITY, std=std, generator=generator)


SCHEMES: dict[str, Scheme] = {
    "zeros": _each(lambda weight, generator: init.zeros_(weight)),
    f"constant {CONSTANT:g}": _each(lambda weight, generator: init.constant_(weight, CONSTANT)),
    "N(0, 1)": _each(init.normal_),
    f"N(0, {SMALL_STD:g}²)": _each(init.normal_, std=SMALL_STD),
    "torch default U(±1/√n)": _torch_default,
    "LeCun normal": _each(init.lecun_normal_),
    "LeCun uniform": _each(init.lecun_uniform_),
    "Xavier normal": _each(init.xavier_normal_),
    "Xavier uniform": _each(init.xavier_uniform_),
    "Kaiming normal, fan-in": _each(init.kaiming_normal_),
    "Kaiming normal, fan-out": _each(init.kaiming_normal_, mode="fan_out"),
    "Kaiming uniform, fan-in": _each(init.kaiming_uniform_),
    "Kaiming uniform, fan-out": _each(init.kaiming_uniform_, mode="fan_out"),
    "truncated LeCun": _each(init.variance_scaling_, distribution="truncated_normal"),
    "truncated Kaiming": _each(init.variance_scaling_, gain=math.sqrt(2), distribution="truncated_normal"),
    "orthogonal": _each(init.orthogonal_),
    "looks-linear": _looks_linear,
    f"sparse, {100 * SPARSITY:g} % zeros": _each(_sparse),
    "LSUV": lambda network, inputs, streams: lsuv_(network, inputs, generator=streams[0]),
}

# What a setting may be, by its field in `Settings`, and what stands behind each name: the panel's menus.
MENUS: dict[str, dict[str, Any]] = {
    "activation": {
        "ReLU": activations.relu,
        f"leaky ReLU {SLOPE:g}": activations.leaky_relu(SLOPE),
        "tanh": activations.tanh,
        "sigmoid": activations.sigmoid,
        "GELU": activations.gelu,
        "SiLU": activations.silu,
        "SELU": activations.selu,
        "linear": activations.linear,
    },
    # Without momentum, the first batch replaces a new norm's running statistics.
    "norm": {"none": nn.Identity, "batch": partial(nn.BatchNorm1d, momentum=None), "layer": nn.LayerNorm},
    "scheme": SCHEMES,
    "optimizer": {
        "SGD": torch.optim.SGD,
        f"SGD, momentum {MOMENTUM:g}": partial(torch.optim.SGD, momentum=MOMENTUM),
        "Adam": torch.optim.Adam,
    },
}


@dataclass(frozen=True)
class Settings:
    """One network: its shape, its start and its optimizer.

    depth: hidden layers. gain: a factor on every weight that the scheme draws, so that LeCun normal with gain
    g has std g / sqrt(fan_in). learning_rate: per step.

    Raises: ValueError for a name that is not in `MENUS` or a number out of range.
    """

    depth: int = 4
    width: int = 32
    activation: str = "ReLU"
    norm: str = "none"
    residual: bool = False
    scheme: str = "Kaiming normal, fan-in"
    gain: float = 1.0
    optimizer: str = "SGD"
    learning_rate: float = 0.1

    def __post_init__(self) -> None:
        for field, menu in MENUS.items():
            check_name(field, getattr(self, field), menu)
        if not (min(self.depth, self.width) >= 1 and 0 <= self.gain < math.inf > self.learning_rate > 0):
            wanted = "depth and width of at least 1, a finite gain >= 0 and a positive learning rate"
            raise ValueError(f"expected {wanted}; got {self}")


class Hidden(nn.Module):
    """One hidden layer: h -> phi(norm(W h + b)), added to h on a residual branch."""

    def __init__(self, fan_in: int, settings: Settings, residual: bool) -> None:
        super().__init__()
        # nn.Linear alone would draw its weights without a generator.
        self.linear = nn.utils.skip_init(nn.Linear, fan_in, settings.width)
        self.norm = MENUS["norm"][settings.norm](settings.width)
        self.activation = MENUS["activation"][settings.activation]
        self.residual = residual

    def pre_activation(self, h: Tensor) -> Tensor:
        """Return what enters the activation: (batch, width)."""
        return self.norm(self.linear(h))

    def forward(self, h: Tensor) -> Tensor:
        """Map (batch, fan_in) to (batch, width)."""
        y = self.activation(self.pre_activation(h))
        return h + y if self.residual else y


@torch.no_grad()
def build_network(settings: Settings, inputs: Tensor, classes: int, seed: int) -> nn.Sequential:
    """Return the network with its first weights: layers `hidden_1` to `hidden_<depth>`, then `output`.

    inputs: (points, features), for LSUV and the running statistics of batch norms. A residual network adds
    the input of each hidden layer but the first, which changes the width, to its output. Every weight follows
    `settings.scheme`; biases are 0, but U(±1/√n) for torch's default. Each layer has a random stream of its
    own, so that networks of different depth begin with the same weights; but LSUV, whose layers follow one
    another, draws from one.
    Raises: ValueError if the scheme does not apply to this network.
    """
    network = nn.Sequential()
    for i in range(1, settings.depth + 1):
        fan_in = settings.width if i > 1 else inputs.shape[1]
        network.add_module(f"hidden_{i}", Hidden(fan_in, settings, settings.residual and i > 1))
    network.add_module("output", nn.utils.skip_init(nn.Linear, settings.width, classes))
    for layer in linear_maps(network):
        init.zeros_(layer.bias)
    numbers = [*range(1, settings.depth + 1), 0]  # the output has the same stream, whatever the depth
    streams = [torch.Generator().manual_seed(1000 * seed + number) for number in numbers]
    SCHEMES[settings.scheme](network, inputs, streams)
    for layer in linear_maps(network):
        layer.weight.mul_(settings.gain)
    network(inputs)
    for norm in [module for module in network.modules() if isinstance(module, nn.BatchNorm1d)]:
        norm.momentum = 0.1
    return network
