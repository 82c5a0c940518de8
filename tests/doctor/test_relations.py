"""What parts of a model do to one another is named at its layer, and is gone when the remedy is followed."""

import math
from collections.abc import Callable

import pytest
import torch
from initialize_networks import batch, seeded
from torch import nn
from torch.nn import functional as F

from course_utils.doctor import diagnose, initialize_

X, Y = batch(32, 16, 64), torch.arange(32) % 5  # sequences
Z, LABELS = batch(200, 20), torch.arange(200) % 5  # vectors
WORDS = torch.randint(0, 50, (32, 16), generator=seeded(3))
LONG = batch(32, 100, 8)


class Parts(nn.Module):
    """Layers, parameters and numbers by name, and what is done with them."""

    def __init__(self, function: Callable, **parts) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.function(self, x)


def built(make: Callable[[], nn.Module]) -> nn.Module:
    torch.default_generator.manual_seed(0)
    return make()


def found(model: nn.Module, *case) -> list[tuple[str, str, bool]]:
    return [(f.layer, f.fault, f.is_fault) for f in diagnose(model, *case).findings]


def put(**values: float) -> Callable:
    return lambda model: [setattr(model, name, value) for name, value in values.items()]


def times(factor: float, *names: str) -> Callable:
    return lambda model: [model.get_parameter(name).data.mul_(factor) for name in names]


def drawn(*names: str) -> Callable:
    """Draw with std 1 / sqrt(fan_in), as the remedies say."""
    rng = seeded(4)

    def remedy(model: nn.Module) -> None:
        for p in map(model.get_parameter, names):
            p.data.normal_(0, p.shape[1] ** -0.5, generator=rng)

    return remedy


def mlp(*last: nn.Module, outputs: int = 5) -> nn.Sequential:
    return nn.Sequential(nn.Linear(20, 32), nn.Tanh(), nn.Linear(32, outputs), *last)


def written_out(q, k, v, scale):
    logits = q @ k.mT * scale
    e = (logits - logits.amax(-1, keepdim=True)).exp()
    return e / e.sum(-1, keepdim=True) @ v


def fused(**options) -> Callable:
    return lambda q, k, v, scale: F.scaled_dot_product_attention(q, k, v, scale=scale, **options)


def of_heads(q, k, v, scale):
    """Two heads of queries that share one of keys."""
    q = torch.stack([q, q.flip(-1)], 1)
    return fused(enable_gqa=True)(q, k[:, None], v[:, None], scale).mean(1)


BAND = (torch.arange(16)[:, None] - torch.arange(16)).abs() < 8
ATTENTION = {
    "softmax": lambda q, k, v, scale: (q @ k.mT * scale).softmax(-1) @ v,
    "written out": written_out,
    "fused": fused(),
    "causal": fused(is_causal=True),
    "masked": fused(attn_mask=BAND),
    "fewer key heads": of_heads,
}


def attention(attend: Callable) -> nn.Module:
    def function(m, x):
        return m.head(m.o(attend(m.q(x), m.k(x), m.v(x), m.scale)).mean(1))

    layers = {name: nn.Linear(64, 64, bias=False) for name in "qkvo"}
    model = Parts(function, **layers, head=nn.Linear(64, 5), scale=1 / 8)
    drawn("q.weight", "k.weight", "v.weight", "o.weight")(model)
    return model


def several_heads() -> nn.Module:
    def function(m, x):
        return m.head(m.a(x, x, x, need_weights=False)[0].mean(1))

    return Parts(function, a=nn.MultiheadAttention(64, 4, batch_first=True), head=nn.Linear(64, 5))


@pytest.mark.parametrize("attend", ATTENTION.values(), ids=ATTENTION)
def test_attention_needs_its_factor_and_small_weights(attend: Callable):
    model = built(lambda: attention(attend))
    assert found(model, X, Y) == []
    model.scale = 1.0
    assert found(model, X, Y) == [("q", "saturated", True)]
    model.scale = 1 / 8
    times(8, "q.weight", "k.weight")(model)
    (finding,) = diagnose(model, X, Y).findings
    assert (finding.layer, finding.fault, finding.others) == ("q", "saturated", ("k",))
    drawn("q.weight", "k.weight")(model)
    assert found(model, X, Y) == []


