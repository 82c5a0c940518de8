"""Diagnosis: planted faults are found by name at their layer, healthy networks pass, and no trace is left."""

import math
from collections import UserDict
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from course_utils import activations, initializers
from course_utils.doctor.diagnosis import FAULTS, diagnose
from course_utils.networks import PlainNetwork

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


# ---- Planted faults ----------------------------------------------------------------------------------------


def weight_of(model: nn.Module, name: str) -> torch.Tensor:
    return model.get_submodule(name).weight.data


class RightProduct(nn.Module):
    """h @ W, with W kept (in, out)."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.matrices = nn.ParameterList(torch.zeros(pair) for pair in pairwise(widths))

    def forward(self, h):
        for matrix in self.matrices[:-1]:
            h = torch.relu(h @ matrix)
        return h @ self.matrices[-1]


def right_product(seed: int) -> RightProduct:
    model, rng = RightProduct(300, 100, 300, 100, CLASSES), generator(seed)
    for matrix in model.matrices[:-1]:
        initializers.kaiming_normal_(matrix.data.T, generator=rng)
    initializers.lecun_normal_(model.matrices[-1].data.T, generator=rng)
    return model


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


def lecun_everywhere(model: nn.Module) -> None:
    he(model, 9, gain=1.0)


def misplace(model: nn.Module) -> None:
    redraw("4", WIDTH**-0.5)(model)
    redraw("14", math.sqrt(2 / WIDTH))(model)


def constant_rows(model: nn.Module) -> None:
    weight = weight_of(model, "4")
    weight.copy_(weight[:1].expand_as(weight))


def wrong_layout(model: RightProduct) -> None:
    initializers.kaiming_normal_(model.matrices[1].data, generator=generator(9))


def equal_units(model: RightProduct) -> None:
    model.matrices[1].data[:] = model.matrices[1].data[:, :1].clone()


def put(name: str, value):
    def plant(model: nn.Module) -> None:
        model.get_parameter(name).data[...] = value

    return plant


def one_nan(model: nn.Module) -> None:
    weight_of(model, "6")[17, 3] = math.nan


def sigmoids(model: nn.Sequential) -> None:
    for i, module in enumerate(model):
        if isinstance(module, nn.Tanh):
            model[i] = nn.Sigmoid()


def batch_norms(model: nn.Sequential) -> None:
    for i, module in enumerate(model):
        if isinstance(module, nn.Linear) and i + 1 < len(model):
            model[i] = nn.Sequential(module, nn.BatchNorm1d(module.out_features))


FOURS = batch(5, 4)
VECTORS, IMAGES = batch(64, WIDTH), batch(32, 3, 12, 12)
PLANTED = {  # healthy network, what is done to it, inputs, fault, layer
    "wrong fan": (funnel, redraw("2", math.sqrt(2 / 300)), batch(64, 300), "wrong fan", "2"),
    "wrong fan, wide": (funnel, redraw("0", math.sqrt(2 / 100)), batch(64, 300), "wrong fan", "0"),
    "kernel forgotten": (conv, redraw("2", math.sqrt(2 / 32)), IMAGES, "wrong fan", "2"),
    "transposed": (right_product, wrong_layout, batch(64, 300), "transposed weight", "matrices.1"),
    "missing gain, one": (he_mlp, redraw("6", WIDTH**-0.5), VECTORS, "missing gain", "6"),
    "missing gain, all": (lambda s: he(square(20), s), lecun_everywhere, VECTORS, "missing gain", "0"),
    "misplaced gain": (he_mlp, misplace, VECTORS, "misplaced gain", "14"),
    "double init": (he_mlp, redraw("6", 2 / WIDTH), VECTORS, "double init", "6"),
    "constant rows": (he_mlp, constant_rows, VECTORS, "identical units", "4"),
    "constant": (he_mlp, put("4.weight", 0.01), VECTORS, "identical units", "4"),
    "constant of LeCun's size": (he_more, put("4.weight", WIDTH**-0.5), VECTORS, "identical units", "4"),
    "zero layer": (he_mlp, put("4.weight", 0.0), VECTORS, "zero layer", "4"),
    "N(0, 1)": (he_mlp, everywhere(1.0), VECTORS, "exploding signal", "0"),
    "N(0, 0.01²)": (he_mlp, everywhere(0.01), VECTORS, "vanishing signal", "0"),
    "one N(0, 1)": (he_mlp, redraw("6", 1.0), VECTORS, "exploding signal", "6"),
    "torch's defaults, deep": (lambda s: he(square(20), s), defaults, VECTORS, "vanishing signal", "0"),
    "normal of torch's std": (he_mlp, redraw("6", (3 * WIDTH) ** -0.5), VECTORS, "vanishing signal", "6"),
    "equal columns": (right_product, equal_units, batch(64, 300), "identical units", "matrices.1"),
    "saturated": (tanh_mlp, redraw("6", 1.0), VECTORS, "saturated", "6"),
    "dead": (he_mlp, put("6.bias", -5.0), VECTORS, "dead", "6"),
    "sigmoid": (tanh_mlp, sigmoids, VECTORS, "vanishing gradient", "0"),
    "batch norm": (lambda s: he(square(40), s), batch_norms, VECTORS, "exploding gradient", "0.1"),
    "NaN": (he_mlp, one_nan, VECTORS, "not finite", "6.weight"),
    "large last layer": (he_mlp, redraw("14", 1.0), VECTORS, "large initial loss", "14"),
}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found_by_name_at_its_layer(name: str, seed: int):
    build, plant, inputs, fault, layer = PLANTED[name]
    targets = labels(len(inputs))
    model = build(seed)
    assert diagnose(model, inputs, targets).findings == ()
    plant(model)
    diagnosis = diagnose(model, inputs, targets)
    found = [(finding.layer, finding.fault, finding.is_fault) for finding in diagnosis.findings]
    assert found == [(layer, fault, True)], str(diagnosis)
    assert fault in FAULTS
    (finding,) = diagnosis.findings
    named = {layer.removesuffix(".weight"), *finding.others}
    marks = dict(zip(diagnosis.table["layer"], diagnosis.table["fault"], strict=True))
    assert marks == {row: fault if row in named else "" for row in marks}
    assert named <= set(marks)


@pytest.mark.parametrize("change", [lambda x: 255 * x.abs(), lambda x: 0.3 * x + 2, lambda x: 0.01 * x])
@pytest.mark.parametrize("build", [he_mlp, tanh_mlp])
def test_inputs_that_are_not_standardized_are_the_only_cause(build, change):
    diagnosis = diagnose(build(0), change(VECTORS), labels(64))
    assert [(f.layer, f.fault, f.is_fault) for f in diagnosis.findings] == [("0", "input scale", True)]


# ---- Healthy networks --------------------------------------------------------------------------------------


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


def pooled(seed):
    layers = (
        nn.Conv2d(3, 32, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 32),
        nn.ReLU(),
    )
    return he(nn.Sequential(*layers, nn.Linear(32, CLASSES)), seed)


class Recurrent(nn.Module):
    def __init__(self, kind, layers=1):
        super().__init__()
        self.embedding = nn.Embedding(50, 48)
        self.recurrent = kind(48, 64, layers, batch_first=True)
        self.head = nn.Linear(64, CLASSES)

    def forward(self, ids):
        return self.head(self.recurrent(self.embedding(ids))[0][:, -1])


class Encoder(nn.Module):
    def __init__(self, norm_first, layers=4):
        super().__init__()
        layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True, norm_first=norm_first)
        self.embedding = nn.Embedding(50, 64)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(64, CLASSES)

    def forward(self, ids):
        return self.head(self.encoder(self.embedding(ids)).mean(1))


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.qkv, self.proj, self.heads = nn.Linear(width, 3 * width), nn.Linear(width, width), heads

    def forward(self, x):
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        return self.proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(-2))


class GPT(nn.Module):
    def __init__(self, depth=4, width=64):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(50, width), nn.Embedding(32, width)
        self.blocks = nn.ModuleList()
        for _ in range(depth):
            feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
            self.blocks.append(
                nn.ModuleList([nn.LayerNorm(width), Attention(width, 4), nn.LayerNorm(width), feed_forward])
            )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 50, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, ids):
        h = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        for norm_1, attention, norm_2, feed_forward in self.blocks:
            h = h + attention(norm_1(h))
            h = h + feed_forward(norm_2(h))
        return {"logits": self.head(self.norm(h))}


def gpt(seed):
    model, rng = GPT(), generator(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            last_of_branch = "proj" in name or "3.2" in name
            std = 0.02 / math.sqrt(8) if last_of_branch else 0.02
            parameter.data.normal_(0, std, generator=rng)
        elif "bias" in name:
            parameter.data.zero_()
    return model


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


def fixup(seed):
    blocks = [
        Residual(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), act=False) for _ in range(10)
    ]
    model = he(nn.Sequential(nn.Linear(WIDTH, WIDTH), *blocks, nn.Linear(WIDTH, CLASSES)), seed)
    redraw("0", WIDTH**-0.5)(model)
    for block in blocks:
        block.branch[0].weight.data.mul_(10**-0.5)
        nn.init.zeros_(block.branch[2].weight)
    nn.init.zeros_(model[-1].weight)
    return model


def zero_last(seed):
    model = he_mlp(seed)
    put("14.weight", 0.0)(model)
    return model


class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.bag, self.head = nn.EmbeddingBag(50, 64), nn.Linear(64, CLASSES)

    def forward(self, ids):
        return self.head(self.bag(ids))


def xavier(model: nn.Module, seed: int = 0) -> nn.Module:
    rng = generator(seed)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            initializers.xavier_normal_(parameter, generator=rng)
        else:
            nn.init.zeros_(parameter)
    return model


class Sine(nn.Module):
    def forward(self, x):
        return torch.sin(30 * x)


def siren(seed):
    model, rng = mlp(2, 256, 256, 256, 1, act=Sine), generator(seed)
    for layer in model[::2]:
        bound = 0.5 if layer is model[0] else math.sqrt(6 / layer.in_features) / 30
        layer.weight.data.uniform_(-bound, bound, generator=rng)
        nn.init.zeros_(layer.bias)
    return model


class NeuralTangent(nn.Linear):
    def forward(self, x):
        return math.sqrt(2 / self.in_features) * F.linear(x, self.weight)


def neural_tangent(seed):
    rng, layers = generator(seed), [NeuralTangent(WIDTH, WIDTH) for _ in range(8)]
    for layer in layers:
        layer.weight.data.normal_(generator=rng)
    return nn.Sequential(*[module for layer in layers for module in (layer, nn.ReLU())], nn.Linear(WIDTH, 4))


def actor(seed):
    """Tanh with orthogonal weights of gain sqrt(2), as in proximal policy optimization."""
    model, rng = mlp(8, 64, 64, 4, act=nn.Tanh), generator(seed)
    for layer in model[::2]:
        initializers.orthogonal_(layer.weight, 0.01 if layer is model[-1] else math.sqrt(2), generator=rng)
        nn.init.zeros_(layer.bias)
    return model


def small_before_norm(seed):
    """As in DCGAN's discriminator: N(0, 0.02²) in the first layer, and a norm only after the second."""
    layers = nn.Linear(WIDTH, WIDTH), nn.LeakyReLU(0.2), nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH)
    model = he(nn.Sequential(*layers, nn.LeakyReLU(0.2), nn.Linear(WIDTH, CLASSES)), seed)
    model[0].weight.data.normal_(0, 0.02, generator=generator(seed))
    return model


