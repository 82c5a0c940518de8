"""Repairs of the clinic's patients: every good one passes, and every bad one is told what is still wrong."""

import math
import re

import pandas as pd
import pytest
import torch
from torch import nn

from course_utils.exercises import repairs
from course_utils.exercises.clinic import PATIENTS, clinic_patient, grade, solution
from course_utils.exercises.repairs import STEPS, faults_after, healthy_twin, repaired_by, trained
from course_utils.initializers import kaiming_normal_, lecun_normal_

SICK = [number for number in PATIENTS if solution(number).fault != "healthy"]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def regrade(number: int, repair):
    """Grade a repair under the right diagnosis."""
    truth = solution(number)
    return grade(number, fault=truth.fault, layer=truth.layer, repair=repair)


# ---- Right answers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", PATIENTS)
def test_the_solution_passes_on_fresh_networks_and_touches_only_what_is_sick(number: int):
    assert str(regrade(number, solution(number).repair)) == f"Patient {number}: passed."


def test_a_repair_is_tried_on_three_networks():
    seen = []
    regrade(16, lambda model, inputs: seen.append(inputs) or solution(16).repair(model, inputs))
    assert len({inputs.sum().item() for inputs in seen}) == 3


def he_everywhere(model, inputs):
    for layer in (m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)):
        nn.init.kaiming_normal_(layer.weight, generator=generator())
        if layer.bias is not None:
            layer.bias.zero_()


def unit_outputs(model, inputs):
    """Scale each layer's weights until the second moment before the activation is 2, as LSUV does."""
    for i in range(0, len(model) - 1, 2):
        model[i].weight.div_(model[: i + 1](inputs).square().mean().div(2).sqrt())


def orthogonal(model, inputs):
    for layer in model[::2]:
        nn.init.orthogonal_(layer.weight, math.sqrt(2), generator=generator())


def relu_and_he(model, inputs):
    for i in range(1, len(model), 2):
        model[i] = nn.ReLU()
    he_everywhere(model, inputs)


def standardize_in_front(model, inputs):
    norm = nn.BatchNorm2d(3, affine=False)
    return nn.Sequential(norm, model)


def fold_into_the_first_layer(model, inputs):
    model[0].weight.div_(50)
    model[0].bias.sub_(model[0].weight.sum((1, 2, 3)) * 128)


def scaled_skips(model, inputs):
    class Block(nn.Module):
        def __init__(self, branch):
            super().__init__()
            self.inner = branch

        def forward(self, x):
            return (x + self.inner(x)) / math.sqrt(2)

    return nn.Sequential(*(Block(m) if isinstance(m, nn.Sequential) else m for m in model))


def small_head(model, inputs):
    model.head.weight.div_(math.sqrt(32))


OTHER_REPAIRS = [
    (1, he_everywhere),
    (1, orthogonal),
    (1, unit_outputs),
    (2, he_everywhere),
    (3, he_everywhere),
    (3, orthogonal),
    (3, unit_outputs),
    (4, None),
    (6, relu_and_he),
    (7, standardize_in_front),
    (7, lambda model, inputs: inputs.sub_(inputs.mean(0)).div_(inputs.std(0))),
    (7, lambda model, inputs: inputs.div_(128).sub_(1)),
    (9, small_head),
    (10, he_everywhere),
    (11, scaled_skips),
    (12, lambda model, inputs: lecun_normal_(model[3].branch[3].weight, generator=generator())),
    (14, None),
    (16, lambda model, inputs: kaiming_normal_(model[6].weight, generator=generator())),
    (17, he_everywhere),
]


@pytest.mark.parametrize(("number", "repair"), OTHER_REPAIRS)
def test_other_good_repairs_pass_too(number: int, repair):
    result = regrade(number, repair)
    assert result.passed, str(result)


