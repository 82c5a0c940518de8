"""What initialize_ leaves alone and why, and errors that change nothing."""

import copy
import math
from collections import namedtuple

import pytest
import torch
import torch.nn.functional as F
from initialize_networks import Function, batch, bits, draw_all_, left_alone, seeded, spoilt, tokens
from torch import nn

from course_utils.doctor import initialize


def test_a_branch_is_found_in_functional_code_and_a_scalar_in_front_of_it_is_left_alone():
    model = Function(
        lambda m, x: x + m.scale * F.linear(F.relu(F.linear(x, m.u)), m.v), u=(16, 16), v=(16, 16), scale=(1,)
    )  # the scale is 7
    model = nn.Sequential(model, copy.deepcopy(model))
    report = draw_all_(model, batch(8, 16), generator=seeded())
    assert list(report.table["parameter"]) == ["0.u", "0.v", "1.u", "1.v"]
    assert list(report.table["std"]) == pytest.approx([math.sqrt(2 / 16), 1 / 4 / math.sqrt(2) / 7] * 2)
    assert list(report.left_alone["parameter"]) == ["0.scale", "1.scale"]


def test_what_is_left_alone_and_why():
    model = Function(
        lambda m, x: m.head(F.relu(m.frozen(x)) + m.position),
        position=(16,),
        unused=(3, 3),
    )
    model.add("frozen", nn.Linear(20, 16)).add(
        "head", nn.utils.parametrizations.weight_norm(nn.Linear(16, 4))
    )
    model.frozen.weight.requires_grad_(False)
    before = bits(model)
    report = draw_all_(model, batch(8, 20), generator=seeded())
    parametrized = (
        "parametrized: the layer's weight is computed from it by a function that no rule here inverts"
    )
    assert list(report.table["parameter"]) == ["frozen.bias", "head.bias"]
    assert left_alone(report) == {
        "position": "no rule here reads what the model does with it",
        "unused": "not seen in use on these inputs",
        "frozen.weight": "frozen: it does not require a gradient",
        "head.parametrizations.weight.original0": parametrized,
        "head.parametrizations.weight.original1": parametrized,
    }
    after = bits(model)
    assert all(torch.equal(after[name], before[name]) for name in left_alone(report))
    assert "position" in str(report)
    assert "not seen in use on these inputs" in repr(report)


def test_tied_weights_are_drawn_only_if_all_uses_agree():
    model = Function(lambda m, t: F.linear(F.embedding(t, m.e), m.e), e=(48, 16))
    report = draw_all_(model, tokens(4, 7), generator=seeded())
    assert report.table["std"].tolist() == [0.25]  # the layer's law, of no recurrence
    law = "N(0, gain² / fan_in), tied: multiply the rows that are looked up by √width"
    assert report.table["law"].tolist() == [law]
    twice = Function(lambda m, x: F.relu(F.linear(F.relu(F.linear(x, m.w)), m.w)), w=(16, 16))
    assert draw_all_(twice, batch(8, 16), generator=seeded()).left_alone.empty
    loose = Function(lambda m, x: F.linear(F.relu(F.linear(x, m.w)), m.w), w=(16, 16))
    reason = left_alone(draw_all_(loose, batch(8, 16), generator=seeded()))["w"]
    assert reason.startswith("tied: orthogonal, over time (std 0.354)")
    assert reason.endswith("(call 2)")


def test_the_reason_for_tied_weights_names_the_use_that_differs_not_the_last():
    def forward(m, x):
        for phi in (F.relu, torch.tanh, F.relu):  # gains sqrt(2), 1, sqrt(2)
            x = phi(F.linear(x, m.w))
        return x

    reason = left_alone(draw_all_(Function(forward, w=(16, 16)), batch(8, 16), generator=seeded()))["w"]
    assert reason.startswith("tied: orthogonal, over time (std 0.354) in ")
    assert ", but orthogonal, over time (std 0.25) in " in reason
    assert reason.endswith("(call 2)")


def test_only_the_parameters_change():
    model = nn.Sequential(nn.Linear(20, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 4))
    x, state = batch(8, 20), torch.get_rng_state()
    before, given = bits(model), x.clone()
    attributes = [set(vars(module)) for module in model.modules()]
    draw_all_(model, x, generator=seeded())
    after = bits(model)
    assert all(torch.equal(after[name], before[name]) for name, _ in model.named_buffers())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(x, given)
    assert [set(vars(module)) for module in model.modules()] == attributes
    assert all(p.is_leaf and p.grad is None for p in model.parameters())
    assert not torch.equal(after["0.weight"], before["0.weight"])


def broken_forward(monkeypatch):
    return Function(lambda m, x: F.linear(F.linear(x, m.a), m.b), a=(5, 20), b=(3, 4)), RuntimeError, "mat1"


def broken_draw(monkeypatch):
    """The second draw fails: the first must not have been written."""

    def fails(*_, **__):
        raise RuntimeError("no draw")

    monkeypatch.setattr(initialize, "orthogonal_", fails)
    model = nn.Sequential(nn.Linear(20, 10), nn.RNN(10, 8))
    return spoilt(model), RuntimeError, "no draw"