def plain(activation, weight_init_, depth=8):
    def build(seed):
        return PlainNetwork([WIDTH] * (depth + 1), activation, weight_init_, generator=generator(seed))

    return build


IDS = labels(16, 12, classes=50)
HEALTHY = {  # network, inputs, targets
    "He, 8 layers": (he_mlp, VECTORS, labels(64)),
    "He, 20 layers": (lambda s: he(square(20), s), VECTORS, labels(64)),
    "He, narrow": (lambda s: he(mlp(8, 16, 16, 16, 4), s), batch(32, 8), labels(32, classes=4)),
    "He with fan_out": (
        lambda s: he(mlp(400, 150, 60, 150, 10), s, mode="fan_out"),
        batch(64, 400),
        labels(64),
    ),
    "He with fan_out, steep": (
        lambda s: he(mlp(600, 100, 600, 100, 10), s, mode="fan_out"),
        batch(64, 600),
        None,
    ),
    "Xavier, tanh": (
        lambda s: he(mlp(300, 100, 200, 100, 10, act=nn.Tanh), s, 1.0, "fan_avg"),
        batch(64, 300),
        labels(64),
    ),
    "torch's tanh gain": (lambda s: he(square(8, nn.Tanh), s, 5 / 3), VECTORS, labels(64)),
    "GELU": (lambda s: he(square(8, nn.GELU), s, 1.4680), VECTORS, labels(64)),
    "SiLU": (lambda s: he(square(8, nn.SiLU), s, 1.5588), VECTORS, labels(64)),
    "SELU": (lambda s: he(square(16, nn.SELU), s, 1.0), VECTORS, labels(64)),
    "defaults, 3 layers": (lambda s: defaults(mlp(WIDTH, 128, 128, CLASSES), s), VECTORS, labels(64)),
    "conv + BN": (conv_net, IMAGES, labels(32)),
    "conv": (conv, IMAGES, labels(32)),
    "ResNet": (resnet, IMAGES, labels(32)),
    "ResNet, eval": (lambda s: resnet(s).eval(), IMAGES, labels(32)),
    "LSTM": (lambda s: defaults(Recurrent(nn.LSTM, 2), s), IDS, labels(16)),
    "LSTM, 4 layers": (lambda s: defaults(Recurrent(nn.LSTM, 4), s), IDS, labels(16)),
    "average of many": (pooled, batch(32, 3, 24, 24), labels(32)),
    "GRU": (lambda s: defaults(Recurrent(nn.GRU), s), IDS, labels(16)),
    "encoder, post-norm": (lambda s: defaults(Encoder(False), s), IDS, labels(16)),
    "encoder, pre-norm": (lambda s: defaults(Encoder(True), s), IDS, labels(16)),
    "encoder, eval": (lambda s: defaults(Encoder(False), s).eval(), IDS, labels(16)),
    "GPT": (gpt, IDS, labels(16, 12, classes=50)),
    "autoencoder": (lambda s: he(mlp(256, 64, 16, 64, 256), s), batch(64, 256), batch(64, 256)),
    "U-Net": (unet, IMAGES, labels(32, 12, 12)),
    "Fixup": (fixup, VECTORS, labels(64)),
    "Xavier, tanh, 2 inputs": (
        lambda s: xavier(mlp(2, *[50] * 6, 1, act=nn.Tanh), s),
        batch(64, 2),
        batch(64, 1),
    ),
    "Xavier, shallow": (lambda s: xavier(mlp(10, 64, 1), s), batch(64, 10), batch(64, 1)),
    "fan_out, width doubles": (
        lambda s: he(mlp(32, 64, 64, 128, 128, CLASSES), s, mode="fan_out"),
        batch(64, 32),
        labels(64),
    ),
    "SIREN": (siren, batch(64, 2), batch(64, 1)),
    "neural tangent": (neural_tangent, VECTORS, batch(64, 4)),
    "orthogonal actor": (actor, batch(64, 8), labels(64, classes=4)),
    "small before a norm": (small_before_norm, VECTORS, labels(64)),
    "zero last layer": (zero_last, VECTORS, labels(64)),
    "embedding bag": (lambda s: defaults(Text(), s), IDS, labels(16)),
    "PlainNetwork": (plain(activations.relu, initializers.kaiming_normal_), VECTORS, None),
    "PlainNetwork, leaky": (
        plain(
            activations.leaky_relu(0.2),
            lambda w, generator: initializers.kaiming_normal_(
                w, 0.2, nonlinearity="leaky_relu", generator=generator
            ),
        ),
        VECTORS,
        None,
    ),
    "PlainNetwork, softsign": (plain(activations.softsign, initializers.xavier_normal_), VECTORS, None),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_networks_pass(name: str):
    build, inputs, targets = HEALTHY[name]
    for seed in range(3):
        diagnosis = diagnose(build(seed), inputs, targets)
        assert diagnosis.healthy, str(diagnosis)
        assert len(diagnosis.table) > 0


# ---- The table's numbers -----------------------------------------------------------------------------------


def second_moment(x: torch.Tensor) -> float:
    return x.double().square().mean().item()


def approx(value):
    return pytest.approx(value, rel=1e-5, nan_ok=True)


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
        (nn.Linear(5, 7), (2, 3, 5), (5, 7)),
        (nn.Bilinear(3, 4, 5), None, (12, 5)),
    ],
)
def test_fans_count_connections(layer, shape, fans):
    inputs = batch(*shape) if shape else (batch(2, 3), batch(2, 4))
    row = diagnose(layer, inputs).table.iloc[0]
    assert (row["fan_in"], row["fan_out"]) == fans
    assert row["kind"] == row["layer"] == type(layer).__name__


