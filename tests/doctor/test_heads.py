"""What a model returns and what its loss asks of it: heads of several kinds, used in several ways."""

import math
from typing import NamedTuple

import pytest
import torch
from doctor_networks import defaults
from initialize_networks import batch, seeded
from torch import nn
from torch.nn import functional as F

from course_utils.doctor import diagnose, initialize_

X, Y = batch(64, 16), torch.arange(64) % 5


def trunk(*layers, width=32):
    return nn.Sequential(nn.Linear(16, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), *layers)


class Headed(nn.Module):
    """A trunk, heads, and what is made of all that these return."""

    def __init__(self, made, *sizes, **modules):
        super().__init__()
        self.trunk, self.made = trunk(), made
        self.heads = nn.ModuleList(nn.Linear(32, n) for n in sizes)
        for k, head in enumerate(self.heads):
            initialize_(nn.Sequential(self.trunk, head), X, overwrite=True, generator=seeded(k))

    def forward(self, x):
        h = self.trunk(x)
        return self.made(*(head(h) for head in self.heads))


def faults(model, x=X, y=Y, loss=None):
    return [f for f in diagnose(model, x, y, loss).findings if f.is_fault]


def negative_log_likelihood(outputs, targets):
    mean, scale = outputs
    return (scale.log() + ((targets - mean) / scale) ** 2 / 2).mean()


@pytest.mark.parametrize("positive", [torch.exp, F.softplus])
@pytest.mark.parametrize(("bias", "named"), [(0.0, []), (-6.0, ["heads.1"])])
def test_a_scale_that_starts_too_small_is_named(positive, bias, named):
    model = Headed(lambda mean, scale: (mean, positive(scale)), 1, 1)
    nn.init.constant_(model.heads[1].bias, bias)
    found = faults(model, X, X[:, :1], negative_log_likelihood)
    assert [f.layer for f in found] == named
    for f in found:
        assert f.fault == "large initial loss"
        assert "with its biases at 0" in f.evidence
        nn.init.zeros_(model.heads[1].bias)  # as the remedy says
        assert faults(model, X, X[:, :1], negative_log_likelihood) == []


@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize(("factor", "named"), [(1.0, []), (20.0, ["0"])])
def test_log_probabilities_in_any_layout_are_compared_with_equal_ones(dim, factor, named):
    class Steps(nn.Sequential):
        def forward(self, x):
            z = super().forward(x)
            return F.log_softmax(z if dim == 2 else z.mT, dim).transpose(0, 1 if dim == 2 else 0)

    model = Steps(nn.Linear(16, 5))
    model[0].weight.data.mul_(factor)

    def loss(outputs, targets):
        rows = outputs.transpose(0, 1) if dim == 2 else outputs.mT
        return F.nll_loss(rows.reshape(-1, 5), targets.flatten())

    labels = 1 + torch.arange(64 * 7).view(64, 7) % 4
    found = faults(model, batch(64, 7, 16), labels, loss)
    assert [f.layer for f in found] == named
    assert all(f"equal probabilities cost ln K = {math.log(5):.3g}" in f.evidence for f in found)


@pytest.mark.parametrize(("temperature", "named"), [(0.02, ["head (call 2)"]), (1.0, [])])
def test_a_head_that_is_called_twice_was_not_looked_up(temperature, named):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk, self.head = trunk(), nn.Linear(32, 5)
            initialize_(self, (X, X), generator=seeded())

        def forward(self, one, other):
            return torch.stack([self.head(self.trunk(x)) for x in (one, other)], 1) / temperature

    def loss(outputs, targets):
        return F.cross_entropy(outputs.flatten(0, 1), targets.flatten())

    found = faults(Twice(), (X, batch(64, 16, seed=2)), torch.stack([Y, Y], 1), loss)
    assert [f.layer for f in found] == named
    assert all(f.remedy == "Scale the last layer's weights down; 0 is fine." for f in found)


