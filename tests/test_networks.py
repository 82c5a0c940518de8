"""Plain networks: layout, layers, initialization as an argument."""

import re
from functools import partial

import pytest
import torch

from course_utils import activations
from course_utils.initializers import (
    constant_,
    delta_orthogonal_,
    lecun_normal_,
    normal_,
    orthogonal_,
    zeros_,
)
from course_utils.networks import DeepChain, Ensemble, PlainNetwork, convolve


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


def test_layers_are_the_outputs_of_each():
    network, x = make(), inputs(4)
    layers = list(network.layers(x))
    assert [tuple(h.shape) for h in layers] == [(4, 7), (4, 3)]
    assert torch.equal(layers[-1], network(x))


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


ACTIVATION = activations.tanh
BUILD = {  # from a weight and a bias initializer
    "plain": lambda w, b, **options: PlainNetwork([4, 4, 4], ACTIVATION, w, bias_init_=b, **options),
    "ensemble": lambda w, b, **options: Ensemble(2, [4, 4, 4], ACTIVATION, w, bias_init_=b, **options),
    "chain": lambda w, b, **options: DeepChain(
        2, (4, 4), ACTIVATION, w, bias_init_=b, readout=torch.eye(4), **options
    ),
}
half_ = partial(constant_, val=0.5)


@pytest.fixture(params=BUILD, name="build")
def _build(request):
    return BUILD[request.param]


def parameters(network):
    return [p.detach() for p in network.parameters()]


def test_one_generator_decides_weights_and_biases(build):
    first, again, other = (
        parameters(build(normal_, normal_, generator=torch.Generator().manual_seed(seed)))
        for seed in (1, 1, 2)
    )
    assert all(map(torch.equal, first, again))
    assert not any(map(torch.equal, first, other))


@pytest.mark.parametrize("side", [0, 1], ids=["weights", "biases"])
def test_initializers_with_and_without_a_generator_or_with_their_own(build, side):
    seen, own = [], torch.Generator()

    def spy_(tensor, generator):
        seen.append(generator)
        tensor.fill_(1.0)  # and returns nothing

    generator = torch.Generator()
    for init_, found in ((spy_, generator), (partial(spy_, generator=own), own)):
        seen.clear()
        build(*(init_ if i == side else half_ for i in (0, 1)), generator=generator)
        assert set(seen) == {found}
    assert not any(b.any() for b in build(half_, zeros_).biases)


@pytest.mark.parametrize("side", [0, 1], ids=["weights", "biases"])
@pytest.mark.parametrize("change", ["returns another", "leaves one", "multiplies"])
def test_an_initializer_that_does_not_fill_is_named(build, side, change):
    def faulty_(tensor):
        if change == "returns another":
            return torch.zeros_like(tensor)
        return tensor.mul_(2) if change == "multiplies" else tensor.view(-1)[1:].zero_()

    for init_ in (faulty_, partial(faulty_)):
        with pytest.raises(
            ValueError, match=r"faulty_ must fill its tensor in place.* entries unfilled, or nan"
        ):
            build(*(init_ if i == side else zeros_ for i in (0, 1)))


@pytest.mark.parametrize(
    "widths",
    [[], [8, 0], [0, 8], [8, -1, 8], [8.0, 8], [8, 4.5]],
    ids=str,
)
@pytest.mark.parametrize("build", [PlainNetwork, partial(Ensemble, 2)], ids=["plain", "ensemble"])
def test_impossible_widths(build, widths):
    with pytest.raises(ValueError, match=r"width must be an integer, .* got width=" + re.escape(str(widths))):
        build(widths, activations.relu, lecun_normal_)


def ensemble(networks=3, widths=(5, 7, 6, 4), **options):
    generator = torch.Generator().manual_seed(0)
    return Ensemble(networks, list(widths), activations.tanh, lecun_normal_, generator=generator, **options)


