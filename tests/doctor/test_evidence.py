"""The numbers in the evidence on what parts of a model do to one another, worked out beside the doctor."""

import re

import pytest
import torch
from initialize_networks import batch
from torch import nn
from torch.nn import functional as F

from course_utils.doctor import diagnose

Z, LABELS = batch(200, 20), torch.arange(200) % 3


def filled(module: nn.Module, std: float, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for p in module.parameters():
        p.data.normal_(0, std, generator=generator) if p.ndim > 1 else p.data.zero_()
    return module


def evidence(fault: str, *case) -> str:
    (finding,) = (finding for finding in diagnose(*case).findings if finding.fault == fault)
    return finding.evidence


@pytest.mark.parametrize("std", [0.8, 3.0])
def test_how_much_of_its_slope_a_softmax_has_lost(std):
    model = nn.Sequential(filled(nn.Linear(20, 4), std), nn.Softmax(1), filled(nn.Linear(4, 3), 0.5))
    p = model[:2](Z[:8])
    lost = 1 - (1 - p.square().sum(1).mean().item()) / (1 - 1 / 4)
    assert (
        evidence("saturated", model, Z, LABELS) == f"The softmax behind it has lost {lost:.0%} of its slope."
    )


class Last(nn.Module):
    """The last step of a recurrent network."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.RNN(8, 16, batch_first=True), nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.cell(x)[0][:, -1])


def test_how_much_of_the_gradient_is_left_at_the_first_step():
    model, x, targets = filled(Last(), 0.1), batch(32, 10, 8), torch.arange(32) % 3
    given = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(F.cross_entropy(model(given), targets), given)
    by_step = g.double().square().mean((0, 2))
    left = (by_step[0] / by_step.max()).item()
    assert left < 1e-4
    words = f"The squared gradient at the first step is {left:.2g} of that at the best one."
    assert evidence("short memory", model, x, targets) == words


class Positions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = filled(nn.Embedding(50, 64), 0.1, 1), filled(nn.Embedding(16, 64), 5.0, 2)
        self.f, self.head = filled(nn.Linear(64, 64), 1 / 8), filled(nn.Linear(64, 3), 1 / 8)
        self.norm = nn.LayerNorm(64)

    def forward(self, ids):
        h = self.words(ids) + self.places(torch.arange(16)[None])
        return self.head(self.norm(h + self.f(self.norm(h))).mean(1))


def test_how_much_more_positions_add_than_words():
    model, ids = Positions(), torch.randint(50, (32, 16), generator=torch.Generator().manual_seed(3))
    ratio = model.places.weight.square().mean() / model.words(ids).square().mean()
    words = r"It adds (\S+) times what words adds beside it\."
    said = re.match(words, evidence("exploding signal", model, ids, torch.arange(32) % 3))
    assert float(said[1]) == pytest.approx(ratio.item(), rel=0.06)  # two digits


@pytest.mark.parametrize("count", [2, 3, 6])
def test_others_without_a_gradient_are_counted_and_three_are_named(count):
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(20, 8), nn.Linear(8, 3)
            self.cut = nn.ModuleList(filled(nn.Linear(8, 8), 0.35, k) for k in range(count))

        def forward(self, x):
            h = self.first(x)
            for layer in self.cut:
                h = h + layer(h).round()  # a step, of slope 0
            return self.last(h)

    said = evidence("vanishing gradient", filled(Cut(), 0.3), Z, LABELS)
    names = [f"cut.{k}" for k in range(1, count)]
    more = ", ".join(names[:3]) + " and others" * (count > 4)
    assert said.endswith(f" The same with {count - 1} more: {more}.")


def stack(depth: int = 4) -> nn.Sequential:
    layers = [filled(nn.Linear(20, 20), 20**-0.5, k) for k in range(depth)]
    return nn.Sequential(*layers, filled(nn.Linear(20, 3), 20**-0.5, depth))


def test_of_several_tensors_that_are_not_finite_the_first_is_named_and_all_are_counted():
    model = stack()
    for k in (1, 2, 3):
        model[k].weight.data[0, 0] = torch.nan
    (finding,) = diagnose(model, Z, LABELS).findings
    assert (finding.layer, finding.fault, finding.others) == ("1.weight", "not finite", ())
    assert finding.evidence == "It is the first tensor with NaN or infinity, of 3 in all."


def test_of_several_layers_that_return_nan_the_first_is_named():
    class Root(nn.Linear):
        def forward(self, x):
            return super().forward(x).sqrt()

    model = stack()
    model[1] = filled(Root(20, 20), 20**-0.5, 1)
    findings = [f for f in diagnose(model, Z, LABELS).findings if f.evidence == "It returns NaN or infinity."]
    assert [(f.layer, f.fault) for f in findings] == [("2", "not finite")]


def test_of_two_layers_that_take_the_inputs_the_first_is_named():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = (filled(nn.Linear(20, 3), 20**-0.5, k) for k in range(2))

        def forward(self, x):
            return self.a(x) + self.b(x)

    findings = [f for f in diagnose(Two(), 30 * Z, LABELS).findings if f.fault == "input scale"]
    assert [f.layer for f in findings] == ["a"]
