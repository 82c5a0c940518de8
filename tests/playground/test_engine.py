"""The engine of the playground: measures against formulas, steps against optimizers' rules, and seeds."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from course_utils.playground.engine import BATCH, DATA_SETS, PROBE, Pair, Trainer, make_task
from course_utils.playground.network import MENUS, Settings, linear_maps

MOONS = make_task("moons", 0)
ROUNDING = 1e-5  # relative: float32 rounding (6e-8) over a few layers of sums of 32 terms, with room


def weights(trainer):
    return [layer.weight.detach().clone() for layer in linear_maps(trainer.network)]


def layers_by_hand(trainer, x):
    """Return h_1, ..., h_L and the logits of a plain ReLU network in float64, without the network's code."""
    maps = [(m.weight.detach().double(), m.bias.detach().double()) for m in linear_maps(trainer.network)]
    h = [x.double()]
    for w, b in maps[:-1]:
        h.append((h[-1] @ w.T + b).clamp(min=0))
    w, b = maps[-1]
    return [*h[1:], h[-1] @ w.T + b]


def trained(settings, steps=20, seed=0, task=MOONS):
    trainer = Trainer(settings, task, seed)
    for _ in range(steps):
        trainer.step()
    return trainer


def check_measures(trainer):
    x, y = MOONS.train_inputs[:PROBE], MOONS.train_labels[:PROBE]
    h = layers_by_hand(trainer, x)
    error = torch.softmax(h[-1], dim=1) - nn.functional.one_hot(y, 2)
    gradients = [error]
    for layer, w in zip(h[-2::-1], weights(trainer)[:0:-1], strict=True):
        gradients.insert(0, error @ w.double())  # with respect to the layer's output
        error = gradients[0] * (layer > 0)
    measures = trainer.measures()
    sizes, slopes = ([x.square().mean().sqrt().item() for x in tensors] for tensors in (h, gradients))
    assert measures.activation_rms == pytest.approx(sizes, rel=ROUNDING)
    assert measures.gradient_rms == pytest.approx(slopes, rel=10 * ROUNDING)
    assert measures.stuck == pytest.approx([(z <= 0).all(dim=0).double().mean().item() for z in h[:-1]])
    right = layers_by_hand(trainer, MOONS.test_inputs)[-1].argmax(dim=1) == MOONS.test_labels
    assert measures.accuracy == right.double().mean().item()


@pytest.mark.parametrize("steps", [0, 20])
def test_measures_follow_their_formulas(steps):
    trainer = trained(Settings(), steps)
    check_measures(trainer)
    with torch.no_grad():
        linear_maps(trainer.network)[1].bias[:8] = -1e3  # kills units
    check_measures(trainer)
    assert trainer.measures().stuck[1] >= 8 / 32


def test_a_saturated_tanh_unit_is_stuck():
    trainer = Trainer(Settings(activation="tanh", depth=1, width=8), MOONS, 0)
    with torch.no_grad():
        linear_maps(trainer.network)[0].bias[:3] = 50.0
    assert trainer.measures().stuck == pytest.approx([3 / 8])


def test_a_unit_is_stuck_below_a_slope_of_one_hundredth():
    for slope, stuck in [(0.0095, 1.0), (0.0105, 0.0)]:
        trainer = Trainer(Settings(activation="sigmoid", depth=1, scheme="zeros"), MOONS, 0)
        with torch.no_grad():
            linear_maps(trainer.network)[0].bias.fill_(math.acosh(1 / (2 * math.sqrt(slope))) * 2)
        assert trainer.measures().stuck == stuck


@pytest.mark.parametrize("optimizer", MENUS["optimizer"])
def test_update_ratio_is_that_of_the_last_step(optimizer):
    trainer = trained(Settings(optimizer=optimizer, depth=2), 5)
    before = weights(trainer)
    trainer.step()
    pairs = zip(weights(trainer), before, strict=True)
    ratios = [((new - old).norm() / old.norm()).item() for new, old in pairs]
    assert trainer.measures().update_ratio == pytest.approx(ratios, rel=1e-3)  # of float32 differences
    assert min(ratios) > 0


