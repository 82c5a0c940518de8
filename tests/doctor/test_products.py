"""Products of what several layers return: weights that a layer makes, dot products, linear attention."""

import math

import pytest
import torch
from initialize_networks import batch, seeded
from torch import nn
from torch.nn import functional as F

from course_utils.doctor import initialize_

WIDTH = 48


class Returned(nn.Module):
    """Layers return the weights of two others, one matrix for all examples."""

    def __init__(self):
        super().__init__()
        self.task = nn.Parameter(batch(1, 16))
        self.trunk, self.head = nn.Linear(16, 32), nn.Linear(32, 5 * WIDTH)
        self.body = nn.Linear(32, WIDTH * WIDTH)

    def forward(self, x):
        z = torch.relu(self.trunk(self.task))
        hidden = torch.relu(F.linear(x, self.body(z).view(WIDTH, WIDTH)))
        return F.linear(hidden, self.head(z).view(5, WIDTH))


class PerExample(nn.Module):
    """A layer returns the weights between two others, a matrix for each example."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 5)
        self.made = nn.Sequential(nn.Linear(WIDTH, 32), nn.ReLU(), nn.Linear(32, WIDTH * WIDTH))

    def forward(self, x):
        weights = self.made(x.flip(-1)).view(-1, WIDTH, WIDTH)
        return self.last(torch.relu(torch.einsum("boi,bi->bo", weights, torch.relu(self.first(x)))))


class DotProduct(nn.Module):
    def __init__(self, first, second=None):
        super().__init__()
        self.first, self.second = first, second or first

    def forward(self, x):
        return (self.first(x) * self.second(x.flip(0))).sum(-1)


class Attention(nn.Module):
    def __init__(self, weigh):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.weigh = weigh

    def forward(self, x):
        x = x.view(-1, 8, WIDTH)
        return self.out(self.weigh(self.q(x) @ self.k(x).mT) @ self.v(x))


class Messages(nn.Module):
    """Sums over neighbours of products of two layers, with an activation behind, as in SchNet."""

    def __init__(self, steps=3):
        super().__init__()
        self.nodes, self.edges, self.out = (nn.ModuleList(layer() for _ in range(steps)) for _ in range(3))

    def forward(self, x):
        edges = batch(8 * len(x), WIDTH)
        for node, edge, out in zip(self.nodes, self.edges, self.out, strict=True):
            messages = node(x).repeat(8, 1) * edge(edges)
            x = x + out(F.silu(messages.view(8, *x.shape).sum(0)))
        return x


class Similarity(DotProduct):
    def forward(self, x):
        return 10 * F.normalize(self.first(x), dim=-1) @ F.normalize(self.second(x), dim=-1).T


def layer():
    return nn.Linear(WIDTH, WIDTH)


PRODUCTS = {
    "weights that are returned": Returned,
    "a matrix for each example": PerExample,
    "two towers": lambda: DotProduct(layer(), layer()),
    "one tower, twice": lambda: DotProduct(layer()),
    "sums over neighbours": Messages,
    "attention without a softmax": lambda: Attention(nn.Identity()),
}
OTHERS = {
    "attention": lambda: Attention(lambda scores: (scores / math.sqrt(WIDTH)).softmax(-1)),
    "similarity": lambda: Similarity(layer(), layer()),
}


@pytest.mark.parametrize("make", PRODUCTS.values(), ids=PRODUCTS)
def test_a_product_starts_at_size_one(make):
    sizes = []
    for seed in range(8):
        model = make()
        report = initialize_(model, batch(128, WIDTH), overwrite=True, generator=seeded(seed))
        assert "measured" in report.table["follows"].tolist()
        sizes.append(model(batch(128, WIDTH)).square().mean().item())
    assert 1 / 3 < math.exp(sum(map(math.log, sizes)) / 8) < 3, sizes


def test_embeddings_that_are_multiplied_are_smaller():
    class Factors(nn.Module):
        def __init__(self):
            super().__init__()
            self.user, self.item = nn.Embedding(50, WIDTH), nn.Embedding(70, WIDTH)

        def forward(self, i):
            return (self.user(i) * self.item(i)).sum(-1)

    model = Factors()
    report = initialize_(model, torch.arange(50), overwrite=True, generator=seeded()).table
    assert report["std"].tolist() == pytest.approx([WIDTH**-0.25] * 2, rel=0.1)
    assert 0.5 < model(torch.arange(50)).square().mean() < 2


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_what_a_softmax_or_a_norm_bounds_keeps_its_gain(make):
    table = initialize_(make(), batch(128, WIDTH), overwrite=True).table
    assert "measured" not in table["follows"].tolist()
    assert table["gain"].dropna().eq(1).all()


def test_only_the_widest_factor_is_made_smaller():
    table = initialize_(PerExample(), batch(128, WIDTH), overwrite=True).table.set_index("parameter")
    assert table["gain"]["first.weight"] == pytest.approx(math.sqrt(2))
    # Of a sum of WIDTH products, behind a ReLU, half arrives.
    assert table["gain"]["made.2.weight"] == pytest.approx(math.sqrt(2 / WIDTH), rel=0.05)


def test_a_factor_whose_weights_serve_elsewhere_keeps_its_gain():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.out = layer(), layer(), nn.Linear(WIDTH, 1)

        def forward(self, x):
            return self.out(self.first(x)) + (self.first(x.flip(0)) * self.second(x)).sum(-1, keepdim=True)

    table = initialize_(Shared(), batch(128, WIDTH), overwrite=True).table.set_index("parameter")
    assert table["gain"]["first.weight"] == 1


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_weights_and_biases_that_are_returned_start_at_size_one(depth):
    class Made(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(WIDTH, WIDTH)
            self.weights = nn.ModuleList(nn.Linear(WIDTH, WIDTH**2) for _ in range(depth))
            self.biases = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(depth))

        def forward(self, x):
            h, y = torch.relu(self.first(x)), x
            for k, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
                made = weight(h).unflatten(1, (WIDTH, WIDTH))
                y = torch.bmm(made, (y if k == 0 else torch.relu(y))[:, :, None])[:, :, 0] + bias(h)
            return y

    model, x = Made(), batch(256, WIDTH)
    initialize_(model, x, overwrite=True, generator=seeded())
    with torch.no_grad():
        assert 1 / 4 < model(x).square().mean() < 4
