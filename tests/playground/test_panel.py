"""The playground's panel, used as a hand would use it, in every order; without a browser."""

import asyncio
import math
import threading
from dataclasses import fields
from functools import cache, wraps

import ipywidgets as widgets
import numpy as np
import pytest
import torch

from course_utils.playground import panel as playground
from course_utils.playground import picture
from course_utils.playground.engine import Pair, make_task
from course_utils.playground.experiments import EXPERIMENTS
from course_utils.playground.network import MENUS, Settings, build_network
from course_utils.playground.panel import FREE, Playground


@pytest.fixture(autouse=True, scope="module")
def quick():
    """Draw coarsely (test_picture.py looks at the pictures), keep all axes, and show frame after frame."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(picture, "DENSITY", 1)
        patch.setattr(picture, "picture_of", cache(picture.Picture))
        patch.setattr(playground, "FRAME", playground.TRAINING)
        yield


@pytest.fixture(autouse=True)
def nothing_trains_afterwards():
    yield
    assert Playground.active is None


def in_a_loop(test):
    """Let a coroutine function be a test, run in an event loop of its own."""

    @wraps(test)
    def run(*arguments, **fixtures):
        asyncio.run(test(*arguments, **fixtures))

    return run


def tasks():
    return len(asyncio.all_tasks()) - 1  # but for the test itself


async def frames(panel, count=2):
    """Wait until the panel has shown `count` more pictures."""
    seen = []
    panel.image.observe(seen.append, names="value")
    while len(seen) < count:
        await asyncio.sleep(0.005)
    panel.image.unobserve(seen.append, names="value")


async def idle():
    """Wait until nothing trains and no task is left."""
    while tasks() or Playground.active is not None:
        await asyncio.sleep(0.005)


def test_the_stored_output_is_stable_and_nothing_trains():
    panel = Playground()
    assert repr(panel) == "Playground: two networks, A and B, from the same seed"
    assert not panel.running
    assert panel.pair.steps == 0
    assert bytes(panel.image.value).startswith(b"\xff\xd8")


def test_every_control_has_a_label_and_a_tooltip():
    panel = Playground()
    shared = [panel.experiment, panel.data, panel.seed, panel.speed]
    buttons = [*panel.buttons.values()]
    for control in [*panel.controls[0].values(), *panel.controls[1].values(), *shared, *buttons]:
        assert control.description
        assert control.tooltip
    assert {*panel.controls[0]} == {field.name for field in fields(Settings)}


def test_the_tooltip_says_from_which_layer_on_a_network_is_residual():
    *hidden, _ = build_network(Settings(residual=True), torch.ones(1, 2), 2, 0)
    first = next(i for i, layer in enumerate(hidden, 1) if layer.residual)
    for controls in Playground().controls:
        assert controls["residual"].tooltip.endswith(f" to its output, from layer {first} on")


def test_the_tooltip_of_the_gain_says_which_std_the_weights_have():
    settings = Settings(width=64, scheme="LeCun normal", gain=3.0)
    weight = build_network(settings, torch.ones(1, 2), 2, 0).hidden_2.linear.weight
    assert weight.std().item() == pytest.approx(3 / math.sqrt(64), rel=4 / math.sqrt(2 * weight.numel()))
    for controls in Playground().controls:
        assert controls["gain"].tooltip.endswith("LeCun normal × g has std g/√n")


def test_menus_hold_every_name_and_nobody_can_type_where_typing_does_nothing():
    for controls in Playground().controls:
        for field, menu in MENUS.items():
            assert [*controls[field].options] == [*menu]
        for control in controls.values():
            slides = isinstance(control, widgets.SelectionSlider)
            assert slides == ("course-no-typing" in control.get_state()["_dom_classes"])


@in_a_loop
async def test_run_trains_until_pause_and_goes_on():
    panel = Playground()
    panel.buttons["run"].click()
    assert (panel.buttons["run"].disabled, panel.buttons["pause"].disabled) == (True, False)
    await frames(panel)
    assert panel.running
    panel.buttons["pause"].click()
    steps, shown = panel.pair.steps, bytes(panel.image.value)
    assert steps > 0
    assert (panel.buttons["run"].disabled, panel.buttons["pause"].disabled) == (False, True)
    await idle()
    assert (panel.pair.steps, bytes(panel.image.value)) == (steps, shown)
    panel.run()
    await frames(panel)
    assert panel.pair.steps > steps
    panel.pause()
    await idle()


@in_a_loop
async def test_running_twice_is_running_once():
    panel = Playground()
    for _ in range(3):
        panel.run()
    await frames(panel)
    assert tasks() == 1
    for _ in range(3):
        panel.pause()
        panel.run()
    await frames(panel)
    assert tasks() == 1
    panel.pause()
    await idle()


@in_a_loop
async def test_what_the_panel_trains_is_what_the_engine_trains():
    panel = Playground()
    panel.data.value, panel.seed.value = "circles", 5
    panel.run()
    await frames(panel, 3)
    panel.pause()
    alone = Pair(EXPERIMENTS[0].a, EXPERIMENTS[0].b, "circles", 5)
    alone.train(panel.pair.steps)
    assert [trainer.losses for trainer in panel.pair.trainers] == [
        trainer.losses for trainer in alone.trainers
    ]
    await idle()


@in_a_loop
async def test_step_pauses_and_makes_one_step():
    panel = Playground()
    panel.buttons["step"].click()
    assert panel.pair.steps == 1
    assert "(last step)" in panel.status.value
    panel.buttons["step"].click()
    assert "(last 2 steps)" in panel.status.value
    panel.run()
    await frames(panel)
    steps = panel.pair.steps
    panel.buttons["step"].click()
    assert panel.pair.steps == steps + 1
    assert not panel.running
    await idle()


def test_a_start_is_announced_before_it_is_made():
    panel, said = Playground(), []
    panel.status.observe(lambda change: said.append((change.new, panel.pair.task.classes)), names="value")
    panel.data.value = "digits"
    assert said[0] == ("Starting anew with the digits …", 2)  # it still has the moons
    assert "step 0" in said[-1][0]
    assert said[-1][1] == 10


def test_the_status_gives_the_mean_loss_of_the_last_twenty_steps():
    panel = Playground()
    panel.pair.train(30)
    panel.step()
    for trainer in panel.pair.trainers:
        assert f"step 31: loss {sum(trainer.losses[11:]) / 20:.3g} (last 20 steps)" in panel.status.value


@in_a_loop
async def test_reset_goes_back_to_step_0_with_the_present_settings():
    panel = Playground()
    panel.controls[1]["depth"].value = 2
    first = bytes(panel.image.value), panel.status.value
    panel.run()
    await frames(panel, 4)
    panel.buttons["reset"].click()
    assert not panel.running
    assert panel.pair.trainers[1].settings.depth == 2
    assert (bytes(panel.image.value), panel.status.value) == first
    await idle()
    assert panel.pair.steps == 0


@in_a_loop
async def test_a_setting_changed_while_running_starts_both_anew_and_goes_on():
    panel = Playground()
    panel.run()
    await frames(panel)
    before = panel.pair
    panel.controls[0]["activation"].value = "tanh"
    assert panel.running
    assert panel.pair is not before
    assert panel.pair.steps == 0
    assert panel.experiment.value == FREE
    await frames(panel)
    assert panel.pair.steps > 0
    assert tasks() == 1
    panel.pause()
    await idle()


def test_a_new_learning_rate_does_not_start_anew():
    panel = Playground()
    panel.step()
    before = panel.pair
    panel.controls[1]["learning_rate"].value = 0.01
    assert panel.pair is before
    assert panel.pair.steps == 1
    assert [trainer.settings.learning_rate for trainer in panel.pair.trainers] == [0.1, 0.01]


def test_an_experiment_sets_both_sides_and_the_data_and_can_be_stepped():
    panel = Playground()
    for experiment in reversed(EXPERIMENTS):  # the first is chosen to begin with
        panel.experiment.value = experiment
        assert tuple(trainer.settings for trainer in panel.pair.trainers) == (experiment.a, experiment.b)
        assert panel.pair.task is make_task(experiment.data, 0)
        for words in (experiment.question, f"by step {experiment.steps}<", experiment.expectation):
            assert words in panel.text.value
        panel.step()
        assert "did not work" not in panel.status.value
        assert panel.status.value.count("step 1:") == 2


def test_an_experiment_builds_the_networks_once(monkeypatch):
    panel, built = Playground(), []
    monkeypatch.setattr(playground, "Pair", lambda *arguments: built.append(1) or Pair(*arguments))
    panel.experiment.value = EXPERIMENTS[6]
    assert built == [1]


@in_a_loop
async def test_a_scheme_that_does_not_apply_is_said_and_the_other_trains():
    panel = Playground()
    panel.controls[0]["activation"].value = "tanh"
    panel.controls[0]["scheme"].value = "looks-linear"
    assert "looks-linear weights need ReLU" in panel.status.value
    panel.run()
    await frames(panel)
    assert panel.pair.trainers[1].losses
    panel.pause()
    await idle()


@in_a_loop
async def test_divergence_is_said_and_training_ends_when_both_have():
    panel = Playground()
    panel.experiment.value = EXPERIMENTS[4]
    panel.controls[1]["scheme"].value = "N(0, 1)"
    panel.run()
    await idle()
    assert panel.status.value.count("diverged at step") == 2
    assert not panel.running
    assert not panel.buttons["run"].disabled


@in_a_loop
async def test_an_exception_is_shown_and_pauses(monkeypatch):
    panel = Playground()
    panel.run()
    await frames(panel)
    monkeypatch.setattr(Pair, "train", lambda *_: 1 / 0)
    await idle()
    assert "ZeroDivisionError: division by zero" in panel.status.value
    assert not panel.running
    monkeypatch.undo()
    panel.run()
    await frames(panel)
    panel.pause()
    await idle()


@in_a_loop
async def test_it_pauses_by_itself_after_many_steps(monkeypatch):
    monkeypatch.setattr(playground, "MOST_STEPS", 10)
    monkeypatch.setattr(playground, "TRAINING", 0)  # one step a frame
    panel = Playground()
    panel.speed.value = 100  # what counts is the steps made, not those asked for
    for steps in (10, 20):  # counted from where it goes on
        panel.run()
        await idle()
        assert panel.pair.steps == steps
        assert not panel.running


@in_a_loop
async def test_after_a_pause_a_and_b_are_seen_at_the_same_step(monkeypatch):
    monkeypatch.setattr(playground, "MOST_STEPS", 10)
    panel = Playground()
    panel.experiment.value = EXPERIMENTS[2]
    for field, control in panel.controls[0].items():
        control.value = panel.controls[1][field].value
    for end in (panel.pause, lambda: None):  # by a hand, by itself
        panel.run()
        await frames(panel, 1)
        end()
        await idle()
        a, b = panel.snapshots
        assert panel.pair.steps > 0
        np.testing.assert_array_equal(np.asarray(a.map), np.asarray(b.map))
        np.testing.assert_array_equal(a.measures.update_ratio, b.measures.update_ratio)


@in_a_loop
async def test_while_training_a_and_b_are_looked_at_in_turn(monkeypatch):
    panel, seen = Playground(), []
    look = playground.take_snapshot
    monkeypatch.setattr(playground, "take_snapshot", lambda trainer: seen.append(trainer) or look(trainer))
    panel.run()
    await frames(panel, 5)
    panel.pause()
    looked = [panel.pair.trainers.index(trainer) for trainer in seen[:5]]
    assert looked in ([0, 1, 0, 1, 0], [1, 0, 1, 0, 1])


@in_a_loop
async def test_of_two_playgrounds_only_the_last_to_run_trains():
    first, second = Playground(), Playground()
    first.run()
    await frames(first)
    second.run()
    assert (first.running, second.running) == (False, True)
    await frames(second)
    assert tasks() == 1
    first.pause()
    assert second.running
    second.pause()
    await idle()


@in_a_loop
async def test_running_the_cell_again_pauses_the_old_one():
    old = Playground()
    old.run()
    await frames(old)
    new = Playground()
    assert not old.running
    new.run()
    await frames(new)
    new.pause()
    await idle()


def test_an_event_loop_that_ends_leaves_a_panel_that_can_run_in_another():
    panel = []

    async def first():
        panel.append(Playground())
        panel[0].run()
        await frames(panel[0])

    asyncio.run(first())
    assert not panel[0].running

    async def second():
        panel[0].run()
        await frames(panel[0])
        panel[0].pause()
        await idle()

    asyncio.run(second())


def test_run_without_an_event_loop_is_said():
    panel = Playground()
    panel.buttons["run"].click()
    assert "Run needs an event loop" in panel.status.value
    assert not panel.running


@in_a_loop
async def test_clicks_may_come_from_another_thread():
    panel = Playground()

    def clicks():
        for _ in range(5):
            panel.buttons["run"].click()
            panel.controls[0]["gain"].value = 1.5
            panel.buttons["pause"].click()
            panel.controls[0]["gain"].value = 1.0
            panel.buttons["run"].click()

    thread = threading.Thread(target=clicks)
    thread.start()
    while thread.is_alive():
        await asyncio.sleep(0.005)
    await frames(panel)
    assert panel.running
    assert tasks() == 1
    assert "did not work" not in panel.status.value
    panel.pause()
    await idle()


def random_value(control, rng):
    if isinstance(control, widgets.Dropdown | widgets.SelectionSlider):
        options = [option[1] if isinstance(option, tuple) else option for option in control.options]
        return options[rng.integers(len(options))]
    if isinstance(control, widgets.FloatLogSlider):
        return control.base ** rng.uniform(control.min, control.max)
    return int(rng.integers(control.min, control.max + 1))


@in_a_loop
async def test_any_order_of_clicks_leaves_at_most_one_task():
    rng = np.random.default_rng(0)
    panel = Playground()
    buttons = [*panel.buttons.values()]
    shared = [panel.experiment, panel.data, panel.seed, panel.speed]
    controls = [*shared, *panel.controls[0].values(), *panel.controls[1].values()]
    for _ in range(40):
        if rng.random() < 0.6:
            buttons[rng.integers(4)].click()
        else:
            control = controls[rng.integers(len(controls))]
            control.value = random_value(control, rng)
        assert "did not work" not in panel.status.value
        if rng.random() < 0.3:
            await asyncio.sleep(rng.uniform(0, 0.05))
        assert [panel.settings(i) for i in range(2)] == [t.settings for t in panel.pair.trainers]
    panel.run()
    await asyncio.sleep(0.05)
    assert tasks() <= 1
    panel.pause()
    await idle()