def test_update_ratio_at_its_ends():
    trainer = Trainer(Settings(scheme="zeros"), MOONS, 0)
    assert np.isnan(trainer.measures().update_ratio).all()
    trainer.step()
    assert trainer.measures().update_ratio.tolist() == [0.0] * 5  # nothing moved
    with torch.no_grad():
        linear_maps(trainer.network)[0].weight += 1
    assert trainer.measures().update_ratio[0] == math.inf


@pytest.mark.parametrize("norm", MENUS["norm"])
def test_looking_changes_nothing(norm):
    watched, alone = (Trainer(Settings(norm=norm), MOONS, 0) for _ in range(2))
    for _ in range(3):
        watched.step()
        watched.measures()
        watched.probability_map(10)
        alone.step()
    assert watched.losses == alone.losses
    states = watched.network.state_dict(), alone.network.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])


def test_batch_norm_is_measured_on_the_batch_and_used_with_running_statistics():
    trainer = Trainer(Settings(norm="batch", activation="linear", depth=2), MOONS, 0)
    before = trainer.probability_map(4)
    with torch.no_grad():
        trainer.network.hidden_1.norm.running_mean += 100
    assert trainer.measures().activation_rms[0] == pytest.approx(1, abs=1e-3)  # 1e-3: the norm's eps of 1e-5
    assert not np.allclose(trainer.probability_map(4), before)


# Seeds


