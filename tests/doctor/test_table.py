"""The numbers of the table of a diagnosis, and the names of its rows."""

import math

import pytest
import torch
from doctor_networks import (
    CLASSES,
    FOURS,
    IDS,
    IMAGES,
    VECTORS,
    WIDTH,
    Function,
    approx,
    batch,
    defaults,
    generator,
    he,
    he_mlp,
    labels,
    mlp,
    second_moment,
)
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from course_utils import activations, initializers
from course_utils.doctor import diagnose, vocabulary
from course_utils.networks import PlainNetwork


@pytest.fixture
def by_hand():
    """Return a small network, its diagnosis, and what flows through it, with gradients."""
    model = he(mlp(6, 40, 30, CLASSES, act=nn.Tanh), gain=3.0)
    model[0].bias.data.normal_(generator=generator(5))
    x, targets = batch(12, 6) + 0.5, labels(12)
    diagnosis = diagnose(model, x, targets)
    flows = [x]
    for module in model:
        flows.append(module(flows[-1]))
        flows[-1].retain_grad()
    loss = F.cross_entropy(flows[-1], targets)
    loss.backward()
    return model, diagnosis, flows, loss.item()


def test_the_table_has_the_moments_of_the_signal(by_hand):
    _, diagnosis, flows, loss = by_hand
    table = diagnosis.table
    assert diagnosis.loss == approx(loss)
    assert diagnosis.expected_loss == approx(math.log(CLASSES))
    assert table["layer"].tolist() == ["0", "2", "4"]
    assert table["kind"].tolist() == ["Linear"] * 3
    assert table["activation"].tolist() == ["tanh", "tanh", ""]
    for i, z in enumerate(flows[1::2]):
        row, h = table.iloc[i], flows[min(2 * i + 2, len(flows) - 1)]
        assert row["mean"] == approx(z.mean().item())
        assert row["std"] == approx(z.std(correction=0).item())
        assert row["second_moment"] == approx(second_moment(z))
        assert row["input_second_moment"] == approx(second_moment(flows[2 * i]))
        assert row["growth"] == approx(second_moment(h) / second_moment(flows[2 * i]))
        assert row["varies"] == approx(z.var(0, correction=0).mean().item() / second_moment(z))
        assert row["saturated"] == approx((h.abs() > 0.97).float().mean().item() if i < 2 else math.nan)
        assert math.isnan(row["dead"])
    assert 0.05 < table["varies"].max() < 1
    assert 0.05 < table["saturated"].max() < 1


def test_the_table_has_the_gradients_moments(by_hand):
    model, diagnosis, flows, _ = by_hand
    for i, z in enumerate(flows[1::2]):
        row = diagnosis.table.iloc[i]
        assert row["gradient_second_moment"] == approx(second_moment(z.grad))
        assert row["weight_gradient_second_moment"] == approx(second_moment(model[2 * i].weight.grad))


def test_the_table_compares_the_weights_with_the_wanted_scale(by_hand):
    model, diagnosis, *_ = by_hand
    for i, row in diagnosis.table.iterrows():
        weight = model[2 * i].weight
        assert (row["fan_in"], row["fan_out"]) == tuple(reversed(weight.shape))
        assert row["weight_std"] == approx(second_moment(weight) ** 0.5)
        assert row["wanted_std"] == approx(weight.shape[1] ** -0.5)
        assert row["weight_ratio"] == approx(row["weight_std"] / row["wanted_std"])


@pytest.mark.parametrize(
    ("layer", "shape", "fans"),
    [
        (nn.Conv1d(4, 6, 5), (2, 4, 9), (20, 30)),
        (nn.Conv2d(4, 6, (3, 5), groups=2), (2, 4, 9, 9), (30, 45)),
        (nn.Conv3d(4, 6, 2), (2, 4, 3, 3, 3), (32, 48)),
        (nn.Conv2d(4, 6, 3), (4, 9, 9), (36, 54)),
        (nn.ConvTranspose2d(6, 4, 3), (2, 6, 5, 5), (54, 36)),
        (nn.ConvTranspose2d(6, 4, 3, groups=2), (2, 6, 5, 5), (27, 18)),
        (nn.ConvTranspose2d(6, 4, 4, stride=2), (2, 6, 5, 5), (24, 64)),
        (nn.ConvTranspose1d(6, 4, 2, stride=(2,)), (2, 6, 5), (6, 8)),
        (nn.ConvTranspose1d(6, 4, 3, stride=2), (2, 6, 5), (9, 12)),  # one or two of the three, by turns
        (nn.ConvTranspose1d(6, 4, 2, stride=3), (2, 6, 5), (6, 8)),  # some outputs have no input at all
        (nn.Linear(5, 7), (2, 3, 5), (5, 7)),
        (nn.Bilinear(3, 4, 5), None, (12, 5)),
    ],
)
def test_fans_count_connections(layer, shape, fans):
    inputs = batch(*shape) if shape else (batch(2, 3), batch(2, 4))
    row = diagnose(layer, inputs).table.iloc[0]
    assert (row["fan_in"], row["fan_out"]) == fans
    assert row["kind"] == row["layer"] == type(layer).__name__