def test_attention_of_a_module():
    model = built(several_heads)
    assert found(model, X, Y) == []
    model.a.in_proj_weight.data[:128] *= 8
    assert found(model, X, Y) == [("a", "saturated", True)]
    drawn("a.in_proj_weight")(model)
    assert found(model, X, Y) == []


@pytest.mark.parametrize("dim", [-1, -2])
@pytest.mark.parametrize("times", [1, 2])
def test_a_softmax_of_a_softmax_inside(times, dim):
    """Along another dimension the second one takes no probabilities."""

    def function(m, x):
        q, k, v = m.qkv(x).chunk(3, -1)
        shares = (q @ k.mT / 32**0.5).softmax(-1)
        return m.head((x + (shares if times == 1 else shares.softmax(dim)) @ v).mean(1))

    def make():
        return Parts(function, qkv=nn.Linear(32, 96), head=nn.Linear(32, 5))

    named = [("qkv", "softmax twice", True)] * (times == 2 and dim == -1)
    assert [f for f in found(built(make), batch(32, 8, 32), Y) if f[2]] == named


@pytest.mark.parametrize("loss", [None, nn.CrossEntropyLoss()], ids=["default", "object"])
def test_a_softmax_of_a_softmax(loss):
    model = built(lambda: mlp(nn.Softmax(1)))
    (finding,) = diagnose(model, Z, LABELS, loss).findings
    assert (finding.layer, finding.fault, finding.is_fault) == ("2", "softmax twice", True)
    assert f"below {math.log1p(4 / math.e):.2f}" in finding.cause
    assert found(model, Z, LABELS, lambda p, t: F.nll_loss(p.log(), t)) == []
    assert found(model[:3], Z, LABELS, loss) == []
    model[3] = nn.LogSoftmax(1)
    assert found(model, Z, LABELS, F.nll_loss) == []


def side_by_side() -> nn.Module:
    return Parts(lambda m, x: sum(b(x) for b in m.b) / 3, b=nn.ModuleList(mlp() for _ in range(3)))


def test_equal_copies_side_by_side_stay_copies():
    model = built(side_by_side)
    assert found(model, Z, LABELS) == []
    for other in model.b[1:]:
        other.load_state_dict(model.b[0].state_dict())
    named = [(f.layer, f.fault, f.others) for f in diagnose(model, Z, LABELS).findings]
    assert named == [(f"b.0.{i}", "identical units", (f"b.1.{i}", f"b.2.{i}")) for i in (0, 2)]
    drawn(*(f"b.{k}.{i}.weight" for k in range(3) for i in (0, 2)))(model)
    assert found(model, Z, LABELS) == []


def test_copies_one_after_another_are_a_remark():
    blocks = built(lambda: [nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 5)])
    model = nn.Sequential(*blocks)
    assert found(model, Z, LABELS) == []
    model[2].load_state_dict(model[0].state_dict())
    assert found(model, Z, LABELS) == [("0", "copies", False)]
    drawn("2.weight")(model)
    assert found(model, Z, LABELS) == []


RARE = (torch.arange(200) % 50 == 0).float()[:, None]
PRIORS = {  # outputs, targets, balanced targets, loss
    "binary": (1, RARE, (RARE + torch.arange(200)[:, None]) % 2, nn.BCEWithLogitsLoss()),
    "classes": (3, (torch.arange(200) % 20 - 17).clamp(0), torch.arange(200) % 3, None),
    "values": (1, 5 + batch(200, 1), batch(200, 1), None),
    "a loss of one's own": (1, 5 + batch(200, 1), batch(200, 1), lambda y, t: (y - t).abs().mean()),
}


@pytest.mark.parametrize(("outputs", "targets", "balanced", "loss"), PRIORS.values(), ids=PRIORS)
def test_a_prior_belongs_into_the_last_bias(outputs, targets, balanced, loss):
    model = built(lambda: mlp(outputs=outputs))
    assert found(model, Z, balanced, loss) == []
    assert found(model, Z, targets, loss) == [("2", "missing prior", False)]


def lstm() -> nn.Module:
    rnn = nn.LSTM(8, 32, batch_first=True)
    return Parts(lambda m, x: m.head(m.rnn(x)[0][:, -1]), rnn=rnn, head=nn.Linear(32, 5))


