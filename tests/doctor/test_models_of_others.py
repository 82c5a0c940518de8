"""Models as others write them, on which an experiment or a redrawn law could go wrong."""

import math

import pytest
import torch
import torch.nn.functional as F
from doctor_networks import defaults
from initialize_networks import Function, batch, left_alone, seeded, tokens
from torch import nn
from torch.nn.utils import prune

from course_utils.doctor import diagnose, initialize_

X = batch(64, 64)


class Stack(nn.Module):
    """Layers with a map of one's own behind each; remembers the second moments behind these."""

    def __init__(self, function, depth=6, times=1):
        super().__init__()
        self.function = function
        self.layers = nn.ModuleList(nn.Linear(64, 64 * times) for _ in range(depth))
        self.last, self.seen = nn.Linear(64, 3), []

    def forward(self, x):
        self.seen = []
        for layer in self.layers:
            x = self.function(layer(x))
            self.seen.append(x.detach().square().mean().item())
        return self.last(x)


def gains(model, x=X):
    table = initialize_(model, x, generator=seeded()).table
    return table[table.fan_in > 0].gain.tolist()


def hooked():
    model = nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 2))
    model[0].register_forward_hook(lambda module, _, output: setattr(module, "kept", output))
    model(X)
    return model


def pruned():
    model = nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 2))
    prune.l1_unstructured(model[0], "weight", 0.3)
    return model


def parametrized():
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(64, 8))
    return nn.Sequential(layer, nn.ReLU(), nn.Linear(8, 2))


@pytest.mark.parametrize("build", [hooked, pruned, parametrized])
def test_modules_that_hold_graphs_do_not_stop_it(build):
    assert "2.weight" in set(initialize_(build(), X).table.parameter)


@pytest.mark.parametrize("epsilon", [1e-3, 1e-5, 1e-12])
def test_a_norm_with_any_epsilon_asks_for_no_gain(epsilon):
    def norm_relu(z):
        return torch.relu(z * torch.rsqrt(z.square().mean(-1, keepdim=True) + epsilon))

    assert gains(Stack(norm_relu))[:6] == [1.0] * 6


def test_a_norm_behind_a_bounded_map_leaves_the_gain_of_the_map():
    behind = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.LayerNorm(64), nn.Linear(64, 3))
    assert gains(behind) == [1.0, 1.0]


def test_a_gate_in_halves_of_one_matrix_keeps_its_law():
    def swiglu(z):
        value, gate = z.chunk(2, dim=-1)
        return F.silu(gate) * value

    law = initialize_(Stack(swiglu, times=2), X).table.law[0]
    assert law == "N(0, gain² / fan_in), gain 1.56 in units 64 to 127, else 1"


NEIGHBOURS = (torch.rand(64, 64, generator=seeded()) < 0.08).float()
NEIGHBOURS = ((NEIGHBOURS + NEIGHBOURS.T) > 0).float().fill_diagonal_(1)
MIXING = {
    "mean over neighbours": lambda z: F.relu(NEIGHBOURS @ z / NEIGHBOURS.sum(1, keepdim=True)),
    "sum over neighbours": lambda z: F.relu(NEIGHBOURS @ z),
    "moving average": lambda z: F.relu(F.avg_pool1d(z.T[None], 3, 1, 1)[0].T),
    "mask": lambda z: F.relu(z) * (torch.arange(64) % 3 > 0)[:, None],
}


@pytest.mark.parametrize("function", MIXING.values(), ids=MIXING)
def test_maps_that_mix_positions_do_not_explode(function):
    model = Stack(function)
    initialize_(model, X, generator=seeded())
    model(X)
    assert all(0.05 < m < 20 for m in model.seen)
    assert diagnose(model, X, torch.arange(64) % 3).healthy


