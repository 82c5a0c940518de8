"""What somebody set on purpose stays, and is listed with its law; what torch drew is drawn anew."""

import math

import pytest
import torch
from initialize_networks import batch, left_alone, seeded
from torch import nn

from course_utils.doctor import initialize_


def mlp():
    return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5))


def drawn(build, seed=1):
    """Return a model as torch draws it, the same one for each seed."""
    model = build()
    generator = seeded(seed)
    for module in model.modules():
        with torch.random.fork_rng(devices=()):
            torch.default_generator.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
            for name in ("reset_parameters", "_reset_parameters"):
                getattr(module, name, lambda: None)()
    return model


def names(report):
    return set(report.table.parameter)


def set_in(model, **changes):
    """Return the model, its parameters changed by functions of them, by names with _ for the points."""
    with torch.no_grad():
        for name, change in changes.items():
            change(model.get_parameter(name[1:].replace("_", ".")))
    return model


STOCK = {
    "Linear": lambda: mlp(),
    "Conv2d": lambda: nn.Sequential(nn.Conv2d(32, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1)),
    "LSTM": lambda: nn.LSTM(32, 16, batch_first=True),
    "attention": lambda: nn.TransformerEncoderLayer(32, 4, 64, batch_first=True),
}


@pytest.mark.parametrize("build", STOCK.values(), ids=STOCK)
def test_all_that_torch_drew_is_drawn_anew(build):
    for seed in range(30):
        model = drawn(build, seed)
        x = (
            batch(4, 32, 3, 3)
            if isinstance(model[0] if isinstance(model, nn.Sequential) else 0, nn.Conv2d)
            else batch(4, 6, 32)
        )
        assert not left_alone(initialize_(model, x, generator=seeded())), seed


SET = {
    "a last layer of zeros": (
        {"_4_weight": torch.Tensor.zero_},
        "4.weight",
        "set on purpose: all 0; torch's",
    ),
    "a head with a tenth of the scale": (
        {"_4_weight": lambda w: w.mul_(0.1)},
        "4.weight",
        "std 0.007, largest 0.012; torch's own would be mean",
    ),
    "He's law": (
        {"_2_weight": lambda w: w.normal_(0, 2**0.5 / 8, generator=seeded())},
        "2.weight",
        "set on purpose: mean",
    ),
    "a normal of the default's variance": (
        {"_2_weight": lambda w: w.normal_(0, 1 / (8 * 3**0.5), generator=seeded())},
        "2.weight",
        "",
    ),
    "a third more than torch's size": ({"_2_weight": lambda w: w.mul_(1.33)}, "2.weight", "std 0.096"),
    "the bias of a prior": ({"_4_bias": lambda b: b.fill_(-math.log(99))}, "4.bias", "all -4.6"),
}


@pytest.mark.parametrize(("changes", "name", "reason"), SET.values(), ids=SET)
def test_a_law_of_ones_own_stays_and_is_named(changes, name, reason):
    model = set_in(drawn(mlp), **changes)
    before = model.get_parameter(name).detach().clone()
    report = initialize_(model, batch(16, 32), generator=seeded())
    assert list(left_alone(report)) == [name]
    assert reason in left_alone(report)[name]
    assert torch.equal(model.get_parameter(name), before)
    again = initialize_(model, batch(16, 32), overwrite=True, generator=seeded())
    assert not left_alone(again)
    assert not torch.equal(model.get_parameter(name), before)


def test_biases_that_are_zero_already_are_nothing_to_mention():
    model = set_in(mlp(), _0_bias=torch.Tensor.zero_, _2_bias=torch.Tensor.zero_)
    assert not left_alone(initialize_(model, batch(16, 32)))


def test_a_bare_parameter_has_no_law_of_torchs():
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.matrix, self.head = nn.Parameter(batch(32, 16)), nn.Linear(16, 3)

        def forward(self, x):
            return self.head(torch.relu(x @ self.matrix))

    report = initialize_(Bare(), batch(8, 32))
    assert list(left_alone(report)) == ["matrix"]
    assert "torch has no law of its own for it" in left_alone(report)["matrix"]


def test_names_are_drawn_all_the_same_and_others_skipped():
    def spoil():
        return set_in(mlp(), _0_weight=torch.Tensor.zero_, _2_weight=torch.Tensor.zero_)

    one = initialize_(spoil(), batch(16, 32), overwrite=["0"])
    assert list(left_alone(one)) == ["2.weight"]
    assert "0.weight" in names(one)
    none = initialize_(spoil(), batch(16, 32), overwrite=True, skip=["2", "4.bias"])
    assert left_alone(none) == dict.fromkeys(["2.weight", "2.bias", "4.bias"], "skipped, as you asked")


def test_finding_out_leaves_modules_and_random_states_alone():
    model = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    with torch.no_grad():
        model.self_attn.out_proj.bias.fill_(3.0)
    state = torch.random.get_rng_state()
    report = initialize_(model, batch(4, 6, 32), generator=seeded())
    assert "self_attn.out_proj.bias" in left_alone(report)
    assert (model.self_attn.out_proj.bias == 3).all()
    assert torch.equal(torch.random.get_rng_state(), state)


def test_what_a_norm_has_learned_about_its_inputs_stays():
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    model(batch(64, 4))  # in training mode
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    initialize_(model.eval(), batch(64, 4))
    assert before["1.running_mean"].any()
    assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())