def by_hand() -> nn.Module:
    def function(m, x):
        h = x.new_zeros(len(x), 32)
        for step in x.unbind(1):
            h = torch.tanh(m.i(step) + m.h(h))
        return m.head(h)

    return Parts(
        function, i=nn.Linear(8, 32, bias=False), h=nn.Linear(32, 32, bias=False), head=nn.Linear(32, 5)
    )


def test_a_forget_bias_lengthens_the_memory_of_an_lstm():
    model = built(lstm)
    assert found(model, LONG[:, :5], Y) == []
    assert found(model, LONG, Y) == [("rnn", "short memory", False)]
    initialize_(model, LONG, generator=seeded())
    assert found(model, LONG, Y) == [("rnn", "short memory", False)]
    model.rnn.bias_ih_l0.data[32:64] = math.log(100)
    assert found(model, LONG, Y) == []


def test_orthogonal_weights_lengthen_the_memory_of_a_network_by_hand():
    model, x = built(by_hand), 0.1 * LONG[:, :40]
    assert found(model, x, Y) == [("h", "short memory", False)]
    nn.init.orthogonal_(model.h.weight, generator=seeded())
    assert found(model, x, Y) == []


def stream() -> nn.Module:
    def function(m, x):
        x = m.first(x)
        for k, block in enumerate(m.b):
            x = x + (m.factor if k == 1 else 1.0) * block(x)
        return m.head(m.norm(x))

    def block() -> nn.Module:
        return nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32))

    layers = {"first": nn.Linear(20, 32), "norm": nn.LayerNorm(32), "head": nn.Linear(32, 5)}
    return Parts(function, b=nn.ModuleList(block() for _ in range(6)), factor=1.0, **layers)


def wide_and_deep() -> nn.Module:
    deep = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 5))
    return Parts(lambda m, x: m.w(x) + m.factor * m.d(x), w=nn.Linear(20, 5), d=deep, factor=1.0)


def looked_up(positions: nn.Module | nn.Parameter | None = None) -> nn.Module:
    def function(m, ids):
        p = m.p(torch.arange(16)[None]) if isinstance(m.p, nn.Module) else m.p
        h = m.words(ids) + p
        return m.head(m.last(h + m.f(m.norm(h))).mean(1))

    layers = {"norm": nn.LayerNorm(64), "f": nn.Linear(64, 64), "last": nn.LayerNorm(64)}
    layers |= {"words": nn.Embedding(50, 64), "head": nn.Linear(64, 5)}
    return Parts(function, p=nn.Embedding(16, 64) if positions is None else positions, **layers)


def added() -> nn.Module:
    return looked_up(nn.Parameter(batch(16, 64)))


def layer_scale() -> nn.Module:
    def function(m, x):
        h = m.first(x)
        return m.head(m.norm(h + m.gamma * torch.tanh(m.f(h))))

    layers = {"first": nn.Linear(20, 64), "f": nn.Linear(64, 64), "norm": nn.LayerNorm(64)}
    return Parts(function, **layers, head=nn.Linear(64, 5), gamma=nn.Parameter(torch.ones(64)))


def gru() -> nn.Module:
    rnn = nn.GRU(64, 32, batch_first=True)
    return Parts(lambda m, x: m.head(m.rnn(x)[0].mean(1)), rnn=rnn, head=nn.Linear(32, 5))


def anew(model: nn.Module) -> None:
    initialize_(model, X, overwrite=["rnn"], generator=seeded())


LARGE = "exploding signal"
ON_VECTORS = {  # what is healthy, what is done to it, what is found, the remedy
    "a block": (stream, put(factor=30.0), ("b.1.3", LARGE, True), put(factor=1.0)),
    "its weights": (stream, times(30, "b.1.3.weight"), ("b.1.3", LARGE, True), drawn("b.1.3.weight")),
    "a deep path": (wide_and_deep, put(factor=0.01), ("d.2", "drowned", False), put(factor=1.0)),
    "a factor": (layer_scale, times(1000, "gamma"), ("gamma", LARGE, True), times(0.001, "gamma")),
}
ON_WORDS = {
    "positions": (added, times(100, "p"), ("p", LARGE, True), times(0.01, "p")),
    "rows": (looked_up, times(100, "p.weight"), ("p", LARGE, True), times(0.01, "p.weight")),
    "small words": (looked_up, times(0.02, "words.weight"), ("p", LARGE, True), times(0.02, "p.weight")),
    "words": (added, times(30, "words.weight"), ("words", LARGE, True), times(1 / 30, "words.weight")),
}
SPOILT = {"gates": (gru, times(30, "rnn.weight_hh_l0"), ("rnn", LARGE, True), anew, X, Y)}
SPOILT |= {name: (*case, Z, LABELS) for name, case in ON_VECTORS.items()}
SPOILT |= {name: (*case, WORDS, Y) for name, case in ON_WORDS.items()}


