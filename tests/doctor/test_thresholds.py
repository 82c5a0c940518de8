"""Each threshold of `diagnose` holds on either side: a little beyond it is a fault, a little within none."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from course_utils import initializers
from course_utils.doctor import diagnose

# The values are written down here once more: one that changes in the package alone is noticed.
FAR, STEP, DEAD, AT_A_BOUND, EXCESS_LOSS = 1e4, 4.0, 0.6, 0.03, 2.5
SMALL_INPUT, LARGE_INPUT, OFFSET = 1e-3, 10.0, 0.9
OFF, LARGE_STD, GAIN, SAME_STD, SMALL_STEP = 1.5, 1.5, 1.2, 0.03, 0.01
N = 64
X = torch.randn(100, N, generator=torch.Generator().manual_seed(1))
X = (X - X.mean()) / X.std(correction=0)  # so mean 0 and second moment 1


def faults(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor | None = None) -> list[str]:
    return [finding.fault for finding in diagnose(model, inputs, targets).findings if finding.is_fault]


def orthogonal(*gains: float) -> list[nn.Linear]:
    """Return layers that multiply every second moment by exactly gain squared."""
    layers = [nn.Linear(N, N, bias=False) for _ in gains]
    for seed, (layer, gain) in enumerate(zip(layers, gains, strict=True)):
        initializers.orthogonal_(layer.weight, gain, generator=torch.Generator().manual_seed(seed))
    return layers


def chain(*gains: float) -> nn.Sequential:
    return nn.Sequential(*orthogonal(*gains))


def bias(size: int, first: int, value: float) -> nn.Parameter:
    """Return biases of which the first are `value`, the others 0."""
    return nn.Parameter(torch.cat([torch.full((first,), value), torch.zeros(size - first)]))


def weight(shape: tuple[int, ...], std: float) -> nn.Parameter:
    """Return normal weights whose root mean square is exactly `std`."""
    values = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    return nn.Parameter(values * std / values.square().mean().sqrt())


class GradientFactor(nn.Module):
    """The identity, whose gradient is multiplied on its way back."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x):
        x.register_hook(lambda g: self.factor * g)
        return x


def steep_gradient(factor: float) -> list[str]:
    first, second, last = orthogonal(1, 1, 1)
    return faults(nn.Sequential(first, second, GradientFactor(math.sqrt(factor)), last), X)


BOTH_SIDES = [(1.1, True), (0.9, False)]


@pytest.mark.parametrize(("off", "wrong"), BOTH_SIDES)
@pytest.mark.parametrize(("sign", "fault"), [(1, "exploding"), (-1, "vanishing")])
def test_far_and_step(off: float, wrong: bool, sign: int, fault: str):
    far, step = (off * FAR) ** sign, off * STEP if sign > 0 else SMALL_STEP / off
    deep = [far ** (1 / 20)] * 10
    diagnosis = diagnose(chain(*deep, 1), X)
    assert [finding.fault for finding in diagnosis.findings] == [f"{fault} signal"] * wrong
    said = f"at 9 is {far:.2g} of what entered the first layer, a factor of {far**0.1:.2g} per layer."
    assert (said in diagnosis.verdict) == wrong
    assert faults(chain(1, math.sqrt(step), 1), X) == [f"{fault} signal"] * wrong
    assert steep_gradient(far) == [f"{fault} gradient"] * wrong


@pytest.mark.parametrize(("off", "explained"), [(1.05, True), (0.95, False)])
def test_weights_explain_a_drift_only_if_they_are_off(off: float, explained: bool):
    (finding,) = diagnose(chain(*[math.sqrt(off * OFF)] * 30), X).findings
    assert finding.fault == "exploding signal"
    assert finding.cause.startswith("No weights of a known law explain it") != explained
    assert (len(finding.others) > 15) == explained


@pytest.mark.parametrize(("share", "dead"), [(DEAD + 0.01, ["dead"]), (DEAD - 0.01, [])])
def test_dead(share: float, dead: list[str]):
    model = nn.Sequential(nn.Linear(N, 1000), nn.ReLU(), nn.Linear(1000, 3))
    model[0].weight, model[2].weight = weight((1000, N), math.sqrt(2 / N)), weight((3, 1000), 1000**-0.5)
    model[0].bias = bias(1000, round(1000 * share), -1000.0)
    assert faults(model, X) == dead


def test_a_few_units_may_be_dead_by_chance():
    model = nn.Sequential(nn.Linear(N, 25), nn.ReLU(), nn.Linear(25, 3))
    model[0].weight, model[2].weight = weight((25, N), math.sqrt(2 / N)), weight((3, 25), 0.2)
    for dead, expected in [(22, []), (23, ["dead"])]:  # half and four standard errors of 0.1: up to 0.9
        model[0].bias = bias(25, dead, -1000.0)
        assert faults(model, X) == expected


