"""Plain networks: layout, layers, initialization as an argument."""

import re
from functools import partial

import pytest
import torch

from course_utils import activations
from course_utils.initializers import constant_, lecun_normal_, normal_
from course_utils.networks import PlainNetwork


def make(widths=(5, 7, 3), **options):
    generator = torch.Generator().manual_seed(0)
    return PlainNetwork(list(widths), activations.tanh, lecun_normal_, generator=generator, **options)


def inputs(batch):
    return torch.randn(batch, 5, generator=torch.Generator().manual_seed(1))


def test_weights_have_torch_layout():
    assert [tuple(w.shape) for w in make().weights] == [(7, 5), (3, 7)]


def test_forward_is_the_composition_of_linear_layers():
    network = make(bias_init_=partial(constant_, val=0.5))
    x = inputs(4)
    h = torch.tanh(x @ network.weights[0].T + 0.5)
    torch.testing.assert_close(network(x), torch.tanh(h @ network.weights[1].T + 0.5))


def test_layers_start_with_the_input_and_end_with_the_output():
    network, x = make(), inputs(4)
    layers = list(network.layers(x))
    assert layers[0] is x
    assert [tuple(h.shape) for h in layers] == [(4, 5), (4, 7), (4, 3)]
    torch.testing.assert_close(layers[-1], network(x))


def test_biases_are_zero_unless_asked_otherwise():
    assert all(not bias.any() for bias in make().biases)


def test_a_seed_decides_every_weight():
    assert all(torch.equal(a, b) for a, b in zip(make().weights, make().weights, strict=True))


def test_layers_are_drawn_independently():
    first, second = make((6, 6, 6)).weights
    assert not torch.equal(first, second)


def test_parameters_are_trainable_and_registered():
    network = make()
    network(inputs(2)).sum().backward()
    assert len(list(network.parameters())) == 4
    assert all(p.grad is not None for p in network.parameters())


def test_the_initializer_gets_the_generator():
    widths, seen = [4, 4], []

    def spy_(weight, generator):
        seen.append(generator)
        return normal_(weight, generator=generator)

    generator = torch.Generator()
    PlainNetwork(widths, activations.relu, spy_, generator=generator)
    assert seen == [generator]


@pytest.mark.parametrize("widths", [[], [8], [8, 0], [0, 8], [8, -1, 8]], ids=str)
def test_too_few_widths_or_none_positive(widths):
    with pytest.raises(
        ValueError, match=r"at least fan-in and fan-out, all positive; got " + re.escape(str(widths))
    ):
        PlainNetwork(widths, activations.relu, lecun_normal_)


def test_initializers_that_fill_in_place_and_return_nothing():
    def twos_(weight, generator):
        weight.fill_(2.0)

    def halves_(bias):
        bias.fill_(0.5)

    network = PlainNetwork([3, 2], activations.linear, twos_, bias_init_=halves_)
    assert network(torch.ones(1, 3)).tolist() == [[6.5, 6.5]]