@pytest.mark.parametrize(
    "function",
    [
        lambda x, w: x @ w,
        lambda x, w: torch.mm(x, w),
        lambda x, w: torch.addmm(torch.zeros(8), x, w),
        lambda x, w: torch.matmul(input=x, other=w),
        lambda x, w: (w.T @ x.T).T,
        lambda x, w: F.linear(x, w.T),
    ],
)
def test_a_product_with_a_parameter_is_a_layer(function):
    table = diagnose(Function(function, 3, 8), batch(5, 3)).table
    assert table[["layer", "kind", "fan_in", "fan_out"]].to_numpy().tolist() == [["matrix", "Linear", 3, 8]]


def test_what_is_nan_is_printed_and_what_does_not_apply_is_not():
    def printed(model):
        return [line.split() for line in str(diagnose(model, batch(16, 4))).splitlines() if "Linear" in line]

    assert "nan" not in printed(nn.Sequential(nn.Linear(4, 4), nn.ReLU()))[0]
    broken = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    broken[0].bias.data[0] = math.nan
    assert printed(broken)[0][3:6] == ["nan"] * 3


def test_relus_that_are_zero_on_the_whole_batch_are_dead():
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Conv1d(3, 4, 1), nn.ReLU6())
    for layer, dead in [(model[0], 3), (model[2], 1)]:
        nn.init.normal_(layer.weight, generator=generator())
        nn.init.constant_(layer.bias, 100.0)
        layer.bias.data[:dead] = -1000.0
    table = diagnose(model, batch(50, 3, 5)).table
    assert table["dead"].tolist() == [3 / 8, 1 / 4]
    assert table["activation"].tolist() == ["relu", "relu6"]


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_numbers_of_any_size_keep_their_digits(scale: float):
    model = nn.Linear(20, 10, bias=False)
    nn.init.normal_(model.weight, generator=generator())
    model.weight.data.mul_(scale)
    row = diagnose(model, batch(7, 20), batch(7, 10), lambda y, t: (y * t).sum()).table.iloc[0]
    assert row["second_moment"] == approx(second_moment(model(batch(7, 20))))
    assert row["weight_std"] == approx(second_moment(model.weight) ** 0.5)
    assert row["gradient_second_moment"] == approx(second_moment(batch(7, 10)))


