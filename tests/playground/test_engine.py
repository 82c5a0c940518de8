"""The engine of the playground: measures against formulas, what A and B share, all schemes."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from course_utils.playground import engine as live
from course_utils.playground.engine import (
    EXPERIMENTS,
    Pair,
    Settings,
    Side,
    build_network,
    linear_maps,
    make_task,
)

MOONS = make_task("moons", 0)
ROUNDING = 1e-5  # relative: float32 rounding (6e-8) over a few layers of sums of 32 terms, with room


def weights(side):
    return [layer.weight.detach().clone() for layer in linear_maps(side.network)]


def layers_by_hand(side, x):
    """Return h_0, ..., h_L and the logits of a plain ReLU network in float64, without the network's code."""
    maps = [
        (layer.weight.detach().double(), layer.bias.detach().double()) for layer in linear_maps(side.network)
    ]
    h = [x.double()]
    for w, b in maps[:-1]:
        h.append((h[-1] @ w.T + b).clamp(min=0))
    w, b = maps[-1]
    return [*h, h[-1] @ w.T + b]


def trained(settings, steps=20, seed=0, task=MOONS):
    side = Side(settings, task, seed)
    for _ in range(steps):
        side.step()
    return side


def check_measures(side):
    x, y = MOONS.train_inputs[: live.PROBE], MOONS.train_labels[: live.PROBE]
    _, *h = layers_by_hand(side, x)
    rms = [np.sqrt(np.mean(layer.numpy() ** 2)) for layer in h]
    error = torch.softmax(h[-1], dim=1) - nn.functional.one_hot(y, 2)
    gradients = [error]
    for layer, w in zip(h[-2::-1], weights(side)[:0:-1], strict=True):
        gradients.insert(0, error @ w.double())  # with respect to the layer's output
        error = gradients[0] * (layer > 0)
    dead = [(layer <= 0).all(dim=0).double().mean().item() for layer in h[:-1]]
    measures = side.measures()
    assert measures.activation_rms == pytest.approx(rms, rel=ROUNDING)
    assert measures.gradient_rms == pytest.approx(
        [g.square().mean().sqrt().item() for g in gradients], rel=10 * ROUNDING
    )
    assert measures.stuck == pytest.approx(dead)
    logits = layers_by_hand(side, MOONS.test_inputs)[-1]
    assert measures.accuracy == (logits.argmax(dim=1) == MOONS.test_labels).double().mean().item()


@pytest.mark.parametrize("steps", [0, 1, 20])
def test_measures_follow_their_formulas(steps):
    check_measures(trained(Settings(), steps))


def test_killed_units_are_counted():
    side = Side(Settings(), MOONS, 0)
    with torch.no_grad():
        linear_maps(side.network)[1].bias[:8] = -1e3
    check_measures(side)
    assert side.measures().stuck[1] >= 8 / 32


def test_a_wrong_measure_is_caught(monkeypatch):
    monkeypatch.setattr(live, "_rms", lambda x: x.detach().double().square().mean().item())
    with pytest.raises(AssertionError):
        check_measures(trained(Settings()))


def test_a_saturated_tanh_unit_is_stuck():
    side = Side(Settings(activation="tanh", depth=1, width=8), MOONS, 0)
    with torch.no_grad():
        linear_maps(side.network)[0].bias[:3] = 50.0
    assert side.measures().stuck == pytest.approx([3 / 8])


@pytest.mark.parametrize("optimizer", ["SGD", "momentum 0.9", "Adam"])
def test_update_ratio_is_that_of_the_last_step(optimizer):
    side = trained(Settings(optimizer=optimizer), 5)
    before = weights(side)
    side.step()
    ratios = [
        ((new - old).norm() / old.norm()).item() for new, old in zip(weights(side), before, strict=True)
    ]
    assert side.measures().update_ratio == pytest.approx(ratios, rel=1e-3)  # norms of float32 differences
    assert min(ratios) > 0


def test_update_ratio_at_its_ends():
    side = Side(Settings(scheme="zeros"), MOONS, 0)
    assert np.isnan(side.measures().update_ratio).all()
    side.step()
    assert side.measures().update_ratio.tolist() == [0.0] * 5  # nothing moved
    with torch.no_grad():
        linear_maps(side.network)[0].weight += 1
    assert side.measures().update_ratio[0] == math.inf


