"""What can never learn, and what is not finite, is a fault; what waits for one or two steps is none."""

import math

import pytest
import torch
from initialize_networks import Function, batch, bits, seeded
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from course_utils.doctor import diagnose, initialize_
from course_utils.doctor.diagnosis import _waiting

X, Y = batch(32, 16), torch.arange(32) % 5


class Blocks(nn.Module):
    """A layer, something of one's own around two layers, and a last layer."""

    def __init__(self, around, *zeros):
        super().__init__()
        self.around = around
        self.first, self.a, self.b, self.last = (nn.Linear(16, n) for n in (16, 16, 16, 5))
        initialize_(self, X, generator=seeded())
        for name in zeros:
            nn.init.zeros_(getattr(self, name).weight)

    def forward(self, x):
        h = torch.relu(self.first(x))
        return self.last(self.around(self, h))


def branch(m, h):
    return h + m.b(torch.relu(m.a(h)))


def gated(m, h):
    return h + m.b(F.silu(m.a(h)) * h)


NEVER = {
    "both factors of an adapter are 0": (lambda m, h: h + m.b(m.a(h)), ("a", "b"), {"a", "b"}),
    "a branch of zeros": (branch, ("a", "b"), {"a", "b"}),
    "a gate and what it is multiplied into": (gated, ("a", "b"), {"a", "b"}),
    "detached": (lambda m, h: m.b(torch.relu(m.a(h)).detach()), (), {"first", "a"}),
    "rounded": (lambda m, h: m.b(torch.round(m.a(h))), (), {"first", "a"}),
}


@pytest.mark.parametrize(("around", "zeros", "stuck"), NEVER.values(), ids=NEVER)
def test_weights_that_no_step_reaches_are_a_fault(around, zeros, stuck):
    model = Blocks(around, *zeros)
    before = bits(model)
    diagnosis = diagnose(model, X, Y)
    named = {layer for f in diagnosis.findings if f.is_fault for layer in (f.layer, *f.others)}
    assert named == stuck
    assert all(torch.equal(value, before[name]) for name, value in bits(model).items())


def test_weights_that_are_computed_from_others_are_looked_at_too():
    model = Blocks(lambda m, h: m.b(torch.relu(m.a(h)).detach()))
    for layer in (model.first, model.a, model.b):
        nn.utils.parametrizations.weight_norm(layer)
    (found,) = (f for f in diagnose(model, X, Y).findings if f.is_fault)
    assert {found.layer, *found.others} == {"first", "a"}
    model.around = lambda m, h: m.b(torch.relu(m.a(h)))
    assert diagnose(model, X, Y).healthy


@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm"])
def test_equal_rows_are_found_in_a_layer_whose_weights_are_computed(kind):
    model = Blocks(lambda m, h: m.b(torch.relu(m.a(h))))
    with torch.no_grad():
        model.a.weight.copy_(model.a.weight[:1].expand(16, 16))
    getattr(nn.utils.parametrizations, kind)(model.a)
    (found,) = (f for f in diagnose(model, X, Y).findings if f.is_fault)
    assert (found.layer, found.fault, found.others) == ("a", "identical units", ())
    model.a.parametrizations.requires_grad_(False)
    assert "identical units" not in {f.fault for f in diagnose(model, X, Y).findings}


@pytest.mark.parametrize(("wide", "named"), [(1, ["4"]), (2, [])])
def test_some_units_that_are_copies_and_stay_so_are_counted(wide, named):
    """Of a mixture, whose components start alike; not of units that different weights wait for."""

    def loss(outputs, targets):
        shares, mean, log_std = outputs.chunk(3, -1)
        square = ((targets - mean) / log_std.exp()).square()
        return -torch.logsumexp(shares.log_softmax(-1) - square / 2 - log_std, -1).mean()

    model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 12))
    initialize_(model, X, generator=seeded())
    place = model[4] if wide == 1 else model[2]
    for first in (0, 4, 8):
        place.weight.data[first : first + 4] = place.weight.data[first].clone()
    found = [f for f in diagnose(model, X, X[:, :1], loss).findings if f.is_fault]
    assert [(f.layer, f.fault) for f in found] == [(name, "identical units") for name in named]
    # The gradient of equal shares is 0: not counted.
    assert all(f.evidence.startswith("6 of its units") for f in found)


class Standardized(nn.Linear):
    def forward(self, x):
        varying = self.weight - self.weight.mean(1, keepdim=True)
        return F.linear(x, varying / (4 * varying.std(1, keepdim=True)), self.bias)


