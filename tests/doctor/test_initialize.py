"""The laws by which initialize_ draws, and that the network is healthy afterwards.

Expected standard deviations are written down by hand, from fan-in and activation, not read from the report.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from initialize_networks import Function, Residual, batch, bits, draw_all_, seeded, spoilt, tokens
from torch import nn

from course_utils import mean_field
from course_utils.doctor import diagnose
from course_utils.doctor.initialize import Initialization


class Attention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(width), nn.MultiheadAttention(width, 4, batch_first=True)

    def forward(self, x):
        h = self.norm(x)
        return x + self.attention(h, h, h, need_weights=False)[0]


def check_stds(model, inputs, expected, initializer=draw_all_, networks=25):
    """Assert that the weights' second moments over many draws are the squares of the expected stds."""
    moments = {name: [] for name in expected}
    for seed in range(networks):
        initializer(model, inputs, generator=seeded(seed))
        parameters = dict(model.named_parameters())
        for name in expected:
            moments[name].append(parameters[name].detach().double().square().mean())
    for name, std in expected.items():
        measured = torch.stack(moments[name])
        error = measured.std() / math.sqrt(networks)
        assert abs(measured.mean() - std**2) <= 4 * error + 1e-12, name


LAYERS = {
    "mlp": (
        lambda: nn.Sequential(nn.Linear(20, 30), nn.GELU(), nn.Linear(30, 40), nn.Tanh(), nn.Linear(40, 5)),
        (8, 20),
        {"0.weight": 1.4680113 / math.sqrt(20), "2.weight": math.sqrt(1 / 30), "4.weight": math.sqrt(1 / 40)},
    ),
    "leaky and sigmoid": (
        lambda: nn.Sequential(nn.Linear(20, 30), nn.LeakyReLU(0.5), nn.Linear(30, 40), nn.Sigmoid()),
        (8, 20),
        {"0.weight": math.sqrt(2 / 1.25 / 20), "2.weight": math.sqrt(1 / 30)},
    ),
    "convolutions": (
        lambda: nn.Sequential(
            nn.Conv2d(4, 8, 3, groups=2), nn.ReLU(), nn.ConvTranspose2d(8, 6, 3), nn.ReLU()
        ),
        (2, 4, 6, 6),
        {"0.weight": math.sqrt(2 / 18), "2.weight": math.sqrt(2 / (72 * 4 / 9))},  # at borders it sees less
    ),
    "matrices for x @ W": (
        lambda: Function(lambda m, x: torch.relu(x @ m.a) @ m.b, a=(20, 50), b=(50, 10)),
        (8, 20),
        {"a": math.sqrt(2 / 20), "b": math.sqrt(1 / 50)},
    ),
    "norms": (
        lambda: nn.Sequential(
            nn.Linear(20, 30), nn.BatchNorm1d(30), nn.ReLU(), nn.Linear(30, 5), nn.LayerNorm(5)
        ),
        (8, 20),
        {
            "0.weight": math.sqrt(1 / 20),
            "1.weight": 1.0,
            "1.bias": 0.0,
            "3.weight": math.sqrt(1 / 30),
            "4.weight": 1,
        },
    ),
    "residual branches": (
        lambda: nn.Sequential(
            *(Residual(nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 20))) for _ in range(4))
        ),
        (8, 20),
        {"0.branch.0.weight": math.sqrt(2 / 20), "3.branch.2.weight": math.sqrt(1 / 30 / 4)},
    ),
    "branch that ends in a norm, and a projection": (
        lambda: Residual(
            nn.Sequential(nn.Linear(20, 9), nn.ReLU(), nn.Linear(9, 9), nn.BatchNorm1d(9)), nn.Linear(20, 9)
        ),
        (8, 20),
        {"branch.3.weight": 1.0, "branch.2.weight": 1 / 3, "shortcut.weight": math.sqrt(1 / 20)},
    ),
    "attention": (
        lambda: nn.Sequential(Attention(16), Attention(16)),
        (4, 5, 16),
        {
            "0.attention.in_proj_weight": 1 / 4,
            "0.attention.out_proj.weight": 1 / 4 / math.sqrt(2),
            "0.attention.in_proj_bias": 0.0,
            "1.norm.weight": 1.0,
        },
    ),
    "attention to others": (
        lambda: Function(lambda m, x: m.a(x, x[..., :6], x[..., :8])[0]).add(
            "a", nn.MultiheadAttention(16, 4, kdim=6, vdim=8)
        ),
        (5, 4, 16),
        {"a.q_proj_weight": 1 / 4, "a.k_proj_weight": math.sqrt(1 / 6), "a.v_proj_weight": math.sqrt(1 / 8)},
    ),
    "recurrent": (
        lambda: nn.GRU(10, 16, 2, bidirectional=True),
        (7, 3, 10),
        {
            "weight_ih_l0": math.sqrt(1 / 10),
            "weight_ih_l1_reverse": math.sqrt(1 / 32),
            "weight_hh_l0": 1 / 4,
            "bias_ih_l0": 0,
        },
    ),
}