def wrong_generator(monkeypatch):
    return spoilt(nn.Sequential(nn.Linear(20, 5))), TypeError, "generator"


@pytest.mark.parametrize("plant", [broken_forward, broken_draw, wrong_generator])
def test_an_error_leaves_the_model_as_it_was(plant, monkeypatch):
    model, error, message = plant(monkeypatch)
    before = bits(model)
    with pytest.raises(error, match=message):
        draw_all_(model, batch(8, 20), generator=3 if plant is wrong_generator else seeded())
    after = bits(model)
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize(
    ("model", "inputs", "error", "message"),
    [
        (lambda x: x, torch.ones(2, 3), TypeError, r"model must be a torch\.nn\.Module; got function"),
        (nn.Linear(3, 3), 5, TypeError, "inputs must be a tensor, .* got int"),
        (nn.Linear(3, 3), torch.ones(0, 3), ValueError, "at least one example"),
        (nn.LazyLinear(3), torch.ones(2, 3), ValueError, "weight has no shape yet; run the model once"),
        (nn.BatchNorm1d(3, device="meta"), torch.ones(2, 3), ValueError, "weight is on the meta device"),
    ],
)
def test_arguments_that_do_not_fit(model, inputs, error, message):
    with pytest.raises(error, match=message):
        draw_all_(model, inputs)


class ElementaryNorm(nn.Module):
    """A norm without a function of torch, whose parameters are named as in the annotated transformer."""

    def __init__(self, scaled):
        super().__init__()
        self.a_2, self.b_2 = nn.Parameter(torch.full((8,), 7.0)), nn.Parameter(torch.full((8,), 7.0))
        self.register_parameter("bias", None)
        self.scaled = scaled

    def forward(self, x):
        return self.scaled(self, x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt())


@pytest.mark.parametrize(
    ("scaled", "expected"),
    [
        (lambda m, z: m.a_2 * z + m.b_2, {"a_2": 7.0, "b_2": 7.0}),
        (lambda m, z: torch.addcmul(m.b_2, m.a_2, z), {"a_2": 7.0, "b_2": 7.0}),
        (lambda m, z: F.layer_norm(z, (8,), m.a_2, m.b_2), {"a_2": 1.0, "b_2": 0.0}),
    ],
)
def test_a_norms_scale_and_shift_are_told_by_their_place_in_torchs_functions(scaled, expected):
    """Neither by name, nor in a norm written by hand: what is left alone keeps its 7."""
    model = ElementaryNorm(scaled)
    report = draw_all_(model, batch(4, 8), generator=seeded())
    values = {name: p.detach().unique().item() for name, p in model.named_parameters()}
    assert values == expected
    assert set(left_alone(report)) == {name for name, value in expected.items() if value == 7}


def test_modules_that_are_not_registered():
    model = Function(lambda m, x: m.hidden[1](m.hidden[0](m.layer(x)))).add("layer", nn.Linear(8, 8))
    model.hidden = [nn.GRUCell(8, 8), ElementaryNorm(lambda m, z: m.a_2 * z)]
    before = [p.detach().clone() for module in model.hidden for p in module.parameters()]
    report = draw_all_(model, batch(4, 8), generator=seeded())
    assert list(report.table["parameter"]) == ["layer.weight", "layer.bias"]
    assert all(map(torch.equal, before, (p for module in model.hidden for p in module.parameters())))


UNREAD = {
    "a vector that holds weights and a bias": (
        lambda m, x: F.linear(x, m.w[:80].view(10, 8), m.w[80:]),
        (90,),
        "no rule here",
    ),
    "a layer with one output, a vector": (lambda m, x: F.linear(x, m.w), (8,), "no rule here"),
    "a list": (lambda m, x: F.linear(x, torch.cat([m.w, m.w])), (3, 8), "no rule here"),
    "an einsum of three": (lambda m, x: torch.einsum("bd,de,bd->be", x, m.w, x), (8, 5), "no rule here"),
    "its type only": (lambda m, x: x.to(m.w.dtype) + torch.ones(m.w.shape), (8,), "not seen in use"),
    "no elements": (lambda m, x: F.linear(x[:, :0], m.w), (4, 0), "no rule here"),
}


@pytest.mark.parametrize("case", UNREAD)
def test_uses_that_no_rule_reads(case):
    function, shape, reason = UNREAD[case]
    model = Function(function, w=shape)
    report = draw_all_(model, batch(4, 8), generator=seeded())
    assert report.table.empty
    assert left_alone(report)["w"].startswith(reason)
    assert (model.w == 7).all()


@pytest.mark.parametrize("made", ["expanded", "in inference mode"])
def test_what_cannot_be_written_to_is_left_alone(made):
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    with torch.inference_mode(made != "expanded"):
        bias = torch.zeros(1).expand(8) if made == "expanded" else torch.zeros(8)
        model[1].bias = nn.Parameter(bias)
    reasons = left_alone(draw_all_(model, batch(4, 8), generator=seeded()))
    assert reasons == {"1.bias": "expanded, or made in inference mode: it cannot be written to"}
    assert (model[1].bias == 0).all()