@pytest.mark.parametrize("name", [name for name in DATA_SETS if name != "digits"])
def test_another_seed_draws_other_data(name):
    first, again, other = (make_task(name, seed).train_inputs for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_another_seed_draws_other_batches():
    same_start = Settings(scheme="zeros")
    first, again, other = (trained(same_start, 3, seed).losses for seed in (0, 0, 1))
    assert first == again
    assert first != other


@pytest.mark.parametrize("seed", [0, 7])
def test_a_pair_trains_its_networks_on_one_seed(seed):
    a, b = Settings(), Settings(depth=8, norm="batch", scheme="LSUV")
    pair = Pair(a, b, "circles", seed)
    pair.train(3)
    for settings, trainer in zip((a, b), pair.trainers, strict=True):
        assert trainer.losses == trained(settings, 3, seed, make_task("circles", seed)).losses
    assert pair.steps == 3


# Training


def gradients_of(trainer, batch):
    x, y = MOONS.train_inputs[batch], MOONS.train_labels[batch]
    loss = -torch.log_softmax(trainer.network(x), dim=1)[range(BATCH), y].mean()
    return loss.item(), torch.autograd.grad(loss, list(trainer.network.parameters()))


@pytest.mark.parametrize("optimizer", [name for name in MENUS["optimizer"] if name.startswith("SGD")])
def test_a_step_is_sgd_on_the_mean_cross_entropy_with_the_momentum_of_its_label(optimizer):
    momentum = float(optimizer.split()[-1]) if "momentum" in optimizer else 0.0
    trainer, stream = trained(Settings(learning_rate=0.3, optimizer=optimizer), 0, 7), torch.Generator()
    stream.manual_seed(7)
    velocities = [torch.zeros_like(p) for p in trainer.network.parameters()]
    for _ in range(2):
        loss, gradients = gradients_of(trainer, torch.randint(400, (BATCH,), generator=stream))
        velocities = [momentum * v + g for v, g in zip(velocities, gradients, strict=True)]
        before = [p.detach().clone() for p in trainer.network.parameters()]
        trainer.step()
        assert trainer.losses[-1] == pytest.approx(loss)
        for p, old, v in zip(trainer.network.parameters(), before, velocities, strict=True):
            torch.testing.assert_close(p.detach(), old - 0.3 * v)


@pytest.mark.parametrize("optimizer", MENUS["optimizer"])
def test_a_new_learning_rate_holds_from_the_next_step(optimizer):
    slow, fast = (trained(Settings(learning_rate=0.01, optimizer=optimizer), 3) for _ in range(2))
    fast.settings = replace(fast.settings, learning_rate=0.1)
    before = weights(slow)
    slow.step()
    fast.step()
    for old, a, b in zip(before, weights(slow), weights(fast), strict=True):
        torch.testing.assert_close(b - old, 10 * (a - old), rtol=1e-3, atol=1e-6)


def test_divergence_is_said_in_words_and_the_other_goes_on():
    pair = Pair(Settings(scheme="N(0, 1)", depth=20), Settings())
    pair.train(12)
    diverged, other = pair.trainers
    assert diverged.problem.startswith(f"diverged at step {len(diverged.losses)}: ")
    assert all(map(math.isfinite, diverged.losses))
    assert len(other.losses) == pair.steps == 12
    assert not pair.finished
    assert math.isnan(diverged.measures().accuracy)


def test_a_network_that_cannot_start_says_why_and_training_ends_when_nobody_trains():
    pair = Pair(Settings(scheme="N(0, 1)", depth=20), Settings(scheme="looks-linear", width=5))
    stopped = pair.trainers[1]
    assert stopped.problem.startswith("cannot start: looks-linear weights need")
    assert stopped.network is None
    pair.train(1000)
    assert pair.finished
    assert (steps := pair.steps) < 30
    pair.train(5)
    assert (pair.steps, stopped.losses) == (steps, [])


def test_a_time_budget_allows_at_least_one_step():
    pair = Pair(Settings(), Settings())
    pair.train(100, seconds=0.0)
    assert pair.steps == 1


def test_any_settings_train_or_say_why():
    rng = np.random.default_rng(0)

    def any_of(values):
        return list(values)[rng.integers(len(values))]

    names = [list(rng.permutation([*menu] * 2)) for menu in MENUS.values()]  # each name, in chance company
    for i in range(max(map(len, names))):
        menus = {field: str(column[i % len(column)]) for field, column in zip(MENUS, names, strict=True)}
        sizes = {"depth": any_of([1, 2, 5]), "width": any_of([1, 2, 5, 16]), "gain": any_of([0, 0.01, 1, 10])}
        rate = 10 ** rng.uniform(-4, 1)
        settings = Settings(**menus, **sizes, residual=any_of([False, True]), learning_rate=rate)
        trainer = trained(settings, 3, task=make_task(any_of(DATA_SETS), 0))
        assert len(trainer.losses) == 3 or trainer.problem, settings
        if trainer.network is not None:
            assert len(trainer.measures().activation_rms) == settings.depth + 1
            assert trainer.probability_map(3).shape == (3, 3, trainer.task.classes)


# Tasks


@pytest.mark.parametrize("name", DATA_SETS)
def test_the_grid_lies_in_the_plane_row_by_row_from_the_top(name):
    task = make_task(name, 0)
    xy = task.coordinates(task.grid(4)).view(4, 4, 2) / task.extent
    centres = torch.tensor([-0.75, -0.25, 0.25, 0.75])
    torch.testing.assert_close(xy[..., 0], centres.expand(4, 4), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(xy[..., 1], -centres[:, None].expand(4, 4), rtol=1e-4, atol=1e-4)
    furthest = task.coordinates(task.train_inputs).abs().max().item()
    assert task.extent == pytest.approx(1.1 * furthest)  # a margin of a tenth around the points to train


def test_the_digits_plane_holds_the_largest_variances():
    task = make_task("digits", 0)
    inputs = task.train_inputs.double().numpy()
    eigenvalues, vectors = np.linalg.eigh(np.cov(inputs.T))
    shown = task.coordinates(task.train_inputs).double()
    assert shown.var(dim=0).tolist() == pytest.approx(eigenvalues[:-3:-1].tolist(), rel=1e-4)
    assert abs(np.sum(task.axes[0].numpy() * vectors[:, -1])) == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(task.origin, task.train_inputs.mean(dim=0))


def test_unknown_data_are_refused():
    with pytest.raises(ValueError, match="got 'mnist'"):
        make_task("mnist", 0)
