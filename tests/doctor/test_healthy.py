"""Healthy networks of many kinds pass, with a remark at most."""

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
    Residual,
    batch,
    constant_rows,
    conv,
    conv_net,
    defaults,
    generator,
    he,
    he_mlp,
    labels,
    mlp,
    put,
    redraw,
    resnet,
    square,
    unet,
    xavier,
)
from torch import nn
from torch.nn import functional as F

from course_utils import activations, initializers
from course_utils.doctor import diagnose
from course_utils.networks import PlainNetwork


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


def few_inputs(seed):
    """Xavier's law: fan_out's, too, in the first layer, and LeCun's, by chance, in the small last one."""
    model = xavier(mlp(16, 512, 64, 32, 16), seed)
    last = model[-1].weight.data
    last.mul_(1.07 / math.sqrt(32) / last.std())
    return model


def plain(activation, weight_init_, depth=8):
    def build(seed):
        return PlainNetwork([WIDTH] * (depth + 1), activation, weight_init_, generator=generator(seed))

    return build


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
    "Xavier, ReLU, few inputs": (few_inputs, batch(64, 16), labels(64)),
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
    for seed in range(2):
        diagnosis = diagnose(build(seed), inputs, targets)
        assert diagnosis.healthy, str(diagnosis)
        assert len(diagnosis.table) > 0


def test_a_shallow_network_with_a_law_for_no_activation_gets_a_remark():
    for build, remark in [(defaults, "torch default"), (xavier, "missing gain")]:
        findings = diagnose(build(square(3)), VECTORS, labels(64)).findings
        assert remark != "missing gain" or "other layers with it: 0." in findings[0].cause
        assert [(f.layer, f.fault, f.is_fault) for f in findings] == [("0", remark, False)]


def test_xaviers_law_is_known_where_the_fans_differ():
    (finding,) = diagnose(xavier(mlp(64, 128, 64, CLASSES)), batch(64, 64), labels(64)).findings
    assert (finding.layer, finding.fault, finding.others, finding.is_fault) == (
        "0",
        "missing gain",
        ("2",),
        False,
    )


def test_a_signal_that_is_small_by_a_factor_of_ones_own_does_not_explode():
    class Small(nn.Module):
        def forward(self, x):
            return 1e-3 * x

    model = nn.Sequential(
        nn.Linear(WIDTH, WIDTH), Small(), nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, CLASSES)
    )
    findings = diagnose(he(model, gain=1.0), VECTORS, labels(64)).findings
    assert not [f for f in findings if "exploding" in f.fault]


@pytest.mark.parametrize(("factor", "is_fault"), [(0.55, False), (1 / 30, True)])
def test_a_layer_between_a_norm_and_the_head_may_be_half_as_large(factor, is_fault):
    model = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, CLASSES))
    with torch.no_grad():
        he(model, gain=1.0)[1].weight.mul_(factor)
    findings = diagnose(model, VECTORS, labels(64)).findings
    assert [(f.layer, f.fault, f.is_fault) for f in findings] == [("1", "vanishing signal", is_fault)]


def test_inputs_in_front_of_a_norm_get_a_remark():
    findings = diagnose(conv_net(0), 255 * IMAGES.abs(), labels(32)).findings
    assert [(f.fault, f.is_fault) for f in findings] == [("input scale", False)]


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


def test_a_product_bypasses_what_it_scales():
    model = Function(lambda x, w: x * (1 + torch.tanh(x @ w)) @ torch.eye(4), 4, 4)
    nn.init.zeros_(model.matrix)
    assert diagnose(nn.Sequential(model, nn.Linear(4, 3)), FOURS).healthy


def test_equal_weights_with_different_biases_are_not_identical_units():
    model = he_mlp(0)
    constant_rows(model)
    model[4].bias.data.normal_(generator=generator())
    assert "identical units" not in [f.fault for f in diagnose(model, VECTORS, labels(64)).findings]


def test_a_state_of_zeros_is_no_input():
    model = Function(lambda x, w: x @ w + x.new_zeros(5, 4) @ w, 4, 4)
    assert diagnose(model, FOURS).findings == ()


def test_the_gradient_in_front_of_a_norm_may_have_any_scale():
    model = he(square(4, norm=True))
    model[0].weight.data.mul_(1e4)
    assert diagnose(model, VECTORS, labels(64)).findings == ()


def test_hes_law_in_all_layers_is_not_taken_for_fan_out():
    model = he(mlp(20, 64, 32))
    model[-1].weight.data.mul_(math.sqrt(2))  # 1 / sqrt(fan_out), as well
    assert diagnose(model, batch(64, 20)).findings == ()


@pytest.mark.parametrize(("groups", "named"), [(16, []), (8, ["2"]), (1, ["2"])])
def test_channels_that_each_take_their_own_are_no_copies(groups, named):
    """A depthwise convolution may start as the identity; of two that take the same, one is a copy."""
    middle = nn.Conv2d(16, 16, 3, padding=1, groups=groups, bias=False)
    layers = nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), middle, nn.Conv2d(16, 16, 1), nn.ReLU()
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    nn.init.zeros_(middle.weight)
    middle.weight.data[:, :, 1, 1] = (groups / 16) ** 0.5
    found = diagnose(model, torch.randn(32, 3, 8, 8, generator=generator()), labels(32)).findings
    assert [f.layer for f in found if f.fault == "identical units"] == named