@pytest.mark.parametrize(("make", "spoil", "finding", "remedy", "x", "y"), SPOILT.values(), ids=SPOILT)
def test_what_drowns_others_is_named(make, spoil, finding, remedy, x, y):
    model = built(make)
    assert found(model, x, y) == []
    spoil(model)
    assert found(model, x, y) == [finding]
    remedy(model)
    assert found(model, x, y) == []


def squared(outputs, targets):
    return (outputs - targets).square().mean()


def smoothed(outputs, targets):
    return F.cross_entropy(outputs, targets, label_smoothing=0.1)


OWN = {"squares": (squared, batch(200, 5)), "cross entropy": (smoothed, LABELS)}


@pytest.mark.parametrize(("loss", "targets"), OWN.values(), ids=OWN)
def test_outputs_that_are_far_too_large_for_a_loss_of_ones_own(loss, targets):
    model = built(lambda: Parts(lambda m, x: m.factor * m.f(x), f=mlp(), factor=1.0))
    assert found(model, Z, targets, loss) == []
    model.factor = 50.0
    assert found(model, Z, targets, loss) == [("f.2", "large initial loss", True)]
    times(1 / 50, "f.2.weight", "f.2.bias")(model)
    assert found(model, Z, targets, loss) == []


PADDED, CIRCULAR = {"padding": 1}, {"padding": 1, "padding_mode": "circular", "groups": 4}
SEEN = {  # layer, side of its inputs, inputs that an output sees on average
    "one pixel": (lambda: nn.ConvTranspose2d(64, 3, 4, 1, 0), 1, 64),
    "all border": (lambda: nn.Conv2d(64, 8, 3, **PADDED), 2, 256),
    "some border": (lambda: nn.Conv2d(64, 8, 3, **PADDED), 32, 552.25),
    "no border": (lambda: nn.Conv2d(64, 8, 3, **CIRCULAR), 8, 144),
}


@pytest.mark.parametrize(("make", "side", "fan_in"), SEEN.values(), ids=SEEN)
def test_the_fan_is_what_outputs_see(make, side, fan_in):
    report = initialize_(built(make), batch(4, 64, side, side), overwrite=True, generator=seeded())
    assert report.table.fan_in.dropna().tolist() == [pytest.approx(fan_in)]
    assert report.table["std"][0] == pytest.approx(fan_in**-0.5)


def gated_by_hand() -> nn.Module:
    def function(m, x):
        h = x.new_zeros(len(x), 32)
        for step in x[:, :5].unbind(1):
            h = gru_step(m, step, h)
        return m.head(h)

    i, h = nn.Parameter(batch(96, 64)), nn.Parameter(batch(96, 32))
    return Parts(function, i=i, h=h, head=nn.Linear(32, 5))


def gru_step(m: nn.Module, x, h):
    (ri, zi, ni), (rh, zh, nh) = F.linear(x, m.i).chunk(3, 1), F.linear(h, m.h).chunk(3, 1)
    z = torch.sigmoid(zi + zh)
    return (1 - z) * torch.tanh(ni + torch.sigmoid(ri + rh) * nh) + z * h


def is_orthogonal(matrix: torch.Tensor) -> bool:
    gram = matrix.detach() @ matrix.detach().T
    return torch.allclose(gram, gram[0, 0] * torch.eye(len(gram)), atol=1e-4)


RECURRENT = {"tanh": (by_hand, LONG[:, :5], "h.weight"), "GRU by hand": (gated_by_hand, X, "h")}
RECURRENT["nn.GRU"] = gru, X, "rnn.weight_hh_l0"


@pytest.mark.parametrize(("make", "x", "name"), RECURRENT.values(), ids=RECURRENT)
def test_weights_over_time_become_orthogonal(make, x, name):
    model = built(make)
    report = initialize_(model, x, overwrite=True, generator=seeded())
    (law,) = report.table.law[report.table.parameter == name]
    assert "orthogonal" in law
    assert all(map(is_orthogonal, model.get_parameter(name).split(32)))