@pytest.mark.parametrize("case", LAYERS)
def test_the_law_of_every_weight(case):
    build, shape, expected = LAYERS[case]
    check_stds(spoilt(build()), batch(*shape), expected)


def test_two_branches_share_by_the_square_root_of_their_number():
    """One projection above shares nothing, so two blocks must; the norm at the end takes the factor."""
    block = lambda: Residual(nn.Sequential(nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 9), nn.BatchNorm1d(9)))  # noqa: E731
    model = spoilt(nn.Sequential(block(), block()))
    report = draw_all_(model, batch(8, 9), generator=seeded())
    assert torch.equal(model[1].branch[3].weight.detach(), torch.full((9,), math.sqrt(0.5)))
    assert torch.equal(model[1].branch[3].bias.detach(), torch.zeros(9))
    laws = report.table.set_index("parameter")["law"]
    assert laws["1.branch.3.weight"] == "constant 0.707107, with 1/√2 for 2 residual branches"
    assert laws["1.branch.3.bias"] == "constant 0"


@pytest.mark.parametrize(
    "fault",
    [
        lambda w, gain: nn.init.kaiming_normal_(w, mode="fan_out", generator=seeded()),
        lambda w, gain: nn.init.xavier_normal_(w, generator=seeded()),
        lambda w, gain: nn.init.normal_(w, 0, 1.01 * gain / math.sqrt(w.shape[1]), generator=seeded()),
    ],
)
def test_a_wrong_law_is_caught(fault):
    def faulty(model, inputs, generator):
        for layer, gain in ((model[0], 1.4680113), (model[2], 1.0), (model[4], 1.0)):
            weight = torch.empty(layer.weight.shape)
            fault(weight, gain)
            layer.weight.data = weight * (1 + 1e-4 * torch.rand(1, generator=generator))

    build, shape, expected = LAYERS["mlp"]
    with pytest.raises(AssertionError):
        check_stds(build(), batch(*shape), expected, faulty)


@pytest.mark.parametrize(
    "phi", [F.relu6, F.relu, F.gelu, F.silu, F.elu, F.selu, F.mish, F.softplus, F.leaky_relu]
)
def test_the_gain_keeps_the_second_moment(phi):
    model = Function(lambda m, x: phi(F.linear(x, m.a)), a=(5, 20))
    gain = draw_all_(model, batch(8, 20), generator=seeded()).table["gain"].item()
    kept = mean_field.gaussian_expectation(lambda z: phi(z) ** 2, gain)
    assert kept == pytest.approx(1, rel=1e-6)
    if phi in (
        F.relu,
        F.selu,
        F.leaky_relu,
    ):  # homogeneous, or made for gain 1: behind phi the same gain serves
        assert gain == pytest.approx(mean_field.gain_behind(phi), rel=1e-6)


def test_the_report_says_what_was_done():
    build, shape, _ = LAYERS["mlp"]
    report = draw_all_(build(), batch(*shape), generator=seeded())
    assert list(report.table["parameter"]) == [
        f"{i}.{name}" for i in (0, 2, 4) for name in ("weight", "bias")
    ]
    row = report.table.iloc[0]
    assert (row["shape"], row["layer"], row["kind"], row["follows"]) == ("30×20", "0", "Linear", "gelu")
    assert (row["fan_in"], row["std"]) == (20, pytest.approx(row["gain"] / math.sqrt(20)))
    assert report.left_alone.empty
    assert str(report).startswith("6 parameters initialized, 0 left alone.")
    row = next(line for line in str(report).split("\n") if "30×20" in line)
    assert row.split()[:8] == ["0.weight", "30×20", "0", "Linear", "gelu", "20", "1.468", "0.3283"]