class Cosine(nn.Module):
    """Cosines between what a trunk returns and a vector of each class, over a temperature."""

    def __init__(self, temperature):
        super().__init__()
        self.trunk, self.temperature = trunk(nn.Linear(32, 16)), temperature
        initialize_(self.trunk, X, generator=seeded())
        self.classes = nn.Parameter(batch(5, 16, seed=4))

    def forward(self, x):
        return F.normalize(self.trunk(x), dim=1) @ F.normalize(self.classes, dim=1).T / self.temperature


@pytest.mark.parametrize(("temperature", "is_fault"), [(0.03, False), (0.003, True)])
def test_cosines_may_be_over_a_small_temperature(temperature, is_fault):
    assert [f.fault for f in faults(Cosine(temperature))] == ["large initial loss"] * is_fault


@pytest.mark.parametrize(("bias", "is_fault"), [(0.0, False), (1.0, False), (30.0, True)])
def test_directions_that_are_alike_for_all_examples_are_a_fault(bias, is_fault):
    model = Cosine(0.2)
    nn.init.constant_(model.trunk[4].bias, bias)
    found = faults(model)
    assert [(f.layer, f.fault) for f in found] == [("trunk.4", "vanishing signal")] * is_fault
    assert all(f.remedy == "Set biases to 0." for f in found)


@pytest.mark.parametrize(("size", "is_fault"), [(0.025, True), (0.04, False)])
def test_how_alike_directions_may_be(size, is_fault):
    class Directions(nn.Linear):
        def forward(self, x):
            return F.normalize(super().forward(x), dim=1)

    model = Directions(16, 16)
    model.weight.data, model.bias.data = size * torch.eye(16), torch.ones(16)
    z = model(X).double()
    share = z.var(0, correction=0).mean() / z.square().mean()
    assert 0.4e-3 < share < 2e-3
    assert (share < 1e-3) == is_fault
    named = [(f.layer, f.cause[:6]) for f in diagnose(model, X).findings if f.fault == "vanishing signal"]
    assert len(named) == is_fault


@pytest.mark.parametrize("weight", [1.0, 1e-4])
def test_gradients_of_two_heads_are_not_compared(weight):
    """A loss that counts for little sends little back, and nothing in between explodes."""

    class Auxiliary(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU())
            self.beside, self.last = (
                nn.Sequential(nn.Linear(32, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 5))
                for _ in range(2)
            )
            initialize_(self, X, generator=seeded())

        def forward(self, x):
            h = self.first(x)
            return self.last(h), self.beside(h)

    def loss(outputs, targets):
        main, beside = (F.cross_entropy(z, targets) for z in outputs)
        return main + weight * beside

    assert faults(Auxiliary(), loss=loss) == []