def experts() -> nn.Module:
    def function(m, x):
        h = m.first(x)
        y = torch.zeros_like(h)
        for k, expert in enumerate(m.e):
            rows = torch.arange(k, len(h), len(m.e))
            y = y.index_add(0, rows, expert(h[rows]))
        return m.head(h + y)

    parts = [nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)) for _ in range(4)]
    return Parts(function, first=nn.Linear(20, 64), e=nn.ModuleList(parts), head=nn.Linear(64, 5))


def test_an_expert_that_no_example_reaches_is_no_fault_and_adds_nothing():
    model, x, targets = built(experts), Z[:3], torch.arange(3)  # for four experts
    report = initialize_(model, x, overwrite=True, generator=seeded()).table.set_index("parameter")
    assert report["std"]["e.0.2.weight"] == pytest.approx(1 / 8, rel=0.2)
    diagnosis = diagnose(model, x, targets)
    assert diagnosis.table["layer"].tolist()[-3:] == ["e.3.0", "e.3.2", "head"]
    assert diagnosis.healthy, diagnosis.verdict


def two_branches() -> nn.Module:
    def function(m, x):
        h = m.first(x)
        return m.head(h + m.a(h) + m.f(h))

    layers = {name: nn.Linear(64, 64) for name in "af"}
    return Parts(function, first=nn.Linear(20, 64), **layers, head=nn.Linear(64, 5))


def test_experts_share_one_branch_and_two_branches_share_by_their_number():
    report = initialize_(built(experts), Z, overwrite=True, generator=seeded()).table.set_index("parameter")
    stds = [report["std"][f"e.{k}.2.weight"] for k in range(4)]
    assert stds == [pytest.approx(1 / 8, rel=0.1)] * 4
    table = initialize_(built(two_branches), Z, overwrite=True, generator=seeded()).table
    stds = table.set_index("parameter")["std"]
    assert [stds["a.weight"], stds["f.weight"]] == [pytest.approx(1 / 8 / math.sqrt(2), rel=0.05)] * 2


def test_paths_in_a_list_share_by_their_number():
    def function(m, x):
        h = m.first(x)
        return m.head(h + sum(path(h) for path in m.paths))

    paths = nn.ModuleList(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)) for _ in range(9))
    model = built(lambda: Parts(function, first=nn.Linear(20, 64), paths=paths, head=nn.Linear(64, 5)))
    table = initialize_(model, Z, overwrite=True, generator=seeded()).table.set_index("parameter")
    assert [table["std"][f"paths.{k}.2.weight"] for k in range(9)] == [pytest.approx(1 / 24, rel=0.1)] * 9


def test_a_step_size_is_no_end_of_a_branch():
    """A state-space block: the projection of dt feeds an exponential and products, out adds to the stream."""

    def function(m, x):
        for k in range(4):
            h = m.n[k](x)
            decay = (-F.softplus(m.dt[k](h))).exp()
            state, states = torch.zeros_like(h[:, 0]), []
            for t in range(x.shape[1]):
                state = decay[:, t] * state + (1 - decay[:, t]) * h[:, t]
                states.append(state)
            x = x + m.out[k](torch.stack(states, 1))
        return m.head(x.mean(1))

    lists = {name: nn.ModuleList(nn.Linear(64, 64) for _ in range(4)) for name in ("dt", "out")}
    norms = nn.ModuleList(nn.LayerNorm(64) for _ in range(4))
    model = built(lambda: Parts(function, n=norms, **lists, head=nn.Linear(64, 5)))
    table = initialize_(model, X, overwrite=True, generator=seeded()).table.set_index("parameter")
    assert [table["std"][f"dt.{k}.weight"] for k in range(4)] == [pytest.approx(1.083 / 8, rel=1e-3)] * 4
    assert [table["std"][f"out.{k}.weight"] for k in range(4)] == [pytest.approx(1 / 16, rel=0.3)] * 4


