"""Sums, means and maxima over many positions: the layer in front of them gets the gain that they call for."""

import pytest
import torch
from doctor_networks import defaults
from initialize_networks import batch, seeded, tokens
from torch import nn
from torch.nn import functional as F

from course_utils.doctor import diagnose, initialize_

LABELS = torch.arange(64) % 5


class Pooled(nn.Module):
    """Layers on each position, a function of all positions, and layers on what it returns."""

    def __init__(self, first, function):
        super().__init__()
        self.first, self.function = first, function
        self.second = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5))

    def arriving(self, x):
        return self.function(self.first(x))

    def forward(self, x):
        return self.second(self.arriving(x))


def on_each(function):
    return Pooled(nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()), function)


def on_images(function):
    pool = nn.AvgPool2d(2) if function == "mean" else nn.MaxPool2d(2)
    layers = [
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        pool,
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        pool,
    ]
    return Pooled(nn.Sequential(*layers), lambda z: z.flatten(1))


SET, IMAGE = batch(64, 30, 8), batch(64, 3, 8, 8)
POOLS = {
    "sum": (on_each(lambda z: z.sum(1)), SET),
    "sum of 300": (on_each(lambda z: z.sum(1)), batch(64, 300, 8)),
    "mean": (on_each(lambda z: z.mean(1)), SET),
    "maximum": (on_each(lambda z: z.amax(1)), SET),
    "largest of three": (on_each(lambda z: z.topk(3, 1).values[:, 1]), SET),
    "scatter": (on_each(lambda z: z.new_zeros(64, 64).index_add(0, torch.arange(64), z.sum(1))), SET),
    "means of images": (on_images("mean"), IMAGE),
    "maxima of images": (on_images("maximum"), IMAGE),
}


@pytest.mark.parametrize(("model", "x"), POOLS.values(), ids=POOLS)
def test_what_arrives_behind_a_pool_has_the_wanted_size(model, x):
    table = initialize_(defaults(model), x, generator=seeded()).table.set_index("parameter")
    last = [name for name in table.index if name.startswith("first") and name.endswith("weight")][-1]
    assert table.follows[last] == "pooled"
    with torch.no_grad():
        assert 1 / 3 < model.arriving(x).square().mean() < 3
    diagnosis = diagnose(model, x, LABELS)
    assert diagnosis.healthy, diagnosis.verdict
    model.get_parameter(last).data.mul_(30)
    assert last.removesuffix(".weight") in [
        f.layer for f in diagnose(model, x, LABELS).findings if f.is_fault
    ]


def test_a_sum_over_neighbours_that_joins_what_is_there():
    """Messages between all pairs, their sum beside the state, and a step: three times, in a stream."""

    def mlp(n):
        return nn.Sequential(nn.Linear(n, 32), nn.SiLU(), nn.Linear(32, 32), nn.SiLU())

    class Neighbours(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(8, 32), nn.Linear(32, 5)
            self.message, self.step = (nn.ModuleList(mlp(64) for _ in range(3)) for _ in range(2))
            for step in self.step:
                del step[3]

        def forward(self, x):
            h, n, self.sizes = self.first(x), x.shape[1], []
            for message, step in zip(self.message, self.step, strict=True):
                pairs = torch.cat([h[:, :, None].expand(-1, n, n, -1), h[:, None].expand(-1, n, n, -1)], -1)
                total = message(pairs).sum(2)
                self.sizes.append(total.square().mean().item())
                h = h + step(torch.cat([h, total], -1))
            return self.last(h.mean(1))

    model = defaults(Neighbours())
    table = initialize_(model, SET, generator=seeded()).table.set_index("parameter")
    assert [table.follows[f"message.{k}.2.weight"] for k in range(3)] == ["pooled"] * 3
    model(SET)
    assert all(1 / 3 < size < 9 for size in model.sizes)  # the stream has grown by then
    diagnosis = diagnose(model, SET, LABELS)
    assert diagnosis.healthy, diagnosis.verdict


def test_two_pools_of_one_layer_beside_another_are_measured_together():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.beside = nn.Sequential(nn.Linear(8, 64), nn.ReLU()), nn.Linear(8, 64)
            self.last = nn.Linear(192, 5)

        def pools(self, x):
            z = self.first(x)
            return torch.cat([z.mean(1), z.amax(1)], 1)

        def forward(self, x):
            z = self.first(x)
            return self.last(torch.cat([z.mean(1), z.amax(1), self.beside(x[:, 0])], 1))

    model = defaults(Both())
    initialize_(model, SET, generator=seeded())
    assert model.pools(SET).square().mean().item() == pytest.approx(1, rel=0.25)


@pytest.mark.parametrize("pool", ["sum", "mean"])
def test_of_a_layer_that_feeds_more_than_a_pool_only_a_large_pool_counts(pool):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Sequential(nn.Linear(8, 64), nn.ReLU()), nn.Linear(64, 5)
            self.each = nn.Linear(64, 5)

        def forward(self, x):
            z = self.first(x)
            self.size = getattr(z, pool)(1).square().mean().item()
            return self.second(getattr(z, pool)(1)) + self.each(z).mean(1)

    model = defaults(Two())
    table = initialize_(model, SET, generator=seeded()).table
    assert table.follows[0] == ("pooled" if pool == "sum" else "relu")
    model(SET)
    assert 0.3 < model.size < 1.5


def test_a_single_position_is_no_pool():
    table = initialize_(defaults(on_each(lambda z: z[:, 0])), SET).table
    assert table.follows[table.parameter == "first.2.weight"].tolist() == ["relu"]


def test_neighbours_that_are_alike_do_not_drive_a_bounded_function_to_its_bounds():
    class Differences(nn.Module):
        """What each has less than the largest, of a set, three times."""

        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(n, 64) for n in (8, 64, 64))
            self.last = nn.Linear(64, 5)

        def forward(self, x):
            for layer in self.layers:
                x = torch.tanh(layer(x - x.amax(1, keepdim=True)))
            return self.last(x.mean(1))

    model = defaults(Differences())
    assert initialize_(model, SET, generator=seeded()).table.gain.max() == 1
    assert diagnose(model, SET, LABELS).healthy


def test_attention_of_one_matrix_is_no_pool():
    def attend(z):
        return F.scaled_dot_product_attention(*z.chunk(3, -1)).mean(1)

    table = initialize_(defaults(Pooled(nn.Linear(8, 3 * 64), attend)), SET).table
    assert table.gain[0] == 1


@pytest.mark.parametrize(("function", "gain"), [("sum", 40**-0.5), ("mean", 1)])
def test_rows_that_are_added_up_are_drawn_smaller_but_never_larger(function, gain):
    model, words = Pooled(nn.Embedding(50, 64), lambda z: getattr(z, function)(1)), tokens(64, 40)
    table = initialize_(defaults(model), words, generator=seeded()).table
    # Words come twice by chance: 40 of 50 have a second moment of 40 (1 + 39 / 50).
    expected = gain / (1 + 39 / 50) ** 0.5 if gain < 1 else 1
    assert table["std"][0] == pytest.approx(expected, rel=0.1)