@pytest.mark.parametrize(("number", "repair"), [(2, he_everywhere), (16, he_everywhere), (14, he_everywhere)])
def test_rewriting_sound_layers_is_a_warning_and_no_failure(number: int, repair):
    result = regrade(number, repair)
    assert result.passed
    assert "Warning: the repair also rewrote what was sound: 0." in " ".join(result.remarks)


@pytest.mark.parametrize("number", [number for number in PATIENTS if solution(number).answers[1:]])
def test_names_as_defensible_as_the_planted_one_are_right(number: int):
    for fault, layer in solution(number).answers[1:]:
        assert grade(number, fault=fault, layer=layer).remarks == ("No repair yet.",)


# ---- Wrong repairs -----------------------------------------------------------------------------------------


def nothing(model, inputs):
    pass


def whisker(model, inputs):
    for parameter in model.parameters():
        parameter.mul_(1.0001)


def trivial(model, inputs):
    return nn.Linear(64, 10)


def constant_loss(model, inputs):
    for parameter in model.parameters():
        parameter.zero_()


@pytest.mark.parametrize("number", SICK)
@pytest.mark.parametrize("repair", [nothing, whisker, trivial, constant_loss])
def test_a_repair_that_repairs_nothing_fails(number: int, repair):
    result = regrade(number, repair)
    assert not result.passed
    assert len(result.remarks) == 1


def scaled(factor: float, *layers: str):
    def repair(model, inputs):
        for layer in layers or [
            name for name, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)
        ]:
            model.get_submodule(layer).weight.mul_(factor)

    return repair


def filled(value: float, name: str):
    return lambda model, inputs: model.get_parameter(name).fill_(value)


def constant_with_a_little_noise(model, inputs):
    nn.init.normal_(model[4].weight, 128**-0.5, 1e-3, generator=generator())


def signs_by_row(model, inputs):
    rows = torch.randn(128, 1, generator=generator()).sign()
    model[4].weight.copy_(rows * 128**-0.5)


def redrawn_matrix(model, inputs):
    kaiming_normal_(model.matrices[1], generator=generator())


def frozen(model, inputs):
    solution(6).repair(model, inputs)
    model[0].weight.requires_grad_(False)
    model.forward = lambda x: model[-1](torch.zeros(len(x), 128))


def evaluation_mode(model, inputs):
    model.eval()
    he_everywhere(model, inputs)


def fewer_layers(model, inputs):
    return nn.Sequential(*model[:5], *model[-2:])


def shuffled_inputs(model, inputs):
    inputs.copy_(torch.randn(inputs.shape, generator=generator()))


def smaller_inputs(model, inputs):
    inputs.mul_(0.5)


def swap_activations(model, inputs):
    for i in range(1, len(model), 2):
        model[i] = nn.ReLU()


def with_new_activations(model, inputs):
    for i in range(1, len(model), 2):
        model[i] = nn.Tanh()


