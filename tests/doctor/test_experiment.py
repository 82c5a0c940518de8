"""What follows a layer is measured: activations that nobody here named, and what is no activation at all."""

import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from doctor_networks import Residual
from initialize_networks import batch, draw_all_, seeded
from torch import nn

from course_utils.doctor import diagnose, initialize_
from course_utils.doctor.recording import Recorder
from course_utils.mean_field import gain_in_front


class Stack(nn.Module):
    """Layers of one width with a map of one's own behind each, and a last layer."""

    def __init__(self, function, depth=4, width=128, times=1):
        super().__init__()
        self.function = function
        self.layers = nn.ModuleList(nn.Linear(width, times * width) for _ in range(depth))
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        for layer in self.layers:
            x = self.function(layer(x))
        return self.head(x)

    def second_moments(self, x):
        moments = []
        with torch.no_grad():
            for layer in self.layers:
                x = self.function(layer(x))
                moments.append(x.square().mean().item())
        return moments


MAPS = {
    "GELU as GPT-2 writes it": lambda z: (
        0.5 * z * (1 + torch.tanh((2 / math.pi) ** 0.5 * (z + 0.044715 * z**3)))
    ),
    "GELU with erf": lambda z: 0.5 * z * (1 + torch.erf(z / 2**0.5)),
    "quick GELU": lambda z: z * torch.sigmoid(1.702 * z),
    "Mish": lambda z: z * torch.tanh(F.softplus(z)),
    "hard swish": lambda z: z * F.relu6(z + 3) / 6,
    "leaky by max": lambda z: torch.max(z, 0.1 * z),
    "StyleGAN's leaky ReLU": lambda z: F.leaky_relu(z, 0.2) * 2**0.5,
    "SiLU over 0.6": lambda z: F.silu(z) / 0.6,
    "softplus, shifted": lambda z: F.softplus(z) - math.log(2),
    "snake": lambda z: z + torch.sin(z) ** 2,
    "tanh, scaled": lambda z: 1.7159 * torch.tanh(2 * z / 3),
    "relu²": lambda z: F.relu(z) ** 2,
    "arctan": torch.atan,
}


@pytest.mark.parametrize("function", MAPS.values(), ids=MAPS)
def test_the_gain_of_any_map_is_measured_to_two_percent(function):
    table = draw_all_(Stack(function), batch(64, 128), generator=seeded()).table
    measured = table[table.parameter.str.startswith("layers") & (table.fan_in > 0)]
    assert len(measured) == 4
    assert measured.gain.to_numpy() == pytest.approx(gain_in_front(function), rel=0.02)


@pytest.mark.parametrize(
    "function",
    [f for name, f in MAPS.items() if name != "relu²"],
    ids=[name for name in MAPS if name != "relu²"],
)
def test_the_signal_keeps_its_size_and_nobody_is_alarmed(function):
    model, x = Stack(function), batch(64, 128)
    draw_all_(model, x, generator=seeded())
    assert all(1 / 3 < m < 3 for m in model.second_moments(x))
    assert diagnose(model, x, torch.arange(64) % 3).healthy


@pytest.mark.parametrize("function", [f for name, f in MAPS.items() if "²" not in name])
def test_the_remedy_is_the_measured_gain_and_following_it_helps(function):
    model, x, targets = Stack(function), batch(64, 128), torch.arange(64) % 3
    draw_all_(model, x, generator=seeded())
    model.layers[1].weight.data.mul_(1 / 300)
    (finding,) = [f for f in diagnose(model, x, targets).findings if f.is_fault]
    wanted = gain_in_front(function) / 128**0.5
    assert finding.layer == "layers.1"
    assert f"gain / sqrt(fan_in) = {wanted:.2g}" in finding.remedy.replace(f"{wanted:.3g}", f"{wanted:.2g}")
    model.layers[1].weight.data.normal_(0, wanted, generator=seeded(1))
    assert diagnose(model, x, targets).healthy