def test_noise_of_the_models_own_is_no_signal():
    class Sampling(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = nn.Linear(64, 32), nn.Linear(16, 64)

        def forward(self, x):
            mean, log_variance = self.encoder(x).chunk(2, -1)
            return self.decoder(
                mean + (log_variance / 2).exp() * torch.randn(mean.shape, generator=torch.default_generator)
            )

    assert gains(Sampling()) == [1.0, 1.0]


def test_a_size_that_others_bring_is_not_made_up_for():
    positions = 0.9**0.5 * torch.sign(batch(64))  # second moment 0.9, without the layer
    assert gains(Stack(lambda z: z + positions, depth=1)) == [1.0, 1.0]


def test_a_tied_head_may_own_the_law_and_any_of_its_names_will_do():
    class Language(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.head = nn.Embedding(100, 32), nn.Linear(32, 100, bias=False)
            self.words.weight = self.head.weight

        def forward(self, t):
            return self.head(self.words(t))

    assert initialize_(Language(), tokens(4, 7)).left_alone.empty
    assert left_alone(initialize_(Language(), tokens(4, 7), skip=["head"])) == {
        "words.weight": "skipped, as you asked"
    }


@pytest.mark.parametrize("width", [243, 528, 751])
def test_a_single_bias_of_torchs_is_not_taken_for_ones_own(width):
    torch.default_generator.manual_seed(width)  # of 500 draws one is so near to 0 that it looks set
    for _ in range(10):
        model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 1))
        assert initialize_(model, X).left_alone.empty


def test_a_subclass_that_calls_torchs_reset_follows_torchs_law():
    class Own(nn.Linear):
        def reset_parameters(self):
            super().reset_parameters()

    assert initialize_(nn.Sequential(Own(64, 32), nn.ReLU(), nn.Linear(32, 3)), X).left_alone.empty


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_a_map_written_out_is_measured_in_any_precision(dtype):
    def quick_gelu(z):
        return z * torch.sigmoid(1.702 * z)

    assert gains(Stack(quick_gelu, depth=1).to(dtype), X.to(dtype))[0] == pytest.approx(1.475, rel=0.02)


def test_one_layer_on_maps_of_several_sizes_has_one_law():
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.shared, self.out = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 4, 3, padding=1)

        def forward(self, maps):
            return torch.cat([self.out(F.relu(self.shared(x)) ** 2).flatten(2) for x in maps], 2)

    maps = [batch(2, 16, size, size) for size in (16, 8, 4)]
    assert initialize_(Heads(), (maps,)).left_alone.empty


def test_a_model_that_counts_its_calls_is_run_from_the_same_state_each_time():
    class Once(Stack):
        calls = 0

        def forward(self, x):
            self.calls += 1
            if self.calls > 1:
                raise IndexError("the cache is full")
            return super().forward(x)

    model = Once(lambda z: F.relu(z) ** 2, depth=2)
    nn.init.zeros_(model.last.weight)
    assert diagnose(model, 0.9 * X, torch.arange(64) % 3).loss == pytest.approx(1.1, abs=0.3)
    assert gains(model)[0] == pytest.approx(1.5**-0.25, rel=0.02)


def test_sizes_at_which_a_model_refuses_to_run_cost_nothing_else():
    def fussy(z):
        if not torch.isfinite(z.exp()).all():
            raise ValueError("too large")
        return 0.5 * z * (1 + torch.erf(z / 2**0.5))

    assert gains(Stack(fussy, depth=1))[0] == pytest.approx(1.468, rel=0.02)


def test_names_that_nothing_has_are_refused():
    model = Stack(F.relu, depth=1)
    with pytest.raises(TypeError, match=r"expected a list of names .* got the string 'last'"):
        initialize_(model, X, skip="last")
    with pytest.raises(ValueError, match="no parameter and no module with parameters is called 'head'"):
        initialize_(model, X, overwrite=["head"])


def test_a_single_vector_without_a_batch():
    model = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 2))
    assert gains(model, batch(6))[0] == pytest.approx(2**0.5)