WRONG_REPAIRS = [
    (1, scaled(2.0), "weight_std is 0.02 in layer 0; a healthy twin has 0.18, 1.4 / sqrt"),
    (1, scaled(0.7 * 12.5), "weight_std is 0.087 in layer 0"),
    (1, smaller_inputs, "You changed the inputs. Here they are sound"),
    (1, with_new_activations, "keep the layers and activations as they are"),
    (2, filled(-5.0, "4.bias"), "largest value of dead is"),
    (2, filled(6.0, "4.bias"), "the loss before training is"),
    (3, scaled(math.sqrt(2), "0"), r"second_moment differs by a factor of \S+ between 0 and \d"),
    (3, scaled(2.0), "second_moment differs by a factor"),
    (5, filled(0.1, "hidden.weight"), "100% of the weights' second moment in hidden.weight is common"),
    (5, filled(0.1, "hidden.bias"), "weight_std is 0 in layer hidden"),
    (6, scaled(4.0), "gradient_second_moment differs"),
    (6, swap_activations, "second_moment differs by a factor"),
    (6, frozen, "All weights must take part; training left 0.weight as it was"),
    (7, lambda model, inputs: inputs.div_(255), "mean 0.50 and second moment"),
    (7, lambda model, inputs: inputs.sub_(128), "second moment"),
    (7, lambda model, inputs: inputs.div_(inputs.std()), "the inputs have mean"),
    (7, fold_into_the_first_layer, "the first layer does not make up for it"),  # borders are padded with 0
    (7, shuffled_inputs, "yours lost what they tell apart"),
    (7, scaled(1 / 255, "0"), "inputs have mean"),
    (8, constant_with_a_little_noise, "100% of the weights"),
    (8, signs_by_row, "100% of the weights"),
    (8, filled(0.0, "4.weight"), "weight_std is 0 in layer 4"),
    (9, scaled(0.5, "head"), r"weight_std is 0.5\d? in layer head"),
    (10, scaled(1 / 3, "0"), "weight_std is 0.29 in layer 2; a healthy twin has 0.096"),
    (10, scaled(1 / 9), "weight_std"),
    (11, fewer_layers, "must keep all weights"),
    (11, evaluation_mode, "gradient_second_moment differs"),
    (11, he_everywhere, "gradient_second_moment differs"),
    (12, filled(0.0, "3.branch.3.weight"), "weight_std is 0 in layer 3.branch.3"),
    (12, filled(0.0, "3.branch.3.bias"), "1 in 3.branch.3.weight"),
    (13, redrawn_matrix, "weight_std is 0.089 in layer matrices.1; a healthy twin has 0.18, 1.4"),
    (15, scaled(0.5), "weight_std is 0.5 in layer 0; a healthy twin has 0.12, 0.99 / sqrt"),
    (16, scaled(math.sqrt(2 / 128), "6"), "weight_std is"),
    (16, scaled(2.0, "6"), "weight_std is 0.031 in layer 6; a healthy twin has 0.13"),
    (17, scaled(0.01), "weight_std is 0.0099 in layer 0"),
    (18, scaled(math.sqrt(2), "2"), "weight_std is 0.13 in layer 6; a healthy twin has 0.089, 1 / sqrt"),
    (18, scaled(math.sqrt(1 / 2), "6"), "weight_std is 0.088 in layer 2"),
]


@pytest.mark.parametrize(("number", "repair", "sentence"), WRONG_REPAIRS)
def test_a_plausible_wrong_repair_is_told_what_is_still_wrong(number: int, repair, sentence: str):
    result = regrade(number, repair)
    assert not result.passed, str(result)
    (remark,) = result.remarks
    assert re.search(sentence, remark), remark


def test_healthy_patients_need_no_repair_and_resent_a_bad_one():
    assert grade(14, fault="healthy").passed
    assert grade(4, fault="healthy", layer="", repair=nothing).passed
    assert "gradient_second_moment differs by a factor" in regrade(4, he_everywhere).remarks[0]


# ---- The numbers that separate right from wrong ------------------------------------------------------------


def in_balance(factor: float, first: str, second: str):
    """Multiply one layer's weights and divide another's, so that nothing but their std is wrong."""

    def repair(model, inputs):
        model.get_submodule(first).weight.mul_(factor)
        model.get_submodule(second).weight.div_(factor)

    return repair


@pytest.mark.parametrize(("number", "inside", "outside"), [(1, 1.9, 2.1), (18, 1.2, 1.3)])
def test_weights_may_be_off_by_2_or_by_a_quarter_where_they_are_all_that_is_wrong(number, inside, outside):
    for factor, wrong in [(inside, False), (1 / inside, False), (outside, True), (1 / outside, True)]:
        twin = healthy_twin(number, 1)
        repaired = repaired_by(in_balance(factor, "0", "4"), twin)
        assert ("weight_std" in next(faults_after(twin, repaired, 1), "")) == wrong


