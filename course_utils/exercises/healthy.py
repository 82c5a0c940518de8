"""The clinic's networks as they are when healthy, and the tasks that they learn."""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Generator, Tensor, nn

from course_utils.initializers import kaiming_normal_, lecun_normal_

CLASSES, BATCH = 10, 64
Task = Callable[[Generator], tuple[Tensor, Tensor]]  # inputs (batch, ...) and targets (batch,)
Twin = Callable[[Generator], tuple[nn.Module, Tensor, Tensor]]  # a network, and its task


def _clusters(*shape: int) -> Task:
    """Return what draws inputs (batch, *shape): centres of the classes plus noise, both N(0, 1 / 2)."""

    def task(generator: Generator) -> tuple[Tensor, Tensor]:
        targets = torch.arange(BATCH) % CLASSES
        centres = torch.randn(CLASSES, *shape, generator=generator)
        noise = torch.randn(BATCH, *shape, generator=generator)
        return (centres[targets] + noise) / math.sqrt(2), targets

    return task


_VECTORS = _clusters(64)


def _sentences(generator: Generator) -> tuple[Tensor, Tensor]:
    """Return ids (batch, 12) and targets: two tokens in three are of the five that belong to the class."""
    targets = torch.arange(BATCH) % CLASSES
    own = 5 * targets[:, None] + torch.randint(5, (BATCH, 12), generator=generator)
    other = torch.randint(50, (BATCH, 12), generator=generator)
    return torch.where(torch.rand(BATCH, 12, generator=generator) < 2 / 3, own, other), targets


class _Residual(nn.Module):
    def __init__(self, *branch: nn.Module) -> None:
        super().__init__()
        self.branch = nn.Sequential(*branch)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class _TextNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.recurrent = nn.Embedding(50, 32), nn.GRU(32, 64, batch_first=True)
        self.hidden, self.head = nn.Linear(64, 64), nn.Linear(64, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(torch.relu(self.hidden(self.recurrent(self.embedding(ids))[0][:, -1])))


class _Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        options = {"dropout": 0.0, "batch_first": True, "norm_first": True}
        self.embedding = nn.Embedding(50, 32)
        self.blocks = nn.Sequential(*(nn.TransformerEncoderLayer(32, 4, 64, **options) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.embedding(ids)).mean(1)))


class _Product(nn.Module):
    """Four layers whose weights are kept (in, out), for h @ W."""

    def __init__(self) -> None:
        super().__init__()
        self.matrices = nn.ParameterList(torch.zeros(pair) for pair in pairwise((256, 64, 256, 64, CLASSES)))

    def forward(self, h: Tensor) -> Tensor:
        for matrix in self.matrices[:-1]:
            h = torch.relu(h @ matrix)
        return h @ self.matrices[-1]


def _mlp(*widths: int, act: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    layers = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), act())]
    return nn.Sequential(*layers[:-1])


def _cnn() -> nn.Sequential:
    convs = [layer for c in (3, 24, 24) for layer in (nn.Conv2d(c, 24, 3, padding=1), nn.ReLU())]
    return nn.Sequential(*convs, nn.Flatten(), nn.Linear(24 * 64, CLASSES))


def _residual(*, norm: bool) -> nn.Sequential:
    """Return a linear layer, six branches of two layers, with or without layer norms, and a linear layer."""
    *inner, last = [[nn.LayerNorm(64)] * norm for _ in range(7)]
    branches = [_Residual(*n, nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)) for n in inner]
    return nn.Sequential(nn.Linear(64, 64), *branches, *last, nn.Linear(64, CLASSES))


def _batch_norms() -> nn.Sequential:
    linears = [nn.Linear(64, 64, bias=False) for _ in range(30)]
    blocks = [_Residual(linear, nn.BatchNorm1d(64), nn.ReLU()) for linear in linears]
    return nn.Sequential(*blocks, nn.BatchNorm1d(64), nn.Linear(64, CLASSES))


def _drawn(make: Callable[[], nn.Module], law_: Callable = kaiming_normal_, task: Task = _VECTORS) -> Twin:
    """Fill every parameter: weights by `law_`, the last layer's by LeCun's; biases with 0, norms with 1."""

    def twin(generator: Generator) -> tuple[nn.Module, Tensor, Tensor]:
        model = make()
        *_, last = [name for name, p in model.named_parameters() if p.ndim > 1]
        for name, parameter in model.named_parameters():
            if "embedding" in name:
                parameter.normal_(generator=generator)
            elif "recurrent" in name:
                parameter.uniform_(-0.125, 0.125, generator=generator)  # torch's default for 64 units
            elif parameter.ndim > 1:
                fill_ = lecun_normal_ if name == last else law_
                fill_(parameter.T if isinstance(model, _Product) else parameter, generator=generator)
            else:
                parameter.fill_(float(name.endswith("weight")))
        return model, *task(generator)

    return twin


cnn = _drawn(_cnn, task=_clusters(3, 8, 8))
text_network = _drawn(_TextNetwork, task=_sentences)
encoder = _drawn(_Encoder, lecun_normal_, _sentences)
product = _drawn(_Product, task=_clusters(256))
batch_norms = _drawn(_batch_norms)
layer_norms = _drawn(lambda: _residual(norm=True))


def deep(depth: int, law_: Callable = kaiming_normal_, act: type[nn.Module] = nn.ReLU) -> Twin:
    """Return what draws a plain network of `depth` hidden layers of 128 units."""
    return _drawn(lambda: _mlp(64, *[128] * depth, CLASSES, act=act), law_)


def fixup(generator: Generator) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a residual network whose branches and head end in zeros."""
    model, *task = _drawn(lambda: _residual(norm=False))(generator)
    model[0].weight.div_(math.sqrt(2))
    for layer in (*(block.branch[2] for block in model[1:-1]), model[-1]):
        layer.weight.zero_()
    return model, *task


def torch_defaults(generator: Generator) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a network of two hidden layers as torch draws it, from its global random state."""
    return _mlp(64, 128, 128, CLASSES), *_VECTORS(generator)


def bottleneck(generator: Generator) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a plain network whose layer 6 is followed by no activation."""
    layers = *_mlp(64, 128, 128, 128), nn.ReLU(), nn.Linear(128, 128), *_mlp(128, 128, CLASSES)
    model, *task = _drawn(lambda: nn.Sequential(*layers))(generator)
    model[6].weight.div_(math.sqrt(2))
    return model, *task
