"""Flows, differential equations, policies, and dilated convolutions."""

import math
from collections import OrderedDict
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from zoo.others import both, constant, every, waves
from zoo.specimen import Planted, Specimen, filled, scaled


class CouplingLayer(nn.Module):
    def __init__(self, num_inputs, num_hidden, mask):
        super().__init__()
        self.register_buffer("mask", mask)
        self.scale_net, self.translate_net = (
            nn.Sequential(
                OrderedDict(
                    l1=nn.Linear(num_inputs, num_hidden),
                    a1=act(),
                    l2=nn.Linear(num_hidden, num_hidden),
                    a2=act(),
                    l3=nn.Linear(num_hidden, num_inputs),
                )
            )
            for act in (nn.Tanh, nn.ReLU)
        )
        for net in (self.scale_net, self.translate_net):
            for m in (net.l1, net.l2):
                nn.init.orthogonal_(m.weight)
                m.bias.data.fill_(0)
            net.l3.weight.data.zero_()
            net.l3.bias.data.zero_()

    def forward(self, inputs):
        masked = inputs * self.mask
        log_s = self.scale_net(masked) * (1 - self.mask)
        t = self.translate_net(masked) * (1 - self.mask)
        return inputs * torch.exp(log_s) + t, log_s.sum(-1, keepdim=True)


class RealNVP(nn.Module):
    def __init__(self, num_inputs=4, num_hidden=32, blocks=4):
        super().__init__()
        mask = torch.arange(num_inputs).remainder(2).float()
        self.flows = nn.ModuleList(
            CouplingLayer(num_inputs, num_hidden, 1 - mask if i % 2 else mask) for i in range(blocks)
        )

    def forward(self, x):
        log_det = torch.zeros(x.size(0), 1)
        for flow in self.flows:
            x, change = flow(x)
            log_det += change
        return x, log_det


def negative_log_likelihood(outputs, _):
    z, log_det = outputs
    return -(-0.5 * (z**2 + math.log(2 * math.pi)).sum(1, keepdim=True) + log_det).mean()


def realnvp():
    z = torch.randn(64, 2)
    x = torch.cat([z, z**2 + 0.3 * torch.randn(64, 2)], 1)
    return RealNVP(), (x - x.mean(0)) / x.std(0), None, negative_log_likelihood


class ODEFunc(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(dim + 1, 50), nn.Tanh(), nn.Linear(50, dim))
        for m in self.net.modules():
            if isinstance(m, nn.Linear):
                nn.init.normal_(m.weight, mean=0, std=0.1)
                nn.init.constant_(m.bias, val=0)
        self.nfe = 0

    def forward(self, t, y):
        self.nfe += 1
        return self.net(torch.cat([y, t.expand(y.shape[0], 1)], -1))


class NeuralODE(nn.Module):
    def __init__(self, dim=16, steps=6):
        super().__init__()
        self.register_buffer("grid", torch.linspace(0.0, 1.0, steps + 1))
        self.encode, self.func, self.decode = nn.Linear(2, dim), ODEFunc(dim), nn.Linear(dim, 3)

    def forward(self, x):
        y = self.encode(x)
        for t0, t1 in zip(self.grid[:-1], self.grid[1:], strict=True):
            h = t1 - t0
            k1 = self.func(t0, y)
            k2 = self.func(t0 + h / 2, y + h / 2 * k1)
            y = y + h * k2
        return self.decode(y)


def spirals(n=64, classes=3):
    y, r = torch.randint(classes, (n,)), torch.rand(n)
    angle = 5 * r + 2 * math.pi / classes * y + 0.1 * torch.randn(n)
    return 2.5 * r[:, None] * torch.stack([angle.cos(), angle.sin()], 1), y


def neural_ode():
    return NeuralODE(), *spirals(), None


