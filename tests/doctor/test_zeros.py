"""Norms and factors that are 0 at the start: switched off for good, or freed by the first step."""

import pytest
import torch
from initialize_networks import batch, seeded
from torch import nn
from torch.nn import functional as F

from course_utils.doctor import diagnose, initialize_

X, Y = batch(64, 16), torch.arange(64) % 5


class Root(nn.Module):
    """A norm by root mean squares, as written by hand."""

    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.weight


class Factor(Root):
    def forward(self, x):
        return x * self.weight


def behind_a_sum(m, x):
    return m.norm(x + m.b(F.gelu(m.a(x))))


def in_front_of_a_branch(m, x):
    return x + m.b(F.gelu(m.a(m.norm(x))))


def behind_a_branch(m, x):
    return x + m.norm(m.b(F.gelu(m.a(x))))


def in_a_stack(m, x):
    return m.b(F.gelu(m.norm(m.a(x))))


class Net(nn.Module):
    def __init__(self, norm, block):
        super().__init__()
        self.first, self.a, self.b, self.last = (nn.Linear(16, n) for n in (16, 16, 16, 5))
        self.norm, self.block = norm(16), block
        initialize_(self, X, generator=seeded())

    def forward(self, x):
        return self.last(self.block(self, self.first(x)))


ENDS_ALL = {behind_a_sum: True, in_front_of_a_branch: False, behind_a_branch: False, in_a_stack: True}


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.BatchNorm1d, nn.RMSNorm, Root, Factor])
@pytest.mark.parametrize("block", ENDS_ALL)
def test_what_multiplies_all_by_0_is_named_unless_another_path_leads_around(norm, block):
    model = Net(norm, block)
    assert diagnose(model, X, Y).healthy
    nn.init.zeros_(model.norm.weight)
    found = [f for f in diagnose(model, X, Y).findings if f.is_fault]
    name = "norm.weight" if norm in (Root, Factor) else "norm"
    assert [(f.layer, f.fault) for f in found] == [(name, "zero layer")] * ENDS_ALL[block]
    assert all(f.remedy.endswith("start at 1.") for f in found)


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.BatchNorm1d, Root, Factor])
@pytest.mark.parametrize("block", ENDS_ALL)
def test_a_frozen_factor_of_0_is_named_where_all_passes_through_it_or_something_waits_for_it(norm, block):
    model = Net(norm, block)
    nn.init.zeros_(model.norm.weight).requires_grad_(False)
    found = [f for f in diagnose(model, X, Y).findings if f.is_fault]
    by_hand = norm in (Root, Factor)
    if ENDS_ALL[block]:
        assert [(f.layer, f.fault) for f in found] == [("norm" + ".weight" * by_hand, "zero layer")]
    elif block is behind_a_branch:  # whose layers can never learn
        assert {f.fault for f in found} == {"vanishing gradient" if by_hand else "zero layer"}
    else:  # the branch is fed by its biases alone
        assert "zero layer" not in {f.fault for f in found}


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("place", ["first", "hidden", "last"])
def test_a_frozen_layer_of_zeros_is_named_be_it_the_last(place, frozen):
    layers = {"first": nn.Linear(16, 16), "hidden": nn.Linear(16, 16), "last": nn.Linear(16, 5)}
    initialize_(model := nn.Sequential(*layers.values()), X, generator=seeded())
    nn.init.zeros_(layers[place].weight).requires_grad_(not frozen)
    found = [f for f in diagnose(model, X, Y).findings if f.is_fault]
    name = str([*layers].index(place))
    assert [(f.layer, f.fault) for f in found] == [(name, "zero layer")] * (frozen or place != "last")
    if frozen:
        assert "frozen" in found[0].cause
        layers[place].weight.requires_grad_()
        initialize_(model, X, overwrite=True, generator=seeded())  # as the remedy says
        assert diagnose(model, X, Y).healthy


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.BatchNorm1d])
def test_a_norm_of_0_in_one_factor_of_a_product_is_named(norm):
    """As in one of two towers whose cosines are returned: the product is 0, so each factor is needed."""

    class Towers(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Sequential(nn.Linear(16, 32), norm(32), nn.ReLU(), nn.Linear(32, 8, bias=False))
            self.b = nn.Linear(16, 8)

        def forward(self, x):
            return 14 * F.normalize(self.a(x), dim=-1) @ F.normalize(self.b(x), dim=-1).T

    initialize_(model := Towers(), X, generator=seeded())
    assert diagnose(model, X, torch.arange(64)).healthy
    nn.init.zeros_(model.a[1].weight)
    found = [f for f in diagnose(model, X, torch.arange(64)).findings if f.is_fault]
    assert [(f.layer, f.fault) for f in found] == [("a.1", "zero layer")]


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.LayerNorm, Factor])
def test_of_two_factors_that_are_0_both_are_named(norm):
    model = Net(norm, behind_a_branch)
    for p in (model.norm.weight, model.b.weight, model.b.bias):
        nn.init.zeros_(p)
    (found,) = (f for f in diagnose(model, X, Y).findings if f.is_fault)
    assert found.fault == "vanishing gradient"
    assert {"b", "norm"} <= {found.layer, *found.others}


def test_a_norm_without_values_is_none():
    assert diagnose(nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16, elementwise_affine=False)), X).healthy


def test_what_is_only_called_a_norm_may_make_the_signal_small():
    """As in MobileBERT: factors and biases in the place of a norm."""

    class NoNorm(Factor):
        pass

    model = nn.Sequential(
        nn.Linear(16, 16), NoNorm(16), nn.Linear(16, 16), nn.LayerNorm(16), nn.Linear(16, 5)
    )
    nn.init.constant_(model[1].weight, 0.05)
    assert diagnose(model, X, Y).healthy
