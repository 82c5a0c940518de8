"""Networks for the tests of the doctor, with every random number from a generator."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from course_utils import initializers

WIDTH, CLASSES = 192, 10


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(100 + seed))


def labels(*shape: int, classes: int = CLASSES, seed: int = 0) -> torch.Tensor:
    return torch.randint(classes, shape, generator=generator(200 + seed))


def defaults(model: nn.Module, seed: int = 0) -> nn.Module:
    """Draw torch's own initialization again, from a generator."""
    for module in model.modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            module.weight.data.normal_(generator=generator(seed))
        elif isinstance(module, nn.MultiheadAttention):
            nn.init.xavier_uniform_(module.in_proj_weight, generator=generator(seed))
        elif isinstance(module, nn.RNNBase):
            bound = module.hidden_size**-0.5
            for i, parameter in enumerate(module.parameters()):
                parameter.data.uniform_(-bound, bound, generator=generator(1000 * seed + i))
        elif isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
            seed += 1
            nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=generator(seed))
            if module.bias is not None:
                bound = initializers.calculate_fans(module.weight)[0] ** -0.5
                module.bias.data.uniform_(-bound, bound, generator=generator(seed + 500))
    return model


def he(model: nn.Module, seed: int = 0, gain: float = math.sqrt(2.0), mode: str = "fan_in") -> nn.Module:
    """Draw gain / sqrt(fan) for all linear and convolutional layers, gain 1 for the last; biases are 0."""
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d)]
    rng = generator(seed)
    for layer in layers:
        of_layer = 1.0 if layer is layers[-1] else gain
        initializers.variance_scaling_(
            layer.weight, of_layer, "fan_in" if layer is layers[-1] else mode, "normal", rng
        )
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return model


def mlp(*widths: int, act: type[nn.Module] = nn.ReLU, norm: bool = False) -> nn.Sequential:
    layers = []
    for fan_in, fan_out in pairwise(widths[:-1]):
        layers += [nn.Linear(fan_in, fan_out), *([nn.BatchNorm1d(fan_out)] if norm else []), act()]
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))


def square(depth: int, act: type[nn.Module] = nn.ReLU, **kwargs) -> nn.Sequential:
    return mlp(*[WIDTH] * depth, CLASSES, act=act, **kwargs)


def weight_of(model: nn.Module, name: str) -> torch.Tensor:
    return model.get_submodule(name).weight.data


def he_mlp(seed: int) -> nn.Module:
    return he(square(8), seed)


def he_more(seed: int) -> nn.Module:
    """He's law in the last layer, too."""
    model = he(square(8), seed)
    model[-1].weight.data.mul_(math.sqrt(2))
    return model


def funnel(seed: int) -> nn.Module:
    return he(mlp(300, 100, 300, 100, CLASSES), seed)


def conv(seed: int) -> nn.Module:
    layers = []
    for c_in, c_out in pairwise([3, 32, 32, 32]):
        layers += [nn.Conv2d(c_in, c_out, 3, padding=1), nn.ReLU()]
    return he(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, CLASSES)), seed)


def tanh_mlp(seed: int) -> nn.Module:
    return he(square(8, nn.Tanh), seed, gain=1.0)


def redraw(name: str, std: float):
    def plant(model: nn.Module) -> None:
        weight_of(model, name).normal_(0, std, generator=generator(9))

    return plant


def everywhere(std: float):
    def plant(model: nn.Module) -> None:
        rng = generator(9)
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.weight.data.normal_(0, std, generator=rng)

    return plant


def constant_rows(model: nn.Module) -> None:
    weight = weight_of(model, "4")
    weight.copy_(weight[:1].expand_as(weight))


def put(name: str, value):
    def plant(model: nn.Module) -> None:
        model.get_parameter(name).data[...] = value

    return plant


FOURS = batch(5, 4)


VECTORS, IMAGES = batch(64, WIDTH), batch(32, 3, 12, 12)


class Residual(nn.Module):
    def __init__(self, *branch: nn.Module, shortcut: nn.Module | None = None, act: bool = True) -> None:
        super().__init__()
        self.branch, self.act = nn.Sequential(*branch), act
        self.shortcut = shortcut or nn.Identity()

    def forward(self, x):
        y = self.branch(x) + self.shortcut(x)
        return torch.relu(y) if self.act else y


def conv_bn(c_in, c_out, stride=1):
    return nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out)


def resnet(seed):
    blocks = []
    for c_in, c_out in [(16, 16), (16, 32), (32, 32)]:
        shortcut = nn.Sequential(nn.Conv2d(c_in, c_out, 1, c_out // c_in), nn.BatchNorm2d(c_out))
        branch = [*conv_bn(c_in, c_out, c_out // c_in), nn.ReLU(inplace=True), *conv_bn(c_out, c_out)]
        blocks.append(Residual(*branch, shortcut=None if c_in == c_out else shortcut))
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, CLASSES)
    return defaults(nn.Sequential(*conv_bn(3, 16), nn.ReLU(inplace=True), *blocks, *head), seed)


def conv_net(seed):
    layers = [
        *conv_bn(3, 16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        *conv_bn(16, 32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
    ]
    return defaults(nn.Sequential(*layers, nn.Flatten(), nn.Linear(32, CLASSES)), seed)


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
        self.up, self.mix = nn.ConvTranspose2d(32, 16, 2, 2), nn.Conv2d(32, 16, 3, padding=1)
        self.out = nn.Conv2d(16, CLASSES, 1)

    def forward(self, x):
        fine = F.relu(self.down1(x))
        coarse = F.relu(self.down2(F.max_pool2d(fine, 2)))
        return self.out(F.relu(self.mix(torch.cat([fine, F.relu(self.up(coarse))], 1))))


def unet(seed):
    model = he(UNet(), seed)
    model.up.weight.data.normal_(0, math.sqrt(2 / 32), generator=generator(seed))  # each output has 32 inputs
    nn.init.zeros_(model.up.bias)
    return model


def xavier(model: nn.Module, seed: int = 0) -> nn.Module:
    rng = generator(seed)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            initializers.xavier_normal_(parameter, generator=rng)
        else:
            nn.init.zeros_(parameter)
    return model


IDS = labels(16, 12, classes=50)


def second_moment(x: torch.Tensor) -> float:
    return x.double().square().mean().item()


def approx(value):
    return pytest.approx(value, rel=1e-5, nan_ok=True)


class Function(nn.Module):
    """A module with a matrix and a function of it and of the input."""

    def __init__(self, function, *shape):
        super().__init__()
        self.matrix, self.function = nn.Parameter(batch(*shape)), function

    def forward(self, x):
        return self.function(x, self.matrix)
