"""Faults: planted ones are found by name at their layer, and what is said of them."""

import math
from itertools import pairwise

import pytest
import torch
from doctor_networks import (
    CLASSES,
    FOURS,
    IMAGES,
    VECTORS,
    WIDTH,
    Function,
    Residual,
    batch,
    constant_rows,
    conv,
    defaults,
    everywhere,
    funnel,
    generator,
    he,
    he_mlp,
    he_more,
    labels,
    mlp,
    put,
    redraw,
    second_moment,
    square,
    tanh_mlp,
    unet,
    weight_of,
)
from torch import nn
from torch.nn import functional as F

from course_utils import initializers
from course_utils.doctor import FAULTS, diagnose
from course_utils.doctor.findings import say
from course_utils.doctor.recording import Call


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


def lecun_everywhere(model: nn.Module) -> None:
    he(model, 9, gain=1.0)


def misplace(model: nn.Module) -> None:
    redraw("4", WIDTH**-0.5)(model)
    redraw("14", math.sqrt(2 / WIDTH))(model)


def wrong_layout(model: RightProduct) -> None:
    initializers.kaiming_normal_(model.matrices[1].data, generator=generator(9))


def equal_units(model: RightProduct) -> None:
    model.matrices[1].data[:] = model.matrices[1].data[:, :1].clone()


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
    "normal, far too small": (he_mlp, redraw("6", (150 * WIDTH) ** -0.5), VECTORS, "vanishing signal", "6"),
    "equal columns": (right_product, equal_units, batch(64, 300), "identical units", "matrices.1"),
    "saturated": (tanh_mlp, redraw("6", 1.0), VECTORS, "saturated", "6"),
    "dead": (he_mlp, put("6.bias", -5.0), VECTORS, "dead", "6"),
    "sigmoid": (tanh_mlp, sigmoids, VECTORS, "vanishing gradient", "0"),
    "batch norm": (lambda s: he(square(40), s), batch_norms, VECTORS, "exploding gradient", "0.1"),
    "NaN": (he_mlp, one_nan, VECTORS, "not finite", "6.weight"),
    "large last layer": (he_mlp, redraw("14", 1.0), VECTORS, "large initial loss", "14"),
}


def residual_network(seed: int) -> nn.Module:
    """Twenty residual blocks whose branches keep He's scale, so that each doubles the second moment."""
    blocks = [
        Residual(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), act=False) for _ in range(20)
    ]
    return he(nn.Sequential(nn.Linear(WIDTH, WIDTH), *blocks, nn.Linear(WIDTH, CLASSES)), seed)


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


# What is said of a planted fault: r is the layer's row of the table, d the diagnosis; gain is the wanted one.
SENTENCES = {
    "missing gain, one": (
        "Its weights' std is {r.weight_ratio:.2g} times the wanted {r.wanted_std:.2g}. LeCun's or Xavier's "
        "law without relu's gain; other layers with it: 6. Multiply the weights by 1.41."
    ),
    "misplaced gain": (
        "none follows; 4, before one, lacks it. The gain of an activation belongs to the weights in front of "
        "it. Draw 4 with std sqrt(2 / fan_in), and 14 with sqrt(1 / fan_in)."
    ),
    "double init": (
        "The layer multiplies the second moment by {r.growth:.2g}; its weights' std {r.weight_std:.2g} is "
        "{r.weight_ratio:.2g} times the wanted {r.wanted_std:.2g}. The std is gain² / fan_in: scaled twice. "
        "Draw the weights with std gain / sqrt(fan_in) = {r.wanted_std:.3g}."
    ),
    "N(0, 0.01²)": (
        "The same with 6 more: 2, 4, 6 and others. The weights look like N(0, 0.01²), whatever the fan-in of "
        "192. Draw the weights with std gain / sqrt(fan_in) = 0.102."
    ),
    "kernel forgotten": "The fan counts the channels but forgets the kernel's area of 9.",
    "transposed": "Draw the weights with std gain / sqrt(fan_in) = {r.wanted_std:.3g}. Initialize W.T.",
    "NaN": "It is the first tensor with NaN or infinity, of 1 in all.",
    "dead": (
        "{r.dead:.0%} of its units are 0 on the whole batch. What enters the activation lies too far below 0,"
        " on average at {r[mean]:.2g}. Set the biases to 0, and centre the inputs and the weights."
    ),
    "saturated": (
        "{r.saturated:.0%} of its outputs are at a bound, where the derivative is about 0. What enters the "
        "activation is large: second moment {r.second_moment:.2g}; the weights' std is {r.weight_ratio:.2g} "
        "times the wanted one. Draw weights with std {gain:.3g} / sqrt(fan_in), and set the biases to 0."
    ),
    "sigmoid": (
        "The squared gradient at 0 is {gradient:.2g} of that at 12, a factor of {rate:.2g} per layer on the "
        "way back."
    ),
    "batch norm": f"the squared gradient by pi / (pi - 1) = {math.pi / (math.pi - 1):.3f} per layer.",
    "large last layer": (
        "The loss is {d.loss:.3g}; equal probabilities cost ln K = 2.3. Its weights' std is "
        "{r.weight_ratio:.2g} times the wanted one. Scale the last layer's weights down; 0 is fine."
    ),
}


