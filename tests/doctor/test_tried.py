"""What a parameter costs is tried: the loss, were it 0. And biases that drown what depends on the input."""

import pytest
import torch
from initialize_networks import batch, seeded
from torch import nn
from torch.nn import functional as F

from course_utils.doctor import diagnose, initialize_

X, Y = batch(64, 16), torch.arange(64) % 5
NUMBERS = X[:, :1] * X[:, 1:2]


def faults(model, x=X, y=Y, loss=None):
    return [f for f in diagnose(model, x, y, loss).findings if f.is_fault]


def net(outputs, act=nn.GELU):
    model = nn.Sequential(nn.Linear(16, 32), act(), nn.Linear(32, 32), act(), nn.Linear(32, outputs))
    initialize_(model, X, generator=seeded())
    return model


class Around(nn.Module):
    """What a network returns, and a parameter or two beside it."""

    def __init__(self, function, model, **parameters):
        super().__init__()
        self.function, self.model = function, model
        for name, value in parameters.items():
            self.register_parameter(name, nn.Parameter(torch.tensor(value)))

    def forward(self, *x):
        return self.function(self, *x)


def pinball(outputs, targets):
    error, levels = targets - outputs, torch.tensor([0.1, 0.5, 0.9])
    return torch.maximum(levels * error, (levels - 1) * error).mean()


@pytest.mark.parametrize(("bias", "named"), [(30.0, True), (1.9, False), (0.0, False)])
def test_a_bias_far_from_what_a_loss_of_ones_own_asks_is_named(bias, named):
    model = net(3)
    model[4].bias.data.fill_(bias)
    found = faults(model, X, NUMBERS, pinball)
    assert [(f.layer, f.fault) for f in found] == [("4", "large initial loss")] * named
    for f in found:
        loss = pinball(model(X), NUMBERS).item()
        model[4].bias.data.zero_()  # as the remedy says
        without = pinball(model(X), NUMBERS).item()
        assert f.evidence == f"The loss is {loss:.3g}; with its biases at 0 it would be {without:.3g}."
        assert faults(model, X, NUMBERS, pinball) == []


def mixture(outputs, targets):
    shares, mean, log_std = outputs
    square = ((targets - mean) / log_std.exp()).square()
    return -torch.logsumexp(shares - square / 2 - log_std, -1).mean()


PARTS = {"a share": slice(0, 1), "the standard deviations": slice(8, 12)}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_what_one_layer_returns_for_several_purposes_is_seen(part):
    def split(m, x):
        shares, mean, log_std = m.model(x).chunk(3, -1)
        return shares.log_softmax(-1), mean, log_std

    model = Around(split, net(12, nn.Tanh))
    nn.init.normal_(model.model[4].bias[4:8].data, generator=seeded())
    targets = X[:, :1].sign() + 0.1 * NUMBERS
    assert faults(model, X, targets, mixture) == []
    model.model[4].bias.data[PARTS[part]] = 30.0 if part == "a share" else 8.0
    (found,) = faults(model, X, targets, mixture)
    assert (found.layer, found.fault) == ("model.4", "large initial loss")
    model.model[4].bias.data[PARTS[part]] = 0.0  # as the remedy says
    assert faults(model, X, targets, mixture) == []


@pytest.mark.parametrize(("value", "named"), [(-20.0, ["bias"]), (-1.0, [])])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_parameter_that_is_added_to_what_is_returned_is_named_itself(value, named, sign):
    def function(m, x):
        z = m.model(x)
        return (m.bias + z if sign > 0 else z - m.bias)[:, 0]

    model = Around(function, net(1), bias=[sign * value])
    found = faults(model, X, (X[:, 0] > 0).float(), F.binary_cross_entropy_with_logits)
    assert [f.layer for f in found] == named
    assert all("with it at 0" in f.evidence for f in found)


def test_a_bias_that_a_prior_asks_for_is_none():
    """Four shares in a thousand: without the bias the loss is larger."""
    rare = (torch.arange(64)[:, None] == 7).float()
    model = net(1)
    model[4].weight.data.mul_(0.1)
    model[4].bias.data.fill_(-4.1)
    assert faults(model, X, rare, F.binary_cross_entropy_with_logits) == []