@pytest.mark.parametrize(("factor", "wrong"), [(95, False), (105, True)])
def test_the_signal_may_change_by_100_from_end_to_end(factor, wrong):
    def four_steps(model, inputs):
        unit_outputs(model, inputs)
        for layer in model[4:12:2]:
            layer.weight.mul_(factor ** (1 / 8))

    patient = clinic_patient(1, 1)
    faults = [*faults_after(patient, repaired_by(four_steps, patient), 1)]
    assert any("repair second_moment differs" in fault for fault in faults) == wrong


@pytest.mark.parametrize(("ratio", "wrong"), [(3.8, False), (4.2, True), (1 / 3.8, False), (1 / 4.2, True)])
def test_a_first_layer_makes_up_for_the_inputs_within_a_factor_of_four(ratio, wrong, monkeypatch):
    monkeypatch.setattr(repairs, "_untrained", lambda repaired: ())  # which takes a second

    def repair(model, inputs):
        inputs.mul_(10)
        model[0].weight.mul_(math.sqrt(ratio) / 10)

    twin = healthy_twin(7, 1)
    said = faults_after(twin, repaired_by(repair, twin), 1)
    assert any("does not make up for it" in words for words in said) == wrong


@pytest.mark.parametrize(("factor", "wrong"), [(1.9, False), (2.1, True)])
@pytest.mark.parametrize("limit", [1.25, 2.0])
def test_the_last_layer_may_be_smaller_and_twice_as_large_whatever_the_limit(limit, factor, wrong):
    columns = {"layer": list("abc"), "activation": "", "fan_in": 64.0}
    twin, rows, zero = (pd.DataFrame({**columns, "weight_std": [1.0, 1.0, x]}) for x in (1.0, factor, 0.0))
    assert bool([*repairs._wrong_weights(limit, rows, twin)]) == wrong
    assert not [*repairs._wrong_weights(limit, zero, twin)]


@pytest.mark.parametrize("column", ["second_moment", "gradient_second_moment"])
@pytest.mark.parametrize(("healthy", "allowed"), [(5.0, 100.0), (20.0, 200.0)])
def test_a_spread_may_be_ten_times_the_twins(column, healthy, allowed):
    columns = {"layer": list("abc"), "second_moment": 1.0, "gradient_second_moment": 1.0}
    for factor, wrong in [(0.95, 0), (1.05, 1)]:
        spreads = [healthy, 1.0, 1e9], [1.0, allowed * factor, 1e9]  # the last layer does not count
        twin, rows = (pd.DataFrame({**columns, column: values}) for values in spreads)
        assert len([*repairs._spread_too_far(rows, twin)]) == wrong


def test_healthy_twins_train_to_a_loss_of_seven_tenths_in_half_of_the_steps():
    losses = [trained(healthy_twin(number, 101), STEPS // 2)[0] for number in PATIENTS]
    assert 0.65 < max(losses) < 0.7  # each stops at the first loss below, the slowest just there


# ---- What a repair may do besides --------------------------------------------------------------------------


def test_what_a_repair_does_to_the_model_besides_its_parameters_is_without_effect():
    def fake(model, inputs):
        whisker(model, inputs)
        model.forward = lambda x: 9.0 * nn.functional.one_hot(torch.arange(64) % 10, 10)

    assert "weight_std is 0.01" in regrade(1, fake).remarks[0]


def test_grading_repeats_itself_whatever_the_global_random_state():
    def repair(model, inputs):
        lecun_normal_(model[4].weight, 3.0, generator=torch.default_generator)

    state = torch.default_generator.get_state()
    first = str(regrade(8, repair))
    assert torch.equal(torch.default_generator.get_state(), state)
    torch.empty(9).normal_(generator=torch.default_generator)
    assert str(regrade(8, repair)) == first
    assert "weight_std is" in first


@pytest.mark.parametrize("repair", [lambda model: None, lambda model, inputs: model[99].weight.zero_()])
def test_what_a_repair_raises_is_raised_with_a_note(repair):
    with pytest.raises((TypeError, IndexError)) as caught:
        regrade(1, repair)
    assert caught.value.__notes__ == ["This was raised by repair(model, inputs) on patient 1, under no_grad."]