def test_a_subclass_keeps_what_is_its_own():
    class Attention(nn.MultiheadAttention):
        def __init__(self):
            super().__init__(8, 2)
            self.q_norm, self.gain_weight = nn.LayerNorm(8), nn.Parameter(torch.full((8,), 7.0))

        def forward(self, x):
            return super().forward(self.q_norm(x) * self.gain_weight, x, x)[0]

    class Memory(nn.LSTM):
        def __init__(self):
            super().__init__(8, 8)
            self.start = nn.Parameter(torch.full((1, 1, 8), 7.0))

        def forward(self, x):
            start = self.start.expand(1, x.shape[1], 8).contiguous()
            return super().forward(x, (start, torch.zeros_like(start)))[0]

    model = nn.Sequential(Attention(), Memory())
    report = draw_all_(model, batch(5, 4, 8), generator=seeded())
    assert set(left_alone(report)) == {"0.gain_weight", "1.start"}
    assert len(report.table) == 6 + 4


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_the_halves_of_an_old_weight_norm_are_left_alone():
    model = nn.utils.weight_norm(nn.LSTM(8, 8), "weight_hh_l0")
    report = draw_all_(model, batch(5, 4, 8), generator=seeded())
    assert set(left_alone(report)) == {"weight_hh_l0_g", "weight_hh_l0_v"}


def force(m, x):
    """The gradient of an energy, as in models of molecules: needs gradients to run."""
    x = x.requires_grad_()
    return torch.autograd.grad(m.layer(x).square().sum(), x, create_graph=True)[0]


def inner_step(m, x):
    m.layer(x).sum().backward()
    return m.layer(x)


def frozen_inside(m, x):
    with torch.inference_mode():
        h = m.layer(x)
    return h.clone()


@pytest.mark.parametrize("function", [force, inner_step, frozen_inside])
def test_gradients_in_the_forward_pass(function):
    model = Function(function).add("layer", nn.Linear(8, 8))
    model.layer.weight.grad = torch.full((8, 8), 3.0)
    assert len(draw_all_(model, batch(4, 8), generator=seeded()).table) == 2
    assert (model.layer.weight.grad == 3).all()
    assert model.layer.bias.grad is None


def test_a_caller_in_inference_mode():
    with torch.inference_mode():
        model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU())
        assert len(draw_all_(model, batch(4, 8), generator=seeded()).table) == 4


def test_what_the_pass_does_to_everything_else_is_undone():
    def shaken(m, pair):
        with torch.no_grad():
            m.codebook.mul_(0.9)
        return m.layer(pair.x.add_(m.mask)) @ m.codebook[:, : pair.width]

    model = Function(shaken, codebook=(8, 8)).add("layer", nn.Linear(8, 8))
    model.codebook.requires_grad_(False)
    model.register_buffer("mask", torch.ones(1).expand(8))
    pair = namedtuple("Pair", "x width")(batch(4, 8), 5)
    assert len(draw_all_(model, (pair,), generator=seeded()).table) == 2
    assert (model.codebook == 7).all()
    assert torch.equal(pair.x, batch(4, 8))


def test_a_pass_that_fails_after_changing_a_parameter():
    def fails(m, x):
        m.w.data.zero_()
        raise RuntimeError("half-way")

    model = Function(fails, w=(3,))
    with pytest.raises(RuntimeError, match="half-way"):
        draw_all_(model, batch(4, 8), generator=seeded())
    assert (model.w == 7).all()


def test_a_gate_whose_place_cannot_be_read_is_left_alone():
    model = Function(lambda m, x: F.silu(F.linear(x, m.w).chunk(2, -1)[1].contiguous()), w=(128, 32))
    assert left_alone(draw_all_(model, batch(8, 32))) == {
        "w": "no rule here reads what the model does with it"
    }


def test_a_norm_of_nothing():
    model = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(0))
    model.forward = lambda x: model[1](model[0](x)[:, :0])
    assert "0.weight" in set(initialize.initialize_(model, batch(4, 8)).table.parameter)


def test_copies_of_what_is_drawn_are_named():
    """A momentum encoder that runs frozen, and a target network that does not run, start as copies."""
    model = Function(lambda m, x: m.online(x) + m.momentum(x).detach() + m.other(x))
    model.add("online", nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)))
    for name in ("momentum", "target"):
        model.add(name, copy.deepcopy(model.online).requires_grad_(False))
    model.add("other", nn.Linear(8, 4).requires_grad_(False))
    nn.init.zeros_(model.target[2].weight)
    report = left_alone(draw_all_(model, batch(32, 8), generator=seeded()))
    ending = "; it was equal to online.{}, which is drawn: copy that again"
    copies = {name: why.partition(";")[2] for name, why in report.items() if ";" in why}
    wanted = {"momentum.0.weight": "0.weight", "momentum.2.weight": "2.weight", "target.0.weight": "0.weight"}
    assert copies == {name: ending.format(original)[1:] for name, original in wanted.items()}
