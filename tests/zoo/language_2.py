"""A vision transformer, parallel blocks, sparse experts and an encoder with a decoder, in four styles."""

import torch
from torch import nn
from torch.nn import functional as F

from zoo.language import all_scaled, images, text
from zoo.specimen import Planted, Specimen, filled, scaled

# --- ViT


class LayerScale(nn.Module):
    def __init__(self, dim: int, init_values: float = 1e-4, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace
        self.gamma = nn.Parameter(init_values * torch.ones(dim))

    def forward(self, x):
        return x.mul_(self.gamma) if self.inplace else x * self.gamma


class VitBlock(nn.Module):
    def __init__(self, dim, num_heads, mlp_ratio=2.0, qkv_bias=True):
        super().__init__()
        self.num_heads, self.scale, hidden = num_heads, (dim // num_heads) ** -0.5, int(dim * mlp_ratio)
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.qkv, self.proj = nn.Linear(dim, dim * 3, bias=qkv_bias), nn.Linear(dim, dim)
        self.ls1, self.ls2 = LayerScale(dim, inplace=True), LayerScale(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(0.0), nn.Linear(hidden, dim))

    def attn(self, x):
        B, N, C = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        attn = ((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1)
        return self.proj((attn @ v).transpose(1, 2).reshape(B, N, C))

    def forward(self, x):
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class VisionTransformer(nn.Module):
    def __init__(
        self, img_size=16, patch_size=4, in_chans=3, num_classes=5, embed_dim=32, depth=6, num_heads=2
    ):
        super().__init__()
        self.patch_embed = nn.Conv2d(in_chans, embed_dim, kernel_size=patch_size, stride=patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, (img_size // patch_size) ** 2 + 1, embed_dim))
        self.blocks = nn.Sequential(*[VitBlock(embed_dim, num_heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.head = nn.Linear(embed_dim, num_classes)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.normal_(self.cls_token, std=1e-6)
        for m in self.modules():
            if isinstance(m, nn.Linear):
                nn.init.trunc_normal_(m.weight, std=0.02)
                nn.init.zeros_(m.bias)

    def forward_features(self, x):
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        return self.norm(self.blocks(x.add_(self.pos_embed)))

    def forward(self, x):
        return self.head(self.forward_features(x)[:, 0])


def build_vit():
    return VisionTransformer(), *images(32, 5, 3, 16), None


@torch.no_grad()
def vit_two_zeros(model):
    for name, p in model.named_parameters():
        if name.endswith(("gamma", "proj.weight", "proj.bias", "mlp.3.weight", "mlp.3.bias")):
            p.zero_()


VIT_FAULTS = (
    Planted("LayerScale and its branch both 0", vit_two_zeros, ("blocks",)),
    Planted("positions from N(0, 4)", scaled("pos_embed", 100.0), ("pos_embed", "patch_embed")),
    Planted("head from N(0, 36)", scaled("head.weight", 300.0), ("head",)),
)

# --- PaLM


class BiaslessLayerNorm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))
        self.register_buffer("beta", torch.zeros(dim))

    def forward(self, x):
        return F.layer_norm(x, x.shape[-1:], self.gamma, self.beta)


class SwiGLU(nn.Module):
    def forward(self, x):
        x, gate = x.chunk(2, dim=-1)
        return F.silu(gate) * x


class ParallelTransformerBlock(nn.Module):
    def __init__(self, dim, dim_head=8, heads=4, ff_mult=2):
        super().__init__()
        self.norm = BiaslessLayerNorm(dim)
        self.fused_dims = (dim_head * heads, dim_head, dim_head, 2 * dim * ff_mult)
        self.heads, self.scale = heads, dim_head**-0.5
        inv_freq = 1.0 / (10000 ** (torch.arange(0, dim_head, 2).float() / dim_head))
        self.register_buffer("inv_freq", inv_freq, persistent=False)
        self.register_buffer("mask", None, persistent=False)
        self.fused_attn_ff_proj = nn.Linear(dim, sum(self.fused_dims), bias=False)
        self.attn_out = nn.Linear(dim_head * heads, dim, bias=False)
        self.ff_out = nn.Sequential(SwiGLU(), nn.Linear(dim * ff_mult, dim, bias=False))

    def rotate(self, t):
        freqs = torch.outer(torch.arange(t.shape[-2], device=t.device), self.inv_freq)
        freqs = torch.cat((freqs, freqs), dim=-1)
        x1, x2 = t.chunk(2, dim=-1)
        return t * freqs.cos() + torch.cat((-x2, x1), dim=-1) * freqs.sin()

    def forward(self, x):
        n = x.shape[1]
        q, k, v, ff = self.fused_attn_ff_proj(self.norm(x)).split(self.fused_dims, dim=-1)
        q = q.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        q, k = self.rotate(q), self.rotate(k)
        sim = torch.einsum("b h i d, b j d -> b h i j", q * self.scale, k)
        if self.mask is None or self.mask.shape[-1] < n:
            self.register_buffer("mask", torch.ones((n, n), dtype=torch.bool).triu(1), persistent=False)
        sim = sim.masked_fill(self.mask[:n, :n], -torch.finfo(sim.dtype).max)
        attn = (sim - sim.amax(dim=-1, keepdim=True).detach()).softmax(dim=-1)
        out = torch.einsum("b h i j, b j d -> b h i d", attn, v).transpose(1, 2).flatten(2)
        return self.attn_out(out) + self.ff_out(ff)


class Residual(nn.Module):
    def __init__(self, fn):
        super().__init__()
        self.fn = fn

    def forward(self, x):
        return self.fn(x) + x


def palm(dim=32, num_tokens=32, depth=5):
    net = nn.Sequential(
        nn.Embedding(num_tokens, dim),
        *[Residual(ParallelTransformerBlock(dim)) for _ in range(depth)],
        BiaslessLayerNorm(dim),
        nn.Linear(dim, num_tokens, bias=False),
    )
    net[-1].weight = net[0].weight
    nn.init.normal_(net[0].weight, std=0.02)
    return net


def build_palm():
    return palm(), *text(16, 16, 32), None


@torch.no_grad()
def palm_sharp(model):
    for block in list(model)[1:-2]:
        block.fn.fused_attn_ff_proj.weight[: 5 * 8].mul_(8.0)


BLOCKS = ("1.fn", "2.fn", "3.fn", "4.fn", "5.fn")
PALM_FAULTS = (
    Planted("branches x 30", all_scaled("out.1.weight", 30.0), BLOCKS),
    Planted("queries and keys x 8", palm_sharp, BLOCKS),
    Planted("fused projections of 0", all_scaled("fused_attn_ff_proj.weight", 0.0), BLOCKS),
)

# --- Mixture of experts


class MixtralBlockSparseTop2MLP(nn.Module):
    def __init__(self, hidden_dim: int, ffn_dim: int):
        super().__init__()
        self.w1, self.w2 = nn.Linear(hidden_dim, ffn_dim), nn.Linear(ffn_dim, hidden_dim)
        self.act_fn = nn.ReLU(inplace=True)

    def forward(self, hidden_states):
        return self.w2(self.act_fn(self.w1(hidden_states)))


class SparseMoeBlock(nn.Module):
    def __init__(self, hidden_dim=32, ffn_dim=64, num_experts=4, top_k=2):
        super().__init__()
        self.top_k, self.num_experts = top_k, num_experts
        self.norm = nn.LayerNorm(hidden_dim)
        self.gate = nn.Linear(hidden_dim, num_experts)
        self.experts = nn.ModuleList(
            MixtralBlockSparseTop2MLP(hidden_dim, ffn_dim) for _ in range(num_experts)
        )

    def forward(self, x):
        hidden_states = self.norm(x)
        router_logits = self.gate(hidden_states)
        weights, selected = torch.topk(F.softmax(router_logits, dim=1, dtype=torch.float), self.top_k, dim=-1)
        weights /= weights.sum(dim=-1, keepdim=True)
        final = torch.zeros_like(hidden_states)
        for expert_idx in range(self.num_experts):
            token, nth = torch.where(selected == expert_idx)
            if token.numel() == 0:
                continue
            current = self.experts[expert_idx](hidden_states[token]) * weights[token, nth, None]
            final.index_add_(0, token, current.to(hidden_states.dtype))
        return x + final, router_logits


class MoeClassifier(nn.Module):
    def __init__(self, in_features=20, hidden_dim=32, num_layers=4, num_classes=6):
        super().__init__()
        self.embed = nn.Linear(in_features, hidden_dim)
        self.layers = nn.ModuleList(SparseMoeBlock(hidden_dim) for _ in range(num_layers))
        self.norm, self.lm_head = nn.LayerNorm(hidden_dim), nn.Linear(hidden_dim, num_classes)

    def forward(self, x):
        x, all_router_logits = self.embed(x), ()
        for layer in self.layers:
            x, router_logits = layer(x)
            all_router_logits += (router_logits,)
        return self.lm_head(self.norm(x)), all_router_logits


def build_moe():
    x = torch.randn(64, 20)
    y = 3 * (x[:, 0] * x[:, 1] > 0).long() + (x[:, 2] > 0.5).long() + (x[:, 3] * x[:, 2] > 0).long()
    return MoeClassifier(), x, y, None


@torch.no_grad()
def moe_two_experts(model):
    for layer in model.layers:
        layer.gate.bias.copy_(torch.tensor([20.0, 20.0, 0.0, 0.0]))


@torch.no_grad()
def moe_dead(model):
    for layer in model.layers:
        for expert in layer.experts:
            expert.w1.bias.fill_(-5.0)


MOE_FAULTS = (
    Planted(
        "a router that knows two experts",
        moe_two_experts,
        tuple(f"layers.{i}.{k}" for i in range(4) for k in ("gate", "experts.2", "experts.3")),
    ),
    Planted("biases of -5 in the experts", moe_dead, ("layers.",)),
    Planted("embed x 100", scaled("embed.weight", 100.0), ("embed",)),
)

# --- T5


class T5LayerNorm(nn.Module):
    def __init__(self, hidden_size, eps=1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.variance_epsilon = eps

    def forward(self, hidden_states):
        variance = hidden_states.to(torch.float32).pow(2).mean(-1, keepdim=True)
        return self.weight * (hidden_states * torch.rsqrt(variance + self.variance_epsilon))


class T5Attention(nn.Module):
    def __init__(self, d_model, d_kv, num_heads, buckets=0, causal=False):
        super().__init__()
        self.n_heads, self.d_kv, self.causal = num_heads, d_kv, causal
        inner = num_heads * d_kv
        self.q, self.k, self.v = (nn.Linear(d_model, inner, bias=False) for _ in range(3))
        self.o = nn.Linear(inner, d_model, bias=False)
        self.layer_norm = T5LayerNorm(d_model)
        self.relative_attention_bias = nn.Embedding(buckets, num_heads) if buckets else None
        self.q.weight.data.normal_(mean=0.0, std=(d_model * d_kv) ** -0.5)
        for m in (self.k, self.v):
            m.weight.data.normal_(mean=0.0, std=d_model**-0.5)
        self.o.weight.data.normal_(mean=0.0, std=inner**-0.5)
        if buckets:
            self.relative_attention_bias.weight.data.normal_(mean=0.0, std=d_model**-0.5)

    def compute_bias(self, n, m):
        distance = torch.arange(m)[None, :] - torch.arange(n)[:, None]
        half = self.relative_attention_bias.num_embeddings // 2
        values = self.relative_attention_bias(distance.clamp(-half, half - 1) + half).permute(2, 0, 1)[None]
        return values + torch.triu(torch.full((n, m), -1e9), 1) if self.causal else values

    def forward(self, hidden_states, key_value_states=None, position_bias=None):
        normed = self.layer_norm(hidden_states)
        source = normed if key_value_states is None else key_value_states
        q, k, v = (
            t.view(t.shape[0], -1, self.n_heads, self.d_kv).transpose(1, 2)
            for t in (self.q(normed), self.k(source), self.v(source))
        )
        scores = torch.matmul(q, k.transpose(3, 2))
        if self.relative_attention_bias is not None:
            position_bias = self.compute_bias(*scores.shape[-2:])
        if position_bias is not None:
            scores += position_bias
        out = torch.matmul(F.softmax(scores.float(), dim=-1).type_as(scores), v)
        return hidden_states + self.o(out.transpose(1, 2).flatten(2)), position_bias


class T5LayerFF(nn.Module):
    def __init__(self, d_model, d_ff):
        super().__init__()
        self.wi, self.wo = nn.Linear(d_model, d_ff, bias=False), nn.Linear(d_ff, d_model, bias=False)
        self.layer_norm = T5LayerNorm(d_model)
        self.wi.weight.data.normal_(mean=0.0, std=d_model**-0.5)
        self.wo.weight.data.normal_(mean=0.0, std=d_ff**-0.5)

    def forward(self, hidden_states):
        return hidden_states + self.wo(torch.relu(self.wi(self.layer_norm(hidden_states))))


class T5Stack(nn.Module):
    def __init__(self, d_model, d_kv, d_ff, num_layers, num_heads, is_decoder):
        super().__init__()
        self.block = nn.ModuleList()
        for i in range(num_layers):
            layers = [T5Attention(d_model, d_kv, num_heads, 16 * (i == 0), is_decoder)]
            layers += [T5Attention(d_model, d_kv, num_heads)] if is_decoder else []
            self.block.append(nn.ModuleList([*layers, T5LayerFF(d_model, d_ff)]))
        self.final_layer_norm = T5LayerNorm(d_model)

    def forward(self, hidden_states, encoder_hidden_states=None):
        position_bias = None
        for block in self.block:
            hidden_states, position_bias = block[0](hidden_states, position_bias=position_bias)
            if encoder_hidden_states is not None:
                hidden_states, _ = block[1](hidden_states, encoder_hidden_states)
            hidden_states = block[-1](hidden_states)
        return self.final_layer_norm(hidden_states)


class T5ForConditionalGeneration(nn.Module):
    def __init__(self, vocab_size=24, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4):
        super().__init__()
        self.model_dim = d_model
        self.shared = nn.Embedding(vocab_size, d_model)
        self.encoder, self.decoder = (
            T5Stack(d_model, d_kv, d_ff, num_layers, num_heads, is_decoder) for is_decoder in (False, True)
        )
        self.lm_head = nn.Linear(d_model, vocab_size, bias=False)
        self.lm_head.weight = self.shared.weight
        self.shared.weight.data.normal_(mean=0.0, std=1.0)

    def forward(self, input_ids=None, decoder_input_ids=None, **kwargs):
        memory = self.encoder(self.shared(input_ids))
        out = self.decoder(self.shared(decoder_input_ids), memory)
        return {"logits": self.lm_head(out * self.model_dim**-0.5), "encoder_last_hidden_state": memory}


def build_t5():
    source, _ = text(16, 8, 24)
    shifted = torch.cat((torch.zeros(16, 1, dtype=torch.long), source.flip(1)[:, :-1]), 1)
    inputs = {"input_ids": source, "decoder_input_ids": shifted}
    return T5ForConditionalGeneration(), inputs, source.flip(1).contiguous(), None


def t5_cut_encoder(model):
    forward = model.encoder.forward
    model.encoder.forward = lambda hidden_states: forward(hidden_states).detach()


T5_FAULTS = (
    Planted("constant shared embedding", filled("shared.weight", 1.0), ("shared", "lm_head")),
    Planted("queries x 32", all_scaled(".q.weight", 32.0), ("encoder.block", "decoder.block")),
    Planted("encoder cut off", t5_cut_encoder, ("encoder",)),
)

SPECIMENS = (
    Specimen("vit with LayerScale (timm)", build_vit, VIT_FAULTS, 5),
    Specimen("palm (lucidrains)", build_palm, PALM_FAULTS, 32),
    Specimen("mixture of experts", build_moe, MOE_FAULTS, 6),
    Specimen("t5 (transformers)", build_t5, T5_FAULTS, 24),
)
