"""Which sums are residual, which layers end a branch, and how much all of them add."""

import pytest
import torch
import torch.nn.functional as F
from initialize_networks import seeded
from torch import nn

from course_utils.doctor.experiment import Laboratory
from course_utils.doctor.graph import analyse, branches
from course_utils.doctor.recording import Recorder
from course_utils.doctor.restoring import restored


class Net(nn.Module):
    """A module from a function; u, v, w are 16 x 16 weights, e an embedding of 50 words."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        for name in "uvwz":
            self.register_parameter(name, nn.Parameter(torch.randn(16, 16, generator=seeded()) / 4))
        self.e = nn.Parameter(torch.randn(50, 16, generator=seeded()))
        self.p = nn.Parameter(torch.zeros(7, 16))
        self.norm = nn.LayerNorm(16)

    def forward(self, *inputs):
        return self.function(self, *inputs)


def ends(function, *inputs):
    """Return how much all branches add, by the layer that ends one."""
    model = Net(function)
    recorder = Recorder(model)
    with torch.no_grad():
        recorder.run(inputs)
    nodes = analyse(recorder.calls)
    with restored(model, inputs) as start:
        contributions = Laboratory(nodes, model, inputs, start).contributions({})
    return {end.layer: whole for end, whole in branches(nodes, contributions).items()}


X = torch.randn(8, 16, generator=seeded(1))
TOKENS = torch.randint(0, 50, (4, 16), generator=seeded(2))


def lookup(m, t):
    return F.embedding(t, m.e)


RESIDUAL = {
    "identity": (lambda m, x: x + F.linear(F.relu(F.linear(x, m.u)), m.v), {"v": 1}),
    "written the other way round": (lambda m, x: F.linear(F.relu(F.linear(x, m.u)), m.v) + x, {"v": 1}),
    "in place": (lambda m, x: x.clone().add_(F.linear(x, m.u)), {"u": 1}),
    "that ends in an activation": (lambda m, x: x + F.relu(F.linear(x, m.u)), {"u": 0.5}),
    "that ends in a norm": (lambda m, x: x + m.norm(F.linear(x, m.u)), {"norm": 1}),
    "a norm first": (lambda m, x: x + F.linear(m.norm(x), m.u), {"u": 1}),
    "a projection": (lambda m, x: F.linear(x, m.w) + F.linear(F.relu(F.linear(x, m.u)), m.v), {"v": 1}),
    "two in a row": (lambda m, x: (lambda y: y + F.linear(y, m.v))(x + F.linear(x, m.u)), {"u": 2, "v": 2}),
    "one weight twice": (
        lambda m, x: (lambda y: y + F.linear(y, m.u))(x + F.linear(x, m.u)),
        {"u": 2, "u (call 2)": 2},
    ),
    "one within another": (lambda m, x: x + (lambda y: y + F.linear(y, m.v))(F.linear(x, m.u)), {"v": 1}),
    "with attention inside": (
        lambda m, x: (
            x + F.linear(torch.softmax(F.linear(x, m.u) @ F.linear(x, m.v).mT, -1) @ F.linear(x, m.w), m.z)
        ),
        {"z": 1},
    ),
}

PLAIN = {
    "positions that are learned": (lambda m, t: lookup(m, t) + torch.ones(16, 16), TOKENS),
    "positions that are looked up": (lambda m, t: lookup(m, t) + F.embedding(torch.arange(16), m.e), TOKENS),
    "a mask of another shape, made from the tokens": (
        lambda m, t: F.linear(lookup(m, t), m.u) @ lookup(m, t).mT + (t > 25).float()[:, None],
        TOKENS,
    ),
    "two layers side by side": (lambda m, x: F.linear(x, m.u) + F.linear(x, m.v), X),
    "a gate": (
        lambda m, x: (lambda z: z * torch.tanh(F.linear(x, m.u)) + (1 - z) * x)(
            torch.sigmoid(F.linear(x, m.v))
        ),
        X,
    ),
}


@pytest.mark.parametrize("case", RESIDUAL)
def test_residual_branches(case):
    function, expected = RESIDUAL[case]
    assert ends(function, X) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("case", PLAIN)
def test_what_meets_without_adding_more_than_was_there(case):
    function, inputs = PLAIN[case]
    assert all(whole <= 1 for whole in ends(function, inputs).values())


def test_what_meets_an_input_adds_as_much_as_that():
    assert ends(lambda m, x, y: F.linear(x, m.u) + y, X, X.clone()) == {"u": 1}
