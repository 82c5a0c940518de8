"""The limits of `relations.py`, a tenth above and a tenth below each: a fault or remark, and none."""

import math

import pytest
import torch
from initialize_networks import batch
from torch import nn
from torch.nn import functional as F

from course_utils.doctor import diagnose
from course_utils.doctor.experiment import Laboratory
from course_utils.doctor.graph import analyse, needed
from course_utils.doctor.recording import Recorder
from course_utils.doctor.restoring import restored

# The values are written down here once more: one that changes in the package alone is noticed.
LARGE_ROWS, LARGE_CELL, LARGE_FACTOR, CONSTANT, FAR_LOSS, DROWNED, DROWNING = 100, 4, 100, 10, 100, 1e3, 100
LARGE_LOSS = 10
FAR_STEP, FAR_NORMED, LOST, LOST_STREAM, SMALL_FACTOR, PRIOR, PRIOR_FACTOR = 100, 1e5, 1e-6, 1e6, 0.1, 0.3, 2
ADDITIVE, NEEDED, NORMALIZED = 1.3, 0.5, 0.1
IDS = torch.arange(64).view(8, 8)
BOTH_SIDES = pytest.mark.parametrize(("off", "said"), [(1.1, True), (0.9, False)])


def found(model: nn.Module, inputs: torch.Tensor, targets=None, loss=None) -> list[tuple[str, str]]:
    return [(f.layer, f.fault) for f in diagnose(model, inputs, targets, loss).findings]


def check(said: bool, layer: str, fault: str, words: str, *case) -> None:
    """Check whether this is found, and that its evidence gives the number on which it rests."""
    findings = {(f.layer, f.fault): f.evidence for f in diagnose(*case).findings}
    assert ((layer, fault) in findings) == said
    if said:
        assert words in findings[layer, fault]


@torch.no_grad()
def sized(x: torch.Tensor, second: float) -> torch.Tensor:
    """Give numbers a second moment, exactly."""
    return x.mul_(math.sqrt(second) / x.square().mean().sqrt())


class Net(nn.Module):
    """Rows that are looked up, a function of them, and a head."""

    def __init__(self, function=lambda m, x: x):
        super().__init__()
        self.function, self.words, self.head = function, nn.Embedding(64, 32), nn.Linear(32, 3)
        self.branches = nn.ModuleList(nn.Linear(32, 32, bias=False) for _ in range(4))
        self.p = nn.Parameter(batch(8, 32))
        sized(self.words.weight, 1.0)
        for seed, branch in enumerate(self.branches):
            nn.init.orthogonal_(branch.weight, generator=torch.Generator().manual_seed(seed))

    def forward(self, ids):
        return self.head(self.function(self, self.words(ids)))


@BOTH_SIDES
def test_rows_that_are_looked_up(off, said):
    net = Net()
    sized(net.words.weight, off * LARGE_ROWS)
    check(said, "words", "exploding signal", "It returns second moment 1.1e+02.", net, IDS)


@BOTH_SIDES
def test_weights_of_a_recurrent_module(off, said):
    cell = nn.GRU(8, 32, batch_first=True)
    sized(cell.weight_hh_l0, (off * LARGE_CELL) ** 2 / 32)
    words = "The std of weight_hh_l0 is 4.4 times 1 / sqrt(32)."
    check(said, "GRU", "exploding signal", words, cell, batch(16, 5, 8))


@BOTH_SIDES
def test_a_parameter_that_multiplies(off, said):
    net = Net(lambda m, x: x * m.p)
    sized(net.p, (off * LARGE_FACTOR) ** 2)
    check(said, "p", "exploding signal", "It multiplies a signal by 1.1e+02.", net, IDS)


@BOTH_SIDES
def test_a_parameter_that_is_added(off, said):
    net = Net(lambda m, x: x + m.p)
    sized(net.p, off * CONSTANT)
    words = "It is added to what has 0.091 of its second moment."
    check(said, "p", "exploding signal", words, net, IDS)


@pytest.mark.parametrize(("weights", "limit"), [(1.0, FAR_LOSS), (1.6, LARGE_LOSS)])
@BOTH_SIDES
def test_a_loss_beside_that_of_outputs_of_0(weights, limit, off, said):
    model, x = nn.Sequential(nn.Linear(8, 2, bias=False)), batch(64, 8)
    sized(model[0].weight, weights**2 / 8)
    targets = sized(batch(64, 2, seed=3), 1.0)
    factor = math.sqrt(off * limit / model(x).square().mean().item())

    def loss(y, t):  # of y alone but for the size of t, so that the factor is exact
        return (factor * y).square().mean() + (y == 0).double().mean() * t.square().mean()

    words = f"The loss is {off * limit * sized(targets, 1.0).square().mean():.3g}; outputs of 0 cost 1."
    check(said, "0", "large initial loss", words, model, x, targets, loss)


@BOTH_SIDES
def test_a_path_beside_another(off, said):
    small = 1 / math.sqrt(off * DROWNED)
    net = Net(lambda m, x: m.branches[0](x) + small * m.branches[1](m.branches[2](x)))
    words = "What it adds is 0.00091 of what branches.0 adds beside it."
    check(said, "branches.1", "drowned", words, net, IDS)


