"""Two small networks that train side by side, and what one can see in them at every step.

`Settings` says what a network is, how it starts and how it learns; `Side` trains one, `Pair` two from the
same seed: the same data and batches, and the same draws wherever law and shape of a layer are the same.
Nothing here draws or knows of widgets.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from course_utils import activations, data
from course_utils import initializers as init
from course_utils.activations import Activation
from course_utils.lsuv import lsuv_

ACTIVATIONS: dict[str, Activation] = {
    "ReLU": activations.relu,
    "leaky ReLU 0.1": activations.leaky_relu(0.1),
    "tanh": activations.tanh,
    "sigmoid": activations.sigmoid,
    "GELU": activations.gelu,
    "SiLU": activations.silu,
    "SELU": activations.selu,
    "linear": activations.linear,
}
NORMS = ("none", "batch", "layer")
DATA = ("moons", "circles", "spirals", "digits")
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": torch.optim.SGD,
    "momentum 0.9": partial(torch.optim.SGD, momentum=0.9),
    "Adam": torch.optim.Adam,
}
BATCH, PROBE = 64, 256  # inputs in a training batch, and in the batch on which everything is measured
STUCK = 0.01  # a unit whose slope stays below this on all inputs hardly passes a gradient on
SPARSITY = 0.8

Fill = Callable[..., Tensor]


def _torch_default_(weight: Tensor, generator: Generator) -> Tensor:
    return init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)


def _sparse_(weight: Tensor, generator: Generator) -> Tensor:
    std = 1 / math.sqrt((1 - SPARSITY) * weight.shape[1])  # a mean square of 1 / fan_in, zeros included
    return init.sparse_(weight, SPARSITY, std=std, generator=generator)


# What fills one weight (fan_out, fan_in). Two schemes look at more than one matrix: see `_initialize`.
SCHEMES: dict[str, Fill | None] = {
    "zeros": lambda weight, generator: init.zeros_(weight),
    "constant 0.1": lambda weight, generator: init.constant_(weight, 0.1),
    "N(0, 1)": init.normal_,
    "N(0, 0.01²)": partial(init.normal_, std=0.01),
    "torch default U(±1/√n)": _torch_default_,
    "LeCun normal": init.lecun_normal_,
    "LeCun uniform": init.lecun_uniform_,
    "Xavier normal": init.xavier_normal_,
    "Xavier uniform": init.xavier_uniform_,
    "Kaiming normal, fan-in": init.kaiming_normal_,
    "Kaiming normal, fan-out": partial(init.kaiming_normal_, mode="fan_out"),
    "Kaiming uniform, fan-in": init.kaiming_uniform_,
    "Kaiming uniform, fan-out": partial(init.kaiming_uniform_, mode="fan_out"),
    "truncated LeCun": partial(init.variance_scaling_, distribution="truncated_normal"),
    "truncated Kaiming": partial(init.variance_scaling_, gain=math.sqrt(2), distribution="truncated_normal"),
    "orthogonal": init.orthogonal_,
    "looks-linear": None,
    "sparse, 80 % zeros": _sparse_,
    "LSUV": None,
}


@dataclass(frozen=True)
class Settings:
    """One network: its shape, its start and its optimizer.

    depth: hidden layers. gain: a factor on every weight that the scheme draws, so that LeCun normal with gain
    g has std g / sqrt(fan_in). learning_rate: per step.

    Raises: ValueError for a name that is not in the tables above or a number out of range.
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
        names = {"activation": ACTIVATIONS, "norm": NORMS, "scheme": SCHEMES, "optimizer": OPTIMIZERS}
        for field, valid in names.items():
            if getattr(self, field) not in valid:
                wanted = ", ".join(map(repr, valid))
                raise ValueError(f"{field} must be one of {wanted}; got {getattr(self, field)!r}")
        if self.depth < 1 or self.width < 1:
            raise ValueError(f"expected depth and width of at least 1; got {self.depth} and {self.width}")
        if not (0 <= self.gain < math.inf and 0 < self.learning_rate < math.inf):
            found = f"{self.gain} and {self.learning_rate}"
            raise ValueError(f"expected a finite gain >= 0 and a positive learning rate; got {found}")