@pytest.mark.parametrize("norm", live.NORMS)
def test_looking_changes_nothing(norm):
    watched, alone = (Side(Settings(norm=norm), MOONS, 0) for _ in range(2))
    for _ in range(5):
        watched.step()
        watched.measures()
        watched.map(10)
        alone.step()
    assert watched.losses == alone.losses
    states = watched.network.state_dict(), alone.network.state_dict()
    for name in states[0].keys() - {f"hidden_{i}.norm.num_batches_tracked" for i in range(1, 5)}:
        assert torch.equal(states[0][name], states[1][name]), name


def test_batch_norm_is_measured_on_the_batch_and_used_with_running_statistics():
    side = Side(Settings(norm="batch", activation="linear", depth=2), MOONS, 0)
    with torch.no_grad():
        side.network.hidden_1.norm.running_mean += 100
    assert side.measures().activation_rms[0] == pytest.approx(1, abs=1e-3)  # 1e-3: the norm's eps of 1e-5
    assert not np.allclose(
        side.map(4), trained(Settings(norm="batch", activation="linear", depth=2), 0).map(4)
    )


def test_batch_norm_starts_with_the_statistics_of_the_data():
    norm = Side(Settings(norm="batch"), MOONS, 0).network.hidden_1.norm
    z = MOONS.train_inputs @ linear_maps(Side(Settings(norm="batch"), MOONS, 0).network)[0].weight.T
    torch.testing.assert_close(norm.running_mean, z.mean(dim=0).detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, z.var(dim=0).detach(), rtol=1e-4, atol=1e-5)
    assert norm.momentum == 0.1


# What A and B share


def test_equal_settings_give_equal_networks_and_losses():
    pair = Pair(Settings(), Settings())
    pair.train(10)
    assert pair.sides[0].losses == pair.sides[1].losses
    assert all(map(torch.equal, weights(pair.sides[0]), weights(pair.sides[1])))


def test_a_side_does_not_notice_the_other():
    alone = trained(Settings(), 10)
    for other in (
        Settings(depth=8, norm="batch"),
        Settings(scheme="N(0, 1)", depth=20),
        Settings(scheme="LSUV"),
    ):
        pair = Pair(Settings(), other)
        pair.train(10)
        assert pair.sides[0].losses == alone.losses


def test_another_seed_gives_other_weights_data_and_batches():
    first, second = Pair(Settings(), Settings(), seed=0), Pair(Settings(), Settings(), seed=1)
    assert not torch.equal(first.task.train_inputs, second.task.train_inputs)
    assert not torch.equal(weights(first.sides[0])[0], weights(second.sides[0])[0])


def test_deeper_networks_begin_with_the_same_weights():
    shallow, deep = weights(Side(Settings(), MOONS, 0)), weights(Side(Settings(depth=8), MOONS, 0))
    assert all(map(torch.equal, shallow[:4], deep[:4]))
    assert torch.equal(shallow[-1], deep[-1])
    assert not torch.equal(deep[1], deep[2])


def test_gain_and_law_scale_the_same_draws():
    lecun, he = (
        weights(Side(Settings(scheme=s), MOONS, 0)) for s in ("LeCun normal", "Kaiming normal, fan-in")
    )
    gained = weights(Side(Settings(scheme="LeCun normal", gain=math.sqrt(2)), MOONS, 0))
    for small, large, scaled in zip(lecun, he, gained, strict=True):
        torch.testing.assert_close(large, small * math.sqrt(2))
        torch.testing.assert_close(scaled, large)


def test_global_randomness_is_not_touched():
    before = torch.get_rng_state()
    trained(Settings(scheme="LSUV", norm="batch"), 2)
    assert torch.equal(torch.get_rng_state(), before)


# Networks and schemes


def test_hidden_layers_are_named():
    network = build_network(Settings(depth=3), MOONS, 0)
    assert [name for name, _ in network.named_children()] == ["hidden_1", "hidden_2", "hidden_3", "output"]