class Positions(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.words, self.head = nn.Embedding(50, 32), nn.Linear(32, 5)
        self.positions = nn.Parameter(factor * batch(1, 64, 32))

    def forward(self, ids):
        return self.head((self.words(ids) + self.positions[:, : ids.shape[1]]).mean(1))


@pytest.mark.parametrize(("factor", "named"), [(1.0, []), (10.0, ["positions"])])
def test_a_slice_of_positions_may_be_as_large_as_the_words(factor, named):
    ids = torch.randint(0, 50, (32, 10), generator=seeded())
    findings = diagnose(Positions(factor), ids, torch.arange(32) % 5).findings
    assert [f.layer for f in findings if f.is_fault] == named


def test_a_loss_that_takes_no_logits_is_no_reason_to_fail():
    model = nn.Sequential(nn.Linear(20, 1), nn.Sigmoid())
    targets = (torch.arange(64) % 3 == 0).float()[:, None]
    assert diagnose(model, batch(64, 20), targets, nn.BCELoss()).healthy


def test_the_right_bias_is_no_missing_prior():
    model = nn.Sequential(nn.Linear(20, 32), nn.Tanh(), nn.Linear(32, 1))
    targets = (torch.arange(200) % 50 == 0).float()[:, None]

    def remarks():
        found = diagnose(model, batch(200, 20), targets, nn.BCEWithLogitsLoss()).findings
        return [f.fault for f in found]

    assert remarks() == ["missing prior"]
    model[2].bias.data.fill_(math.log(0.02 / 0.98))
    assert remarks() == []


class Mapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.head(torch.vmap(self.inner)(x))


def test_what_torch_func_maps_is_not_read_and_no_reason_to_fail():
    model = Mapped()
    assert diagnose(model, batch(16, 8)).table["layer"].tolist() == ["head"]
    alone = initialize_(model, batch(16, 8)).left_alone
    assert alone["parameter"].tolist() == ["inner.weight", "inner.bias"]


@pytest.mark.filterwarnings("ignore")
def test_quantized_layers_hand_no_gradient_back():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    small = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    assert [f.fault for f in diagnose(small, batch(16, 8)).findings] == ["no gradient"]


@pytest.mark.parametrize("name", ["a{b}", "{n:x}", "c|d", "<b>"])
def test_names_with_signs_that_formats_use_stay_as_they_are(name):
    model = nn.Sequential()
    model.add_module(name, nn.Linear(8, 8))
    model.add_module("head", nn.Linear(8, 2))
    nn.init.zeros_(model[0].weight)
    finding = diagnose(model, batch(16, 8)).findings[0]
    assert (finding.layer, finding.fault) == (name, "zero layer")
    assert f"1. {name}: zero layer." in str(diagnose(model, batch(16, 8)))


def test_a_stream_that_is_scaled_down_at_each_turn_of_a_loop():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.z = nn.Linear(8, 8)

        def forward(self, x):
            for _ in range(4):
                x = 0.01 * (x + self.z(x))
            return x

    finding = diagnose(Loop(), batch(16, 8)).findings[0]
    assert finding.layer.startswith("z")
    assert finding.fault == "vanishing signal"


def test_a_stream_in_which_a_constant_drowns_what_varies():
    """Each remedy of the report's sentence, followed, ends it."""

    class Drowned(nn.Module):
        def __init__(self, constant, scale, norm=nn.Identity):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(8))
            self.last, self.norm, self.scale = nn.Linear(16, 3), norm(16), scale
            self.constant = constant * batch(16, seed=5)
            initialize_(nn.Sequential(*self.layers, self.last), batch(32, 16), generator=seeded())

        def forward(self, x):
            for layer in self.layers:
                x = self.norm(self.scale * layer(x) + self.constant)
            return self.last(x)

    x = batch(64, 16)
    (finding,) = diagnose(Drowned(1, 0.1), x).findings
    assert finding.fault == "vanishing signal"
    assert finding.evidence.startswith("The part of the second moment that depends on the input at")
    assert finding.remedy.startswith("Normalize over the batch, or scale what varies up, and what does not,")
    assert diagnose(Drowned(1, 0.1, nn.BatchNorm1d), x).healthy
    assert diagnose(Drowned(0.01, 1), x).healthy


class OfOne(nn.Module):
    """A vector that has lost its batch, behind a layer of its own and in front of one."""

    def __init__(self, layer, head, reduced):
        super().__init__()
        self.layer, self.head, self.reduced = layer, head, reduced

    def forward(self, x):
        h = self.layer(x)
        return self.head((h.mean((2, 3)) if h.ndim == 4 else h) + self.reduced(h))


@pytest.mark.parametrize("examine", [diagnose, initialize_])
@pytest.mark.parametrize(
    ("layer", "x", "reduced"),
    [
        (nn.Linear(8, 4), (32, 8), lambda h: F.normalize(h.mean(0), dim=0)),
        (nn.Conv2d(3, 4, 3), (8, 3, 6, 6), lambda h: torch.relu(h[0, 0, 0]).sum()),
        (nn.Conv2d(3, 4, 3), (8, 3, 6, 6), lambda h: torch.relu(h.mean((0, 2, 3)))),
    ],
    ids=["normalized mean", "row of an image", "mean of channels"],
)
def test_vectors_without_a_batch_do_not_stop_it(examine, layer, x, reduced):
    examine(OfOne(layer, nn.Linear(4, 3), reduced), batch(*x))


