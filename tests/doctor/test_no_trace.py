"""A model that was diagnosed is what it was, whatever its forward pass changes, and wherever it fails."""

import pytest
import torch
from doctor_networks import (
    CLASSES,
    FOURS,
    IDS,
    Function,
    batch,
    generator,
    labels,
)
from torch import nn
from torch.nn import functional as F

from course_utils.doctor import diagnose


def snapshot(model: nn.Module) -> list:
    """Return all that can be told of a model's state: identities and copies of values."""
    state = [torch.default_generator.get_state().tolist()]
    for module in model.modules():
        state.append({key: id(value) for key, value in vars(module).items()})
        state.append([list(value) for key, value in vars(module).items() if key.endswith("hooks")])
    for tensor in [*model.parameters(), *model.buffers()]:
        state.append((id(tensor), tensor.requires_grad, tensor.detach().numpy().tobytes()))
    for parameter in model.parameters():
        gradient, hooks = parameter.grad, parameter._backward_hooks
        state.append((id(gradient), None if gradient is None else gradient.numpy().tobytes()))
        state.append(None if hooks is None else (id(hooks), list(hooks)))
        state.append(len(parameter._post_accumulate_grad_hooks or ()))
    return [*state, model.plain.tolist(), len(model.cache)]


class Everything(nn.Module):
    """A network whose forward pass changes all that one can change."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 8, max_norm=0.5)
        self.norm = nn.BatchNorm1d(8)
        self.spectral = nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8))
        self.old = torch.nn.utils.spectral_norm(nn.Linear(8, 8))
        self.dropout = nn.Dropout(0.5)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(8, CLASSES)
        self.register_buffer("count", torch.zeros(()))
        self.calls, self.cache, self.plain, self.fail = 0, [], torch.zeros(2), ""

    def forward(self, ids):
        self.calls += 1
        self.count += 1
        self.plain += 1
        h = self.norm(self.embedding(ids).mean(1))
        self.cache.append(h)
        h = self.relu(self.old(self.dropout(self.spectral(h))))
        self.last = h
        if self.fail == "forward":
            raise RuntimeError("fails in the middle")
        if self.fail == "backward":
            h.register_hook(self.broken_hook)
        return self.head(h)

    def broken_hook(self, gradient):
        raise RuntimeError("fails on the way back")


def everything():
    model = Everything()
    model.spectral.eval()
    model.head.bias.requires_grad_(False)
    for parameter in model.parameters():
        parameter.data.normal_(generator=generator(3))
    model.head.weight.grad = torch.ones(CLASSES, 8)
    calls = []
    model.head.register_forward_hook(lambda *_: calls.append("forward"))
    model.head.register_forward_pre_hook(lambda *_: calls.append("pre"))
    model.head.register_full_backward_hook(lambda *_: None)
    model.head.weight.register_hook(lambda g: calls.append("tensor"))
    model.norm.weight.register_post_accumulate_grad_hook(lambda p: calls.append("post"))
    return model, calls


def failing_loss(outputs, targets):
    raise RuntimeError("fails in the loss")


@pytest.mark.parametrize("fail", ["", "forward", "loss", "backward"])
@pytest.mark.parametrize("grad_mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_the_model_is_left_as_it_was(fail: str, grad_mode):
    model, calls = everything()
    model.fail = fail
    inputs, before = IDS.clone(), snapshot(model)
    with grad_mode():
        enabled = torch.is_grad_enabled()
        if fail:
            with pytest.raises(RuntimeError, match=r"fails (in|on) the (middle|loss|way back)"):
                diagnose(model, inputs, labels(16), failing_loss if fail == "loss" else None)
        else:
            assert diagnose(model, inputs, labels(16)).table["gradient_second_moment"].gt(0).all()
        assert torch.is_grad_enabled() == enabled
    assert snapshot(model) == before
    assert torch.equal(inputs, IDS)
    assert "post" not in calls
    assert not hasattr(model, "last")
    model.fail = ""
    F.cross_entropy(model(inputs), labels(16)).backward()  # the user's hooks still work
    assert {"forward", "pre", "tensor", "post"} <= {*calls}


def test_the_snapshot_notices_a_forward_pass():
    model, _ = everything()
    before = snapshot(model)
    model(IDS)
    after = snapshot(model)
    assert [a == b for a, b in zip(after, before, strict=True)].count(False) >= 8


def test_no_hook_stays_on_modules_in_general():
    hooks = nn.modules.module._global_forward_hooks, nn.modules.module._global_forward_pre_hooks
    with pytest.raises(RuntimeError):
        diagnose(nn.Linear(3, 2), batch(5, 4))
    assert [len(h) for h in hooks] == [0, 0]


def test_inputs_are_not_changed_in_place():
    x = batch(5, 4)
    diagnose(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 2)).requires_grad_(False), x)
    assert torch.equal(x, batch(5, 4))


def test_random_layers_leave_the_random_state_alone():
    model, before = nn.Sequential(nn.Linear(4, 8), nn.Dropout()), torch.default_generator.get_state()
    diagnose(model, FOURS)
    assert torch.equal(torch.default_generator.get_state(), before)


def test_a_pending_backward_pass_is_not_disturbed():
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8))
    model.register_buffer("scale", torch.ones(8))
    loss = (model(FOURS) * model.scale).sum()
    diagnose(model, FOURS)
    loss.backward()
    assert model[0].weight.grad is not None


def test_a_model_may_differentiate_with_respect_to_its_inputs():
    model = Function(lambda x, w: torch.autograd.grad((x @ w).tanh().sum(), x, create_graph=True)[0], 4, 4)
    x = batch(5, 4).requires_grad_()
    assert diagnose(model, x).table["layer"].tolist() == ["matrix"]
    assert x.grad is None


def test_gradients_that_the_forward_pass_makes_or_deletes_are_put_back():
    def step(x, w):
        (x @ w).sum().backward()
        return x @ w

    model = Function(step, 4, 4)
    model.matrix.grad = kept = torch.ones(4, 4)
    assert diagnose(model, FOURS).table["gradient_second_moment"].gt(0).all()
    assert model.matrix.grad is kept
    assert torch.equal(kept, torch.ones(4, 4))