def test_residual_layers_add_their_input_from_the_second_on():
    plain, branched = (Side(Settings(depth=3, residual=r), MOONS, 0).network for r in (False, True))
    x = MOONS.train_inputs[:5]
    assert torch.equal(plain.hidden_1(x), branched.hidden_1(x))
    h = plain.hidden_1(x)
    torch.testing.assert_close(branched.hidden_2(h), h + plain.hidden_2(h))


def test_the_first_layer_has_no_branch_even_where_it_keeps_the_width():
    plain, branched = (Side(Settings(width=2, residual=r), MOONS, 0).network for r in (False, True))
    assert torch.equal(plain.hidden_1(MOONS.train_inputs), branched.hidden_1(MOONS.train_inputs))


# Variances in units of 1 / fan_in for a layer of 32 by 32, where fan-in and fan-out agree.
VARIANCES = {
    "N(0, 1)": 32,
    "N(0, 0.01²)": 32e-4,
    "torch default U(±1/√n)": 1 / 3,
    "LeCun normal": 1,
    "LeCun uniform": 1,
    "Xavier normal": 1,
    "Xavier uniform": 1,
    "Kaiming normal, fan-in": 2,
    "Kaiming normal, fan-out": 2,
    "Kaiming uniform, fan-in": 2,
    "Kaiming uniform, fan-out": 2,
    "truncated LeCun": 1,
    "truncated Kaiming": 2,
    "orthogonal": 1,
    "looks-linear": 2,  # as Kaiming's: it is made for ReLUs
    "sparse, 80 % zeros": 1,
}


@pytest.mark.parametrize("scheme", VARIANCES)
def test_schemes_have_their_variance(scheme):
    squares = [
        (32 * layer.square().mean()).item()
        for seed in range(10)
        for layer in weights(Side(Settings(scheme=scheme, depth=5), MOONS, seed))[1:-1]
    ]
    error = np.std(squares, ddof=1) / math.sqrt(len(squares))
    assert abs(np.mean(squares) - VARIANCES[scheme]) <= 4 * error + 1e-5 * VARIANCES[scheme]


def test_fan_in_and_fan_out_differ_in_the_first_layer():
    first = [weights(Side(Settings(scheme=f"Kaiming normal, fan-{f}"), MOONS, 0))[0] for f in ("in", "out")]
    torch.testing.assert_close(first[1], first[0] / 4)  # fans 2 and 32


def test_every_scheme_is_tested():
    assert {*VARIANCES, "zeros", "constant 0.1", "LSUV"} == set(live.SCHEMES)
    assert all((w == 0.1).all() for w in weights(Side(Settings(scheme="constant 0.1"), MOONS, 0)))


@pytest.mark.parametrize("scheme", live.SCHEMES)
def test_only_torchs_default_draws_biases(scheme):
    biases = [layer.bias for layer in linear_maps(Side(Settings(scheme=scheme), MOONS, 0).network)]
    if scheme.startswith("torch"):
        bounds = [1 / math.sqrt(n) for n in (2, 32, 32, 32, 32)]
        assert all(0 < b.abs().max() <= bound for b, bound in zip(biases, bounds, strict=True))
    else:
        assert not any(b.any() for b in biases)