def test_an_ensemble_evaluates_each_network_as_if_it_were_alone():
    together, x = ensemble(bias_init_=partial(constant_, val=0.5)), inputs(9)
    logits = together(x)
    assert tuple(logits.shape) == (3, 9, 4)
    for i in range(3):
        (w1, w2, w3), (b1, b2, b3) = ([p[i] for p in ps] for ps in (together.weights, together.biases))
        h = torch.tanh(torch.tanh(x @ w1.T + b1) @ w2.T + b2)
        torch.testing.assert_close(logits[i], h @ w3.T + b3)  # no activation after the last layer


def test_an_ensembles_layers_are_the_hidden_ones_and_the_logits():
    together, x = ensemble(), inputs(9)
    layers = list(together.layers(x))
    assert [tuple(h.shape) for h in layers] == [(3, 9, 7), (3, 9, 6), (3, 9, 4)]
    assert torch.equal(layers[-1], together(x))


def test_the_activation_of_an_ensemble_sees_images_before_units():
    seen = []
    model = Ensemble(2, [3, 5, 4], lambda z: seen.append(z.shape) or z, lecun_normal_)
    model(torch.zeros(7, 3))
    assert seen == [(2, 7, 5)]  # a norm over the batch has to find it


def test_an_ensemble_fills_each_matrix_on_its_own():
    shapes = []

    def init_(weight, generator):
        shapes.append(tuple(weight.shape))
        return normal_(weight, generator=generator)

    together = Ensemble(2, [5, 7, 3], activations.relu, init_, generator=torch.Generator().manual_seed(0))
    assert shapes == [(7, 5), (7, 5), (3, 7), (3, 7)]
    assert not torch.equal(together.weights[0][0], together.weights[0][1])


def test_the_output_layer_of_an_ensemble_may_start_otherwise():
    together = ensemble(output_init_=lambda weight, generator: constant_(weight, 2.0))
    assert (together.weights[-1] == 2).all()
    assert not (together.weights[-2] == 2).any()


def test_the_output_initializer_must_fill_too():
    with pytest.raises(ValueError, match="<lambda> must fill"):
        ensemble(output_init_=lambda weight: weight + 1)


@pytest.mark.parametrize("networks", [0, -1, 2.0])
def test_an_impossible_number_of_networks(networks):
    with pytest.raises(ValueError, match=re.escape(f"an integer, 1 <= count < inf; got count={networks}")):
        ensemble(networks)


def chain(depth=3, shape=(4, 4), features=4, init_=lecun_normal_, **options):
    generator = torch.Generator().manual_seed(0)
    readout = torch.randn(2, features, generator=generator)
    options = {"bias_init_": partial(normal_, std=0.5), "generator": generator} | options
    return DeepChain(depth, shape, activations.tanh, init_, readout=readout, **options)


def batch(*shape):
    return torch.randn(5, *shape, generator=torch.Generator().manual_seed(1))


def test_a_fully_connected_chain_is_the_composition_of_its_layers():
    net, x = chain(), batch(4)
    h = x
    for weight, bias in zip(net.weights, net.biases, strict=True):
        h = torch.tanh(h @ weight.T + bias)
    torch.testing.assert_close(net(x), h @ net.readout.T)


