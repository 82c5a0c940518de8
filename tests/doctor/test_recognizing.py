"""What the doctor tells from numbers: an activation that is written in other words."""

import pytest
import torch
import torch.nn.functional as F

from course_utils.doctor.recognizing import Invocation, recognized

Z = torch.tensor([-3.0, -1.0, -0.25, 0.5, 2.0])


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (torch.relu, "relu"),
        (F.softsign, "softsign"),
        (F.silu, "silu"),
        (lambda z: F.leaky_relu(z, 0.01), "leaky_relu"),
        (lambda z: F.leaky_relu(z, 0.9), "leaky_relu"),
        (lambda z: z, None),
        (lambda z: -z, None),
        (torch.abs, None),
        (torch.tanh, None),
        (lambda z: F.leaky_relu(z, 1.5), None),
        (lambda z: 2 * torch.relu(z), None),
    ],
)
def test_an_activation_is_told_from_its_values(function, name):
    found = recognized(Z.double(), function(Z.double()))
    assert (found.name if found else None) == name
    if found:
        torch.testing.assert_close(found(Z.double()), function(Z.double()))


def test_numbers_of_one_sign_tell_nothing():
    for z in (Z.abs(), -Z.abs()):
        assert recognized(z, torch.relu(z)) is None
    assert recognized(Z, torch.relu(Z)[:4]) is None


def test_a_0_is_of_neither_sign():
    z = torch.cat([Z, torch.zeros(9)])
    assert recognized(z, F.leaky_relu(z, 0.2)).name == "leaky_relu"
    assert recognized(z.abs(), z.abs()) is None


def test_values_may_differ_by_some_roundings():
    eps = torch.finfo(torch.float32).eps
    assert recognized(Z, F.silu(Z) * (1 + 6 * eps)).name == "silu"
    assert recognized(Z, F.silu(Z) * (1 + 12 * eps)) is None


def test_of_many_numbers_some_are_looked_at_from_every_unit():
    z = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
    output = torch.relu(z)
    output[:, 3] += 1  # one unit that does something else
    assert recognized(z, torch.relu(z)).name == "relu"
    assert recognized(z, output) is None


def test_an_argument_is_found_by_name_and_by_place():
    call = Invocation(F.elu, "elu", (Z, 0.5), {"inplace": True}, None, None)
    assert call.argument("alpha", 1) == 0.5
    assert call.argument("inplace", 2) is True
    assert call.argument("input", 0) is Z
    assert call.argument("other", None) is None
    assert call.argument("other", 7) is None