class Blurred(nn.Linear):
    """Equal units by construction: of a trained number, not of weights that could differ."""

    def __init__(self, *sizes):
        super().__init__(*sizes, bias=False)
        self.weight = nn.Parameter(torch.tensor(0.25))

    def forward(self, x):
        return F.linear(x, self.weight.expand(16, 16) / 4)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize(("kind", "named"), [("old norm", ["a"]), (Standardized, ["a"]), (Blurred, [])])
def test_equal_rows_of_what_the_weights_are_made_of_are_found(kind, named):
    model = Blocks(branch)
    if kind != "old norm":
        model.a = kind(16, 16)
    if kind != Blurred:
        nn.init.zeros_(model.a.bias)
        model.a.weight.data = model.a.weight[:1].detach().repeat(16, 1)
    if kind == "old norm":
        nn.utils.weight_norm(model.a)
    found = [f for f in diagnose(model, X, Y).findings if f.fault == "identical units"]
    assert [f.layer for f in found] == named


def test_a_weight_norm_of_zeros_is_a_layer_of_zeros():
    model = Blocks(lambda m, h: m.b(torch.relu(m.a(h))))
    nn.utils.parametrizations.weight_norm(model.a)
    nn.init.zeros_(model.a.parametrizations.weight.original0)
    (found,) = (f for f in diagnose(model, X, Y).findings if f.is_fault)
    assert (found.layer, found.fault) == ("a", "zero layer")
    model.a.parametrizations.requires_grad_(False)
    assert "zero layer" not in {f.fault for f in diagnose(model, X, Y).findings}


@pytest.mark.parametrize(("value", "named"), [(0.0, ["z"]), (1.0, [])])
def test_an_infinite_gradient_of_what_is_no_layers_weight_is_a_fault(value, named):
    model = Blocks(branch)
    model.around = lambda m, h: h + m.z.sqrt()
    model.z = nn.Parameter(torch.full((16,), value))
    found = [f for f in diagnose(model, X, Y).findings if f.is_fault]
    assert [f.layer for f in found if f.fault == "not finite"] == named
    assert len(found) == len(named)


@pytest.mark.parametrize(("bias", "stuck"), [(-45, {"a", "b"}), (-10, set())])
def test_a_gradient_too_small_for_any_step_is_none(bias, stuck):
    """Of SiLU the slope is 45 exp(-45) = 1e-18 there, and 5e-4 at -10."""
    model = Blocks(lambda m, h: h + m.b(F.silu(m.a(h))))
    nn.init.constant_(model.a.bias, bias)
    diagnosis = diagnose(model, X, Y)
    assert {layer for f in diagnosis.findings if f.is_fault for layer in (f.layer, *f.others)} == stuck


@pytest.mark.parametrize(("size", "waits"), [(0.9e-25, 1), (1.1e-25, 0)])
def test_how_small_a_gradient_is_none(size, waits):
    p, other = nn.Parameter(X), nn.Parameter(X)
    assert len(_waiting([p], {p: size, other: 1.0})) == waits


WAITS = {
    "a last layer of zeros": (branch, ("last",)),
    "a branch that ends in zeros": (branch, ("b",)),
    "both, one behind the other": (branch, ("b", "last")),
    "an adapter that starts at 0": (lambda m, h: h + m.b(m.a(h)), ("b",)),
}


@pytest.mark.parametrize(("around", "zeros"), WAITS.values(), ids=WAITS)
def test_weights_that_wait_for_a_step_are_none(around, zeros):
    assert diagnose(Blocks(around, *zeros), X, Y).healthy


def test_a_second_output_that_the_loss_does_not_see_is_none():
    class Two(Blocks):
        def forward(self, x):
            h = torch.relu(self.first(x))
            return self.last(h), self.a(h)

    assert diagnose(Two(branch), X, Y).healthy
    assert diagnose(Two(branch), X, Y, lambda outputs, y: nn.functional.cross_entropy(outputs[0], y)).healthy


NOT_FINITE = {
    "a target": (lambda o, y: ((o - torch.full_like(o, math.nan)) ** 2).mean(), "loss"),
    "minus infinity": (lambda o, y: o.square().mean() - math.inf, "loss"),
}


@pytest.mark.parametrize(("loss", "where"), NOT_FINITE.values(), ids=NOT_FINITE)
def test_a_loss_that_is_not_finite_is_a_fault(loss, where):
    fault = diagnose(Blocks(branch), X, Y, loss).findings[0]
    assert (fault.layer, fault.fault) == (where, "not finite")