@pytest.mark.parametrize("kernel", [(3,), (3, 5), (3, 1, 3)], ids=str)
def test_a_convolutional_chain_pads_with_zeros_and_keeps_the_size(kernel):
    size = range(4, 4 + len(kernel))
    convolution = {1: torch.nn.Conv1d, 2: torch.nn.Conv2d, 3: torch.nn.Conv3d}[len(kernel)]
    net = chain(2, (3, 3, *kernel), features=3 * torch.Size(size).numel())
    h = x = batch(3, *size)
    for weight, bias in zip(net.weights, net.biases, strict=True):
        layer = convolution(3, 3, kernel, padding=[k // 2 for k in kernel])
        layer.load_state_dict({"weight": weight, "bias": bias})
        h = torch.tanh(layer(h))
    torch.testing.assert_close(net(x), h.flatten(1) @ net.readout.T)


def test_the_layers_of_a_chain_are_all_hidden_layers():
    net, x = chain(depth=6), batch(4)
    layers = list(net.layers(x))
    assert [tuple(h.shape) for h in layers] == [(5, 4)] * 6
    assert torch.equal(net(x), layers[-1] @ net.readout.T)


def test_only_the_hidden_layers_of_a_chain_learn():
    net = chain()
    assert [(name, tuple(p.shape)) for name, p in net.named_parameters()] == [
        ("weights", (3, 4, 4)),
        ("biases", (3, 4)),
    ]
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    net(batch(4)).square().sum().backward()
    torch.optim.SGD(net.parameters(), lr=0.1).step()
    assert torch.equal(net.readout, before["readout"])
    assert not (net.weights == before["weights"]).flatten(1).all(dim=1).any()
    assert not (net.biases == before["biases"]).all(dim=1).any()


def test_each_layer_of_a_chain_is_drawn_on_its_own():
    first, second, third = chain(init_=orthogonal_).weights
    for weight in (first, second, third):
        torch.testing.assert_close(weight @ weight.T, torch.eye(4))
    assert not torch.equal(first, second)
    kernel = chain(shape=(4, 4, 3, 3), init_=delta_orthogonal_).weights[1]
    torch.testing.assert_close(kernel[:, :, 1, 1] @ kernel[:, :, 1, 1].T, torch.eye(4))


def test_a_chain_without_layers_is_its_readout():
    net, x = chain(depth=0), batch(4)
    torch.testing.assert_close(net(x), x @ net.readout.T)


def test_the_biases_of_a_chain_are_zero_unless_asked_otherwise():
    readout = torch.zeros(2, 4)
    net = DeepChain(3, (4, 4), activations.tanh, lecun_normal_, readout=readout, generator=torch.Generator())
    assert not net.biases.any()
    assert chain().biases.all()


def test_a_chain_of_thousands_of_layers_keeps_the_norm_and_the_gradient():
    net = DeepChain(
        3000,
        (4, 4, 3, 3),
        activations.linear,
        delta_orthogonal_,
        readout=torch.eye(36),
        generator=torch.Generator().manual_seed(0),
    )
    x = batch(4, 3, 3).requires_grad_()
    y = net(x)
    gradient = torch.autograd.grad(y, x, u := batch(36))[0]
    rounding = 3000 * torch.finfo(x.dtype).eps
    torch.testing.assert_close(y.norm(dim=1), x.flatten(1).norm(dim=1), rtol=rounding, atol=0)
    torch.testing.assert_close(gradient.flatten(1).norm(dim=1), u.norm(dim=1), rtol=rounding, atol=0)


@pytest.mark.parametrize(
    ("depth", "shape", "found"),
    [
        (-1, (4, 4), "depth=-1"),
        (2.0, (4, 4), "depth=2.0"),
        (3, (4.0, 4.0), "width=(4.0, 4.0)"),
        (3, (-4, -4), "width=(-4, -4)"),
        (3, (4,), "(4,)"),
        (3, (4, 5), "(4, 5)"),
        (3, (0, 0), "width=(0, 0)"),
        (3, (4, 4, 3, 0), "width=(4, 4, 3, 0)"),
        (3, (4, 4, 3, 2), "(4, 4, 3, 2)"),
        (3, (4, 4, 3, 3, 3, 3), "(4, 4, 3, 3, 3, 3)"),
    ],
)
def test_an_impossible_chain_is_refused(depth, shape, found):
    with pytest.raises(ValueError, match=re.escape(f"got {found}")):
        chain(depth, shape)


def test_networks_convolved_together_are_convolved_each_alone():
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(0))
    images, kernels = draw(5, 3, 2, 6, 7), draw(3, 4, 2, 3, 3)
    alone = [torch.conv2d(images[:, i], kernels[i], padding=1) for i in range(3)]
    assert torch.allclose(convolve(images, kernels), torch.stack(alone, dim=1), atol=1e-5)


def test_an_ensemble_of_one_layer_returns_its_logits():
    network = Ensemble(2, [3, 4], activations.relu, lecun_normal_, generator=torch.Generator().manual_seed(0))
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(network(x), x @ network.weights[0].mT)


def test_an_ensemble_needs_two_widths():
    with pytest.raises(ValueError, match="shorter"):
        Ensemble(2, [3], activations.relu, lecun_normal_, generator=torch.Generator().manual_seed(0))