def test_dead_channels_in_front_of_a_local_response_norm():
    layers = nn.Conv2d(3, 128, 3, padding=1), nn.LocalResponseNorm(5), nn.ReLU(), nn.Flatten()
    model = nn.Sequential(*layers, nn.Linear(128 * 36, 4))
    images = batch(16, 3, 6, 6)
    assert diagnose(model, images).healthy
    nn.init.constant_(model[0].bias[:115].data, -5.0)
    assert [(f.layer, f.fault) for f in diagnose(model, images).findings if f.is_fault] == [("1", "dead")]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_parts_are_left_alone_and_said():
    model = nn.Sequential(torch.jit.script(nn.Linear(8, 8)), nn.ReLU(), nn.Linear(8, 2))
    alone = initialize_(model, batch(16, 8)).left_alone
    assert alone["parameter"].tolist() == ["0.weight", "0.bias"]


def test_complex_numbers_are_left_alone():
    class Complex(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.complex(batch(8, 8), batch(8, 8, seed=2)))
            self.head = nn.Linear(8, 3)

        def forward(self, x):
            return self.head((x.to(torch.complex64) @ self.w).abs() / 4)

    model = Complex()
    assert diagnose(model, batch(16, 8)).healthy
    assert initialize_(model, batch(16, 8)).left_alone["parameter"].tolist() == ["w"]


@pytest.mark.parametrize("filter_", [[0, 0.5, 0.5], [0.25, 0.5, 0.25], [-0.5, 0, 0.5]])
def test_filters_set_by_hand_have_zeros_or_numbers_twice(filter_):
    model = nn.Sequential(nn.Conv1d(1, 1, 3, bias=False), nn.Flatten(), nn.Linear(6, 2))
    model[0].weight.data.copy_(torch.tensor(filter_))
    assert initialize_(model, batch(16, 1, 8)).left_alone["parameter"].tolist() == ["0.weight"]


class WrittenOut(nn.Module):
    def forward(self, z):
        return 1 / (1 + (-z).exp())


@pytest.mark.parametrize("last", [nn.Sigmoid(), WrittenOut()])
def test_a_sigmoid_in_front_of_a_loss_that_takes_another(last):
    model, x = nn.Sequential(nn.Linear(20, 5), last), batch(64, 20)
    targets = (x[:, :5] > 0).float()
    (finding,) = diagnose(model, x, targets, nn.BCEWithLogitsLoss()).findings
    least = F.binary_cross_entropy_with_logits(targets, targets).item()
    assert (finding.layer, finding.fault) == ("0", "softmax twice")
    assert f"below {least:.2f}" in finding.cause
    assert diagnose(model, x, targets, nn.BCELoss()).healthy
    assert diagnose(model[:1], x, targets, nn.BCEWithLogitsLoss()).healthy
    model[0].weight.data.mul_(0.01)
    model[0].bias.data.fill_(0.5)  # logits that lie from 0 to 1 are no shares
    findings = diagnose(model[:1], x, targets, nn.BCEWithLogitsLoss()).findings
    assert "softmax twice" not in [f.fault for f in findings]


def test_raw_columns_beside_what_is_looked_up():
    class Tabular(nn.Module):
        def __init__(self):
            super().__init__()
            self.city, self.trunk = nn.Embedding(9, 8), nn.Linear(12, 2)

        def forward(self, city, columns):
            return self.trunk(torch.cat([self.city(city), columns], 1))

    city, columns = torch.arange(32) % 9, batch(32, 4)
    assert diagnose(Tabular(), (city, columns)).healthy
    assert diagnose(Tabular(), (city, columns / 100)).healthy  # beside others a small one does no harm
    finding = diagnose(Tabular(), (city, 1000 * columns)).findings[0]
    assert (finding.layer, finding.fault) == ("trunk", "input scale")


