"""The prepared experiments come out as their texts say, with the margins that the texts name."""

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from course_utils.playground.engine import Trainer, make_task
from course_utils.playground.experiments import EXPERIMENTS
from course_utils.playground.network import linear_maps

# Each promise takes the trained networks, the measures of A and of B now, and those at step 0, but with the
# update ratios of the first step.


def loss(trainer):
    return np.mean(trainer.losses[-20:])


def guesses(trainer, margin=0.01):
    return abs(loss(trainer) - math.log(trainer.task.classes)) < margin


@cache
def trained(settings, task, seed, steps):
    """Return the network after so many steps; some stand in several experiments."""
    trainer = Trainer(settings, task, seed)
    for _ in range(steps):
        trainer.step()
    return trainer


def at_first(settings, task, seed):
    first = trained(settings, task, seed, 1).measures()
    return replace(trained(settings, task, seed, 0).measures(), update_ratio=first.update_ratio)


def all_weights_zero(pair, a, b, a0, b0):
    one, _ = pair
    still = not any(layer.weight.any() for layer in linear_maps(one.network))
    return (
        still and guesses(one) and a.stuck.min() == 1 and not a.gradient_rms[:-1].any() and b.accuracy >= 0.9
    )


def all_weights_equal(pair, a, b, a0, b0):
    rows = [layer.weight for layer in linear_maps(pair[0].network)[:-1]]
    equal = all(torch.allclose(w, w[:1].expand_as(w), rtol=1e-3, atol=1e-4) for w in rows)
    return equal and a.accuracy < 0.8 and b.accuracy > 0.9


def too_small(pair, a, b, a0, b0):
    factors = a0.activation_rms[1:4] / a0.activation_rms[:3]
    shrinks = (factors > 0.02).all() and (factors < 0.08).all()
    tiny = (a0.update_ratio[:-1] < 5e-6).all()
    return shrinks and tiny and guesses(pair[0]) and a.stuck[3] > 0.9 and b.accuracy > 0.9


def too_small_with_adam(pair, a, b, a0, b0):
    return guesses(pair[0]) and b.accuracy > 0.75


def too_large(pair, a, b, a0, b0):
    one, _ = pair
    early = len(one.losses) < 10 and "diverged" in one.problem
    return early and a0.activation_rms[7] > 3000 and a0.gradient_rms[0] > 1000 and b.accuracy > 0.9


def too_large_with_batch_norm(pair, a, b, a0, b0):
    return too_large(pair, a, b, a0, b0) and (abs(b0.activation_rms[:-1] - 0.7) < 0.1).all()


def default_of_eight_layers(pair, a, b, a0, b0):
    return guesses(pair[0], 0.05) and a.accuracy < 0.2 and b.accuracy > 0.7


def default_with_branches(pair, a, b, a0, b0):
    flows = a0.gradient_rms[0] < 1e-6 and 0.1 < b0.gradient_rms[0] < 10
    return flows and guesses(pair[0]) and b.accuracy > 0.9


def sigmoid_or_tanh(pair, a, b, a0, b0):
    one, other = pair
    return a0.gradient_rms[0] < 0.1 * b0.gradient_rms[0] and guesses(one) and loss(other) < 0.2


def rate_too_large(pair, a, b, a0, b0):
    large = (abs(np.log2(b0.update_ratio[1:])) < 1).all()
    return large and b.stuck.mean() > 0.4 and a.stuck.mean() < 0.25 and a.accuracy > 0.9


PROMISES = (
    all_weights_zero,
    all_weights_equal,
    too_small,
    too_small_with_adam,
    too_large,
    too_large_with_batch_norm,
    default_of_eight_layers,
    default_with_branches,
    sigmoid_or_tanh,
    rate_too_large,
)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("number", range(1, len(EXPERIMENTS) + 1))
def test_experiments_come_out_as_they_say(number, seed):
    experiment = EXPERIMENTS[number - 1]
    assert experiment.name.startswith(f"{number} ")
    task, both = make_task(experiment.data, seed), (experiment.a, experiment.b)
    pair = [trained(settings, task, seed, experiment.steps) for settings in both]
    now = [trainer.measures() for trainer in pair]
    assert PROMISES[number - 1](pair, *now, *(at_first(settings, task, seed) for settings in both))


@pytest.mark.parametrize(
    ("number", "said", "std"),
    [
        (3, "0.01 × √(32/2) = {} a layer", 0.01),
        (5, "√(32/2) = {}.", 1.0),
        (7, "shrinks by {} a layer", 1 / math.sqrt(3 * 32)),  # of U(±1/√n)
    ],
)
def test_texts_name_the_factor_by_which_weights_of_a_std_shrink_or_grow_a_signal(number, said, std):
    experiment = EXPERIMENTS[number - 1]
    first = trained(experiment.a, make_task(experiment.data, 0), 0, 0).network
    weights = torch.cat([layer.weight.flatten() for layer in linear_maps(first)[1:-1]])  # 32 inputs each
    assert weights.std().item() == pytest.approx(std, rel=4 / math.sqrt(2 * weights.numel()))
    factor = std * math.sqrt(experiment.a.width / 2)  # of a ReLU's RMS
    assert said.format(f"{factor:.2g}") in f"{experiment.question} {experiment.expectation}"


def test_an_experiment_begins_with_its_settings_data_and_seed():
    experiment = EXPERIMENTS[1]
    for trainer, settings in zip(experiment.pair(3).trainers, (experiment.a, experiment.b), strict=True):
        assert trainer.settings == settings
        assert trainer.task is make_task(experiment.data, 3)
        trainer.step()
        assert trainer.losses == trained(settings, trainer.task, 3, 1).losses