@pytest.mark.parametrize("name", SENTENCES)
def test_the_numbers_of_a_verdict_are_those_of_the_table(name: str):
    build, plant, inputs, _, layer = PLANTED[name]
    model = build(0)
    plant(model)
    d = diagnose(model, inputs, labels(len(inputs)))
    rows = d.table.set_index("layer")
    gradients = rows["gradient_second_moment"]
    gradient = gradients.iloc[0] / gradients.iloc[-2]  # of a stack of layers of one width
    rate = gradient ** (1 / (len(rows) - 2))
    r = rows.loc[layer.removesuffix(".weight")]
    gain = r.wanted_std * math.sqrt(r.fan_in)
    said = SENTENCES[name].format(r=r, d=d, gain=gain, gradient=gradient, rate=rate)
    assert said in d.verdict


@pytest.mark.parametrize("change", [lambda x: 255 * x.abs(), lambda x: 0.3 * x + 2, lambda x: 0.01 * x])
@pytest.mark.parametrize("build", [he_mlp, tanh_mlp])
def test_inputs_that_are_not_standardized_are_the_only_cause(build, change):
    diagnosis = diagnose(build(0), change(VECTORS), labels(64))
    assert [(f.layer, f.fault, f.is_fault) for f in diagnosis.findings] == [("0", "input scale", True)]
    row = diagnosis.table.iloc[0]
    mean = change(VECTORS).mean().item()
    assert f"mean {mean:.2g} and second moment {row['input_second_moment']:.2g}." in diagnosis.verdict


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


@pytest.mark.parametrize(("without", "is_fault"), [(3, True), (4, False)])
def test_a_gain_is_missing_if_as_many_layers_have_it_as_do_not(without: int, is_fault: bool):
    model = he(square(7))  # six layers in front of a ReLU
    for i in range(without):
        redraw(f"{2 * i}", WIDTH**-0.5)(model)
    (finding,) = (f for f in diagnose(model, VECTORS, labels(64)).findings if f.fault != "copies")
    assert (finding.layer, finding.fault, finding.is_fault) == ("0", "missing gain", is_fault)
    assert len(finding.others) == without - 1


def test_every_name_of_a_fault_is_planted():
    names = {fault for _, _, _, fault, _ in PLANTED.values()}
    assert names | {"input scale"} == {*FAULTS}


def test_a_zero_layer_between_the_ends_of_a_skip_connection_is_found():
    model = unet(0)
    assert diagnose(model, IMAGES, labels(32, 12, 12)).findings == ()
    nn.init.zeros_(model.down2.weight)
    findings = diagnose(model, IMAGES, labels(32, 12, 12)).findings
    assert [(f.layer, f.fault) for f in findings] == [("down2", "zero layer")]


def test_units_are_found_in_a_transposed_view():
    model = Function(lambda x, w: F.linear(F.linear(x, w.T).relu(), torch.ones(2, 8)), 3, 8)
    model.matrix.data[:] = model.matrix.data[:, :1].clone()
    assert [f.fault for f in diagnose(model, batch(5, 3)).findings] == ["identical units"]


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