@dataclass(frozen=True)
class Task:
    """Inputs (points, features) and labels (points,) to train and to test, and a plane to look at.

    The plane is origin + coordinates @ axes, with orthonormal `axes` (2, features); a map shows coordinates
    from -extent to extent in both directions.
    """

    name: str
    train_inputs: Tensor
    train_labels: Tensor
    test_inputs: Tensor
    test_labels: Tensor
    classes: int
    origin: Tensor
    axes: Tensor
    extent: float

    def coordinates(self, inputs: Tensor) -> Tensor:
        """Return where inputs (points, features) lie in the plane, orthogonally projected: (points, 2)."""
        return (inputs - self.origin) @ self.axes.T

    def grid(self, size: int) -> Tensor:
        """Return the inputs (size², features) at the centres of a grid's squares, row by row from the top."""
        steps = self.extent * (2 * (torch.arange(size) + 0.5) / size - 1)
        x, y = steps.repeat(size), steps.flip(0).repeat_interleave(size)
        return self.origin + torch.stack([x, y], dim=1) @ self.axes


@cache
def make_task(name: str, seed: int) -> Task:
    """Return 400 points to train and 400 to test, drawn with `seed`; the digits are always the same.

    The plane of the digits is that of their first two principal components, through their mean.
    Raises: ValueError for a name that is not in `DATA`.
    """
    if name not in DATA:
        raise ValueError(f"data must be one of {', '.join(map(repr, DATA))}; got {name!r}")
    if name == "digits":
        images = data.digits()
        origin, axes = _principal_plane(images.train_inputs)
        parts = images.train_inputs, images.train_labels, images.test_inputs, images.test_labels
    else:
        generator = torch.Generator().manual_seed(seed)
        inputs, labels = getattr(data, name)(800, generator=generator)
        origin, axes = torch.zeros(2), torch.eye(2)
        parts = inputs[:400], labels[:400], inputs[400:], labels[400:]
    extent = 1.1 * ((parts[0] - origin) @ axes.T).abs().max().item()
    return Task(name, *parts, int(parts[1].max()) + 1, origin, axes, extent)


