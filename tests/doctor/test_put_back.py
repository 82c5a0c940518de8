"""The model is afterwards what it was: also what forward itself changes, deep inside of its attributes."""

import copy

import numpy as np
import pytest
import torch
from initialize_networks import batch, seeded
from torch import nn

from course_utils.doctor import diagnose, initialize_


class Holder:
    """An object that is no module, as a cache or a scheduler is."""

    def __init__(self):
        self.tensor, self.count, self.inner = torch.zeros(2), 0, {"deep": [torch.zeros(3)]}


class Model(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.change = change
        self.a, self.last = nn.Linear(16, 16), nn.Linear(16, 3)
        self.register_buffer("buffer", torch.ones(4))
        self.caches, self.queue, self.holder = {"k": [torch.zeros(3)]}, [torch.zeros(2)], Holder()
        self.array, self.noise, self.kept = np.zeros(3), torch.Generator().manual_seed(1), None
        for p in self.parameters():
            p.grad = torch.ones_like(p)

    def forward(self, x):
        with torch.no_grad():
            self.change(self)
        return self.last(torch.relu(self.a(x)))


def grow(m):
    m.caches["k"].append(torch.ones(1))
    m.caches["k"][0] += 1
    m.queue[0] += 1


def alter(m):
    m.holder.tensor += 1
    m.holder.count += 1
    m.holder.inner["deep"][0] += 1
    m.holder.fresh = 3


CHANGES = {
    "max-norm": lambda m: m.a.weight.clamp_(-0.05, 0.05),
    "a buffer": lambda m: m.buffer.mul_(0.9),
    "the shape of a buffer": lambda m: m.buffer.resize_(7),
    "caches in lists and dictionaries": grow,
    "an object's attributes": alter,
    "an array": lambda m: np.add(m.array, 1, out=m.array),
    "a generator of its own": lambda m: torch.randn(3, generator=m.noise),
    "gradients": lambda m: m.a.zero_grad(),
    "requires_grad": lambda m: m.a.weight.requires_grad_(False),
    "a hook on a tensor": lambda m: m.last.weight.register_hook(lambda g: g),
    "a mode": lambda m: m.a.eval(),
    "a module": lambda m: setattr(m, "extra", nn.Linear(2, 2)),
}


def picture(m):
    """Return all that should stay, as nested lists, dictionaries and tensors."""
    return {
        "parameters": [(p.detach().clone(), p.requires_grad, copy.copy(p.grad)) for p in m.parameters()],
        "hooks": [len(p._backward_hooks or {}) for p in m.parameters()],
        "held": copy.deepcopy([m.buffer, m.caches, m.queue, vars(m.holder), m.array]),
        "noise": m.noise.get_state(),
        "modes": [module.training for module in m.modules()],
        "names": sorted(vars(m)) + sorted(m._modules),
    }


def same(a, b):
    if isinstance(a, torch.Tensor | np.ndarray):
        return a.shape == b.shape and bool((a == b).all())
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_forward_changes_is_put_back(change):
    model, x = Model(change), batch(8, 16)
    before = picture(model)
    diagnose(model, x, torch.arange(8) % 3)
    assert same(picture(model), before)
    initialize_(model, x, skip=["a", "last"], generator=seeded())
    assert same(picture(model), before)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_also_if_forward_raises_after_it(change):
    def raising(m):
        change(m)
        raise RuntimeError("after the change")

    model = Model(raising)
    before = picture(model)
    for call in (diagnose, initialize_):
        with pytest.raises(RuntimeError, match="after the change"):
            call(model, batch(8, 16))
        assert same(picture(model), before)


def test_a_graph_that_waits_in_an_attribute_can_still_go_backwards():
    model = Model(lambda m: None)
    model.kept = (2 * model.a.weight).sum()
    diagnose(model, batch(8, 16))
    model.a.zero_grad()
    model.kept.backward()
    assert (model.a.weight.grad == 2).all()


def test_what_cannot_be_put_back_is_said_after_all_else_has_been():
    class Locked(dict):
        locked = False

        def clear(self):
            if self.locked:
                raise RuntimeError("locked")
            super().clear()

    def change(m):
        m.caches.locked = True
        m.buffer.mul_(0.9)
        m.a.weight.mul_(2)

    model = Model(change)
    model.caches = Locked()
    weight = model.a.weight.clone()
    with pytest.raises(RuntimeError, match="locked"):
        diagnose(model, batch(8, 16))
    assert torch.equal(model.a.weight, weight)
    assert (model.buffer == 1).all()