def test_embeddings_keep_the_padding():
    model = spoilt(nn.Sequential(nn.Embedding(50, 16, padding_idx=3), nn.Linear(16, 4)))
    draw_all_(model, tokens(4, 7), generator=seeded())
    rows = model[0].weight.detach().square().mean(1)
    assert rows[3] == 0
    others = torch.cat([rows[:3], rows[4:]])
    assert abs(others.mean() - 1) < 4 * math.sqrt(2 / (49 * 16))


@pytest.mark.parametrize(
    "module", [nn.LSTM(10, 8), nn.LSTMCell(10, 8), nn.RNN(10, 8), nn.GRUCell(10, 8)], ids=repr
)
def test_recurrent_blocks_are_orthogonal_and_lstms_remember(module):
    shape = (3, 10) if isinstance(module, nn.RNNCellBase) else (6, 3, 10)
    report = draw_all_(spoilt(module), batch(*shape), generator=seeded())
    assert report.left_alone.empty
    parameters = dict(module.named_parameters())
    name, hidden = next(item for item in parameters.items() if item[0].startswith("weight_hh"))
    stated = report.table.set_index("parameter")["std"][name]
    assert stated == pytest.approx(hidden.detach().square().mean().sqrt().item(), rel=1e-5)
    for block in hidden.detach().split(8):
        torch.testing.assert_close(block @ block.T, torch.eye(8), rtol=0, atol=1e-5)
    bias = sum(p.detach() for name, p in parameters.items() if name.startswith("bias"))
    expected = torch.zeros(len(hidden))
    if isinstance(module, nn.LSTM | nn.LSTMCell):
        expected[8:16] = 1.0
    assert torch.equal(bias, expected)


def deep(activation, layers=30, width=128):
    hidden = [module for _ in range(layers) for module in (nn.Linear(width, width), activation())]
    return nn.Sequential(nn.Linear(20, width), activation(), *hidden, nn.Linear(width, 5))


@pytest.mark.parametrize(
    "activation", [nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SELU, nn.Tanh, nn.Softsign], ids=lambda a: a.__name__
)
def test_a_deep_network_is_healthy_afterwards(activation):
    model, x = spoilt(deep(activation)), batch(64, 20)
    targets = torch.arange(64) % 5
    assert not diagnose(model, x, targets).healthy
    for seed in range(2):
        draw_all_(model, x, generator=seeded(seed))
        assert diagnose(model, x, targets).healthy, diagnose(model, x, targets).verdict


@pytest.mark.parametrize("activation", [nn.GELU, nn.SiLU, nn.Mish], ids=lambda a: a.__name__)
def test_smooth_activations_start_healthy_too_if_not_very_deep(activation):
    model, x = spoilt(deep(activation, layers=10)), batch(64, 20)
    for seed in range(2):
        draw_all_(model, x, generator=seeded(seed))
        assert diagnose(model, x, torch.arange(64) % 5).healthy


def test_torchs_own_encoder_is_healthy_afterwards():
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True)
    model = nn.Sequential(
        nn.Linear(8, 32),
        nn.TransformerEncoder(layer, 6, enable_nested_tensor=False),
        nn.Flatten(),
        nn.Linear(256, 5),
    )
    x = batch(64, 8, 8)
    report = draw_all_(model, x, generator=seeded())
    assert isinstance(report, Initialization)
    assert report.table["law"].str.contains("1/√12 for 12 residual branches").sum() == 12
    assert report.left_alone.empty
    assert diagnose(model, x, torch.arange(64) % 5).healthy
    first, second = (model[1].layers[i].linear1.weight for i in (0, 1))
    assert not torch.equal(first, second)  # torch copies one layer six times


def test_a_stack_of_matrices_with_one_more_dimension():
    model = Function(lambda m, x: (x @ m.w[None]).sum((0, 1)), w=(5, 8, 8))
    assert draw_all_(model, batch(4, 8), generator=seeded()).table["fan_in"].item() == 8


def test_a_layer_with_one_input_is_no_embedding():
    report = draw_all_(nn.Sequential(nn.Linear(1, 9), nn.ReLU()), batch(4, 1), generator=seeded())
    assert report.table["law"][0] == "N(0, gain² / fan_in)"
    assert report.table["std"][0] == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize("phi", [nn.Hardtanh(0.0, 1.0), nn.Softplus(beta=0.5)], ids=repr)