def test_large_tensors_are_measured_whole():
    model = nn.Linear(1100, 700, bias=False)
    nn.init.uniform_(model.weight, generator=generator())
    x = batch(900, 1100)
    row = diagnose(model, x).table.iloc[0]
    assert row["weight_std"] == approx(second_moment(model.weight) ** 0.5)
    assert row["second_moment"] == approx(second_moment(model(x)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(dtype):
    model = he_mlp(0).to(dtype)
    diagnosis, wide = diagnose(model, VECTORS.to(dtype), labels(64)), diagnose(he_mlp(0), VECTORS, labels(64))
    assert diagnosis.healthy
    assert diagnosis.loss == pytest.approx(wide.loss, rel=0.05)
    assert diagnosis.table["second_moment"].to_numpy() == pytest.approx(
        wide.table["second_moment"].to_numpy(), rel=0.1
    )


def test_a_batch_of_one_has_no_statistics_over_the_batch():
    table = diagnose(he_mlp(0), VECTORS[:1], labels(1)).table
    assert table[["varies", "dead"]].isna().all(axis=None)
    assert table["second_moment"].notna().all()


@pytest.mark.parametrize(
    ("function", "name", "gain"),
    [
        (torch.relu, "relu", 2**0.5),
        (F.relu, "relu", 2**0.5),
        (lambda z: z.relu_(), "relu", 2**0.5),
        (lambda z: z.clamp(min=0), "relu", 2**0.5),
        (lambda z: torch.maximum(z, torch.zeros(())), "relu", 2**0.5),
        (lambda z: F.leaky_relu(z, 0.2), "leaky_relu", (2 / 1.04) ** 0.5),
        (activations.leaky_relu(0.3), "leaky_relu", (2 / 1.09) ** 0.5),
        (nn.PReLU(8, 0.5), "prelu", (2 / 1.25) ** 0.5),
        (F.gelu, "gelu", 1.4680),
        (F.silu, "silu", 1.5588),
        (lambda z: z * torch.sigmoid(z), "silu", 1.5588),
        (F.selu, "selu", 1.0),
        (torch.tanh, "tanh", 1.0),
        (activations.softsign, "softsign", 1.0),
        (F.softsign, "softsign", 1.0),
        (torch.sigmoid, "sigmoid", math.nan),
        (lambda z: F.dropout(z, 0.1).flatten(1).relu(), "relu", 2**0.5),
        (lambda z: F.layer_norm(z, (8,)).relu(), "norm", math.nan),
        (lambda z: z, "", 1.0),
        (lambda z: 0.7 * z, "", 1.0),
    ],
)
def test_the_wanted_std_has_the_gain_of_the_activation_that_follows(function, name, gain):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.phi = nn.Linear(4, 8), function

        def forward(self, x):
            return self.phi(self.fc(x))

    row = diagnose(Model(), batch(16, 4)).table.iloc[0]
    assert row["activation"] == name
    assert row["wanted_std"] == pytest.approx(gain / 2, rel=1e-4, nan_ok=True)


def test_rows_are_named_by_their_modules_in_the_order_of_the_calls():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.shared = nn.Conv2d(3, 4, 1), nn.Linear(4, 4)
            self.block = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))

        def forward(self, x):
            h = self.stem(x).mean((2, 3))
            h = self.shared(torch.relu(self.shared(h)))
            return torch.tanh(h + self.block(h)) + F.linear(h, self.shared.weight)

    table = diagnose(Model(), batch(5, 3, 6, 6)).table
    names = ["stem", "shared", "shared (call 2)", "block.0", "block.1", "tanh", "shared (call 3)"]
    assert table["layer"].tolist() == names
    kinds = ["Conv2d", "Linear", "Linear", "Linear", "LayerNorm", "Tanh", "Linear"]
    assert table["kind"].tolist() == kinds
    assert table["activation"].tolist() == ["", "relu", "", "norm", "", "", ""]


def test_a_last_layer_that_is_called_twice_is_told_by_its_calls():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x):
            h = torch.relu(self.body(x))
            return self.head(h) + self.head(torch.tanh(h))

    model, x, y = Model(), batch(30, 8), torch.arange(30) % 3
    with torch.no_grad():
        model.body.weight.normal_(0, 0.5, generator=generator())
        model.head.weight.normal_(0, 30, generator=generator(1))
    (finding,) = [f for f in diagnose(model, x, y).findings if f.is_fault]
    assert finding.layer.startswith("head")
    assert "and not 0" not in finding.remedy  # nothing but itself uses it


def test_functional_layers_are_named_by_their_parameters():
    table = diagnose(
        PlainNetwork([4, 5, 6], activations.relu, initializers.kaiming_normal_, generator=generator()),
        batch(7, 4),
    ).table
    assert table["layer"].tolist() == ["weights.0", "weights.1"]


@pytest.mark.parametrize(
    ("module", "inputs", "kind"),
    [
        (nn.LSTM(4, 5, 2, batch_first=True), batch(6, 3, 4), "LSTM"),
        (nn.GRU(4, 5), batch(3, 6, 4), "GRU"),
        (nn.RNN(4, 5), batch(3, 6, 4), "RNN"),
        (nn.LSTMCell(4, 5), batch(6, 4), "LSTMCell"),
        (nn.LSTM(4, 5), (nn.utils.rnn.pack_sequence([batch(3, 4), batch(2, 4)]),), "LSTM"),
        (nn.MultiheadAttention(4, 2, batch_first=True), [batch(6, 3, 4)] * 3, "MultiheadAttention"),
    ],
)
def test_recurrent_and_attention_modules_are_one_row(module, inputs, kind):
    table = diagnose(module, inputs).table
    assert table["kind"].tolist() == [kind]
    assert table["gradient_second_moment"].gt(0).all()


