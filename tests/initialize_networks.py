"""Networks for the tests of initialize_, and what the tests say of them."""

from functools import partial

import torch
from torch import nn

from course_utils.doctor import initialize_

draw_all_ = partial(initialize_, overwrite=True)  # whatever law the parameters have


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(*shape, seed=9):
    return torch.randn(*shape, generator=seeded(seed))


def tokens(*shape):
    return torch.randint(0, 50, shape, generator=seeded(9))


class Function(nn.Module):
    """A module from a function, and parameters by name: constant 7 until they are initialized."""

    def __init__(self, function, **shapes):
        super().__init__()
        self.function = function
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.full(shape, 7.0)))

    def forward(self, *inputs):
        return self.function(self, *inputs)

    def add(self, name, module):
        """Register a module, and return the model."""
        self.add_module(name, module)
        return self


class Residual(nn.Module):
    """x + branch(x), or shortcut(x) + branch(x)."""

    def __init__(self, branch, shortcut=None):
        super().__init__()
        self.branch, self.shortcut = branch, shortcut or nn.Identity()

    def forward(self, x):
        return self.shortcut(x) + self.branch(x)


def spoilt(model):
    """Fill every parameter with 7, so that nothing passes because torch drew it well."""
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(7.0)
    return model


def left_alone(report):
    return dict(zip(report.left_alone["parameter"], report.left_alone["reason"], strict=True))


def bits(model):
    return {name: p.detach().clone() for name, p in model.state_dict().items() if not p.is_meta}