class Function(nn.Module):
    """A module with a matrix and a function of it and of the input."""

    def __init__(self, function, *shape):
        super().__init__()
        self.matrix, self.function = nn.Parameter(batch(*shape)), function

    def forward(self, x):
        return self.function(x, self.matrix)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, w: x @ w,
        lambda x, w: torch.mm(x, w),
        lambda x, w: torch.addmm(torch.zeros(8), x, w),
        lambda x, w: torch.matmul(input=x, other=w),
        lambda x, w: torch.einsum("bi,io->bo", x, w),
        lambda x, w: torch.einsum("io,bi->ob", w, x).T,
        lambda x, w: (w.T @ x.T).T,
        lambda x, w: F.linear(x, w.T),
    ],
)
def test_a_product_with_a_parameter_is_a_layer(function):
    table = diagnose(Function(function, 3, 8), batch(5, 3)).table
    assert table[["layer", "kind", "fan_in", "fan_out"]].to_numpy().tolist() == [["matrix", "Linear", 3, 8]]


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


# ---- Names -------------------------------------------------------------------------------------------------


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


# ---- Inputs, targets and losses ----------------------------------------------------------------------------


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, a, b=None):
        return {"ids": torch.arange(3), "nested": (self.fc(a if b is None else a + b),)}


@pytest.mark.parametrize(
    "inputs", [batch(5, 4), (batch(5, 4), batch(5, 4)), [batch(5, 4)], {"b": batch(5, 4), "a": batch(5, 4)}]
)
def test_inputs_are_passed_by_position_or_by_name(inputs):
    assert diagnose(Pair(), inputs).table["layer"].tolist() == ["fc"]


