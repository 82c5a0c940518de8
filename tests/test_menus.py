"""What stands behind each name of the menus of demos and playground, against torch's own functions."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from course_utils.demos import gain
from course_utils.playground.network import MENUS

TORCHS: dict[str, Callable[[Tensor], Tensor]] = {
    "ReLU": F.relu,
    "leaky ReLU, a = 0.2": partial(F.leaky_relu, negative_slope=0.2),
    "leaky ReLU 0.1": partial(F.leaky_relu, negative_slope=0.1),
    "ELU": F.elu,
    "SELU": F.selu,
    "GELU": F.gelu,
    "SiLU": F.silu,
    "Mish": F.mish,
    "tanh": torch.tanh,
    "softsign": F.softsign,
    "sigmoid": torch.sigmoid,
    "linear": torch.nn.Identity(),
}
GAINS = {"torch's default: 1/√3": 3**-0.5, "Xavier: 1": 1.0, "He: √2": 2**0.5, "torch, for tanh: 5/3": 5 / 3}
MENUS_OF_ACTIVATIONS = {"demo": gain.ACTIVATIONS, "playground": MENUS["activation"]}
Z = torch.linspace(-3, 3, 13, dtype=torch.float64)


@pytest.mark.parametrize(
    ("room", "name"), [(room, name) for room, menu in MENUS_OF_ACTIVATIONS.items() for name in menu]
)
def test_an_activation_is_what_it_is_called(room: str, name: str):
    torch.testing.assert_close(MENUS_OF_ACTIVATIONS[room][name](Z), TORCHS[name](Z))


@pytest.mark.parametrize("rule", GAINS)
def test_a_rule_gives_the_gain_that_it_names_whatever_the_activation(rule: str):
    assert [gain.RULES[rule](phi) for phi in gain.ACTIVATIONS.values()] == [GAINS[rule]] * len(
        gain.ACTIVATIONS
    )