def test_deep_models_run_as_often_as_shallow_ones(monkeypatch):
    runs = []
    monkeypatch.setattr(Recorder, "run", lambda self, x, run=Recorder.run: (runs.append(1), run(self, x))[1])

    def counted(depth):
        runs.clear()
        initialize_(Stack(lambda z: z + F.gelu(z), depth, width=8), batch(16, 8))
        return len(runs)

    assert counted(4) == pytest.approx(counted(40), abs=4)


def test_a_gate_in_one_matrix_is_solved_as_a_whole():
    model, x = Stack(F.glu, times=2), batch(64, 128)
    table = draw_all_(model, x, generator=seeded()).table
    z = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    density = torch.exp(-z.square() / 2) * (z[1] - z[0]) / (2 * math.pi) ** 0.5

    def moment(s):
        return s**2 * ((s * z).sigmoid().square() * density).sum().item()

    gain = table.gain[0]
    assert moment(gain) == pytest.approx(1, rel=0.1)  # of 8,192 pairs
    assert all(1 / 3 < m < 3 for m in model.second_moments(x))


def test_where_no_size_helps_the_gain_is_critical_at_the_origin_or_one():
    sine, bump = (
        draw_all_(Stack(f), batch(64, 128)).table
        for f in (lambda z: torch.sin(30 * z), lambda z: (-z * z).exp())
    )
    assert sine.gain[0] == pytest.approx(1 / 30, rel=0.01)
    assert bump["std"][0] == pytest.approx(128**-0.5)


def test_a_norm_written_out_is_seen_behind_an_activation_or_without():
    def normalized(z):
        return z / z.square().mean(-1, keepdim=True).sqrt()

    for function in (normalized, lambda z: F.relu(normalized(z))):
        table = draw_all_(Stack(function), batch(64, 128)).table
        assert table["std"][0] == pytest.approx(128**-0.5)


def test_dropout_is_left_out_of_the_experiment():
    table = draw_all_(Stack(lambda z: F.dropout(F.relu(z), 0.5)), batch(64, 128)).table
    assert table.gain[0] == pytest.approx(2**0.5, rel=1e-6)
    assert table.follows[0] == "relu"


def test_a_model_that_cannot_run_on_noise_keeps_the_gains_of_what_was_recognized():
    def fussy(z):
        assert z.abs().max() < 4, "only real signals, please"
        return F.relu(z)

    model, x = Stack(fussy, width=8), 0.1 * batch(500, 8)
    table = draw_all_(model, x, generator=seeded()).table
    assert table.gain[0] == pytest.approx(2**0.5, rel=1e-6)


def test_whether_a_sigmoid_comes_last_is_not_guessed_of_a_model_that_cannot_run_on_noise():
    def fussy(z):
        assert z.abs().max() < 9, "only real signals, please"
        return z.sigmoid()

    for function, twice in [(torch.sigmoid, ["softmax twice"]), (fussy, [])]:
        model, x = nn.Sequential(nn.Linear(8, 1), nn.Identity()), batch(64, 8)
        nn.init.normal_(model[0].weight, std=8**-0.5, generator=seeded())
        model[1].forward = function
        loss = nn.BCEWithLogitsLoss()
        findings = diagnose(model, x, (x[:, :1] > 0).float(), loss).findings
        assert [f.fault for f in findings if f.is_fault] == twice


def test_nobody_is_warned_of_what_the_experiment_does():
    branch = nn.Linear(6, 6)
    nn.init.constant_(branch.bias, 10.0)  # noise lies around this mean
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings(record=True) as given:
            warnings.simplefilter("always")
            diagnose(nn.Sequential(nn.Linear(6, 6), Residual(branch), nn.Linear(6, 2)), batch(8, 6))
    finally:
        torch.set_warn_always(False)
    assert not [warning.message for warning in given]