@pytest.mark.parametrize(
    ("shape", "targets"),
    [
        ((6, 5), labels(6, classes=5)),
        ((6, 5, 7), labels(6, 7, classes=5)),
        ((6, 7, 5), labels(6, 7, classes=5)),
        ((6, 5, 2, 3), labels(6, 2, 3, classes=5)),
    ],
)
def test_integer_targets_take_the_cross_entropy(shape, targets):
    x = batch(*shape)
    logits = x.movedim(-1, 1) if shape == (6, 7, 5) else x
    diagnosis = diagnose(nn.Identity(), x, targets)
    assert diagnosis.loss == approx(F.cross_entropy(logits, targets).item())
    assert diagnosis.expected_loss == approx(math.log(5))


def test_other_losses():
    model, x, targets = nn.Linear(4, 3), batch(5, 4), batch(5, 3)
    assert diagnose(model, x, targets).loss == approx(F.mse_loss(model(x), targets).item())
    assert math.isnan(diagnose(model, x, targets).expected_loss)
    assert math.isnan(diagnose(model, x).loss)
    given = diagnose(Pair(), x, None, lambda out, _: out["nested"][0].abs().sum())
    assert given.loss > 0
    smooth = diagnose(model, x, labels(5, classes=3), nn.CrossEntropyLoss(label_smoothing=0.1))
    assert smooth.expected_loss == approx(math.log(3))