def test_an_activation_that_no_gain_brings_to_one_gets_none(phi):
    """E phi(gain Z)**2 stays below 1 / 2, or above ln(2)**2 / beta**2 = 1.92."""
    report = draw_all_(nn.Sequential(nn.Linear(8, 8), phi), batch(4, 8), generator=seeded())
    assert report.table["gain"][0] == 1


def test_an_activation_called_by_keyword():
    model = Function(lambda m, x: torch.relu(input=m.layer(x))).add("layer", nn.Linear(8, 8))
    report = draw_all_(model, batch(4, 8), generator=seeded())
    assert report.table["gain"][0] == pytest.approx(math.sqrt(2))


PARTS = {
    "chunk": lambda y: y.chunk(2, -1),
    "split, the second half": lambda y: y.split(64, -1)[::-1],
    "slices": lambda y: (y[..., :64], y[..., 64:]),
    "unflatten": lambda y: y.unflatten(-1, (2, 64)).unbind(-2),
}


@pytest.mark.parametrize("case", PARTS)
@pytest.mark.parametrize("shape", [(64, 32), (4, 16, 32)], ids=str)
def test_a_gate_and_its_value_in_one_matrix(case, shape):
    def gated(m, x):
        gate, value = PARTS[case](F.linear(x, m.w))
        return F.silu(gate) * value

    model = Function(gated, w=(128, 32))
    report = draw_all_(model, batch(*shape), generator=seeded())
    first, second = model.w.detach().double().square().view(2, -1).mean(1) * 32
    gate, value = (second, first) if "second" in case else (first, second)
    error = 4 * math.sqrt(2 / (64 * 32))
    assert gate / 1.5587600**2 == pytest.approx(1, abs=error)
    assert value == pytest.approx(1, abs=error)
    assert report.table["std"].item() == pytest.approx(math.sqrt((1.5587600**2 + 1) / 2 / 32))
    units = "64 to 127" if "second" in case else "0 to 63"
    assert report.table["law"].item() == f"N(0, gain² / fan_in), gain 1.56 in units {units}, else 1"


def test_the_std_of_a_gate_that_is_not_half_of_its_matrix():
    model = Function(lambda m, x: F.silu(F.linear(x, m.w)[:, :32]), w=(128, 32))
    std = draw_all_(model, batch(8, 32), generator=seeded()).table["std"].item()
    assert std == pytest.approx(math.sqrt((1.5587600**2 + 3) / 4 / 32))


@pytest.mark.parametrize(
    "between", [nn.PixelShuffle(2), nn.MaxPool2d(2), nn.Flatten(), nn.Unflatten(1, (2, 4))], ids=repr
)
def test_an_activation_that_reads_all_units_in_another_shape(between):
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), between, nn.ReLU())
    table = draw_all_(model, batch(4, 3, 4, 4), generator=seeded()).table
    assert table["std"][0] == pytest.approx(math.sqrt(2 / (27 * (10 / 12) ** 2)))  # the padding is 0


def test_one_seed_one_network_whatever_it_held_before():
    build, shape, _ = LAYERS["mlp"]
    models = [spoilt(build()), build()]
    for model in models:
        draw_all_(model, batch(*shape), generator=seeded(5))
    first, second = map(bits, models)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_bilinear_layer_has_a_weight_and_a_bias():
    done = draw_all_(nn.Bilinear(3, 4, 5), (batch(2, 3), batch(2, 4)), generator=seeded())
    assert dict(done.table[["parameter", "law"]].to_numpy()) == {
        "weight": "N(0, gain² / fan_in)",
        "bias": "constant 0",
    }


def test_a_bias_in_addmm():
    model = Function(lambda m, x: torch.addmm(m.b, x, m.w), b=(5,), w=(20, 5))
    assert draw_all_(model, batch(8, 20), generator=seeded()).left_alone.empty
    assert (model.b == 0).all()


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_branches_count_in_every_mode_of_the_caller(mode):
    model = nn.Sequential(*(Residual(nn.Linear(16, 16)) for _ in range(3)))
    with mode():
        table = draw_all_(model, batch(64, 16), generator=seeded()).table
    weights = table[table.parameter.str.endswith("weight")]
    assert weights["std"].tolist() == pytest.approx([1 / 4 / math.sqrt(3)] * 3, rel=0.05)
