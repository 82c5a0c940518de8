"""Two small networks that train side by side, and what one can see in them at every step.

Nothing here draws or knows of widgets.
"""

import copy
import math
import time
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from course_utils import data
from course_utils.checks import check_name
from course_utils.playground.network import MENUS, Settings, build_network, linear_maps

DATA_SETS = {"moons": data.moons, "circles": data.circles, "spirals": data.spirals, "digits": data.digits}
BATCH, PROBE = 64, 256  # inputs in a training batch, and in the batch on which everything is measured
STUCK = 0.01  # a unit whose slope stays below this on all inputs hardly passes a gradient on


@dataclass(frozen=True, eq=False)
class Task:
    """Inputs (points, features) and labels (points,) to train and to test, and a plane to look at.

    The plane is origin + coordinates @ axes, with orthonormal `axes` (2, features); a map shows coordinates
    from -extent to extent in both directions.
    """

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
    Raises: ValueError for a name that is not in `DATA_SETS`.
    """
    if check_name("data", name, DATA_SETS) == "digits":
        from sklearn.decomposition import PCA  # as slow to import as in data.digits, which does so, too

        images = data.digits()
        parts = images.train_inputs, images.train_labels, images.test_inputs, images.test_labels
        plane = PCA(2, svd_solver="full").fit(images.train_inputs.numpy())
        origin, axes = torch.from_numpy(plane.mean_), torch.from_numpy(plane.components_)
    else:
        inputs, labels = DATA_SETS[name](800, generator=torch.Generator().manual_seed(seed))
        origin, axes = torch.zeros(2), torch.eye(2)
        parts = inputs[:400], labels[:400], inputs[400:], labels[400:]
    extent = 1.1 * ((parts[0] - origin) @ axes.T).abs().max().item()
    return Task(*parts, int(parts[1].max()) + 1, origin, axes, extent)


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


def _rms(tensors: list[Tensor]) -> NDArray:
    return np.array([x.detach().double().square().mean().sqrt().item() for x in tensors])


def _ratio(new: Tensor, old: Tensor) -> float:
    """Return the norm of the change over that of the old weight: 0 / 0 is 0, and 1 / 0 inf."""
    moved = (new.detach().double() - old.double()).norm()
    return (moved / old.double().norm()).item() if moved != 0 else 0.0


class Trainer:
    """A network in training: `step()` makes one step, `measures()` looks at it, `losses` keeps its history.

    `problem` is "" as long as all is well; else it says in words why this network does not train (any more),
    and `network` is None if there never was one. The same settings, task and seed give the same network and
    the same batches; another learning rate in `settings` holds from the next step on.
    """

    def __init__(self, settings: Settings, task: Task, seed: int) -> None:
        self.settings, self.task = settings, task
        self.losses: list[float] = []  # in nats, of each step's batch before the update
        self.network, self.problem = None, ""
        self._batches = torch.Generator().manual_seed(seed)
        try:
            self.network = build_network(settings, task.train_inputs, task.classes, seed)
        except ValueError as error:
            self.problem = f"cannot start: {error}"
            return
        self._weights = [layer.weight for layer in linear_maps(self.network)]
        self._before = [torch.full_like(weight, math.nan) for weight in self._weights]
        optimizer = MENUS["optimizer"][settings.optimizer]
        self._optimizer = optimizer(self.network.parameters(), lr=settings.learning_rate)

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
        self._before = [weight.detach().clone() for weight in self._weights]
        self._optimizer.param_groups[0]["lr"] = self.settings.learning_rate
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()

    def measures(self) -> Measures:
        """Return what there is to see now; nothing changes, not even batch norms."""
        *hidden, output = copy.deepcopy(self.network)  # whose running statistics a pass may change
        h, signals, stuck = self.task.train_inputs[:PROBE], [], []
        for layer in hidden:
            z = layer.pre_activation(h).detach()
            steepest = layer.activation.derivative(z).abs().amax(dim=0)
            stuck.append((steepest < STUCK).double().mean().item())
            h = layer(h)
            signals.append(h)
        signals.append(output(h))
        loss = nn.functional.cross_entropy(signals[-1], self.task.train_labels[:PROBE], reduction="sum")
        gradients = torch.autograd.grad(loss, signals)
        ratios = [_ratio(*pair) for pair in zip(self._weights, self._before, strict=True)]
        found = self._probabilities(self.task.test_inputs)
        right = (found.argmax(dim=1) == self.task.test_labels).double().mean().item()
        accuracy = right if found.isfinite().all() else math.nan
        return Measures(_rms(signals), _rms(gradients), np.array(ratios), np.array(stuck), accuracy)

    @torch.no_grad()
    def _probabilities(self, inputs: Tensor) -> Tensor:  # as in use: batch norms with running statistics
        self.network.eval()
        logits = self.network(inputs)
        self.network.train()
        return logits.softmax(dim=1)

    def probability_map(self, size: int) -> NDArray:
        """Return class probabilities (size, size, classes) over the task's plane."""
        return self._probabilities(self.task.grid(size)).unflatten(0, (size, size)).numpy()


class Pair:
    """Two networks, A and B, with the same data, seed and batches: what differs is in their settings."""

    def __init__(self, a: Settings, b: Settings, data_name: str = "moons", seed: int = 0) -> None:
        self.task, self.steps = make_task(data_name, seed), 0
        self.trainers = Trainer(a, self.task, seed), Trainer(b, self.task, seed)

    @property
    def finished(self) -> bool:
        """Whether neither network trains any more."""
        return all(trainer.problem for trainer in self.trainers)

    def train(self, steps: int, seconds: float = math.inf) -> None:
        """Make up to `steps` steps, at least one, and stop early after `seconds` or when both have."""
        start = time.perf_counter()
        for i in range(steps):
            if self.finished or (i and time.perf_counter() > start + seconds):
                return
            for trainer in self.trainers:
                trainer.step()
            self.steps += 1