def test_without_targets_the_error_is_standard_normal_and_always_the_same():
    model, x = nn.Linear(4, 300), batch(200, 4)
    first, second = (diagnose(model, x).table["gradient_second_moment"][0] for _ in range(2))
    assert first == second == pytest.approx(1, abs=4 * math.sqrt(2 / 60_000))


def test_a_frozen_network_differentiates_with_respect_to_its_inputs():
    model = he_mlp(0)
    free = diagnose(model, VECTORS, labels(64)).table
    frozen = diagnose(model.requires_grad_(False), VECTORS, labels(64)).table
    assert frozen["gradient_second_moment"].equals(free["gradient_second_moment"])
    assert frozen["weight_gradient_second_moment"].isna().all()


def test_remarks_say_what_could_not_be_measured():
    frozen = diagnose(nn.Embedding(50, 8).requires_grad_(False), IDS)
    assert [f.fault for f in frozen.findings] == ["no gradient"]
    assert frozen.table["gradient_second_moment"].isna().all()
    empty = diagnose(nn.Identity(), batch(5, 4))
    assert [f.fault for f in empty.findings] == ["no layers"]
    assert len(empty.table) == 0
    assert "fan_in" in empty.table
    assert str(empty) == empty.verdict


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ((F.relu, batch(3)), TypeError, "model must be a torch.nn.Module; got function"),
        ((nn.Linear(3, 2), "text"), TypeError, "inputs must be a tensor.* got str"),
        ((nn.Linear(3, 2), batch(0, 3)), ValueError, r"at least one example; got shape \(0, 3\)"),
        ((nn.Linear(3, 2), batch(4, 3), None, "mse"), TypeError, "loss must be a function of .* got str"),
        ((nn.LazyLinear(3), batch(2, 3)), ValueError, "weight has no shape yet; run the model once"),
        ((nn.Linear(3, 2, device="meta"), batch(2, 3)), ValueError, "weight is on the meta device"),
        (
            (Function(lambda x, w: "text", 1), batch(3)),
            TypeError,
            "must return a floating-point tensor.* got str",
        ),
        ((nn.Linear(3, 2), batch(5, 3), labels(4)), ValueError, r"got targets \(4,\) for an output \(5, 2\)"),
        ((nn.Linear(3, 2), batch(5, 3), batch(5, 3)), ValueError, r"output's shape \(5, 2\); got \(5, 3\)"),
        ((nn.Linear(3, 2), batch(5, 3), [1, 2]), TypeError, "targets must be a tensor.* got list"),
        ((nn.Linear(3, 2), batch(5, 3), None, lambda y, _: y), ValueError, r"one entry; got shape \(5, 2\)"),
        ((nn.Linear(3, 2), batch(5, 3), None, lambda y, _: 1.0), ValueError, "one entry; got float"),
    ],
)
def test_wrong_arguments_are_explained(arguments, error, says):
    with pytest.raises(error, match=says):
        diagnose(*arguments)


def test_compiled_models_are_refused():
    compiled = torch.compile(nn.Linear(3, 2), backend="eager")
    for model in (compiled, nn.Sequential(compiled)):
        with pytest.raises(TypeError, match=f"before it is compiled.* got {type(model).__name__}"):
            diagnose(model, batch(5, 3))


# ---- No trace is left --------------------------------------------------------------------------------------


def snapshot(model: nn.Module) -> list:
    """Return all that can be told of a model's state: identities and copies of values."""
    state = [torch.default_generator.get_state().tolist()]
    for module in model.modules():
        state.append({key: id(value) for key, value in vars(module).items()})
        state.append([list(value) for key, value in vars(module).items() if key.endswith("hooks")])
    for tensor in [*model.parameters(), *model.buffers()]:
        state.append((id(tensor), tensor.requires_grad, tensor.detach().numpy().tobytes()))
    for parameter in model.parameters():
        gradient, hooks = parameter.grad, parameter._backward_hooks
        state.append((id(gradient), None if gradient is None else gradient.numpy().tobytes()))
        state.append(None if hooks is None else (id(hooks), list(hooks)))
        state.append(len(parameter._post_accumulate_grad_hooks or ()))
    return [*state, model.plain.tolist(), len(model.cache)]


