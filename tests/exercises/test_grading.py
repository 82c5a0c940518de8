"""The clinic: planted faults are what they are said to be, and grades are just to right and wrong answers."""

import math
import re

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn

from course_utils.doctor.diagnosis import FAULTS, diagnose
from course_utils.doctor.plot import plot_diagnosis
from course_utils.exercises.grading import (
    GRADED_SEEDS,
    STEPS,
    TRAINED,
    _on_fault,
    _train,
    examine,
    grade,
    hint,
    solution,
)
from course_utils.exercises.patients import PATIENTS, clinic_patient, healthy_twin
from course_utils.initializers import kaiming_normal_, lecun_normal_

SICK = [number for number in PATIENTS if solution(number).fault != "healthy"]
REWIRED = {6, 7, 11}


def found(model, inputs, targets) -> list[tuple[str, str]]:
    findings = diagnose(model, inputs, targets).findings
    return [(f.layer.removesuffix(".weight"), f.fault) for f in findings if f.is_fault]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def regrade(number: int, repair):
    """Grade a repair under the right diagnosis."""
    truth = solution(number)
    return grade(number, fault=truth.fault, layer=truth.layer, repair=repair)


# ---- The patients ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", PATIENTS)
def test_diagnose_names_the_planted_fault_and_finds_none_in_the_healthy_twin(number: int):
    truth = solution(number)
    for seed in range(5):
        patient, twin = clinic_patient(number, seed), healthy_twin(number, seed)
        wanted = [] if truth.fault == "healthy" else [(truth.layer, truth.fault)]
        assert found(patient.model, patient.inputs, patient.targets) == wanted
        assert found(twin.model, twin.inputs, twin.targets) == []


def test_most_faults_have_a_patient():
    assert len(PATIENTS) >= 14
    assert {solution(number).fault for number in PATIENTS} == {*FAULTS, "healthy"}


@pytest.mark.parametrize("number", PATIENTS)
def test_a_patient_depends_on_its_seed_alone_and_leaves_torchs_random_state_alone(number: int):
    state = torch.default_generator.get_state()
    first = clinic_patient(number, 4)
    examine(first)
    assert torch.equal(torch.default_generator.get_state(), state)
    torch.empty(9).normal_(
        generator=torch.default_generator
    )  # what the global stream has given does not matter
    again, other = clinic_patient(number, 4), clinic_patient(number, 5)
    for a, b in zip(first.model.state_dict().values(), again.model.state_dict().values(), strict=True):
        assert torch.equal(a.nan_to_num(), b.nan_to_num())
    assert torch.equal(first.inputs, again.inputs)
    assert not torch.equal(first.inputs, other.inputs)
    weights = [next(p for p in q.model.parameters() if p.ndim > 1) for q in (first, other)]
    assert not torch.equal(*weights)


@pytest.mark.parametrize("number", PATIENTS)
def test_the_table_keeps_the_answer_to_itself_and_can_be_drawn(number: int):
    table = examine(clinic_patient(number))
    assert {"wanted_std", "weight_ratio"}.isdisjoint(table.columns)
    assert (table["fault"] == "").all()
    plot_diagnosis(table)
    plt.close("all")


# ---- Right answers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", PATIENTS)
def test_the_solution_passes_on_fresh_networks_and_touches_only_what_is_sick(number: int):
    assert len(GRADED_SEEDS) == 3
    grade_ = regrade(number, solution(number).repair)
    assert str(grade_) == f"Patient {number}: passed."


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


@pytest.mark.parametrize(
    ("number", "fault", "layer"), [(13, "wrong fan", "matrices.1"), (18, "misplaced gain", "2")]
)
def test_names_as_defensible_as_the_planted_one_are_right(number: int, fault: str, layer: str):
    assert grade(number, fault=fault, layer=layer, repair=solution(number).repair).passed


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
    (3, scaled(math.sqrt(2), "0"), "second_moment differs by a factor"),
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


# ---- Wrong diagnoses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", PATIENTS)
def test_every_wrong_name_is_met_with_the_numbers_of_the_patient(number: int):
    patient, truth = clinic_patient(number), solution(number)
    table, sentences = examine(patient), set()
    for fault in {*FAULTS, "healthy"} - {truth.fault}:
        sentence = _on_fault(patient, table, fault)
        named = "You called it healthy" if fault == "healthy" else f'You named "{fault}"'
        assert sentence.startswith(named)
        assert re.search(r"Measured: .*(\d|none)", sentence) or "column" in sentence
        assert "a factor of nan" not in sentence
        assert truth.fault != "healthy" or truth.why not in sentence
        sentences.add(sentence)
    assert len(sentences) == len({*FAULTS, "healthy"}) - 1


WRONG_NAMES = [
    (1, "vanishing gradient", "That is there, but as a consequence. Compare second_moment from row to row"),
    (1, "vanishing gradient", "second_moment goes from 0.0064 at 0 to .* a factor of 0.0064 per layer"),
    (1, "exploding signal", "The column is right, its reading is not"),
    (2, "vanishing signal", "That is there, but as a consequence. .* the largest value of dead is 1, at 4"),
    (3, "vanishing signal", r"is 0.8 at 0 \(before relu\), 1.0 at 2 to 30 \(before relu\), 1.0 at 32\."),
    (4, "zero layer", "the smallest weight_std is 0, at 1.branch.2. Is that a fault here"),
    (5, "vanishing gradient", "gradient_second_moment is 0 at hidden. That is there, but as a consequence"),
    (6, "vanishing signal", "That is not what it takes"),
    (7, "large initial loss", "That is there, but as a consequence. .* mean 128.36 and second moment"),
    (12, "exploding signal", "That is not what it takes. .* 1 in 3.branch.3.weight"),
    (15, "exploding gradient", "That is there, but as a consequence. .* the largest value of saturated is"),
    (17, "exploding gradient", "That is there, but as a consequence"),
    (3, "healthy", "You called it healthy"),
]