class HamiltonianResNet(nn.Module):
    """Euler steps x <- x + h K^T sigma(K x + b), as stable architectures of applied mathematicians have."""

    def __init__(self, d=24, L=10, h=0.1):
        super().__init__()
        self.h, self.opening = h, nn.Parameter(torch.randn(2, d) / math.sqrt(2))
        self.K = nn.ParameterList(torch.randn(d, d) / math.sqrt(d) for _ in range(L))
        self.V = nn.ParameterList(torch.randn(d, d) / math.sqrt(d) for _ in range(L))
        self.b = nn.ParameterList(torch.zeros(d) for _ in range(L))
        self.closing = nn.Parameter(torch.randn(d, 3) / d)

    def forward(self, y):
        y = y @ self.opening
        for K, V, b in zip(self.K, self.V, self.b, strict=True):
            y = y + self.h * (y @ K + b).relu() @ V
        return y @ self.closing


def euler_resnet():
    return HamiltonianResNet(), *spirals(), None


def layer_init(layer, std=2**0.5, bias_const=0.0):
    torch.nn.init.orthogonal_(layer.weight, std)
    torch.nn.init.constant_(layer.bias, bias_const)
    return layer


class Agent(nn.Module):
    def __init__(self, obs=8, actions=4):
        super().__init__()
        body = ((obs, 64), (64, 64), (64, 64))
        self.critic = nn.Sequential(*(f for n in body for f in (layer_init(nn.Linear(*n)), nn.Tanh())))
        self.critic.append(layer_init(nn.Linear(64, 1), std=1.0))
        self.actor = nn.Sequential(*(f for n in body for f in (layer_init(nn.Linear(*n)), nn.Tanh())))
        self.actor.append(layer_init(nn.Linear(64, actions), std=0.01))

    def forward(self, x):
        return self.actor(x), self.critic(x)


def actor_critic_loss(outputs, batch):
    """PPO's first step: the policy gradient with an entropy bonus, and the squared error of the value."""
    logits, newvalue = outputs
    logprob = torch.log_softmax(logits, -1)
    ratio = (logprob.gather(1, batch["actions"][:, None])[:, 0] - batch["logprobs"]).exp()
    advantages, entropy = batch["advantages"], -(logprob.exp() * logprob).sum(-1)
    pg_loss = torch.max(-advantages * ratio, -advantages * ratio.clamp(0.8, 1.2)).mean()
    return pg_loss - 0.01 * entropy.mean() + 0.25 * ((newvalue.view(-1) - batch["returns"]) ** 2).mean()


def ppo():
    x, actions = torch.randn(64, 8), torch.randint(4, (64,))
    returns = x[:, 0] - x[:, 1].abs() + x[:, 2] * x[:, 3]
    advantages = (x[torch.arange(64), actions] - x[:, :4].mean(1)).detach()
    batch = {"actions": actions, "logprobs": torch.full((64,), -math.log(4)), "returns": returns}
    return Agent(), x, batch | {"advantages": advantages / advantages.std()}, actor_critic_loss


class PINN(nn.Module):
    """u(x, t) of the Burgers equation u_t + u u_x = nu u_xx."""

    def __init__(self, layers=(2, 20, 20, 20, 20, 1), nu=0.01 / math.pi):
        super().__init__()
        self.nu, self.n = nu, len(layers) - 1
        for i, (a, b) in enumerate(pairwise(layers)):
            w = torch.empty(a, b)
            self.register_parameter(f"W{i}", nn.Parameter(nn.init.xavier_normal_(w)))
            self.register_parameter(f"b{i}", nn.Parameter(torch.zeros(1, b)))

    def neural_net(self, X):
        H = X
        for i in range(self.n - 1):
            H = torch.tanh(torch.add(torch.matmul(H, getattr(self, f"W{i}")), getattr(self, f"b{i}")))
        return H @ getattr(self, f"W{self.n - 1}") + getattr(self, f"b{self.n - 1}")

    def forward(self, x, t):
        x, t = (v.detach().clone().requires_grad_() for v in (x, t))
        u = self.neural_net(torch.cat([x, t], 1))
        u_x, u_t = torch.autograd.grad(u.sum(), (x, t), create_graph=True)
        u_xx = torch.autograd.grad(u_x.sum(), x, create_graph=True)[0]
        return u, u_t + u * u_x - self.nu * u_xx