@pytest.mark.parametrize(("rows", "saturated"), [(51, ["saturated"]), (49, [])])
def test_saturated(rows: int, saturated: list[str]):
    first, last = orthogonal(1, 1)
    nn.init.eye_(first.weight)
    signs = X.sign()
    x = torch.cat([2.2 * signs[:rows], 0.1 * signs[rows:]])  # tanh(2.2) = 0.976
    assert faults(nn.Sequential(first, nn.Tanh(), last), x) == saturated


@pytest.mark.parametrize(("module", "inverse"), [(nn.Tanh(), torch.atanh), (nn.Sigmoid(), torch.logit)])
def test_at_a_bound(module: nn.Module, inverse):
    low = -1 if isinstance(module, nn.Tanh) else 0
    distances = AT_A_BOUND + torch.tensor([-0.001, 0.001])
    outputs = torch.cat([low + distances, 1 - distances, torch.tensor([0.5])])
    layer = nn.Linear(1, 1)
    nn.init.ones_(layer.weight), nn.init.zeros_(layer.bias)
    table = diagnose(nn.Sequential(layer, module), inverse(outputs)[:, None]).table
    assert table["saturated"][0] == pytest.approx(2 / 5)


class Shifted(nn.Linear):
    """A constant, which is no parameter, is added."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + self.shift


@pytest.mark.parametrize("excess", [EXCESS_LOSS + 0.1, EXCESS_LOSS - 0.1])
def test_excess_loss(excess: float):
    model = Shifted(N, 10, bias=False)
    nn.init.zeros_(model.weight)
    model.shift = bias(10, 1, math.log(10 * math.exp(excess) - 9)).data  # a loss of ln 10 + excess
    large = ["large initial loss"] * (excess > EXCESS_LOSS)
    assert faults(model, X, torch.ones(100, dtype=torch.long)) == large


@pytest.mark.parametrize(("off", "blamed"), [(1.05, True), (0.95, False)])
def test_large_weights_explain_what_comes_out_too_large(off: float, blamed: bool):
    model = Shifted(N, 10, bias=False)
    model.weight = weight((10, N), off * LARGE_STD * N**-0.5)
    model.shift = bias(10, 1, 20.0).data
    (finding,) = diagnose(model, X, torch.ones(100, dtype=torch.long)).findings
    assert finding.fault == "large initial loss"
    assert finding.cause.startswith("Its weights' std is") == blamed


@pytest.mark.parametrize(
    ("moment", "share", "wrong"),
    [
        (1.05 * LARGE_INPUT, 0, True),
        (0.95 * LARGE_INPUT, 0, False),
        (0.95 * SMALL_INPUT, 0, True),
        (1.05 * SMALL_INPUT, 0, False),
        (1.0, OFFSET + 0.01, True),
        (1.0, OFFSET - 0.01, False),
    ],
)
def test_inputs(moment: float, share: float, wrong: bool):
    x = math.sqrt(moment) * (math.sqrt(1 - share) * X + math.sqrt(share))
    assert faults(chain(1, 1), x) == ["input scale"] * wrong


@pytest.mark.parametrize(("off", "worth"), [(1.02, True), (0.98, False)])
def test_a_gain_that_is_worth_a_remark(off: float, worth: bool):
    slope = math.sqrt(2 / (off * GAIN) ** 2 - 1)
    model = nn.Sequential(nn.Linear(N, N), nn.LeakyReLU(slope), nn.Linear(N, N))
    model[0].weight, model[2].weight = weight((N, N), N**-0.5), weight((N, N), N**-0.5)
    findings = diagnose(model, X).findings
    assert [finding.fault for finding in findings if finding.fault != "copies"] == ["missing gain"] * worth


@pytest.mark.parametrize(("width", "told"), [(215, True), (185, False)])
def test_fans_that_differ_tell_laws_apart(width: int, told: bool):
    widths = [width, 100, width, 100]
    layers = [nn.Linear(*pair) for pair in pairwise(widths)]
    for layer in layers:
        layer.weight = weight(layer.weight.shape, math.sqrt(2 / layer.in_features))
    layers[1].weight = weight((width, 100), math.sqrt(2 / width))
    last = nn.Linear(100, 3)
    last.weight = weight((3, 100), 0.1)
    model = nn.Sequential(*(module for layer in layers for module in (layer, nn.ReLU())), last)
    x = torch.randn(100, width, generator=torch.Generator().manual_seed(3))
    assert faults(model, x) == ["wrong fan"] * told


@pytest.mark.parametrize(("off", "fault"), [(0.9, "double init"), (1.1, "vanishing signal")])
def test_weights_follow_a_law_if_their_std_is_the_same(off: float, fault: str):
    first, second, last = (nn.Linear(256, 256) for _ in range(3))
    twice = (1 + off * SAME_STD) * 2 / 256
    for layer, std in [(first, math.sqrt(2 / 256)), (second, twice), (last, 1 / 16)]:
        layer.weight = weight((256, 256), std)
        nn.init.zeros_(layer.bias)
    x = torch.randn(100, 256, generator=torch.Generator().manual_seed(4))
    assert faults(nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last), x) == [fault]
