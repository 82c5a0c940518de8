"""The first step's laws against torch's own steps, and planted mistakes that those would show."""

import math

import numpy as np
import pytest
import torch

from course_utils import width_laws
from course_utils.comparison import compare, mean_of, refute

N, NETWORKS = 256, 24


def stepped(rates, output_std, optimizer):
    """Return x, errors, and the RMS changes of h_1, h_2 and logits in one tiny step, by autograd."""
    draw = torch.Generator().manual_seed(3)

    def normal(*shape):
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    x = normal(20, 1)
    weights = [normal(NETWORKS, N, 20) * math.sqrt(2 / 20), normal(NETWORKS, N, N) * math.sqrt(2 / N)]
    weights.append(normal(NETWORKS, 5, N) * output_std)
    weights = [w.requires_grad_() for w in weights]

    def layers(W1, W2, W3):
        h = torch.relu(W1 @ x)
        return h, torch.relu(W2 @ h), W3 @ torch.relu(W2 @ h)

    before = layers(*weights)
    error = before[2].detach().softmax(dim=1) - torch.eye(5, dtype=torch.float64)[:, :1]
    gradients = torch.autograd.grad((before[2] * error).sum(), weights)
    steps = [g.sign() if optimizer == "Adam" else g for g in gradients]
    after = layers(*[w - 1e-8 * r * s for w, r, s in zip(weights, rates, steps, strict=True)])
    moved = [(a - b).square().mean(dim=(1, 2)).sqrt() / 1e-8 for a, b in zip(after, before, strict=True)]
    return x[:, 0].numpy(), error[..., 0].numpy(), torch.stack(moved).detach().numpy()


@pytest.mark.parametrize("optimizer", ["Adam", "SGD"])
@pytest.mark.parametrize("without", [(), ("hidden rate",), width_laws.RULES])
def test_one_step_moves_the_layers_as_far_as_the_law_says(optimizer, without):
    rates, output_std = width_laws.mup(N, 64, optimizer, without)
    x, error, moved = stepped(rates, output_std, optimizer)
    law = width_laws.first_step_law(N, rates, output_std, x, error, optimizer)
    names = ("h_1", "h_2", "logits")
    compare(*[(name, 1.0, mean_of(row)) for name, row in zip(names, moved / law, strict=True)])
    wrong = width_laws.first_step_law(N, 1.25 * rates, output_std, x, error, optimizer)
    refute(*[(name, 1.0, mean_of(row)) for name, row in zip(names, moved / wrong, strict=True)])


@pytest.mark.parametrize("optimizer", ["Adam", "SGD"])
@pytest.mark.parametrize("rates", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0.1, 0)])
def test_each_matrix_alone_and_two_together_move_what_the_law_says(optimizer, rates):
    """So that no term hides behind a larger one."""
    x, error, moved = stepped(rates, 1 / math.sqrt(N), optimizer)
    law = width_laws.first_step_law(N, rates, 1 / math.sqrt(N), x, error, optimizer)
    moves = law[:, 0] > 0
    assert (moved[~moves] == 0).all()
    shares = moved[moves] / law[moves]
    compare(*[("a move", 1.0, mean_of(row)) for row in shares])
    refute(*[("a move", 1.0, mean_of(row / 1.25)) for row in shares])


@pytest.mark.parametrize(
    ("optimizer", "without", "powers"),
    [
        ("Adam", (), (0, 0, 0)),
        ("Adam", ("hidden rate",), (0, 1, 1)),
        ("Adam", ("output rate",), (0, 0, 1)),
        ("Adam", ("output std",), (0, 0, 0.5)),
        ("Adam", width_laws.RULES, (0, 1, 1.5)),
        ("SGD", (), (0, 0, 0)),
        ("SGD", width_laws.RULES, (-0.5, 0.5, 1)),
    ],
)
def test_powers_of_the_width(optimizer, without, powers):
    laws = []
    for n in (2**26, 2**28):
        rates, std = width_laws.mup(n, 16, optimizer, without)
        laws.append(width_laws.first_step_law(n, rates, std, np.ones(8), [0.5, -0.5], optimizer)[:, 0])
    np.testing.assert_allclose(np.log2(laws[1] / laws[0]) / 2, powers, atol=0.002)


def test_at_the_base_width_all_is_standard():
    for optimizer in ("Adam", "SGD"):
        rates, std = width_laws.mup(64, 64, optimizer)
        np.testing.assert_allclose([*rates, std], [1, 1, 1, 1 / 8])


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="input rate"):
        width_laws.mup(64, 64, without=("bias rate",))
    with pytest.raises(ValueError, match="Adam"):
        width_laws.mup(64, 64, "Muon")
    with pytest.raises(ValueError, match="SGD"):
        width_laws.first_step_law(64, [1, 1, 1], 0.1, [1.0], [0.5, -0.5], "Muon")