def test_a_head_of_coordinates_over_neighbours_keeps_its_small_gain():
    """Coordinates move by a sum over neighbours of differences times what messages say: gain 0.001."""

    def function(m, x):
        for k in range(3):
            away = x[:, :, None] - x[:, None]
            message = m.message[k](away.square().sum(-1, keepdim=True))
            x = x + (away * m.move[k](F.silu(message))).sum(2)
        return x

    parts = {"message": (1, 16), "move": (16, 1)}
    lists = {name: nn.ModuleList(nn.Linear(*shape) for _ in range(3)) for name, shape in parts.items()}
    model, points = built(lambda: Parts(function, **lists)), batch(32, 10, 3)
    for layer in model.move:
        nn.init.xavier_uniform_(layer.weight, gain=0.001, generator=seeded())
    before = [layer.weight.clone() for layer in model.move]
    reasons = initialize_(model, points, generator=seeded()).left_alone.set_index("parameter")["reason"]
    assert all("set on purpose" in reasons[f"move.{k}.weight"] for k in range(3))
    assert all(layer.weight.equal(old) for layer, old in zip(model.move, before, strict=True))
    assert model(points).square().mean() < 3 * points.square().mean()


def test_a_gate_that_no_input_feeds_may_be_shut():
    def function(m, x):
        return m.last(F.silu(m.gate(torch.zeros_like(x))) * m.first(x))

    layers = {name: nn.Linear(20, 32) for name in ("gate", "first")}
    model = built(lambda: Parts(function, **layers, last=nn.Linear(32, 5)))
    initialize_(model, Z, generator=seeded())
    nn.init.constant_(model.gate.bias, -12.0)
    (finding,) = [f for f in diagnose(model, Z, LABELS).findings if f.is_fault]
    assert finding.fault == "vanishing signal"


class Highway(nn.Module):
    """t f(x) + (1 - t) x, with gates that start nearly shut."""

    def __init__(self) -> None:
        super().__init__()
        self.f, self.gate = nn.Linear(32, 32), nn.Linear(32, 32)
        nn.init.constant_(self.gate.bias, -2.0)

    def forward(self, x):
        t = torch.sigmoid(self.gate(x))
        return t * F.relu(self.f(x)) + (1 - t) * x


def test_gates_that_a_bias_holds_nearly_shut_do_not_drown_a_stream():
    blocks = [Highway() for _ in range(8)]
    model = built(lambda: nn.Sequential(nn.Linear(20, 32), *blocks, nn.Linear(32, 5)))
    initialize_(model, Z, generator=seeded(1))
    assert found(model, Z, LABELS) == []


def test_keys_that_only_weigh_are_no_summand_beside_queries():
    """A query that is learned sums up a set: the softmax is flat, so keys hardly change what comes out."""

    def function(m, x):
        x = F.relu(m.first(x))
        q, k, v = m.q(m.seed), m.k(x), m.v(x)
        return m.head(q + (q @ k.mT / 32**0.5).softmax(-1) @ v)[:, 0]

    def make():
        layers = {name: nn.Linear(32, 32) for name in "qkv"}
        seed = nn.Parameter(0.25 * batch(1, 1, 32))
        return Parts(function, first=nn.Linear(3, 32), **layers, seed=seed, head=nn.Linear(32, 5))

    assert not [f for f in found(built(make), batch(32, 16, 3), Y) if f[2]]


@pytest.mark.parametrize("bias", [20.0, 0.0])
def test_biases_that_make_the_first_loss_are_told_from_weights(bias):
    model = built(mlp)
    initialize_(model, Z, generator=seeded())
    model[2].bias.data[0] = bias
    said = [f for f in diagnose(model, Z, LABELS).findings if f.is_fault]
    assert [f.fault for f in said] == ["large initial loss"] * bool(bias)
    assert all("biases" in f.evidence and f.remedy.startswith("Set them to 0") for f in said)


def test_a_loss_that_outputs_of_zero_make_negative_has_a_limit_too():
    def likelihood(outputs, targets):
        return (
            ((targets - outputs[:, :1]) / outputs[:, 1:].exp()).square() / 2 + outputs[:, 1:] - 0.92
        ).mean()

    model, targets = nn.Sequential(nn.Linear(20, 2)), batch(200, 1)
    initialize_(model, Z, generator=seeded())
    model[0].weight.data.mul_(0.1)
    assert found(model, Z, 0.5 * targets, likelihood) == []
    model[0].bias.data[1] = -2.0
    assert found(model, Z, 0.5 * targets, likelihood) == []  # at most 2 in size: not tried
    model[0].bias.data[1] = -5.0
    assert found(model, Z, 0.5 * targets, likelihood) == [("0", "large initial loss", True)]