def test_a_weight_that_is_too_large_in_each_turn_of_a_loop_is_named_once():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.z = nn.Linear(32, 32)

        def forward(self, x):
            h = torch.zeros_like(x)
            for _ in range(6):
                h = torch.relu(self.z(h) + x)
            return h

    model = Loop()
    model.z.weight.data.mul_(30)
    named = [f for f in diagnose(model, batch(16, 32)).findings if f.evidence.startswith("It returns")]
    assert [f.others for f in named] == [("z (call 3)", "z (call 4)", "z (call 5)")]


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state:UserWarning")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_neighbours_in_a_sparse_buffer(layout):
    class Graph(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.head = nn.Linear(64, 32), nn.Linear(32, 3)
            self.register_buffer("near", (torch.eye(64) + torch.eye(64).roll(1, 0)).to_sparse(layout=layout))

        def forward(self, x):
            return self.head(torch.relu(torch.sparse.mm(self.near, self.layer(x))))

    assert initialize_(Graph(), X, generator=seeded()).left_alone.empty
    assert diagnose(Graph(), X, torch.arange(64) % 3).healthy


VIEWS = {  # a parameter's shape, and the matrix of 16 × 16 that is made of it
    "a vector in rows": ((256,), lambda p: p.view(16, 16)),
    "a vector, repeated": ((16,), lambda p: p.expand(16, 16)),
    "a column, repeated": ((16, 1), lambda p: p.expand(16, 16)),
    "a number, repeated": ((), lambda p: p.expand(16, 16)),
    "a part of a vector": ((300,), lambda p: p[20:276].view(16, 16)),
    "windows of a vector": ((31,), lambda p: p.unfold(0, 16, 1)),
    "a matrix of three": ((3, 16, 16), lambda p: p[1]),
    "blocks": ((4, 4, 16), lambda p: p.view(16, 16).T),
}
USES = {
    "linear": F.linear,
    "matmul": torch.matmul,
    "bmm": lambda x, w: torch.bmm(x[:, None], w.expand(len(x), 16, 16))[:, 0],
    "conv": lambda x, w: F.conv1d(x[:, :, None], w[:, :, None])[:, :, 0],
    "transposed conv": lambda x, w: F.conv_transpose1d(x[:, :, None], w[:, :, None])[:, :, 0],
    "bilinear": lambda x, w: F.bilinear(x[:, :4], x[:, 4:8], w.reshape(16, 4, 4)),
    "embedding": lambda x, w: F.embedding(x.abs().sum(1).long() % 16, w) + x,
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize(("shape", "view"), VIEWS.values(), ids=VIEWS)
def test_weights_of_any_shape_stop_neither_call(shape, view, use):
    model = Function(lambda m, x: m.last(F.relu(use(F.relu(m.first(x)), view(m.p)))), p=shape)
    model.add("first", nn.Linear(16, 16)).add("last", nn.Linear(16, 3))
    diagnose(model, batch(32, 16), torch.arange(32) % 3)
    report = initialize_(model, batch(32, 16), overwrite=True, generator=seeded())
    assert "p" in {*report.table["parameter"], *report.left_alone["parameter"]}


SPOILT = {  # of complex weights and of what is behind them
    "a last layer of zeros": (lambda m: nn.init.zeros_(m.last.weight), []),
    "a first layer of zeros": (lambda m: nn.init.zeros_(m.first.weight), [("first", "zero layer")]),
    "a complex NaN": (lambda m: m.w.data[0].fill_(math.nan), [("w", "not finite")]),
}


@pytest.mark.parametrize(("spoil", "named"), SPOILT.values(), ids=SPOILT)
def test_what_is_wrong_around_complex_weights_is_found(spoil, named):
    class Spectral(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 3)
            self.w = nn.Parameter(torch.complex(batch(8, 8), batch(8, 8, seed=2)) / 4)

        def forward(self, x):
            modes = torch.fft.rfft(self.first(x), dim=1) @ self.w
            return self.last(torch.relu(torch.fft.irfft(modes, n=16, dim=1))).mean(1)

    model = Spectral()
    nn.init.zeros_(model.first.bias)
    spoil(model)
    diagnosis = diagnose(model, batch(16, 16, 8), torch.arange(16) % 3)
    assert [(f.layer, f.fault) for f in diagnosis.findings if f.is_fault][:1] == named


@pytest.mark.parametrize(("scale", "named"), [(1, []), (30, ["first"])])
@pytest.mark.parametrize("phi", [F.silu, F.elu])
def test_inputs_that_meet_an_activation_first_have_a_scale_too(phi, scale, named):
    model = Function(lambda m, x: m.last(phi(m.first(phi(x)))))
    model.add("first", nn.Linear(16, 32)).add("last", nn.Linear(32, 3))
    findings = diagnose(model, scale * batch(32, 16), torch.arange(32) % 3).findings
    assert [f.layer for f in findings if f.fault == "input scale"] == named


def test_a_branch_of_the_right_size_beside_small_rows_is_no_explosion():
    """Embeddings N(0, 0.01²) are common in recommenders; a batch norm makes another branch as large as 1."""

    class Recommender(nn.Module):
        def __init__(self):
            super().__init__()
            self.rows = nn.Embedding(50, 8)
            nn.init.normal_(self.rows.weight, 0, 0.01, generator=seeded())
            self.deep = nn.Sequential(nn.Linear(40, 32), nn.BatchNorm1d(32), nn.ReLU())
            self.cross, self.out = nn.Linear(40, 40), nn.Linear(72, 1)

        def forward(self, x):
            e = self.rows(x).flatten(1)
            return self.out(torch.cat([e * self.cross(e) + e, self.deep(e)], 1))

    assert diagnose(defaults(Recommender()), tokens(64, 5), batch(64, 1)).healthy


def test_a_bias_that_is_added_apart_makes_units_dead():
    model = Function(lambda m, x: m.last((m.first(x) + m.bias).relu_()), bias=(32,))
    model.add("first", nn.Linear(16, 32, bias=False)).add("last", nn.Linear(32, 3))
    initialize_(model, batch(64, 16), generator=seeded())
    nn.init.constant_(model.bias, -30.0)
    (finding,) = diagnose(model, batch(64, 16), torch.arange(64) % 3).findings
    assert (finding.layer, finding.fault) == ("first", "dead")
    assert "on average" not in finding.cause  # what the layer returns is not what enters the activation


class Cell(nn.Module):
    """A cell with gates, by hand or by module, called at each step."""

    def __init__(self, cell, size):
        super().__init__()
        self.cell, self.last = cell, nn.Linear(16, 3)
        with torch.no_grad():
            for p in cell.parameters():
                p.normal_(0, size / 4, generator=seeded()) if p.ndim > 1 else p.zero_()

    def forward(self, x):
        h = c = x.new_zeros(len(x), 16)
        for step in x.unbind(1):
            if isinstance(self.cell, nn.LSTMCell):
                h, c = self.cell(step, (h, c))
            else:
                i, f, o, g = self.cell(torch.cat([step, h], 1)).chunk(4, 1)
                c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
                h = torch.sigmoid(o) * torch.tanh(c)
        return self.last(h)


@pytest.mark.parametrize(
    ("cell", "fault"),
    [(nn.LSTMCell, "exploding signal"), (nn.Linear, "saturated")],
    ids=["module", "by hand"],
)
def test_a_cell_whose_gates_are_shut_or_open_is_named_once(cell, fault):
    def found(size):
        layer = nn.LSTMCell(8, 16) if cell == nn.LSTMCell else nn.Linear(24, 64)
        diagnosis = diagnose(Cell(layer, size), batch(32, 5, 8), torch.arange(32) % 3)
        return [(f.layer.partition(" ")[0], f.fault) for f in diagnosis.findings if f.is_fault]

    assert found(1) == []
    assert found(20) == [("cell", fault)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_softmax_that_has_decided_is_seen_in_low_precision(dtype):
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v, self.last = (nn.Linear(32, n) for n in (32, 32, 32, 3))
            initialize_(self, batch(16, 12, 32), generator=seeded())

        def forward(self, x):
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                weights = (self.q(x) @ self.k(x).mT / math.sqrt(32)).to(dtype).softmax(-1)
                return self.last(weights @ self.v(x)).mean(1)

    model = Attention()
    x, y = batch(16, 12, 32), torch.arange(16) % 3
    assert diagnose(model, x, y).healthy
    model.q.weight.data *= 6
    (finding,) = (f for f in diagnose(model, x, y).findings if f.is_fault)
    assert finding.fault == "saturated"
    assert {finding.layer, *finding.others} == {"q", "k"}
