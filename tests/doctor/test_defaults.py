"""Which parameters pass for torch's own draw: how they are described, and where each limit lies."""

import math

import pytest
import torch

from course_utils.doctor.defaults import described, fresh_parameters, same_law


def uniform(*shape, seed=0, bound=1.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.empty(shape, dtype=torch.float64).uniform_(-bound, bound, generator=generator)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_law_in_words():
    assert described(torch.empty(0)) == "empty"
    assert described(torch.full((2, 2), 0.5)) == "all 0.5"
    assert described(torch.tensor([1.0, 1.0, -3.0, 5.0])) == "mean 1, std 2.8, largest 5"


@pytest.mark.parametrize(("count", "draws"), [(31, 16), (32, 1)])
def test_of_few_numbers_many_are_drawn(count, draws):
    fresh = fresh_parameters(torch.nn.Linear(40, count))
    assert fresh["weight"].shape == (draws, count, 40)
    assert fresh["bias"].shape == (draws, count)
    assert fresh["weight"].abs().max() <= 1 / math.sqrt(40)
    if draws > 1:
        assert not fresh["bias"][0].equal(fresh["bias"][1])


def test_drawing_again_leaves_the_module_and_torchs_state_alone():
    layer, state = torch.nn.Linear(3, 3), torch.get_rng_state()
    before = layer.weight.detach().clone()
    again = [fresh_parameters(layer)["weight"] for _ in range(2)]
    assert again[0].equal(again[1])
    assert layer.weight.equal(before)
    assert torch.get_rng_state().equal(state)
    assert fresh_parameters(torch.nn.ReLU()) == fresh_parameters(torch.nn.Sequential(layer)) == {}


def test_constants_are_of_one_law_if_they_are_equal():
    assert same_law(torch.ones(5), torch.ones(1, 5))
    assert not same_law(torch.ones(5), torch.zeros(1, 5))
    assert not same_law(torch.tensor([1.0, 1.0, 2.0]), torch.ones(1, 3))
    assert not same_law(torch.ones(40), uniform(1, 40))
    assert not same_law(uniform(40), torch.ones(1, 40))
    assert same_law(torch.tensor([0.3]), uniform(16, 1))  # of one number nothing is known
    assert same_law(torch.empty(0), torch.empty(1, 0))


LAWS = {"uniform": uniform, "normal": normal}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("count", [10, 100, 5000])
def test_draws_of_one_law_pass(law, count):
    fresh = LAWS[law](16 if count < 32 else 1, count, seed=1)
    passed = [same_law(LAWS[law](count, seed=seed), fresh) for seed in range(2, 42)]
    assert sum(passed) >= 39


def test_another_size_mean_or_law_does_not_pass():
    fresh, x = normal(1, 5000, seed=1), normal(5000, seed=2)
    error = math.sqrt(2 / 5000)  # of the difference of two means, and of two logarithms of a size at most
    x = (x - x.mean() + fresh.mean()) * fresh.std() / x.std()
    assert same_law(x, fresh)
    for shift, passes in ((3.9, True), (4.1, False), (-3.9, True), (-4.1, False)):
        assert same_law(x + shift * error * fresh.square().mean().sqrt(), fresh) is passes, shift
    for factor, passes in ((3.9, True), (4.1, False), (-3.9, True), (-4.1, False)):
        assert same_law(x * math.exp(factor * error), fresh) is passes, factor
    assert not same_law(uniform(5000, bound=math.sqrt(3)), fresh)
    assert not same_law(x, uniform(1, 5000, bound=math.sqrt(3)))
    assert not same_law(x.sign() + 1e-3 * x, fresh)


def test_uniform_numbers_go_up_to_their_bound():
    fresh = uniform(1, 5000, seed=1)
    fresh /= fresh.abs().max()
    x = uniform(5000, seed=2)
    x /= x.abs().max()
    for largest, passes in ((1.0039, True), (1.0041, False), (0.9961, True), (0.9959, False)):
        changed = x.clone().clamp(-0.995, 0.995)
        changed[0] = largest
        assert same_law(changed, fresh) is passes, largest


def test_filters_set_by_hand_do_not_pass():
    fresh, x = normal(1, 1000, seed=1), normal(1000, seed=2)
    for zeros, passes in ((90, True), (110, False)):
        assert same_law(torch.where(torch.arange(1000) < zeros, 0.0, x * 1.05), fresh) is passes
        twice = torch.cat([x[: 1000 - zeros], x[:zeros]])
        assert same_law(twice, fresh) is passes


@pytest.mark.parametrize("factor", [1e-320, 1e-100, 1e100, 1e300, math.inf, math.nan])
@pytest.mark.parametrize("count", [1, 500])
def test_what_is_far_off_does_not_pass(factor, count):
    x = normal(count, seed=2)
    assert not same_law(x * factor, normal(16, count, seed=1))
    assert not same_law(torch.zeros(count), normal(16, count, seed=1))