class Everything(nn.Module):
    """A network whose forward pass changes all that one can change."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 8, max_norm=0.5)
        self.norm = nn.BatchNorm1d(8)
        self.spectral = nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8))
        self.old = torch.nn.utils.spectral_norm(nn.Linear(8, 8))
        self.dropout = nn.Dropout(0.5)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(8, CLASSES)
        self.register_buffer("count", torch.zeros(()))
        self.calls, self.cache, self.plain, self.fail = 0, [], torch.zeros(2), ""

    def forward(self, ids):
        self.calls += 1
        self.count += 1
        self.plain += 1
        h = self.norm(self.embedding(ids).mean(1))
        self.cache.append(h)
        h = self.relu(self.old(self.dropout(self.spectral(h))))
        self.last = h
        if self.fail == "forward":
            raise RuntimeError("fails in the middle")
        if self.fail == "backward":
            h.register_hook(self.broken_hook)
        return self.head(h)

    def broken_hook(self, gradient):
        raise RuntimeError("fails on the way back")


def everything():
    model = Everything()
    model.spectral.eval()
    model.head.bias.requires_grad_(False)
    for parameter in model.parameters():
        parameter.data.normal_(generator=generator(3))
    model.head.weight.grad = torch.ones(CLASSES, 8)
    calls = []
    model.head.register_forward_hook(lambda *_: calls.append("forward"))
    model.head.register_forward_pre_hook(lambda *_: calls.append("pre"))
    model.head.register_full_backward_hook(lambda *_: None)
    model.head.weight.register_hook(lambda g: calls.append("tensor"))
    model.norm.weight.register_post_accumulate_grad_hook(lambda p: calls.append("post"))
    return model, calls


def failing_loss(outputs, targets):
    raise RuntimeError("fails in the loss")


@pytest.mark.parametrize("fail", ["", "forward", "loss", "backward"])
@pytest.mark.parametrize("grad_mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_the_model_is_left_as_it_was(fail: str, grad_mode):
    model, calls = everything()
    model.fail = fail
    inputs, before = IDS.clone(), snapshot(model)
    with grad_mode():
        enabled = torch.is_grad_enabled()
        if fail:
            with pytest.raises(RuntimeError, match=r"fails (in|on) the (middle|loss|way back)"):
                diagnose(model, inputs, labels(16), failing_loss if fail == "loss" else None)
        else:
            assert diagnose(model, inputs, labels(16)).table["gradient_second_moment"].gt(0).all()
        assert torch.is_grad_enabled() == enabled
    assert snapshot(model) == before
    assert torch.equal(inputs, IDS)
    assert "post" not in calls
    assert not hasattr(model, "last")
    model.fail = ""
    F.cross_entropy(model(inputs), labels(16)).backward()  # the user's hooks still work
    assert {"forward", "pre", "tensor", "post"} <= {*calls}


def test_the_snapshot_notices_a_forward_pass():
    model, _ = everything()
    before = snapshot(model)
    model(IDS)
    after = snapshot(model)
    assert [a == b for a, b in zip(after, before, strict=True)].count(False) >= 8


def test_no_hook_stays_on_modules_in_general():
    hooks = nn.modules.module._global_forward_hooks, nn.modules.module._global_forward_pre_hooks
    with pytest.raises(RuntimeError):
        diagnose(nn.Linear(3, 2), batch(5, 4))
    assert [len(h) for h in hooks] == [0, 0]


def test_inputs_are_not_changed_in_place():
    x = batch(5, 4)
    diagnose(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 2)).requires_grad_(False), x)
    assert torch.equal(x, batch(5, 4))


# ---- What is printed ---------------------------------------------------------------------------------------


def test_the_verdict_comes_first():
    healthy = diagnose(he_mlp(0), VECTORS, labels(64))
    assert str(healthy).startswith("No faults found in 8 layers.\n\n")
    model = he_mlp(0)
    redraw("6", 1.0)(model)
    ill = diagnose(model, VECTORS, labels(64))
    first, *_ = str(ill).split("\n")
    assert first.startswith("1. 6: exploding signal. ")
    assert "N(0, 1)" in first
    assert f"{WIDTH**-0.5 * 2**0.5:.3g}" in first
    assert ill.table["fault"].tolist() == ["", "", "", "exploding signal", "", "", "", ""]
    markdown = ill._repr_markdown_()
    assert markdown.startswith(first)
    assert markdown.count("\n| ") == 10


# ---- Rare cases --------------------------------------------------------------------------------------------


def residual_network(seed: int) -> nn.Module:
    """Twenty residual blocks whose branches keep He's scale, so that each doubles the second moment."""
    blocks = [
        Residual(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), act=False) for _ in range(20)
    ]
    return he(nn.Sequential(nn.Linear(WIDTH, WIDTH), *blocks, nn.Linear(WIDTH, CLASSES)), seed)


def test_branches_that_are_added_unscaled_explode_without_blame_for_the_weights():
    (finding,) = diagnose(residual_network(0), VECTORS, labels(64)).findings
    assert finding.fault == "exploding signal"
    assert finding.layer.endswith("branch.2")
    assert "branches" in finding.cause


def test_the_first_value_that_is_not_finite_is_named():
    class Logarithm(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)

        def forward(self, x):
            return self.second(torch.log(self.first(x)))

    (finding,) = diagnose(he(Logarithm()), VECTORS, labels(64)).findings
    assert (finding.layer, finding.fault) == ("second", "not finite")
    holed = VECTORS.clone()
    holed[3, 4] = math.inf
    (finding,) = diagnose(he_mlp(0), holed, labels(64)).findings
    assert (finding.layer, finding.fault) == ("inputs", "not finite")