def test_recurrent_layers_vary_over_the_batch_not_over_time():
    ids = batch(1, 5, 4).expand(8, 5, 4).contiguous()
    for module, x in [(nn.GRU(4, 6, batch_first=True), ids), (nn.GRU(4, 6), ids.transpose(0, 1))]:
        assert diagnose(module, x).table["varies"][0] == pytest.approx(0, abs=1e-10)


def test_a_hand_written_norm_is_known_by_its_name():
    class RMSNorm(nn.Module):
        def forward(self, x):
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True))

    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), RMSNorm(), nn.Linear(WIDTH, CLASSES))
    table = diagnose(defaults(model), VECTORS).table
    assert table["layer"].tolist() == ["0", "1", "2"]
    assert table["activation"].tolist() == ["norm", "", ""]


def test_a_hand_written_norm_of_any_name_is_known_once_it_is_in_the_vocabulary(
    monkeypatch: pytest.MonkeyPatch,
):
    class UnitScale(nn.Module):
        def forward(self, x):
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True))

    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), UnitScale(), nn.Linear(WIDTH, CLASSES))
    assert diagnose(model, VECTORS).table["kind"].tolist() == ["Linear", "Linear"]
    monkeypatch.setitem(vocabulary.NORMS, "UnitScale", -1)
    assert diagnose(model, VECTORS).table["kind"].tolist() == ["Linear", "UnitScale", "Linear"]


def test_a_hand_written_norm_may_add_what_another_layer_computes():
    class AdaptiveNorm(nn.Module):
        def forward(self, x, shift):
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True)) + shift

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other, self.norm = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), AdaptiveNorm()

        def forward(self, x):
            return self.norm(self.one(x), self.other(x))

    assert diagnose(Model(), VECTORS).table["kind"].tolist() == ["Linear", "Linear", "AdaptiveNorm"]


def test_sparse_gradients_and_checkpoints():
    sparse, dense = (nn.Embedding(50, 8, sparse=sparse) for sparse in (True, False))
    sparse.weight = dense.weight
    column = "weight_gradient_second_moment"
    assert diagnose(sparse, IDS).table[column][0] == approx(diagnose(dense, IDS).table[column][0])

    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = he_mlp(0)

        def forward(self, x):
            return checkpoint(self.inner, x, use_reentrant=False)

    column = "gradient_second_moment"
    plain = diagnose(he_mlp(0), VECTORS, labels(64)).table[column]
    assert diagnose(Checkpointed(), VECTORS, labels(64)).table[column].tolist() == approx(plain.tolist())


def test_a_layer_is_measured_again_after_a_change_in_place():
    model = Function(lambda x, w: ((x @ w).mul_(3.0)) @ w, 4, 4)
    table = diagnose(model, FOURS).table
    assert table["input_second_moment"][1] == approx(9 * table["second_moment"][0])


def test_only_the_norm_that_comes_before_the_next_weights_counts():
    layers = (
        nn.Linear(WIDTH, WIDTH),
        nn.ReLU(),
        nn.Linear(WIDTH, WIDTH),
        nn.BatchNorm1d(WIDTH),
        nn.Linear(WIDTH, 9),
    )
    table = diagnose(nn.Sequential(*layers), VECTORS).table
    assert table["wanted_std"].isna().tolist() == [False, True, True, False]
    assert table["activation"].tolist() == ["relu", "norm", "", ""]


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.LocalResponseNorm(2)])
def test_dead_channels_after_a_norm(norm):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), norm, nn.ReLU())
    nn.init.ones_(model[0].bias)
    (model[0] if isinstance(norm, nn.LocalResponseNorm) else norm).bias.data[2] = -1000.0
    assert diagnose(model, IMAGES).table["dead"].tolist() == approx([math.nan, 1 / 4])


def test_names_are_right_after_an_error_that_the_model_catches():
    class Careful(nn.Module):
        def __init__(self):
            super().__init__()
            self.wrong, self.right = nn.Linear(7, 3), nn.Linear(4, 3)

        def forward(self, x):
            try:
                return self.wrong(x)
            except RuntimeError:
                return F.layer_norm(self.right(x), (3,))

    assert diagnose(Careful(), FOURS).table["layer"].tolist() == ["right", "layer_norm"]