def test_a_gradient_that_explodes_in_front_of_two_heads_is_seen():
    model = Headed(lambda a, b: (a, b), 5, 5)
    for _ in range(45):
        model.trunk.extend([nn.Linear(32, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU()])
        nn.init.normal_(model.trunk[-3].weight, 0, math.sqrt(1 / 16), generator=seeded(len(model.trunk)))

    def loss(outputs, targets):
        return sum(F.cross_entropy(z, targets) for z in outputs)

    (found,) = faults(model, loss=loss)
    assert found.fault == "exploding gradient"


def test_a_large_loss_names_what_is_large_alone():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.o = nn.Linear(16, 32), trunk(nn.Linear(32, 32)), nn.Linear(32, 5)
            initialize_(self, X, generator=seeded())
            self.o.weight.data *= 30

        def forward(self, x):
            return self.o(torch.relu(self.a(x) + self.b(x)))

    assert [(f.layer, f.others) for f in faults(Residual())] == [("o", ())]


class Chain(nn.Module):
    """A conditional random field behind a layer: scores over time, and their sum over all paths."""

    def __init__(self):
        super().__init__()
        self.lstm, self.scores = nn.LSTM(16, 32, batch_first=True), nn.Linear(32, 5)
        self.transitions = nn.Parameter(0.1 * batch(5, 5, seed=6))

    def forward(self, x, labels):
        z, _ = self.lstm(x)
        z = self.scores(z)
        total, path = z[:, 0], z[:, 0].gather(1, labels[:, :1])[:, 0]
        for t in range(1, x.shape[1]):
            total = torch.logsumexp(total[:, :, None] + self.transitions + z[:, t, None], 1)
            path = path + self.transitions[labels[:, t - 1], labels[:, t]] + z[range(len(x)), t, labels[:, t]]
        return (torch.logsumexp(total, 1) - path).mean() / x.shape[1]


@pytest.mark.parametrize("steps", [8, 40])
def test_a_sum_over_time_behind_the_last_layer_is_no_explosion_and_no_branches(steps):
    given = batch(24, steps, 16), torch.arange(24 * steps).view(24, steps) % 5
    model = defaults(Chain())
    assert faults(model, given, None, lambda outputs, _: outputs) == []
    table = initialize_(model, given, generator=seeded()).table.set_index("parameter")
    assert table["std"]["scores.weight"] == pytest.approx(1 / math.sqrt(32))
    assert faults(model, given, None, lambda outputs, _: outputs) == []


@pytest.mark.parametrize("guilty", [0, 1, 2])
def test_of_heads_whose_sum_is_returned_the_largest_is_named(guilty):
    """As in N-BEATS: each block adds to the forecast, and takes away what it has explained."""

    class Blocks(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks, self.back, self.ahead = (
                nn.ModuleList(nn.Linear(i, o) for _ in range(3)) for i, o in ((16, 32), (32, 16), (32, 4))
            )
            initialize_(self, X, generator=seeded())

        def forward(self, x):
            total = 0
            for block, back, ahead in zip(self.blocks, self.back, self.ahead, strict=True):
                h = torch.relu(block(x))
                x, total = x - back(h), total + ahead(h)
            return total

    model = Blocks()
    model.ahead[guilty].weight.data *= 40
    assert [f.layer for f in faults(model, X, batch(64, 4, seed=2))] == [f"ahead.{guilty}"]
    model.ahead[guilty].weight.data /= 40
    assert faults(model, X, batch(64, 4, seed=2)) == []


def softmax_inside(outputs, targets):
    return F.cross_entropy(outputs.softmax(-1).flatten(0, -2), targets.flatten())


def no_logarithm(outputs, targets):
    return F.nll_loss(outputs.softmax(-1).flatten(0, -2), targets.flatten())


def smoothed(outputs, targets):
    return F.cross_entropy(outputs.flatten(0, -2), targets.flatten(), label_smoothing=0.1)


LOSSES = {
    "softmax inside": (None, softmax_inside, "softmax twice"),
    "no logarithm": (None, no_logarithm, "unbounded loss"),
    "of scores": (None, lambda y, t: F.nll_loss(y.flatten(0, -2), t.flatten()), "unbounded loss"),
    "of probabilities": (
        nn.Softmax(-1),
        lambda y, t: F.nll_loss(y.flatten(0, -2), t.flatten()),
        "unbounded loss",
    ),
    "of their logarithm": (
        nn.Softmax(-1),
        lambda y, t: F.nll_loss(y.log().flatten(0, -2), t.flatten()),
        None,
    ),
    "of log probabilities": (nn.LogSoftmax(-1), lambda y, t: F.nll_loss(y.flatten(0, -2), t.flatten()), None),
    "smoothed": (None, smoothed, None),
    "with a margin": (None, lambda y, t: F.multi_margin_loss(y.flatten(0, -2), t.flatten()), None),
}


@pytest.mark.parametrize("shape", [(64, 16), (8, 8, 16)], ids=["batch", "sequences"])
@pytest.mark.parametrize(("end", "loss", "fault"), LOSSES.values(), ids=LOSSES)
def test_a_loss_that_does_not_fit_what_is_returned(end, loss, fault, shape):
    model = trunk(nn.Linear(32, 5))
    initialize_(model, X, generator=seeded())
    model = model if end is None else nn.Sequential(*model, end)
    found = faults(model, batch(*shape), Y.view(shape[:-1]), loss)
    assert [f.fault for f in found] == [fault] * bool(fault)


NORMS = {
    "weights of 0.02": (lambda m: nn.init.constant_(m[1].weight, 0.02), "Its weights are small."),
    "a small input": (
        lambda m: nn.init.normal_(m[0].weight, 0, 1e-5, generator=seeded()),
        "What enters it is smaller than its epsilon.",
    ),
    "weights of 0.3": (lambda m: nn.init.constant_(m[1].weight, 0.3), ""),
}


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.LayerNorm, nn.RMSNorm])
@pytest.mark.parametrize(("spoil", "cause"), NORMS.values(), ids=NORMS)
def test_a_norm_that_makes_the_signal_small(norm, spoil, cause):
    options = {"eps": 1e-5} if norm is nn.RMSNorm else {}
    model = nn.Sequential(nn.Linear(16, 32), norm(32, **options), nn.ReLU(), nn.Linear(32, 5))
    initialize_(model, X, generator=seeded())
    with torch.no_grad():
        spoil(model)
    found = faults(model)
    assert [(f.layer, f.fault, f.cause) for f in found] == [("1", "vanishing signal", cause)] * bool(cause)


