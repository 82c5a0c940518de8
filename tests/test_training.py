"""The training loop: each network of an ensemble as if alone, tidy histories, errors."""

import math

import nbformat
import pandas as pd
import pytest
import torch
from nbclient import NotebookClient
from torch import nn

from course_utils import activations, training
from course_utils.initializers import kaiming_normal_
from course_utils.networks import Ensemble

GENERATOR = torch.Generator().manual_seed(0)
LABELS = torch.arange(120) % 3
INPUTS = torch.randn(120, 5, generator=GENERATOR) + 2 * nn.functional.one_hot(LABELS, 5)
OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.05),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.02, momentum=0.9),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01),
}


def ensemble(networks=3):
    generator = torch.Generator().manual_seed(1)
    return Ensemble(networks, [5, 8, 3], activations.relu, kaiming_normal_, generator=generator)


def alone(together, i):
    """Return network `i` of an ensemble, built from torch's own layers."""
    layers = [nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)]
    for layer, weight, bias in zip(layers[::2], together.weights, together.biases, strict=True):
        layer.weight.data, layer.bias.data = weight[i].detach().clone(), bias[i, 0].detach().clone()
    return nn.Sequential(*layers)


def train(model, optimizer="sgd", steps=30, **options):
    generator = torch.Generator().manual_seed(2)
    optimizer = OPTIMIZERS[optimizer](model.parameters())
    return training.train(model, optimizer, INPUTS, LABELS, steps=steps, generator=generator, **options)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_network_of_an_ensemble_trains_as_if_alone(optimizer):
    together = ensemble()
    single = alone(together, 1)
    history = train(together, optimizer)
    expected = train(single, optimizer)
    found = history[history.network == 1]
    torch.testing.assert_close(
        torch.tensor(found.loss.values), torch.tensor(expected.loss.values), rtol=1e-4, atol=0
    )
    torch.testing.assert_close(together.weights[0][1], single[0].weight, rtol=1e-3, atol=1e-5)


def test_the_history_is_tidy():
    history = train(ensemble(), steps=4)
    assert list(history.columns) == ["step", "network", "loss", "accuracy"]
    assert [tuple(row) for row in history[["step", "network"]].values] == [
        (step, network) for step in range(4) for network in range(3)
    ]


def test_loss_and_accuracy_are_those_of_the_batch_before_its_update():
    together = ensemble()
    batch = torch.randint(120, (16,), generator=torch.Generator().manual_seed(2))
    logits = together(INPUTS[batch]).detach()
    history = train(together, steps=1, batch_size=16)
    for i in range(3):
        loss = nn.functional.cross_entropy(logits[i], LABELS[batch]).item()
        accuracy = (logits[i].argmax(dim=1) == LABELS[batch]).double().mean().item()
        assert history.loss[i] == pytest.approx(loss, rel=1e-6)
        assert history.accuracy[i] == accuracy


def test_training_learns():
    together = ensemble()
    before, after = (training.evaluate(together, INPUTS, LABELS), train(together, "adam", steps=150))
    assert before.loss.min() > 0.9
    assert after.loss[after.step >= 140].max() < 0.6
    assert (training.evaluate(together, INPUTS, LABELS).accuracy > 0.8).all()


def test_a_diverging_network_leaves_the_others_alone():
    together, healthy = ensemble(), ensemble()
    with torch.no_grad():
        together.weights[0][1] *= math.inf
    broken, whole = train(together), train(healthy)
    assert broken[broken.network == 1].loss.isna().all()
    assert (broken.accuracy.isna() == (broken.network == 1)).all()
    for i in (0, 2):
        torch.testing.assert_close(together.weights[0][i], healthy.weights[0][i])
        assert broken[broken.network == i].loss.values == pytest.approx(whole[whole.network == i].loss.values)


def test_a_second_call_goes_on_where_the_first_ended():
    once, twice = ensemble(), ensemble()
    generators = [torch.Generator().manual_seed(2) for _ in range(2)]
    optimizers = [OPTIMIZERS["momentum"](model.parameters()) for model in (once, twice)]
    training.train(once, optimizers[0], INPUTS, LABELS, steps=6, generator=generators[0])
    for _ in range(2):
        training.train(twice, optimizers[1], INPUTS, LABELS, steps=3, generator=generators[1])
    assert torch.equal(once.weights[0], twice.weights[0])