def test_a_gradient_that_explodes_between_sums_is_blamed_on_the_layers_of_their_branches():
    class Steep(nn.Linear):
        def forward(self, x):
            y = x + F.relu(super().forward(x))
            y.register_hook(lambda g: 2 * g)
            return y

    model = nn.Sequential(*[Steep(8, 8) for _ in range(20)])
    for layer in model:
        nn.init.normal_(layer.weight, 0, 0.01, generator=generator())
    (finding,) = (f for f in diagnose(model, batch(64, 8), batch(64, 8)).findings if f.is_fault)
    assert (finding.layer, finding.fault) == ("1", "exploding gradient")


def test_a_fault_names_the_layers_after_the_first_symptom_that_follow_the_same_law():
    model = defaults(square(21))
    (finding,) = (f for f in diagnose(model, batch(128, WIDTH), labels(128)).findings if f.is_fault)
    assert finding.fault == "vanishing signal"
    assert len(finding.others) == 19  # all hidden layers, not only those before the signal is gone


class Tied(nn.Module):
    """A look-up whose weight is the output's, too, with a norm between them or none."""

    def __init__(self, std: float, norm=True):
        super().__init__()
        self.words, self.output = nn.Embedding(50, 64), nn.Linear(64, 50, bias=False)
        self.words.weight.data.normal_(0, std, generator=generator())
        self.output.weight, self.norm = self.words.weight, norm

    def forward(self, ids):
        h = self.words(ids)
        return self.output(nn.functional.layer_norm(h, (64,)) if self.norm else 24 * h)


@pytest.mark.parametrize(
    ("std", "norm", "is_fault", "remedy"),
    [
        (1.0, True, True, "Draw the weight with std 1 / sqrt(fan_in), and not 0: words uses it, too."),
        (1 / 8, False, True, "Draw the weight with std 1 / sqrt(fan_in), and not 0: words uses it, too."),
        (
            1 / 8,
            True,
            False,
            "Training soon unlearns this; outputs with a weight of their own start without it.",
        ),
    ],
)
def test_a_tied_last_layer_of_the_right_std_is_a_remark(std: float, norm: bool, is_fault: bool, remedy: str):
    ids = torch.arange(50)[:, None].expand(50, 3)
    (finding,) = diagnose(Tied(std, norm), ids, (ids + 1) % 50).findings
    assert (finding.layer, finding.fault) == ("output", "large initial loss")
    assert (finding.is_fault, finding.remedy) == (is_fault, remedy)


def test_the_remedy_for_layers_of_different_fan_in_names_each():
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 400), nn.ReLU(), nn.Linear(400, 5))
    for layer in model[::2]:
        layer.weight.data.normal_(0, 1, generator=generator)
        layer.bias.data.zero_()
    finding = diagnose(model, torch.randn(32, 64, generator=generator)).findings[0]
    assert finding.remedy.endswith("= 0.177, each with its own: 0.05 to 0.141 in the others.")


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (1, "Small."),
        (2, "Small. The same with 1 more: b."),
        (4, "Small. The same with 3 more: b, c, d."),
        (5, "Small. The same with 4 more: b, c, d and others."),
    ],
)
def test_three_others_are_named_and_more_are_counted(count, words):
    nodes = [Call("layer", layer=name) for name in "abcde"[:count]]
    (finding,) = say(nodes, "dead", "Small.", "", "")
    assert (finding.layer, finding.evidence, finding.others) == ("a", words, (*"bcde"[: count - 1],))


def test_a_large_loss_behind_a_norm_is_not_blamed_on_weights():
    class Cosines(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.last = nn.Linear(8, 16), nn.Linear(16, 16)
            self.scale = nn.Parameter(torch.tensor(60.0))

        def forward(self, x):
            y = nn.functional.normalize(self.last(self.body(x)), dim=-1)
            return self.scale * y @ y.mT

    (found,) = (f for f in diagnose(Cosines(), batch(32, 8), torch.arange(32).roll(1)).findings if f.is_fault)
    assert (found.layer, found.fault) == ("last", "large initial loss")
    assert found.remedy.startswith("Let the factor behind the norm")