@pytest.mark.parametrize(("factor", "named"), [(1000.0, ["value"]), (1.0, [])])
def test_last_weights_are_tried_where_the_loss_takes_all_from_a_tuple(factor, named):
    """As of a value and of advantages: what is returned holds the targets, so outputs of 0 tell nothing."""

    class Dueling(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk = nn.Sequential(nn.Linear(16, 32), nn.ReLU())
            self.value, self.advantages = nn.Linear(32, 1), nn.Linear(32, 6)

        def forward(self, x, action, reward):
            h = self.trunk(x)
            a = self.advantages(h)
            q = self.value(h) + a - a.mean(1, keepdim=True)
            return q.gather(1, action[:, None])[:, 0], reward

    inputs = X, torch.arange(64) % 6, X[:, 0]
    initialize_(model := Dueling(), inputs, generator=seeded())
    model.value.weight.data.mul_(factor)
    found = faults(model, inputs, torch.zeros(64), lambda y, _: F.smooth_l1_loss(*y))
    assert [f.layer for f in found] == named
    for f in found:
        assert f.fault == "large initial loss"
        model.value.weight.data.zero_()  # as the remedy says
        assert faults(model, inputs, torch.zeros(64), lambda y, _: F.smooth_l1_loss(*y)) == []


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.BatchNorm1d, nn.Identity])
@pytest.mark.parametrize("std", [100.0, 10.0])
def test_biases_that_drown_the_input_are_named_unless_the_next_norm_takes_them_out(norm, std):
    model = nn.Sequential(nn.Linear(16, 32), norm(32), nn.Tanh(), nn.Linear(32, 5))
    initialize_(model, X, generator=seeded())
    assert faults(model) == []
    nn.init.normal_(model[0].bias, std=std, generator=seeded())
    found = [(f.layer, f.fault) for f in faults(model)]
    drowned = [("0", "vanishing signal")] * (std > 30)
    if norm == nn.Identity:
        drowned = drowned or [("0", "saturated")]
    assert found == drowned * (norm != nn.BatchNorm1d)
    assert found == [] or faults_are_gone(model)


def faults_are_gone(model):
    nn.init.zeros_(model[0].bias)  # as the remedy says
    return faults(model) == []


@pytest.mark.parametrize(
    ("size", "bias", "remedy"), [(0.025, 1.0, "Scale up what leads to it."), (1.0, 35.0, "Set them to 0.")]
)
def test_biases_and_what_is_too_small_beside_them_are_told_apart(size, bias, remedy):
    class Scaled(nn.Sequential):
        def forward(self, x):
            h = self[0](x)
            return self[2](self[1](size * h / h.std()))

    initialize_(
        model := Scaled(nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 5)), X, generator=seeded()
    )
    model[1].bias.data = bias * torch.tensor([1.0, -1.0]).repeat(8)
    nn.init.zeros_(model[2].weight)  # so that no loss is large
    found = [f for f in faults(model) if f.cause.endswith("he rest are its biases.")]
    assert [(f.layer, f.remedy) for f in found] == [("1", remedy)]
    assert ("What enters it" in found[0].cause) == (size < 1)


def test_a_stream_that_starts_with_large_biases_is_lost_behind_every_norm_of_it():
    class Stream(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.head = nn.Linear(16, 32), nn.Linear(32, 5)
            self.norms = nn.ModuleList(nn.LayerNorm(32) for _ in range(3))
            self.branches = nn.ModuleList(
                nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32)) for _ in range(2)
            )

        def forward(self, x):
            x = self.stem(x)
            for norm, branch in zip(self.norms, self.branches, strict=False):
                x = x + branch(norm(x))
            return self.head(self.norms[2](x))

    initialize_(model := Stream(), X, generator=seeded())
    assert faults(model) == []
    nn.init.normal_(model.stem.bias, std=100, generator=seeded())
    (found,) = faults(model)
    assert (found.layer, found.fault, found.cause) == ("stem", "vanishing signal", "The rest are its biases.")


