"""What diagnose takes: inputs, targets, losses; and what it prints."""

import math
import re
from collections import UserDict

import pytest
import torch
from doctor_networks import (
    FOURS,
    IDS,
    VECTORS,
    WIDTH,
    Function,
    approx,
    batch,
    he_mlp,
    labels,
    redraw,
)
from torch import nn
from torch.nn import functional as F

from course_utils.doctor import diagnose


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
    assert [f.fault for f in frozen.findings] == ["frozen", "no gradient"]
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
        ((nn.Flatten(0), batch(5), labels(5)), ValueError, r"got targets \(5,\) for an output \(5,\)"),
        (
            (nn.Linear(3, 2), batch(5, 3), batch(5, 3)),
            ValueError,
            r"shape; got targets \(5, 3\) for .* \(5, 2\)",
        ),
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
    assert len(str(ill).split("\n\n")[-1].split("\n")) == 9
    assert repr(ill) == str(ill)


def test_packed_sequences_and_other_mappings_are_inputs_too():
    packed = nn.utils.rnn.pack_sequence([batch(3, 4), batch(2, 4)])
    assert diagnose(nn.GRU(4, 5), packed).table["kind"].tolist() == ["GRU"]
    assert diagnose(Pair(), UserDict(a=FOURS)).table["layer"].tolist() == ["fc"]


def test_a_detached_loss_is_a_fault():
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3))
    (fault,) = diagnose(model, FOURS, None, lambda y, _: y.detach().sum()).findings
    assert (fault.layer, fault.fault, fault.others) == ("0", "vanishing gradient", ("1",))


def test_a_constant_loss_has_no_gradient():
    (remark,) = diagnose(nn.Linear(4, 3), FOURS, None, lambda *_: torch.ones(())).findings
    assert str(remark).startswith("No gradient. The gradients are NaN. The loss depends on no parameter")


def test_where_no_call_can_be_seen_nothing_is_judged_and_it_says_so():
    class Ensemble(nn.Module):
        def __init__(self, *more):
            super().__init__()
            self.one, self.more = nn.Linear(4, 3), nn.Sequential(*more)
            self.weights = nn.Parameter(torch.stack([self.one.weight.detach(), torch.zeros(3, 4)]))

        def forward(self, x):
            def returned(weight):
                return torch.func.functional_call(self.one, {"weight": weight}, self.more(x))

            return torch.func.vmap(returned)(self.weights).mean(0)

    lines = diagnose(Ensemble(), FOURS, torch.zeros(len(FOURS), 3)).verdict.splitlines()
    assert lines[0] == "Nothing was judged."
    assert sum("weights: not seen. It has a gradient, but" in line for line in lines) == 1
    diagnosis = diagnose(Ensemble(nn.Linear(4, 4)), FOURS, torch.zeros(len(FOURS), 3))
    assert diagnosis.verdict.startswith("No faults found in 1 layers.")
    assert "weights: not seen" in diagnosis.verdict


def test_a_loss_may_refuse_outputs_that_are_all_alike():
    def loss(y, t):
        if (y == y[0]).all():
            raise ValueError("all alike")
        return F.binary_cross_entropy_with_logits(y, t)

    targets = batch(64, 10).sign().clamp(min=0)
    diagnosis = diagnose(he_mlp(0), VECTORS, targets, loss)
    assert diagnosis.healthy
    assert math.isnan(diagnosis.expected_loss)


def test_two_digits_of_each_number_are_printed():
    text = repr(diagnose(nn.Linear(4, 3), FOURS))
    numbers = re.findall(r"(?<![\w.])0\.0*([1-9]\d*)(?![\w.])", text.partition("\n\n")[2])
    assert max(map(len, numbers)) == 2