@pytest.mark.parametrize(("number", "fault", "sentence"), WRONG_NAMES)
def test_a_wrong_name_is_told_cause_from_consequence(number: int, fault: str, sentence: str):
    result = grade(number, fault=fault, layer="")
    assert not result.passed
    assert re.search(sentence, result.remarks[0]), result.remarks[0]


def test_a_right_diagnosis_with_a_wrong_repair_does_not_pass_nor_the_reverse():
    truth = solution(16)
    wrong_fault = grade(16, fault="missing gain", layer="6", repair=truth.repair)
    wrong_layer = grade(16, fault="double init", layer="4", repair=truth.repair)
    assert not (wrong_fault.passed)
    assert not (wrong_layer.passed)
    assert len(wrong_fault.remarks) == len(wrong_layer.remarks) == 1
    assert '"double init" is right, but it begins in a later row than 4, which has' in wrong_layer.remarks[0]
    assert "in an earlier row than 8" in grade(16, fault="double init", layer="8").remarks[0]
    assert "In which layer does it begin?" in grade(16, fault="double init").remarks[0]
    assert "but in which layer" in grade(16, fault="double init", layer="").remarks[0]
    assert grade(16, fault="double init", layer="6").remarks == ("No repair yet.",)


def test_unanswered_patients_are_neither_right_nor_wrong():
    result = grade(1)
    assert str(result) == repr(result) == "Patient 1: no answer yet."
    assert not (result.answered)
    assert not (result.passed)


def test_healthy_patients_need_no_repair_and_resent_a_bad_one():
    assert grade(14, fault="healthy").passed
    assert grade(4, fault="healthy", layer="", repair=nothing).passed
    assert "gradient_second_moment differs by a factor" in regrade(4, he_everywhere).remarks[0]


# ---- Errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (ValueError, "1 to 18; got 0", {"number": 0}),
        (ValueError, "1 to 18; got 19", {"number": 19, "fault": "dead"}),
        (ValueError, "'saturated', .*'healthy'; got 'exploding'", {"number": 1, "fault": "exploding"}),
        (
            ValueError,
            "one of '0', '2', .*''; got 'layer 3'",
            {"number": 2, "fault": "dead", "layer": "layer 3"},
        ),
        (ValueError, "got 'inputs'", {"number": 2, "fault": "dead", "layer": "inputs"}),
        (TypeError, r"function of \(model, inputs\), or None; got Tensor", {"repair": torch.zeros(2)}),
    ],
)
def test_errors_say_what_was_passed_and_what_is_expected(error, message: str, arguments: dict):
    arguments = {"number": 1, "fault": "dead"} | arguments
    with pytest.raises(error, match=message):
        grade(arguments.pop("number"), **arguments)


@pytest.mark.parametrize("repair", [lambda model: None, lambda model, inputs: model[99].weight.zero_()])
def test_what_a_repair_raises_is_raised_with_a_note(repair):
    with pytest.raises((TypeError, IndexError)) as caught:
        regrade(1, repair)
    assert caught.value.__notes__ == ["This was raised by repair(model, inputs) on patient 1, under no_grad."]


# ---- Grading leaves no trace -------------------------------------------------------------------------------


def test_grading_repeats_itself_whatever_the_global_random_state():
    def repair(model, inputs):
        lecun_normal_(model[4].weight, 3.0, generator=torch.default_generator)

    state = torch.default_generator.get_state()
    first = str(regrade(8, repair))
    assert torch.equal(torch.default_generator.get_state(), state)
    torch.empty(9).normal_(generator=torch.default_generator)
    assert str(regrade(8, repair)) == first
    assert "weight_std is" in first


def test_what_a_repair_does_to_the_model_besides_its_parameters_is_without_effect():
    def fake(model, inputs):
        whisker(model, inputs)
        model.forward = lambda x: 9.0 * nn.functional.one_hot(torch.arange(64) % 10, 10)

    assert "weight_std is 0.01" in regrade(1, fake).remarks[0]


@pytest.mark.parametrize("number", PATIENTS)
def test_healthy_twins_train_in_half_of_the_steps(number: int):
    loss, _ = _train(healthy_twin(number, GRADED_SEEDS[0]), STEPS // 2)
    assert loss < TRAINED


@pytest.mark.parametrize("number", PATIENTS)
def test_hints_grow_more_concrete_and_the_solution_shows_its_source(number: int):
    truth = solution(number)
    assert hint(number) != hint(number, 2)
    assert truth.fault not in hint(number)
    assert hint(number, 2).startswith("Measured: ")
    assert str(truth).startswith(truth.fault)
    assert truth.why in str(truth)
    assert f"def {truth.repair.__name__}(model, inputs):" in str(truth)


def test_there_are_two_levels_of_hints():
    with pytest.raises(ValueError, match="1 or 2; got 3"):
        hint(1, 3)