@BOTH_SIDES
def test_a_branch_among_others(off, said):
    def function(m, x):
        for i, branch in enumerate(m.branches[:3]):
            x = x + (math.sqrt(off * DROWNING) if i == 1 else 1) * branch(F.layer_norm(x, (32,)))
        return F.layer_norm(x, (32,))

    words = "It adds 1.1e+02 times what any other branch adds."
    check(said, "branches.1", "exploding signal", words, Net(function), IDS)


@BOTH_SIDES
def test_a_layer_that_another_path_leads_around(off, said):
    net = Net(lambda m, x: F.layer_norm(x + 1e-3 * m.branches[0](x), (32,)))
    with torch.no_grad():
        net.branches[0].weight.mul_(math.sqrt(off * FAR_STEP))
    words = "It returns second moment 1.1e+02 of 1; its weights' std is 1.9."
    check(said, "branches.0", "exploding signal", words, net, IDS)


class Grown(torch.autograd.Function):
    """Hand the signal on, and a gradient times a factor back."""

    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return ctx.factor * gradient, None


@BOTH_SIDES
def test_a_gradient_that_grows_where_norms_are(off, said):
    factor = math.sqrt(off * FAR_NORMED)
    net = Net(lambda m, x: m.branches[0](Grown.apply(F.layer_norm(x, (32,)), factor)))
    assert ("exploding gradient" in [fault for _, fault in found(net, IDS)]) == said


@BOTH_SIDES
def test_a_factor_that_starts_almost_shut(off, said):
    net = Net(lambda m, x: m.branches[1](Grown.apply(m.branches[0](x) * m.p, 1e-3)))
    sized(net.p, (off * SMALL_FACTOR) ** 2)
    assert ("vanishing gradient" in [fault for _, fault in found(net, IDS)]) == said


@BOTH_SIDES
def test_what_varies_over_the_batch(off, said):
    x = batch(64, 8)
    first = nn.Linear(8, 32)
    nn.init.orthogonal_(first.weight, generator=torch.Generator().manual_seed(0))
    sized(first.bias.data.normal_(generator=torch.Generator().manual_seed(1)), 1.0)
    model = nn.Sequential(first, nn.LayerNorm(32), nn.Linear(32, 3))
    varying = model[:2](x).var(0, correction=0).mean()  # of second moment 1
    with torch.no_grad():
        for _ in range(5):  # of the scale of the weights it is no power
            first.weight.mul_(math.sqrt(LOST / off / varying))
            varying = model[:2](x).var(0, correction=0).mean()
    words = "What enters 2, behind it, varies over the batch by 9.1e-07 of 1."
    check(said, "1", "vanishing signal", words, model, x)


@BOTH_SIDES
def test_a_branch_beside_a_stream_before_a_norm(off, said):
    size = math.sqrt(off * LOST_STREAM)
    net = Net(lambda m, x: F.layer_norm(x + size * m.branches[0](F.layer_norm(x, (32,))), (32,)))
    words = "It adds 1.1e+06 times what it is added to."
    check(said, "branches.0", "exploding signal", words, net, IDS)


@pytest.mark.parametrize(
    ("mean", "spread"), [(math.sqrt(PRIOR), 0.0), (3 * math.sqrt(PRIOR_FACTOR - 1), 3.0)]
)
@BOTH_SIDES
def test_what_a_constant_output_would_save(mean, spread, off, said):
    model, x = nn.Linear(8, 1), batch(64, 8)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    signs = 1 - 2 * (torch.arange(64) % 2)
    targets = (mean * math.sqrt(off) + spread * signs).view(-1, 1)
    zeros, constant = mean**2 * off + spread**2, spread**2
    words = f"Outputs of 0 cost {zeros:.3g}, better constant ones {constant:.3g}."
    check(said, "Linear", "missing prior", words, model, x, targets)


@BOTH_SIDES
def test_a_factor_that_all_of_a_product_depends_on(off, said):
    constant = math.sqrt(1 / (off * NEEDED) - 1)  # the noise adds 1 to its square
    net = Net(lambda m, x: m.branches[0](x) * (constant + m.branches[1](m.branches[2](x))))
    recorder = Recorder(net)
    with torch.no_grad():
        recorder.run(IDS)
    nodes = analyse(recorder.calls)
    with restored(net, IDS) as start:
        added = Laboratory(nodes, net, IDS, start).contributions({}, products=True)
    factors = {parent.layer for _, parent in needed(added)}
    assert ("branches.1" in factors) == said
    assert "branches.0" in factors


@BOTH_SIDES
def test_what_layers_add_to_what_is_no_layers(off, said):
    branch = 2 * DROWNING
    others = (branch + 1) * (1 / (off * NORMALIZED) - 1)  # of the input itself

    def forward(m, x):
        first = m.branches[0](x)
        second = m.branches[1](F.layer_norm(first, (32,)))
        return m.head(F.relu(math.sqrt(others) * x + first + math.sqrt(branch) * second))

    net = Net()
    net.forward = lambda x: forward(net, x)
    assert (("branches.1", "exploding signal") in found(net, sized(batch(64, 32), 1.0))) == said


@BOTH_SIDES
def test_a_sum_in_which_a_product_is(off, said):
    share, branch = (ADDITIVE - 1) / off, 2 * DROWNING  # what a product adds counts twice
    product = (branch + 1) * share / (1 - share)

    def function(m, x):
        a, b, c = (layer(F.layer_norm(x, (32,))) for layer in m.branches[:3])
        return F.relu(x + math.sqrt(branch) * a + math.sqrt(product) * b * c)

    net = Net(function)
    assert (("branches.0", "exploding signal") in found(net, IDS)) == said
