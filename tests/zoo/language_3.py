"""Adapters, latents, retention, soft experts and a character model, each in another style."""

import math
from itertools import pairwise

import torch
import torch.nn as nn
import torch.nn.functional as F

from zoo.language import all_scaled, images, text
from zoo.specimen import Planted, Specimen, filled, scaled

# --- LoRA


class LoRALinear(nn.Linear):
    def __init__(self, in_features, out_features, r=4, lora_alpha=8, **kwargs):
        super().__init__(in_features, out_features, **kwargs)
        self.lora_A = nn.Parameter(self.weight.new_zeros((r, in_features)))
        self.lora_B = nn.Parameter(self.weight.new_zeros((out_features, r)))
        self.scaling = lora_alpha / r
        self.weight.requires_grad = False
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B)

    def forward(self, x):
        result = F.linear(x, self.weight, bias=self.bias)
        result += (x @ self.lora_A.transpose(0, 1) @ self.lora_B.transpose(0, 1)) * self.scaling
        return result


class EncoderLayer(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.h = heads
        self.q_proj, self.v_proj = LoRALinear(d, d), LoRALinear(d, d)
        self.k_proj, self.out_proj = nn.Linear(d, d), nn.Linear(d, d)
        self.fc1, self.fc2 = nn.Linear(d, 2 * d), nn.Linear(2 * d, d)
        self.self_attn_layer_norm, self.final_layer_norm = nn.LayerNorm(d), nn.LayerNorm(d)

    def forward(self, x):
        b, t, d = x.shape
        y = self.self_attn_layer_norm(x)
        q, k, v = (
            f(y).view(b, t, self.h, -1).transpose(1, 2) for f in (self.q_proj, self.k_proj, self.v_proj)
        )
        w = F.softmax(q @ k.mT / math.sqrt(d // self.h), dim=-1)
        x = x + self.out_proj((w @ v).transpose(1, 2).reshape(b, t, d))
        return x + self.fc2(F.gelu(self.fc1(self.final_layer_norm(x))))


class RobertaWithLoRA(nn.Module):
    def __init__(self, vocab=24, d=32, heads=4, layers=4, classes=3):
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab, d)
        self.layers = nn.ModuleList(EncoderLayer(d, heads) for _ in range(layers))
        self.layer_norm = nn.LayerNorm(d)
        for name, p in self.named_parameters():
            if "lora_" not in name:
                p.requires_grad_(False)
            if p.ndim > 1 and "lora_" not in name:
                p.data.normal_(0, p.shape[1] ** -0.5)
        self.score = nn.Linear(d, classes)

    def forward(self, input_ids):
        x = self.embed_tokens(input_ids) * 4.0
        for layer in self.layers:
            x = layer(x)
        return self.score(self.layer_norm(x).mean(1))


def build_lora():
    ids, _ = text(32, 10, 24)
    return RobertaWithLoRA(), ids, ids[:, -1] * 3 // 24, None


LORA_FAULTS = (
    Planted("A and B both 0", all_scaled("lora_A", 0.0), ("layers",)),
    Planted("frozen last norm of 0", filled("layer_norm.weight", 0.0), ("layer_norm", "score")),
    Planted("frozen branches x 300", all_scaled("fc2.weight", 300.0), ("layers",)),
)

# --- Perceiver


class PreNorm(nn.Module):
    def __init__(self, dim, fn, context_dim=None):
        super().__init__()
        self.fn, self.norm = fn, nn.LayerNorm(dim)
        self.norm_context = nn.LayerNorm(context_dim) if context_dim is not None else None

    def forward(self, x, **kwargs):
        if self.norm_context is not None:
            kwargs.update(context=self.norm_context(kwargs["context"]))
        return self.fn(self.norm(x), **kwargs)


class GEGLU(nn.Module):
    def forward(self, x):
        x, gates = x.chunk(2, dim=-1)
        return x * F.gelu(gates)


def feed_forward(dim, mult=2):
    return nn.Sequential(nn.Linear(dim, dim * mult * 2), GEGLU(), nn.Linear(dim * mult, dim))


class Attention(nn.Module):
    def __init__(self, query_dim, context_dim=None, heads=2, dim_head=16):
        super().__init__()
        inner_dim, context_dim = dim_head * heads, query_dim if context_dim is None else context_dim
        self.scale, self.heads = dim_head**-0.5, heads
        self.to_q = nn.Linear(query_dim, inner_dim, bias=False)
        self.to_kv = nn.Linear(context_dim, inner_dim * 2, bias=False)
        self.to_out = nn.Linear(inner_dim, query_dim)

    def forward(self, x, context=None):
        q, (k, v) = self.to_q(x), self.to_kv(x if context is None else context).chunk(2, dim=-1)
        q, k, v = (t.unflatten(-1, (self.heads, -1)) for t in (q, k, v))
        sim = torch.einsum("bihd,bjhd->bhij", q, k) * self.scale
        return self.to_out(torch.einsum("bhij,bjhd->bihd", sim.softmax(dim=-1), v).flatten(2))


class Perceiver(nn.Module):
    def __init__(self, depth=3, input_dim=12, latent_dim=32, num_latents=8, num_classes=5):
        super().__init__()
        self.latents = nn.Parameter(torch.randn(num_latents, latent_dim))
        self.layers = nn.ModuleList([])
        for _ in range(depth):
            cross = PreNorm(latent_dim, Attention(latent_dim, input_dim), context_dim=input_dim)
            blocks = [
                PreNorm(latent_dim, feed_forward(latent_dim)),
                PreNorm(latent_dim, Attention(latent_dim)),
            ]
            self.layers.append(nn.ModuleList([cross, *blocks, PreNorm(latent_dim, feed_forward(latent_dim))]))
        self.to_logits = nn.Sequential(nn.LayerNorm(latent_dim), nn.Linear(latent_dim, num_classes))

    def forward(self, data):
        x = self.latents.expand(data.shape[0], -1, -1)
        for cross_attn, cross_ff, self_attn, self_ff in self.layers:
            x = cross_attn(x, context=data) + x
            x = cross_ff(x) + x
            x = self_attn(x) + x
            x = self_ff(x) + x
        return self.to_logits(x.mean(dim=-2))


def build_perceiver():
    x, y = images(32, 5, 12, 4)
    return Perceiver(), x.flatten(2).transpose(1, 2).contiguous(), y, None


@torch.no_grad()
def perceiver_blind(model):
    for layer in model.layers:
        layer[0].fn.to_kv.weight[32:].zero_()
        layer[0].fn.to_out.weight.zero_()


CROSS = ("layers.0.0", "layers.1.0", "layers.2.0")
PERCEIVER_FAULTS = (
    Planted("values and outputs of the cross attention both 0", perceiver_blind, CROSS),
    Planted("latents x 100", scaled("latents", 100.0), ("latents", "layers")),
    Planted("head x 30", scaled("to_logits.1.weight", 30.0), ("to_logits",)),
)

# --- Retention


class MultiScaleRetention(nn.Module):
    def __init__(self, embed_dim, num_heads):
        super().__init__()
        self.num_heads, self.scaling = num_heads, (embed_dim // num_heads) ** -0.5
        self.q_proj, self.k_proj, self.v_proj, self.g_proj, self.out_proj = (
            nn.Linear(embed_dim, embed_dim, bias=False) for _ in range(5)
        )
        self.register_buffer("decay", torch.log(1 - 2.0 ** (-2.0 - torch.arange(num_heads).float())))
        for lin in (self.q_proj, self.k_proj, self.v_proj, self.g_proj):
            nn.init.xavier_uniform_(lin.weight, gain=2**-2.5)
        nn.init.xavier_uniform_(self.out_proj.weight, gain=2**-1)

    def forward(self, x):
        bsz, tgt_len, embed_dim = x.size()
        q, k, v = (
            proj(x).view(bsz, tgt_len, self.num_heads, -1).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        index = torch.arange(tgt_len).to(x)
        distance = index[:, None] - index[None, :]
        mask = torch.exp(distance * self.decay[:, None, None]).masked_fill(distance < 0, 0.0)
        qk = torch.matmul(q, k.transpose(-1, -2) * self.scaling) * (mask / mask.sum(-1, keepdim=True).sqrt())
        qk = qk / qk.detach().abs().sum(dim=-1, keepdim=True).clamp(min=1, max=5e4)
        out = torch.matmul(qk, v).transpose(1, 2)
        out = out * torch.rsqrt(out.pow(2).mean(-1, keepdim=True) + 1e-6)
        g = self.g_proj(x)
        return self.out_proj(g * torch.sigmoid(g) * out.reshape(bsz, tgt_len, embed_dim))


class RetNet(nn.Module):
    def __init__(self, vocab=32, dim=32, depth=4, heads=4):
        super().__init__()
        self.embed_scale = math.sqrt(dim)
        self.embed_tokens, self.output_projection = (
            nn.Embedding(vocab, dim),
            nn.Linear(dim, vocab, bias=False),
        )
        nn.init.normal_(self.embed_tokens.weight, mean=0, std=dim**-0.5)
        nn.init.normal_(self.output_projection.weight, mean=0, std=dim**-0.5)
        self.retention = nn.ModuleList(MultiScaleRetention(dim, heads) for _ in range(depth))
        self.fc1 = nn.ModuleList(nn.Linear(dim, 2 * dim) for _ in range(depth))
        self.fc2 = nn.ModuleList(nn.Linear(2 * dim, dim) for _ in range(depth))

    def forward(self, prev_output_tokens):
        def norm(z):
            return z / torch.sqrt(torch.mean(z**2, dim=-1, keepdim=True) + 1e-5)

        x = self.embed_scale * self.embed_tokens(prev_output_tokens)
        for retention, fc1, fc2 in zip(self.retention, self.fc1, self.fc2, strict=True):
            x = x + retention(norm(x))
            x = x + fc2(F.gelu(fc1(norm(x)).float()).type_as(x))
        return self.output_projection(norm(x))


def build_retnet():
    return RetNet(), *text(16, 12, 32), None


@torch.no_grad()
def retnet_dead_gates(model):
    for fc1 in model.fc1:
        fc1.bias.fill_(-8.0)


@torch.no_grad()
def retnet_two_zeros(model):
    for retention in model.retention:
        retention.v_proj.weight.zero_()
        retention.out_proj.weight.zero_()


RETNET_FAULTS = (
    Planted("biases of -8 before GELU", retnet_dead_gates, ("fc1", "fc2")),
    Planted("constant embedding", filled("embed_tokens.weight", 0.2), ("embed_tokens",)),
    Planted("values and outputs of the retention both 0", retnet_two_zeros, ("retention",)),
)

# --- Soft experts


class SoftExperts(nn.Module):
    def __init__(self, dim, num_experts, hidden_dim):
        super().__init__()
        self.w_gating = nn.Parameter(torch.randn(dim, num_experts) * 0.02)
        self.w1 = nn.Parameter(torch.empty(num_experts, dim, hidden_dim).uniform_(-1, 1) / math.sqrt(dim))
        self.w2 = nn.Parameter(
            torch.empty(num_experts, hidden_dim, dim).uniform_(-1, 1) / math.sqrt(hidden_dim)
        )
        self.gain = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        z = x - x.mean(-1, keepdim=True)
        z = z / (z.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt() * self.gain
        gates = torch.exp(z @ self.w_gating)
        gates = gates / gates.sum(-1, keepdim=True)
        hidden = torch.einsum("bd,edh->beh", z, self.w1)
        hidden = torch.where(hidden > 0, hidden, 0.01 * hidden)
        return x + torch.einsum("be,beh,ehd->bd", gates, hidden, self.w2)


class SoftMoE(nn.Module):
    def __init__(self, d_in=16, dim=32, depth=5, experts=4):
        super().__init__()
        self.w_in = nn.Parameter(torch.randn(d_in, dim) / math.sqrt(d_in))
        self.blocks = nn.ModuleList([SoftExperts(dim, experts, 48) for _ in range(depth)])
        self.w_out = nn.Parameter(torch.zeros(dim, 1))

    def forward(self, x):
        x = torch.mm(x, self.w_in)
        for block in self.blocks:
            x = block(x)
        return dict(prediction=x @ self.w_out)


def build_soft_moe():
    x = torch.randn(64, 16)
    y = torch.sin(2 * x[:, :1]) + x[:, 1:2] * x[:, 2:3]
    return SoftMoE(), x, (y - y.mean()) / y.std(), lambda out, t: F.mse_loss(out["prediction"], t)


@torch.no_grad()
def soft_two_zeros(model):
    for block in model.blocks:
        block.w1.zero_()
        block.w2.zero_()


SOFT_FAULTS = (
    Planted("w1 and w2 both 0", soft_two_zeros, ("blocks",)),
    Planted("w2 x 30", all_scaled("w2", 30.0), ("blocks",)),
    Planted("gating x 1000", all_scaled("w_gating", 1000.0), ("blocks",)),
)

# --- makemore


class BatchNorm1d(nn.Module):
    def __init__(self, dim, eps=1e-5, momentum=0.1):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.gamma, self.beta = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_var", torch.ones(dim))

    def forward(self, x):
        if self.training:
            xmean, xvar = x.mean(0, keepdim=True), x.var(0, keepdim=True)
            with torch.no_grad():
                self.running_mean = (1 - self.momentum) * self.running_mean + self.momentum * xmean[0]
                self.running_var = (1 - self.momentum) * self.running_var + self.momentum * xvar[0]
        else:
            xmean, xvar = self.running_mean, self.running_var
        self.out = self.gamma * (x - xmean) / torch.sqrt(xvar + self.eps) + self.beta
        return self.out


class Makemore(nn.Module):
    def __init__(self, vocab_size=27, block_size=3, n_embd=10, n_hidden=48, depth=5):
        super().__init__()
        sizes = [n_embd * block_size] + [n_hidden] * depth
        self.C = nn.Parameter(torch.randn(vocab_size, n_embd))
        self.W = nn.ParameterList(
            [nn.Parameter(torch.randn(m, n) * (5 / 3) / m**0.5) for m, n in pairwise(sizes)]
        )
        self.bn = nn.ModuleList([BatchNorm1d(n_hidden) for _ in range(depth)])
        self.W2 = nn.Parameter(torch.randn(n_hidden, vocab_size) * 0.01)
        self.b2 = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, X):
        x = self.C[X].view(X.shape[0], -1)
        for W, bn in zip(self.W, self.bn, strict=True):
            x = torch.tanh(bn(x @ W))
        return x @ self.W2 + self.b2


def build_makemore():
    ids, follow = text(64, 3, 27)
    return Makemore(), ids, follow[:, -1].contiguous(), None


@torch.no_grad()
def makemore_two_zeros(model):
    model.W2.zero_()
    model.bn[-1].gamma.zero_()


MAKEMORE_FAULTS = (
    Planted("last gamma and W2 both 0", makemore_two_zeros, ("W", "bn", "C")),
    Planted("gammas x 30", all_scaled("gamma", 30.0), ("bn",)),
    Planted("constant W", filled("W.2", 0.1), ("W.2",)),
)

SPECIMENS = (
    Specimen("lora on a frozen encoder", build_lora, LORA_FAULTS, 3),
    Specimen("perceiver (lucidrains)", build_perceiver, PERCEIVER_FAULTS, 5),
    Specimen("retnet (torchscale)", build_retnet, RETNET_FAULTS, 32),
    Specimen("soft experts by einsum", build_soft_moe, SOFT_FAULTS),
    Specimen("makemore", build_makemore, MAKEMORE_FAULTS, 27),
)