def test_a_bias_floor_hides_a_dying_signal():
    model = he(square(12), gain=0.5)
    for module in model:
        if isinstance(module, nn.Linear):
            module.bias.data.normal_(generator=generator(4))
    diagnosis = diagnose(model, VECTORS)
    assert diagnosis.table["second_moment"].min() > 0.1
    assert [f.fault for f in diagnosis.findings] == ["vanishing signal"]


def test_a_shallow_network_with_a_law_for_no_activation_gets_a_remark():
    for build, remark in [(defaults, "torch default"), (xavier, "missing gain")]:
        findings = diagnose(build(square(3)), VECTORS, labels(64)).findings
        assert remark != "missing gain" or "other layers with it: 0." in findings[0].cause
        assert [(f.layer, f.fault, f.is_fault) for f in findings] == [("0", remark, False)]


def test_inputs_in_front_of_a_norm_get_a_remark():
    findings = diagnose(conv_net(0), 255 * IMAGES.abs(), labels(32)).findings
    assert [(f.fault, f.is_fault) for f in findings] == [("input scale", False)]


def test_a_hand_written_norm_is_known_by_its_name():
    class RMSNorm(nn.Module):
        def forward(self, x):
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True))

    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), RMSNorm(), nn.Linear(WIDTH, CLASSES))
    table = diagnose(defaults(model), VECTORS).table
    assert table["layer"].tolist() == ["0", "1", "2"]
    assert table["activation"].tolist() == ["norm", "", ""]


def test_orthogonal_weights_of_any_shape_are_right():
    model = he(mlp(256, 128, 256, 128, 256, CLASSES))
    for i, module in enumerate(model[:-1]):
        if isinstance(module, nn.Linear):
            initializers.orthogonal_(module.weight, math.sqrt(2), generator=generator(i))
    assert diagnose(model, batch(64, 256), labels(64)).findings == ()


def test_weight_and_spectral_norm_have_their_own_scale():
    norms = nn.utils.parametrizations
    layers = (
        norms.weight_norm(nn.Linear(WIDTH, 128)),
        nn.ReLU(),
        norms.spectral_norm(nn.Linear(128, 128)),
        nn.ReLU(),
    )
    diagnosis = diagnose(defaults(nn.Sequential(*layers, nn.Linear(128, CLASSES))), VECTORS, labels(64))
    assert diagnosis.findings == ()
    assert diagnosis.table["layer"].tolist() == ["0", "2", "4"]


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


def test_random_activations_leave_the_random_state_alone():
    model, before = nn.Sequential(nn.Linear(4, 8), nn.RReLU()), torch.default_generator.get_state()
    diagnose(model, FOURS)
    assert torch.equal(torch.default_generator.get_state(), before)


def test_a_pending_backward_pass_is_not_disturbed():
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8))
    model.register_buffer("scale", torch.ones(8))
    loss = (model(FOURS) * model.scale).sum()
    diagnose(model, FOURS)
    loss.backward()
    assert model[0].weight.grad is not None


def test_packed_sequences_and_other_mappings_are_inputs_too():
    packed = nn.utils.rnn.pack_sequence([batch(3, 4), batch(2, 4)])
    assert diagnose(nn.GRU(4, 5), packed).table["kind"].tolist() == ["GRU"]
    assert diagnose(Pair(), UserDict(a=FOURS)).table["layer"].tolist() == ["fc"]


def test_outputs_may_be_dataclasses():
    @dataclass
    class Output:
        ids: torch.Tensor
        logits: torch.Tensor

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x):
            return Output(torch.arange(3), self.fc(x))

    assert diagnose(Model(), FOURS, labels(5, classes=3)).expected_loss == approx(math.log(3))


def test_a_detached_loss_has_no_gradient():
    diagnosis = diagnose(nn.Linear(4, 3), FOURS, None, lambda y, _: y.detach().sum())
    assert [f.fault for f in diagnosis.findings] == ["no gradient"]


def test_every_name_of_a_fault_is_planted():
    names = {fault for _, _, _, fault, _ in PLANTED.values()}
    assert names | {"input scale"} == {*FAULTS}


def test_a_zero_layer_between_the_ends_of_a_skip_connection_is_found():
    model = unet(0)
    assert diagnose(model, IMAGES, labels(32, 12, 12)).findings == ()
    nn.init.zeros_(model.down2.weight)
    findings = diagnose(model, IMAGES, labels(32, 12, 12)).findings
    assert [(f.layer, f.fault) for f in findings] == [("down2", "zero layer")]


def test_equal_weights_with_different_biases_are_not_identical_units():
    model = he_mlp(0)
    constant_rows(model)
    model[4].bias.data.normal_(generator=generator())
    assert "identical units" not in [f.fault for f in diagnose(model, VECTORS, labels(64)).findings]