def test_targets_with_nan_are_named():
    targets = batch(32, 5)
    targets[3, 2] = math.nan
    fault = diagnose(Blocks(branch), X, targets).findings[0]
    assert (fault.layer, fault.fault) == ("targets", "not finite")


def test_a_gradient_that_is_nan_is_a_fault():
    def distance(m, h):
        z = m.a(h)
        return ((z - z[:1]) ** 2).sqrt()

    fault = diagnose(Blocks(distance), X, Y).findings[0]
    assert (fault.layer, fault.fault) == ("a", "not finite")
    assert "gradient" in fault.evidence


def test_labels_and_losses_that_do_not_fit_are_refused_in_words():
    with pytest.raises(ValueError, match="labels must be from 0 to 4 for 5 classes; got 3 to 7"):
        diagnose(Blocks(branch), X, Y + 3)
    with pytest.raises(TypeError, match="got the class CrossEntropyLoss: pass an object"):
        diagnose(Blocks(branch), X, Y, nn.CrossEntropyLoss)
    ignored = Y.clone()
    ignored[::2] = -100
    assert diagnose(Blocks(branch), X, ignored).healthy


def test_what_no_gradient_can_reach_in_functional_code():
    model = Function(lambda m, x: (x @ m.w).detach() @ m.v, w=(16, 8), v=(8, 5))
    initialize_(model, X, overwrite=True)
    finding = diagnose(model, X, Y).findings[0]
    assert (finding.layer, finding.fault) == ("w", "vanishing gradient")


def test_what_gets_lost_on_the_way_to_the_loss_is_remarked():
    model = Blocks(lambda m, h: m.b(torch.tensor(torch.relu(m.a(h)).tolist())))
    diagnosis = diagnose(model, X, Y)
    remarks = {f.fault: f for f in diagnosis.findings if not f.is_fault}
    assert diagnosis.healthy
    assert (remarks["no gradient"].layer, remarks["no gradient"].others) == ("first", ("a",))
    model.around = lambda m, h: m.b(torch.relu(m.a(h)))
    assert "no gradient" not in {f.fault for f in diagnose(model, X, Y).findings}


def convolutional():
    layers = [
        (nn.Conv2d(16 if k else 3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        for k in range(8)
    ]
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)
    return nn.Sequential(*(part for layer in layers for part in layer), *head)


def test_batch_norm_without_statistics_is_named_for_what_it_is_and_small_outputs_are_no_explosion():
    x = batch(16, 3, 8, 8)
    findings = diagnose(convolutional().eval(), x, torch.arange(16) % 5).findings
    assert "fresh statistics" in {f.fault for f in findings if not f.is_fault}
    assert "exploding signal" not in {f.fault for f in findings}
    trained = convolutional()
    trained(x)
    named = {f.fault for m in (trained.eval(), convolutional()) for f in diagnose(m, x).findings}
    assert "fresh statistics" not in named


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")
def test_a_reentrant_checkpoint_passes_back_what_it_would_in_training():
    def segment(m, h):
        return checkpoint(lambda z: torch.relu(m.a(z)), h, use_reentrant=True)

    assert diagnose(Blocks(lambda m, h: m.b(segment(m, h))), X, Y).healthy
    cut = Blocks(lambda m, h: m.b(segment(m, h.detach())))  # no input to differentiate by: torch warns
    finding = diagnose(cut, X, Y).findings[0]
    assert (finding.layer, finding.fault) == ("first", "vanishing gradient")
    assert finding.others == ("a",)


def test_a_gradient_that_gates_nearly_shut_make_tiny_at_first_is_free_once_they_open():
    """As in CaiT: branches scaled by next to nothing, whose scales grow with the first steps."""
    model = Blocks(branch)
    model.outer, model.inner = (nn.Parameter(torch.full((16,), 1e-8)) for _ in range(2))
    model.around = lambda m, h: h + m.outer * m.b(torch.relu(m.inner * m.a(h)))
    nn.init.zeros_(model.b.bias)
    assert {f.fault for f in diagnose(model, X, Y).findings if f.is_fault} == set()
    nn.init.zeros_(model.outer).requires_grad_(False)
    assert {f.fault for f in diagnose(model, X, Y).findings if f.is_fault} == {"vanishing gradient"}


def test_queries_that_are_0_at_first_are_free_after_a_step():
    """As in DETR: what weighs values of 0 gets a gradient, if a tiny one, as soon as they are not 0."""
    model = Blocks(lambda m, h: h + torch.softmax(m.a(h) * 1e-9, 1) * m.b(h), "b")
    nn.init.zeros_(model.b.bias)
    assert {f.fault for f in diagnose(model, X, Y).findings if f.is_fault} == set()