def physics_loss(outputs, start):
    (u, f), (u0, first) = outputs, start
    return torch.mean((u[first] - u0[first]) ** 2) + torch.mean(f**2)


def pinn():
    x, t = torch.rand(64, 1) * 2 - 1, torch.rand(64, 1)
    t[:24] = 0
    return PINN(), (x, t), (-torch.sin(math.pi * x), t == 0), physics_loss


class TemporalBlock(nn.Module):
    def __init__(self, n_inputs, n_outputs, kernel_size, dilation):
        super().__init__()
        self.pad = (kernel_size - 1) * dilation
        self.conv1 = weight_norm(nn.Conv1d(n_inputs, n_outputs, kernel_size, dilation=dilation))
        self.conv2 = weight_norm(nn.Conv1d(n_outputs, n_outputs, kernel_size, dilation=dilation))
        self.downsample = nn.Conv1d(n_inputs, n_outputs, 1) if n_inputs != n_outputs else None

    def forward(self, x):
        out = torch.relu(self.conv1(F.pad(x, (self.pad, 0))))
        out = torch.relu(self.conv2(F.pad(out, (self.pad, 0))))
        return torch.relu(out + (x if self.downsample is None else self.downsample(x)))


class TCN(nn.Module):
    def __init__(self, input_size=4, output_size=5, num_channels=(24,) * 4):
        super().__init__()
        sizes = (input_size, *num_channels)
        self.tcn = nn.Sequential(*(TemporalBlock(a, b, 3, 2**i) for i, (a, b) in enumerate(pairwise(sizes))))
        self.linear = nn.Linear(num_channels[-1], output_size)

    def forward(self, inputs):
        return self.linear(self.tcn(inputs.transpose(1, 2))[:, :, -1])


def tcn():
    return TCN(), *waves(32, 24, 4, 5), None


SPECIMENS = (
    Specimen(
        "realnvp",
        realnvp,
        (
            Planted("biases of -8", filled("flows.1.translate_net.l2.bias", -8), ("flows.1.translate_net",)),
            Planted("two factors of 0", every("l2.weight", torch.zero_), ("flows",)),
            Planted("scales not from 0", every("scale_net.l3.weight", torch.Tensor.normal_), ("flows",)),
        ),
    ),
    Specimen(
        "neural_ode",
        neural_ode,
        (
            Planted("decoder x 100", scaled("decode.weight", 100), ("decode",)),
            Planted(
                "one constant", both(constant("func.", 0.1), constant("encode.", 0.1)), ("func.net", "encode")
            ),
            Planted("weights x 100", scaled("func.net.2.weight", 100), ("func.net",)),
        ),
        classes=3,
    ),
    Specimen(
        "euler_resnet",
        euler_resnet,
        (
            Planted("no step size", lambda m: setattr(m, "h", 3.0), ("V", "K", "closing")),
            Planted("biases of -10", constant("b.", -10), ("K",)),
            Planted("zero opening", filled("opening", 0), ("opening",)),
        ),
        classes=3,
    ),
    Specimen(
        "ppo",
        ppo,
        (
            Planted("actor x 3000", scaled("actor.6.weight", 3000), ("actor.6",)),
            Planted("critic x 100", scaled("critic.6.weight", 100), ("critic",)),
            Planted("weights x 0.001", scaled("actor.2.weight", 0.001), ("actor.2",)),
        ),
    ),
    Specimen(
        "pinn",
        pinn,
        (
            Planted("weights x 20", scaled("W2", 20), ("W2",)),
            Planted("weights x 0.005", scaled("W1", 0.005), ("W1",)),
            Planted("constant weights", filled("W2", 0.05), ("W2",)),
        ),
    ),
    Specimen(
        "tcn",
        tcn,
        (
            Planted("g x 30", every("original0", lambda g: g.mul_(30)), ("tcn", "linear")),
            Planted("biases of -5", every(".conv1.bias", lambda b: b.fill_(-5)), ("tcn",)),
            Planted("one constant", constant("tcn.", 0.1), ("tcn",)),
        ),
        classes=5,
    ),
)