def test_units_are_found_in_a_transposed_view():
    model = Function(lambda x, w: F.linear(F.linear(x, w.T).relu(), torch.ones(2, 8)), 3, 8)
    model.matrix.data[:] = model.matrix.data[:, :1].clone()
    assert [f.fault for f in diagnose(model, batch(5, 3)).findings] == ["identical units"]


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


def test_dead_channels_after_batch_norm():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
    model[1].bias.data[2] = -1000.0
    table = diagnose(model, IMAGES).table
    assert table["dead"].tolist() == approx([math.nan, 1 / 4])


def test_sigmoids_saturate_on_both_sides():
    model = nn.Sequential(nn.Linear(4, 4), nn.Sigmoid())
    nn.init.eye_(model[0].weight)
    nn.init.zeros_(model[0].bias)
    x = torch.tensor([[-9.0, -4.0, -3.0, 0.0], [3.0, 4.0, 9.0, 1.0]])  # sigmoid(3) = 0.953
    assert diagnose(model, x).table["saturated"][0] == 4 / 8


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


def test_a_state_of_zeros_is_no_input():
    model = Function(lambda x, w: x @ w + x.new_zeros(5, 4) @ w, 4, 4)
    assert diagnose(model, FOURS).findings == ()


def test_a_model_may_differentiate_with_respect_to_its_inputs():
    model = Function(lambda x, w: torch.autograd.grad((x @ w).tanh().sum(), x, create_graph=True)[0], 4, 4)
    x = batch(5, 4).requires_grad_()
    assert diagnose(model, x).table["layer"].tolist() == ["matrix"]
    assert x.grad is None


def test_a_joined_branch_counts_even_if_a_sum_follows():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c, self.d = (nn.Linear(n, 4) for n in (4, 4, 8, 4))

        def forward(self, x):
            h = torch.relu(self.a(x))
            y = torch.cat([h, torch.relu(self.b(h))], 1)
            z = self.c(y)
            return z + self.d(torch.relu(z))

    model = defaults(Model())
    nn.init.zeros_(model.b.weight)  # not the last: c follows
    assert ("b", "zero layer") in [(f.layer, f.fault) for f in diagnose(model, FOURS).findings]


def test_the_gradient_in_front_of_a_norm_may_have_any_scale():
    model = he(square(4, norm=True))
    model[0].weight.data.mul_(1e4)
    assert diagnose(model, VECTORS, labels(64)).findings == ()


def test_hes_law_in_all_layers_is_not_taken_for_fan_out():
    model = he(mlp(20, 64, 32))
    model[-1].weight.data.mul_(math.sqrt(2))  # 1 / sqrt(fan_out), as well
    assert diagnose(model, batch(64, 20)).findings == ()


@pytest.mark.parametrize(("scale", "faults"), [(1.5, []), (4.0, ["exploding signal"])])
def test_a_few_weights_may_be_large_by_chance(scale, faults):
    model = he(mlp(20, 64, 1))  # 64 weights: the standard error of their std is 9 %
    model[-1].weight.data.abs_().mul_(scale * 64**-0.5 / second_moment(model[-1].weight) ** 0.5)
    diagnosis = diagnose(model, batch(64, 20), batch(64, 1))
    assert diagnosis.table["growth"].iloc[-1] > 4
    assert [f.fault for f in diagnosis.findings] == faults


def test_a_functional_activation_lends_its_name_to_no_fault():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(20))

        def forward(self, x):
            for layer in self.layers:
                x = x + F.relu(layer(x))
            return x

    (finding,) = diagnose(he(Model()), VECTORS).findings
    assert finding.fault == "exploding signal"
    assert finding.layer.startswith("layers.")


def test_a_fault_names_the_layers_after_the_first_symptom_that_follow_the_same_law():
    model = defaults(square(21))
    (finding,) = (f for f in diagnose(model, batch(128, WIDTH), labels(128)).findings if f.is_fault)
    assert finding.fault == "vanishing signal"
    assert len(finding.others) == 19  # all hidden layers, not only those before the signal is gone


def test_the_remedy_for_a_tied_last_layer_is_not_zero():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.output = nn.Embedding(50, 64), nn.Linear(64, 50, bias=False)
            self.words.weight.data.normal_(generator=torch.Generator().manual_seed(0))
            self.output.weight = self.words.weight

        def forward(self, ids):
            return self.output(nn.functional.layer_norm(self.words(ids), (64,)))

    ids = torch.arange(50)[:, None].expand(50, 3)
    (finding,) = diagnose(Tied(), ids, (ids + 1) % 50).findings
    assert (finding.layer, finding.fault) == ("output", "large initial loss")
    assert finding.remedy == "Draw the weight with std 1 / sqrt(fan_in), and not 0: words uses it, too."


def test_the_remedy_for_layers_of_different_fan_in_names_each():
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 400), nn.ReLU(), nn.Linear(400, 5))
    for layer in model[::2]:
        layer.weight.data.normal_(0, 1, generator=generator)
        layer.bias.data.zero_()
    finding = diagnose(model, torch.randn(32, 64, generator=generator)).findings[0]
    assert finding.remedy.endswith("= 0.177, each with its own: 0.05 to 0.141 in the others.")
