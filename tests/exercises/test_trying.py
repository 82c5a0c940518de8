"""What a learner's function does to tensors and models: drawn by the law, each for itself, in place."""

import math

import pytest
import torch

from course_utils.exercises.running import Unreadable
from course_utils.exercises.trying import check_law, filled, in_place


def refill(tensor, generator):
    tensor.normal_(generator=generator)


SIZES = torch.randn(40, 30, generator=torch.Generator().manual_seed(5))
FAULTY = {  # a filler, and what is said of it
    "own seed": (lambda t, g: refill(t, g.manual_seed(3)), "a later state"),
    "the same seed": (lambda t, g: refill(t, g.manual_seed(g.initial_seed())), "a later state"),
    "a copy": (lambda t, g: refill(t, g.clone_state()), "has not moved on"),
    "no generator": (lambda t, g: refill(t, None), "two generators of one seed"),
    "returned": (lambda t, g: torch.randn(t.shape, generator=g), "not filled in place"),
    "infinite": (lambda t, g: t.fill_(math.inf), "not finite"),
    "constant": (lambda t, g: t.fill_(2.0), "all weights are 2"),
    "rows of its own": (
        lambda t, g: (refill(t, g), refill(t[:9], torch.Generator().manual_seed(3))),
        "a part",
    ),
    "signs only": (
        lambda t, g: t.copy_((torch.rand(t.shape, generator=g) - 0.5).sign() * SIZES[: len(t)]),
        "a part",
    ),
    "permuted": (
        lambda t, g: t.copy_(SIZES.flatten()[torch.randperm(1200, generator=g)].view(t.shape)),
        "a part",
    ),
}


@pytest.mark.parametrize("name", FAULTY)
def test_a_tensor_is_filled_in_place_from_the_generator(name):
    fill, words = FAULTY[name]
    assert filled(refill, 40, 30).std().item() == pytest.approx(1, abs=0.1)
    with pytest.raises(Unreadable, match=words):
        filled(fill, 40, 30)


def draw(rows=150, columns=200, seed=1):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def uniform(rows=150, columns=200, seed=1):
    return torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) - 0.5


def two_narrow_normals(kurtosis):
    """Return weights from N(a, b²) and N(-a, b²), a² + b² = 1, with the kurtosis 3 - 2 a⁴."""
    squared = math.sqrt((3 - kurtosis) / 2)
    return draw(seed=2).sign() * math.sqrt(squared) + draw() * math.sqrt(1 - squared)


def with_row(change):
    """Return weights whose second row is change(first, second)."""
    w = draw()
    w[1] = change(w[0], w[1])
    return w


NOT_NORMAL = {
    "uniform": (lambda: uniform(), "another law"),
    "signs": (lambda: draw().sign(), "copies"),
    "positive": (lambda: draw().abs(), "not 0, but 0.8"),
    "rank one": (lambda: draw(150, 1) @ draw(1, 200), "two rows"),
    "Laplace": (lambda: draw().sign() * (2 * uniform().abs()).log(), "another law"),
    "cut off at two": (lambda: draw().clamp(-2, 2), "copies"),
    "shifted": (lambda: draw() + 0.2, "not 0, but 0.2"),
    "a few zeros": (lambda: draw() * (uniform(seed=3) > -0.49), "copies"),
    "rounded": (lambda: (4 * draw()).round() / 4, "copies"),
    "half turned round": (lambda: torch.cat([draw(75), -draw(75)]), "two rows"),
    "half permuted": (lambda: torch.cat([draw(75), draw(75).flip(1)]), "copies"),
    "half copied": (lambda: torch.cat([draw(75), draw(75)]), "two rows"),
    "one row for all": (lambda: draw(1, 200).expand(150, -1), "two rows"),
    "a row, scaled": (lambda: with_row(lambda first, second: -3 * first), "two rows"),
    "a row, with noise": (lambda: with_row(lambda first, second: first + 0.5 * second), "two rows"),
    "a column": (lambda: with_row(lambda first, second: first + 0.5 * second).T, "two columns"),
    "sorted": (lambda: draw().flatten().sort().values.view(150, 200), "two rows"),
    "neighbours": (lambda: draw() + 0.1 * draw().roll(1, 1), "neighbouring"),
    "low rank": (lambda: draw(150, 5) @ draw(5, 200), "two rows"),
    "orthogonal": (lambda: torch.linalg.qr(draw(200, 150))[0].T, "mean squares of its rows"),
    "standardized rows": (lambda: torch.nn.functional.normalize(draw()), "mean squares of its rows"),
    "centred columns": (lambda: draw() - draw().mean(dim=0), "sums of its columns"),
    "one part larger": (lambda: draw() * torch.linspace(0.8, 1.2, 200), "mean squares of its columns"),
}


@pytest.mark.parametrize("name", NOT_NORMAL)
def test_a_law_is_more_than_its_variance(name):
    wrong, words = NOT_NORMAL[name]
    with pytest.raises(Unreadable, match=words):
        check_law([wrong()])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (draw, "another law"),
        (lambda: two_narrow_normals(1.8), "histogram"),
        (lambda: uniform().sign(), "copies"),
    ],
)
def test_a_uniform_law_is_more_than_its_moments(wrong, words):
    with pytest.raises(Unreadable, match=words):
        check_law([wrong()], kurtosis=1.8)


@pytest.mark.parametrize("change", [lambda w: 3 * w, lambda w: w + 0.3 * draw(seed=3), lambda w: -w.flip(0)])
def test_layers_are_no_copies_of_each_other(change):
    with pytest.raises(Unreadable, match=r"two of the weights|copies"):
        check_law([draw(), change(draw())])


def test_many_normal_weights_have_large_ones_among_them():
    weights = [draw(60, 50, seed) for seed in range(20)]
    check_law(weights)
    with pytest.raises(Unreadable, match="cut off at 3"):
        check_law([torch.where(w.abs() < 3, w, w / 3) for w in weights])


@pytest.mark.parametrize("shape", [(150, 400), (64, 16, 3, 5), (128, 64, 2, 2), (10, 120), (200, 30)])
def test_what_is_drawn_as_asked_is_never_refused(shape):
    generator = torch.Generator().manual_seed(7)
    for _ in range(60):
        check_law([torch.randn(shape, generator=generator) * scale for scale in (0.1, 3)])
        check_law([torch.rand(shape, generator=generator) - 0.5 for _ in range(2)], kurtosis=1.8)


def test_weights_that_are_put_in_place_of_others_are_noticed():
    def put(model, value):
        model.weight = torch.nn.Parameter(torch.full((2, 3), value))

    model = torch.nn.Linear(3, 2)
    assert in_place(lambda m, value: m.weight.data.fill_(value), model, 5.0) is model
    assert model.weight.unique().tolist() == [5.0]
    with pytest.raises(Unreadable, match="replaced"):
        in_place(put, model, 5.0)
    for nothing in (lambda m: torch.nn.Linear(3, 2), lambda m: m.weight.data.fill_(5.0)):
        with pytest.raises(Unreadable, match="no parameter has changed"):
            in_place(nothing, model)