def _principal_plane(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the first two principal components (2, features), their largest entry positive."""
    mean = inputs.mean(dim=0)
    axes = torch.linalg.svd(inputs - mean, full_matrices=False).Vh[:2]
    largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
    return mean, axes * largest.sign()


class Hidden(nn.Module):
    """One hidden layer: h -> phi(norm(W h + b)), added to h on a residual branch."""

    def __init__(self, fan_in: int, settings: Settings, residual: bool) -> None:
        super().__init__()
        # nn.Linear alone would draw its weights without a generator.
        self.linear = nn.utils.skip_init(nn.Linear, fan_in, settings.width)
        norms = {"none": nn.Identity, "batch": nn.BatchNorm1d, "layer": nn.LayerNorm}
        self.norm = norms[settings.norm](settings.width)
        self.activation = ACTIVATIONS[settings.activation]
        self.residual = residual

    def pre_activation(self, h: Tensor) -> Tensor:
        """Return what enters the activation: (batch, width)."""
        return self.norm(self.linear(h))

    def output(self, h: Tensor, z: Tensor) -> Tensor:
        """Return the layer's output (batch, width) for its input h and its pre-activation z."""
        return h + self.activation(z) if self.residual else self.activation(z)

    def forward(self, h: Tensor) -> Tensor:
        """Map (batch, fan_in) to (batch, width)."""
        return self.output(h, self.pre_activation(h))


def build_network(settings: Settings, task: Task, seed: int) -> nn.Sequential:
    """Return the network with its first weights: layers `hidden_1` to `hidden_<depth>`, then `output`.

    A residual network adds the input of each hidden layer but the first, which changes the width, to its
    output. Every weight follows `settings.scheme`; biases are 0, but U(±1/√n) for torch's default. Each layer
    has a random stream of its own, so that networks of different depth begin with the same weights; but LSUV,
    whose layers follow one another, draws from one.
    Raises: ValueError if the scheme does not apply to this network.
    """
    fan_ins = [task.train_inputs.shape[1]] + [settings.width] * (settings.depth - 1)
    hidden = [
        (f"hidden_{i}", Hidden(fan_in, settings, settings.residual and i > 1))
        for i, fan_in in enumerate(fan_ins, 1)
    ]
    output = nn.utils.skip_init(nn.Linear, settings.width, task.classes)
    network = nn.Sequential(OrderedDict([*hidden, ("output", output)]))
    _initialize(network, settings, task.train_inputs, seed)
    with _batch_statistics(network, 1.0), torch.no_grad():
        network(task.train_inputs)
    return network


def linear_maps(network: nn.Sequential) -> list[nn.Linear]:
    """Return the linear maps of a network from `build_network`, from the input to the output."""
    return [*(layer.linear for layer in network[:-1]), network[-1]]


@torch.no_grad()
def _initialize(network: nn.Sequential, settings: Settings, inputs: Tensor, seed: int) -> None:
    layers = linear_maps(network)
    streams = [torch.Generator().manual_seed(1000 * seed + i) for i in range(1, len(layers))]
    streams.append(torch.Generator().manual_seed(1000 * seed))  # the output's, whatever the depth
    for layer in layers:
        init.zeros_(layer.bias)
    if settings.scheme == "looks-linear":
        _looks_linear_(layers, settings, streams)
    elif settings.scheme == "LSUV":
        lsuv_(network, inputs, generator=streams[0])
    else:
        for layer, stream in zip(layers, streams, strict=True):
            SCHEMES[settings.scheme](layer.weight, generator=stream)
    if settings.scheme.startswith("torch default"):
        for layer, stream in zip(layers, streams, strict=True):
            bound = 1 / math.sqrt(layer.in_features)
            init.uniform_(layer.bias, -bound, bound, generator=stream)
    for layer in layers:
        layer.weight.mul_(settings.gain)


def _looks_linear_(layers: list[nn.Linear], settings: Settings, streams: list[Generator]) -> None:
    """Let half of the units mirror the other half: (relu(y), relu(-y)) is read as y by the next layer."""
    if settings.activation != "ReLU" or settings.width % 2:
        found = f"{settings.activation} and width {settings.width}"
        raise ValueError(f"looks-linear weights need ReLU and an even width; here are {found}")
    first, *middle, last = (layer.weight for layer in layers)
    half = init.orthogonal_(first.new_empty(len(first) // 2, first.shape[1]), generator=streams[0])
    first.copy_(torch.cat([half, -half]))
    for weight, stream in zip(middle, streams[1:-1], strict=True):
        half = init.looks_linear_(weight.new_empty(len(weight) // 2, weight.shape[1]), generator=stream)
        weight.copy_(torch.cat([half, -half]))
    init.looks_linear_(last, generator=streams[-1])


@contextmanager
def _batch_statistics(network: nn.Module, momentum: float) -> Iterator[None]:
    """Let batch norms use the batch's statistics and average them with this momentum: 0 keeps, 1 replaces."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm1d)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = momentum
    try:
        yield
    finally:
        for norm, value in zip(norms, before, strict=True):
            norm.momentum = value


@dataclass(frozen=True)
class Measures:
    """What one sees at a step, each an array by layer, from the input's side; the last layer is the output.

    activation_rms: of each layer's output, the logits last, over inputs and units: (depth + 1,).
    gradient_rms: of one input's loss with respect to the same numbers: (depth + 1,). With batch norm, where
    inputs depend on one another, of the sum of all losses.
    update_ratio: norm of the last step's change of a weight over the norm it had before: (depth + 1,); 0 if
    it stayed, inf if it was 0 and moved, nan before the first step.
    stuck: share of hidden units whose slope phi'(z) is below 0.01 on all inputs: (depth,). For ReLU these are
    the dead units.
    accuracy: share of test inputs classified correctly, nan where outputs are not finite.
    """

    activation_rms: NDArray
    gradient_rms: NDArray
    update_ratio: NDArray
    stuck: NDArray
    accuracy: float


def _rms(x: Tensor) -> float:
    return x.detach().double().square().mean().sqrt().item()


class Side:
    """A network in training: `step()` makes one step, `measures()` looks at it, `losses` keeps its history.

    `problem` is "" as long as all is well; else it says in words why this side does not train (any more). The
    same settings, task and seed give the same network and the same batches.
    """

    def __init__(self, settings: Settings, task: Task, seed: int) -> None:
        self.settings, self.task = settings, task
        self.losses: list[float] = []  # in nats, of each step's batch before the update
        self.problem = ""
        self._before: list[Tensor] = []
        self._batches = torch.Generator().manual_seed(seed)
        try:
            self.network = build_network(settings, task, seed)
        except ValueError as error:
            self.network, self.problem = None, f"cannot start: {error}"
            return
        make = OPTIMIZERS[settings.optimizer]
        self._optimizer = make(self.network.parameters(), lr=settings.learning_rate)

    def set_learning_rate(self, learning_rate: float) -> None:
        """Use another learning rate from the next step on."""
        if self.network is not None:
            self._optimizer.param_groups[0]["lr"] = learning_rate

    def step(self) -> None:
        """Make one step on a batch of 64 inputs drawn with replacement; nothing if there is a problem."""
        if self.problem:
            return
        batch = torch.randint(len(self.task.train_labels), (BATCH,), generator=self._batches)
        logits = self.network(self.task.train_inputs[batch])
        loss = nn.functional.cross_entropy(logits, self.task.train_labels[batch])
        if not math.isfinite(value := loss.item()):
            self.problem = f"diverged at step {len(self.losses)}: the loss is no longer a finite number"
            return
        self.losses.append(value)
        self._before = [layer.weight.detach().clone() for layer in linear_maps(self.network)]
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()

    def measures(self) -> Measures | None:
        """Return what there is to see now, None without a network; nothing changes, not even batch norms."""
        if self.network is None:
            return None
        inputs, labels = self.task.train_inputs[:PROBE], self.task.train_labels[:PROBE]
        h, signals, stuck = inputs, [], []
        with _batch_statistics(self.network, 0.0):
            for layer in self.network[:-1]:
                z = layer.pre_activation(h)
                h = layer.output(h, z)
                signals.append(h)
                steepest = layer.activation.derivative(z.detach()).abs().amax(dim=0)
                stuck.append((steepest < STUCK).double().mean().item())
            signals.append(self.network[-1](h))
        loss = nn.functional.cross_entropy(signals[-1], labels, reduction="sum")
        gradients = torch.autograd.grad(loss, signals)
        return Measures(
            np.array([_rms(h) for h in signals]),
            np.array([_rms(gradient) for gradient in gradients]),
            self._update_ratio(),
            np.array(stuck),
            self._accuracy(),
        )

    def _update_ratio(self) -> NDArray:
        weights = [layer.weight.detach().double() for layer in linear_maps(self.network)]
        if not self._before:
            return np.full(len(weights), np.nan)
        moved = np.array([(w - old).norm().item() for w, old in zip(weights, self._before, strict=True)])
        norms = np.array([old.double().norm().item() for old in self._before])
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(moved == 0, 0.0, moved / norms)

    @torch.no_grad()
    def probabilities(self, inputs: Tensor) -> Tensor:
        """Return class probabilities (points, classes), as in use: batch norm with its running statistics."""
        self.network.eval()
        logits = self.network(inputs)
        self.network.train()
        return logits.softmax(dim=1)

    def map(self, size: int) -> NDArray | None:
        """Return class probabilities (size, size, classes) over the task's plane, None without a network."""
        if self.network is None:
            return None
        return self.probabilities(self.task.grid(size)).unflatten(0, (size, size)).numpy()

    def _accuracy(self) -> float:
        probabilities = self.probabilities(self.task.test_inputs)
        right = (probabilities.argmax(dim=1) == self.task.test_labels).double().mean().item()
        return right if probabilities.isfinite().all() else math.nan


class Pair:
    """Two sides, A and B, with the same data, seed and batches: what differs is in their settings."""

    def __init__(self, a: Settings, b: Settings, data_name: str = "moons", seed: int = 0) -> None:
        self.task, self.seed = make_task(data_name, seed), seed
        self.sides = Side(a, self.task, seed), Side(b, self.task, seed)
        self.steps = 0

    @property
    def finished(self) -> bool:
        """Whether neither side trains any more."""
        return all(side.problem for side in self.sides)

    def step(self) -> None:
        """Make one step on both sides."""
        for side in self.sides:
            side.step()
        self.steps += 1

    def train(self, steps: int, seconds: float = math.inf) -> None:
        """Make up to `steps` steps, at least one, and stop early after `seconds` or when both sides have."""
        end = time.perf_counter() + seconds
        for _ in range(steps):
            if self.finished:
                return
            self.step()
            if time.perf_counter() > end:
                return


@dataclass(frozen=True)
class Experiment:
    """Two networks to compare: a question to answer before, and what to expect after `steps` steps."""

    name: str
    data: str
    a: Settings
    b: Settings
    steps: int
    question: str
    expectation: str

    def pair(self, seed: int = 0) -> Pair:
        """Return the two networks at step 0."""
        return Pair(self.a, self.b, self.data, seed)


_DEFAULT, _TINY = "torch default U(±1/√n)", "N(0, 0.01²)"

EXPERIMENTS = (
    Experiment(
        "1 All weights zero",
        "moons",
        Settings(scheme="zeros"),
        Settings(),
        300,
        "A starts from zeros, B from Kaiming's law. Which parts of A will ever move?",
        "A: only the biases of the output. All outputs and gradients of the hidden layers are 0, every "
        "ReLU is dead, and the loss stays at ln 2. B classifies 90 % or more.",
    ),
    Experiment(
        "2 All weights equal",
        "circles",
        Settings(depth=2, scheme="constant 0.1"),
        Settings(depth=2),
        500,
        "A starts with every weight 0.1: signals and gradients flow. What can 32 equal units draw?",
        "A: what one unit can. All units of a layer stay equal, so A sees only the sum of the two "
        "coordinates; its boundaries are parallel lines, and it classifies less than 80 %. B closes the "
        "circle.",
    ),
    Experiment(
        "3 Too small: N(0, 0.01²)",
        "moons",
        Settings(scheme=_TINY),
        Settings(),
        300,
        "By which factor does A's signal shrink in each layer of 32 units? And its gradient?",
        "A: at step 0 by 0.01 × √(32/2) = 0.04 a layer, and the gradient on its way back as well. Update "
        "ratios of the hidden layers are a few millionths at most. Only the biases near the output move, and "
        "in a hundred steps they kill 90 % or more of layer 4. The loss stays at ln 2. B learns.",
    ),
    Experiment(
        "4 Too small, but with Adam",
        "moons",
        Settings(scheme=_TINY),
        Settings(scheme=_TINY, optimizer="Adam", learning_rate=0.01),
        300,
        "The same bad start on both sides. Adam divides each gradient by its own size: does that save B?",
        "Yes, here. Adam's first steps have the same length whatever the gradient's size, and the weights "
        "grow until a signal comes through: B classifies 75 % or more. A stays at ln 2.",
    ),
    Experiment(
        "5 Too large: N(0, 1)",
        "moons",
        Settings(depth=8, scheme="N(0, 1)"),
        Settings(depth=8),
        300,
        "Each layer of 32 units multiplies A's signal by √(32/2) = 4. How many steps will A make?",
        "A handful: outputs of 10,000 at step 0, gradients as large, and the first update throws the "
        "weights so far that the loss overflows. B learns.",
    ),
    Experiment(
        "6 Too large, but with batch norm",
        "moons",
        Settings(depth=8, scheme="N(0, 1)"),
        Settings(depth=8, scheme="N(0, 1)", norm="batch"),
        300,
        "The same N(0, 1) weights; B normalizes each layer's pre-activations. What is left of the scale?",
        "Nothing in the forward direction: B's outputs have RMS 0.7 in every layer, and it learns. A "
        "diverges within a handful of steps.",
    ),
    Experiment(
        "7 The framework's default, 8 layers",
        "digits",
        Settings(depth=8, scheme=_DEFAULT),
        Settings(depth=8),
        200,
        "torch's default has variance 1/(3n), a sixth of what a ReLU needs. Is that enough for eight layers?",
        "Not with SGD at this learning rate: the part of the signal that tells the digits apart shrinks "
        "by 0.41 a layer, and A still guesses at step 200. B classifies 70 % or more.",
    ),
    Experiment(
        "8 The default, with residual branches",
        "moons",
        Settings(depth=16, scheme=_DEFAULT, learning_rate=0.02),
        Settings(depth=16, scheme=_DEFAULT, learning_rate=0.02, residual=True),
        300,
        "Sixteen default layers; B adds each layer's input to its output. Predict both gradients.",
        "A's gradient is a millionth or less at layer 1, and its loss stays at ln 2. B's is of order 1, "
        "because the sums carry it past the small weights, and B learns.",
    ),
    Experiment(
        "9 Sigmoid or tanh",
        "moons",
        Settings(activation="sigmoid", scheme="Xavier normal"),
        Settings(activation="tanh", scheme="Xavier normal"),
        300,
        "Xavier's law was made for a slope of 1 at 0; the sigmoid's is 1/4. Does that matter in four layers?",
        "A's gradient at layer 1 is more than 10 times smaller than B's. B learns; A is still near ln 2.",
    ),
    Experiment(
        "10 A good start, a learning rate too large",
        "moons",
        Settings(optimizer="Adam", learning_rate=0.003),
        Settings(optimizer="Adam", learning_rate=0.3),
        300,
        "The same weights, but B's learning rate is 100 times larger. What becomes of its ReLUs?",
        "B's first step is about as large as its weights, and ReLUs are pushed to where no input reaches "
        "them: 40 % or more of B's units are dead, of A's less than 25 %. A good start does not protect "
        "from the optimizer.",
    ),
)