def test_looks_linear_is_linear_and_keeps_the_signal():
    side = Side(Settings(scheme="looks-linear", depth=6), MOONS, 0)
    x, y = torch.randn(2, 50, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(
            side.network(x + 2 * y), side.network(x) + 2 * side.network(y), atol=1e-5, rtol=1e-4
        )
    assert np.ptp(side.measures().activation_rms[:-1]) < 1e-5


@pytest.mark.parametrize("change", [{"activation": "tanh"}, {"width": 5}])
def test_looks_linear_where_it_does_not_apply(change):
    side = Side(Settings(scheme="looks-linear", **change), MOONS, 0)
    assert "need ReLU and an even width" in side.problem
    assert side.measures() is None
    assert side.map(4) is None
    side.step()
    side.set_learning_rate(1.0)
    assert side.losses == []


def test_lsuv_gives_every_linear_map_outputs_of_std_1():
    side = Side(Settings(scheme="LSUV", activation="tanh"), MOONS, 0)
    h = MOONS.train_inputs
    for layer in linear_maps(side.network):
        z = layer(h)
        assert z.std(correction=0).item() == pytest.approx(1, abs=1e-3)  # LSUV's own tolerance
        h = torch.tanh(z)


def test_lsuv_that_fails_is_said_in_words():
    problems = [Side(Settings(scheme="LSUV", width=1), MOONS, seed).problem for seed in range(5)]
    assert any("its output has std 0" in problem for problem in problems)  # a ReLU that no input reaches
    assert all(problem.startswith("cannot start: ") for problem in problems if problem)


def test_any_settings_train_or_say_why():
    rng = np.random.default_rng(0)
    for _ in range(60):
        settings = Settings(
            depth=int(rng.choice([1, 2, 4, 12])),
            width=int(rng.choice([1, 2, 5, 16])),
            activation=str(rng.choice(list(live.ACTIVATIONS))),
            norm=str(rng.choice(live.NORMS)),
            residual=bool(rng.integers(2)),
            scheme=str(rng.choice(list(live.SCHEMES))),
            gain=float(rng.choice([0, 0.01, 1, 10])),
            optimizer=str(rng.choice(list(live.OPTIMIZERS))),
            learning_rate=float(10 ** rng.uniform(-4, 1)),
        )
        task = make_task(str(rng.choice(live.DATA)), 0)
        side = trained(settings, 5, task=task)
        assert len(side.losses) == 5 or side.problem, settings
        if (measures := side.measures()) is not None:
            assert len(measures.activation_rms) == settings.depth + 1
            assert side.map(3).shape == (3, 3, task.classes)


@pytest.mark.parametrize(
    "change",
    [
        {"depth": 0},
        {"width": 0},
        {"activation": "relu"},
        {"norm": "group"},
        {"scheme": "He"},
        {"optimizer": "LBFGS"},
        {"gain": -1.0},
        {"gain": math.nan},
        {"learning_rate": 0.0},
        {"learning_rate": math.inf},
    ],
)
def test_impossible_settings_are_refused(change):
    with pytest.raises(ValueError, match=f"got|{next(iter(change))}"):
        Settings(**change)


# Training


def test_a_step_is_sgd_on_the_mean_cross_entropy():
    side = Side(Settings(learning_rate=0.3), MOONS, 7)
    batch = torch.randint(400, (live.BATCH,), generator=torch.Generator().manual_seed(7))
    x, y = MOONS.train_inputs[batch], MOONS.train_labels[batch]
    parameters = list(side.network.parameters())
    loss = -torch.log_softmax(side.network(x), dim=1)[range(live.BATCH), y].mean()
    wanted = [
        p.detach() - 0.3 * g for p, g in zip(parameters, torch.autograd.grad(loss, parameters), strict=True)
    ]
    side.step()
    for parameter, value in zip(parameters, wanted, strict=True):
        torch.testing.assert_close(parameter.detach(), value)
    assert side.losses == pytest.approx([loss.item()])


def test_a_new_learning_rate_holds_from_the_next_step():
    slow, fast = trained(Settings(learning_rate=0.01), 3), trained(Settings(learning_rate=0.01), 3)
    fast.set_learning_rate(0.1)
    before = weights(slow)
    slow.step()
    fast.step()
    for old, a, b in zip(before, weights(slow), weights(fast), strict=True):
        torch.testing.assert_close(b - old, 10 * (a - old), rtol=1e-3, atol=1e-6)


def test_divergence_is_said_in_words_and_the_other_goes_on():
    pair = Pair(Settings(scheme="N(0, 1)", depth=20), Settings())
    pair.train(30)
    diverged, other = pair.sides
    assert diverged.problem.startswith(f"diverged at step {len(diverged.losses)}: ")
    assert all(map(math.isfinite, diverged.losses))
    assert len(other.losses) == pair.steps == 30
    assert not pair.finished
    assert math.isnan(diverged.measures().accuracy)


def test_training_ends_when_nobody_trains():
    pair = Pair(Settings(scheme="N(0, 1)", depth=20), Settings(scheme="looks-linear", width=5))
    pair.train(1000)
    assert pair.finished
    assert pair.steps < 30
    steps = pair.steps
    pair.train(5)
    assert pair.steps == steps


def test_a_time_budget_allows_at_least_one_step():
    pair = Pair(Settings(), Settings())
    pair.train(100, seconds=0.0)
    assert pair.steps == 1


# Tasks


@pytest.mark.parametrize("name", live.DATA)
def test_the_grid_lies_in_the_plane_row_by_row_from_the_top(name):
    task = make_task(name, 0)
    xy = task.coordinates(task.grid(4)).view(4, 4, 2) / task.extent
    centres = torch.tensor([-0.75, -0.25, 0.25, 0.75])
    torch.testing.assert_close(xy[..., 0], centres.expand(4, 4), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(xy[..., 1], -centres[:, None].expand(4, 4), rtol=1e-4, atol=1e-4)
    assert (task.coordinates(task.train_inputs).abs() < task.extent).all()


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


# The guided experiments: what each text promises, with the margins it names


def verdict(number, pair, start):
    """Return whether the experiment's text holds for `pair`, whose measures at step 0 were `start`."""
    (a, b), (a0, b0) = [side.measures() for side in pair.sides], start
    loss_a, loss_b = (np.mean(side.losses[-20:]) for side in pair.sides)
    guessing = abs(loss_a - math.log(2)) < 0.01
    if number == 1:
        still = not any(w.any() for w in weights(pair.sides[0]))
        return (
            still and guessing and a.stuck.min() == 1 and not a.gradient_rms[:-1].any() and b.accuracy >= 0.9
        )
    if number == 2:
        rows = weights(pair.sides[0])[:-1]
        equal = all(torch.allclose(w, w[:1].expand_as(w), rtol=1e-3, atol=1e-4) for w in rows)
        return equal and a.accuracy < 0.8 and b.accuracy > 0.9
    if number == 3:
        factors = a0.activation_rms[1:4] / a0.activation_rms[:3]
        shrinks = (factors > 0.02).all() and (factors < 0.08).all()
        tiny = (trained(pair.sides[0].settings, 1, pair.seed).measures().update_ratio[:-1] < 5e-6).all()
        return shrinks and tiny and guessing and a.stuck[3] > 0.9 and b.accuracy > 0.9
    if number == 4:
        return guessing and b.accuracy > 0.75
    if number in (5, 6):
        early = len(pair.sides[0].losses) < 10 and "diverged" in pair.sides[0].problem
        size = a0.activation_rms[7] > 3000 and a0.gradient_rms[0] > 1000
        normed = number == 5 or (abs(b0.activation_rms[:-1] - 0.7) < 0.1).all()
        return early and size and normed and b.accuracy > 0.9
    if number == 7:
        return abs(loss_a - math.log(10)) < 0.05 and a.accuracy < 0.2 and b.accuracy > 0.7
    if number == 8:
        return a0.gradient_rms[0] < 1e-6 and 0.1 < b0.gradient_rms[0] < 10 and guessing and b.accuracy > 0.9
    if number == 9:
        return a0.gradient_rms[0] < 0.1 * b0.gradient_rms[0] and guessing and loss_b < 0.2
    first = trained(pair.sides[1].settings, 1, pair.seed).measures().update_ratio[1:]
    dead = b.stuck.mean() > 0.4 and a.stuck.mean() < 0.25
    return dead and (abs(np.log2(first)) < 1).all() and a.accuracy > 0.9


@pytest.mark.parametrize("number", range(1, len(EXPERIMENTS) + 1))
def test_guided_experiments_come_out_as_they_say(number):
    experiment = EXPERIMENTS[number - 1]
    assert experiment.name.startswith(f"{number} ")
    for seed in range(3):
        pair = experiment.pair(seed)
        start = [side.measures() for side in pair.sides]
        pair.train(experiment.steps)
        assert verdict(number, pair, start), seed


def test_a_verdict_can_fail():
    experiment = EXPERIMENTS[6]
    pair = replace(experiment, a=experiment.b, b=experiment.a).pair()
    start = [side.measures() for side in pair.sides]
    pair.train(experiment.steps)
    assert not verdict(7, pair, start)