def test_a_scalar_head_of_the_wrong_size_has_no_wrong_fan():
    model = trunk(nn.Linear(32, 1))
    initialize_(model, X, generator=seeded())
    nn.init.normal_(model[4].weight, 0, 1, generator=seeded())
    assert "wrong fan" not in {f.fault for f in faults(model, X, X[:, :1])}


@pytest.mark.parametrize("loss", [None, F.mse_loss, nn.SmoothL1Loss()])
@pytest.mark.parametrize(("scale", "named"), [(1, []), (20, []), (100, ["4"])])
def test_targets_have_a_scale_too(scale, named, loss):
    model = trunk(nn.Linear(32, 3))
    initialize_(model, X, generator=seeded())
    found = faults(model, X, scale * batch(64, 3, seed=2), loss)
    assert [(f.layer, f.fault) for f in found] == [(name, "target scale") for name in named]


def test_a_bias_near_the_targets_is_enough():
    model = trunk(nn.Linear(32, 1))
    initialize_(model, X, generator=seeded())
    nn.init.constant_(model[4].bias, 1000.0)
    assert faults(model, X, 1000 + batch(64, 1, seed=2), F.mse_loss) == []


class Pair(NamedTuple):
    scores: torch.Tensor
    state: torch.Tensor


RETURNED = {
    "a tuple": (lambda z, h: (z, h), lambda o: o[0]),
    "a dictionary": (lambda z, h: {"scores": z, "state": h}, lambda o: o["scores"]),
    "a named tuple": (Pair, lambda o: o.scores),
}
OF_THE_LOSS = {  # what is made of the scores, a loss of them, targets, and what is found
    "softmax twice": (lambda z: z.softmax(1), F.cross_entropy, Y),
    "unbounded loss": (lambda z: z, F.nll_loss, Y),
    "missing prior": (lambda z: z, F.mse_loss, 5 + batch(64, 5)),
    "target scale": (lambda z: z, F.mse_loss, 1000 * batch(64, 5)),
}


BY_DEFAULT = {*OF_THE_LOSS} - {"unbounded loss"}  # which the default losses are not


@pytest.mark.parametrize(("joined", "first"), RETURNED.values(), ids=RETURNED)
@pytest.mark.parametrize(
    ("fault", "default"), [(f, d) for f in OF_THE_LOSS for d in (True, False) if f in BY_DEFAULT or not d]
)
def test_what_a_loss_asks_of_the_first_of_several_outputs_is_found_as_of_one(fault, joined, first, default):
    made, loss, targets = OF_THE_LOSS[fault]

    model = Headed(lambda z: joined(made(z), z), 5)
    asked = None if default else lambda outputs, y: loss(first(outputs), y)
    findings = diagnose(model, X, targets, asked).findings
    found = {f.fault: f for f in findings}
    assert fault in found
    if fault == "unbounded loss":
        assert found[fault].evidence == "Outputs that are right and sure cost -100.00."


def test_a_prior_is_missed_by_the_head_that_the_loss_sees():
    model = Headed(lambda seen, unused: (seen, unused), 1, 1)
    findings = diagnose(model, X, 5 + batch(64, 1), lambda o, y: F.mse_loss(o[0], y)).findings
    assert [f.layer for f in findings if f.fault == "missing prior"] == ["heads.0"]