def test_evaluate_measures_every_network_on_all_images():
    together = ensemble()
    table = training.evaluate(together, INPUTS, LABELS)
    logits = together(INPUTS).detach()
    assert list(table.columns) == ["network", "loss", "accuracy"]
    for i in range(3):
        assert table.loss[i] == pytest.approx(nn.functional.cross_entropy(logits[i], LABELS).item(), rel=1e-6)
        assert table.accuracy[i] == (logits[i].argmax(dim=1) == LABELS).double().mean()


def test_evaluate_gives_no_accuracy_to_a_network_that_diverged():
    together = ensemble()
    with torch.no_grad():
        together.weights[0][2] *= math.nan
    table = training.evaluate(together, INPUTS, LABELS)
    assert table.accuracy.isna().tolist() == table.loss.isna().tolist() == [False, False, True]


def test_an_infinite_loss_has_no_accuracy():
    logits, labels = torch.tensor([[1.0, -math.inf], [1.0, 0.0]]), torch.tensor([1, 0])
    table = training.evaluate(torch.nn.Identity(), logits, labels)
    assert (table.loss.item(), table.accuracy.isna().item()) == (math.inf, True)


def test_an_ordinary_model_has_one_network():
    single = alone(ensemble(), 0)
    assert set(train(single, steps=2).network) == {0}
    assert len(training.evaluate(single, INPUTS, LABELS)) == 1


def test_a_progress_bar_advances_once_a_step_and_vanishes(capsys):
    with training.progress_bar(10, "ten steps") as bar:
        train(ensemble(), steps=3, progress=bar)
        train(ensemble(), steps=4, progress=bar)
        assert bar.n == 7
    shown = capsys.readouterr().err
    assert "ten steps:   0%" in shown
    assert shown.endswith("\r")  # the line was wiped


def test_in_a_notebook_the_bar_is_a_widget_without_text():
    source = (
        "from course_utils import training\nwith training.progress_bar(2, 'two') as bar:\n    bar.update()\n"
        "    assert bar.container.children[0].value.startswith('two:')"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    NotebookClient(notebook, kernel_name="python3", extra_arguments=["--log-level=ERROR"]).execute()
    (output,) = notebook.cells[0].outputs
    assert set(output.data) == {"text/plain", "application/vnd.jupyter.widget-view+json"}
    assert output.data["text/plain"] == ""


@pytest.mark.parametrize("steps", [0, -1])
def test_steps_below_one_are_refused(steps):
    with pytest.raises(ValueError, match=f"got .* steps={steps}"):
        train(ensemble(), steps=steps)


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match=r"got .* batch_size=0"):
        train(ensemble(), steps=1, batch_size=0)


@pytest.mark.parametrize(("inputs", "labels"), [(120, 119), (120, 0), (0, 0)])
def test_as_many_labels_as_inputs_are_needed_and_at_least_one(inputs, labels):
    model = ensemble()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    with pytest.raises(ValueError, match=f"got {inputs} inputs, {labels} labels"):
        training.train(model, optimizer, INPUTS[:inputs], LABELS[:labels], steps=1, generator=GENERATOR)


def test_logits_of_another_shape_are_refused():
    model = nn.Flatten(0)
    with pytest.raises(ValueError, match=r"for 120 labels; got \(600,\)"):
        training.evaluate(model, INPUTS, LABELS)


def test_parameters_train_in_place_and_labels_stay():
    model, labels = ensemble(), LABELS.clone()
    before = model.weights[0].detach().clone()
    train(model, steps=1)
    assert not torch.equal(before, model.weights[0])
    assert torch.equal(labels, LABELS)


def test_a_batch_has_64_images_unless_told():
    pd.testing.assert_frame_equal(train(ensemble()), train(ensemble(), batch_size=64))


@pytest.mark.parametrize("label", [-100, -1, 3])
def test_a_label_that_is_no_class_is_refused(label):
    with pytest.raises(IndexError, match=f"Target {label} is out of bounds"):
        training.evaluate(ensemble(), INPUTS, torch.full_like(LABELS, label))


def test_final_losses_are_means_of_the_last_ten_steps_and_inf_where_one_is_nan():
    table = pd.DataFrame([(step, i, 100.0 * i + step) for step in range(25) for i in range(3)])
    table.columns = ["step", "network", "loss"]
    table.loc[table.step.eq(15) & table.network.eq(1), "loss"] = math.nan
    table.loc[table.step.eq(14) & table.network.eq(2), "loss"] = math.nan
    assert training.final_losses(table).tolist() == [19.5, math.inf, 219.5]