@pytest.mark.parametrize(("scale", "named"), [(0.018, ["a"]), (14.0, []), (0.2, [])])
def test_cosines_times_a_factor_that_no_layer_can_make_up_for_are_named(scale, named):
    def cosines(m, x):
        return m.scale * F.normalize(m.a(x), dim=-1) @ F.normalize(m.model(x), dim=-1).T

    model = Around(cosines, nn.Linear(16, 16), scale=scale)
    model.a = nn.Linear(16, 16)
    found = faults(model, X, torch.arange(64), F.cross_entropy)
    assert [f.layer for f in found] == named
    for f in found:
        assert (f.fault, f.remedy.endswith("start larger.")) == ("vanishing signal", True)
        model.scale.data.fill_(14.0)  # as the remedy says
        assert faults(model, X, torch.arange(64), F.cross_entropy) == []


SAVED, SAVED_NATS, SAVED_WEIGHTS, LARGE_OUTPUTS, SHIFTED, COLD = 0.5, 0.5, 9.0, 10.0, 1e-3, 1e-4
SIGNS = torch.tensor([[1.0, 1, -1, -1], [1, -1, 1, -1]]).repeat(1, 16)  # of mean 0, and orthogonal


def large_losses(model, x, y, loss=None):
    return [f.fault for f in faults(model, x, y, loss)].count("large initial loss")


@pytest.mark.parametrize(("size", "share"), [(9.0, SAVED), (1.0, SAVED_NATS)])
@pytest.mark.parametrize("off", [1.03, 0.97])
def test_how_much_of_the_loss_a_bias_of_0_has_to_save(size, share, off):
    model = nn.Linear(1, 1)
    nn.init.zeros_(model.weight)
    factor = 1 if size > 1 else 0.1  # so that it takes a bias above 2
    model.bias.data.fill_((off * share * size / factor) ** 0.5)
    targets = size**0.5 * SIGNS[1][:, None] * (1 if size > 1 else 0.1)

    def loss(outputs, targets):
        return factor * F.mse_loss(outputs, targets)

    assert large_losses(model, SIGNS[0][:, None], targets, loss) == (off > 1)


@pytest.mark.parametrize(
    ("size", "square"), [(1.0, LARGE_OUTPUTS), (4.0, 4.0 * SAVED_WEIGHTS)], ids=["outputs", "saved"]
)
@pytest.mark.parametrize("off", [1.03, 0.97])
def test_how_large_last_weights_are_that_are_tried_and_how_much_zeros_have_to_save(size, square, off):
    class Both(nn.Linear):
        def forward(self, x, wanted):
            return super().forward(x), wanted

    model = Both(1, 1, bias=False)
    model.weight.data.fill_((off * square) ** 0.5 / 3)  # so that no weight is large
    inputs = 3 * SIGNS[0][:, None], size**0.5 * SIGNS[1][:, None]
    assert large_losses(model, inputs, torch.zeros(64), lambda y, _: F.mse_loss(*y)) == (off > 1)


@pytest.mark.parametrize("off", [1.1, 0.9])
def test_how_much_larger_than_the_signal_biases_are_that_drown_it(off):
    model = nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16), nn.Linear(16, 5))
    nn.init.orthogonal_(model[0].weight, generator=seeded())
    x = (X - X.mean(0)) / X.std(correction=0)
    model[0].bias.data = (off / SHIFTED) ** 0.5 * torch.tensor([1.0, -1.0]).repeat(8)
    assert [f.layer for f in faults(model, x)] == ["0"] * (off > 1)


@pytest.mark.parametrize("off", [0.95, 1.05])
def test_how_small_cosines_may_be(off):
    def cosines(m, x):
        return m.scale * F.normalize(m.a(x), dim=-1) @ F.normalize(m.model(x), dim=-1).T

    model = Around(cosines, nn.Linear(16, 16), scale=1.0)
    model.a = nn.Linear(16, 16)
    model.scale.data *= (off * COLD / model(X).square().mean()).sqrt()
    assert [f.layer for f in faults(model, X, torch.arange(64))] == ["a"] * (off < 1)
