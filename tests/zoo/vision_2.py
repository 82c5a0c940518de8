"""ConvNeXt, U-Net, DiT and MLP-Mixer as repositories write them."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from zoo.specimen import Planted, Specimen, filled, scaled
from zoo.vision import cut, pictures, several


# A ConvNeXt.
class LayerNorm(nn.Module):
    def __init__(self, normalized_shape, eps=1e-6, data_format="channels_last"):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(normalized_shape))
        self.bias = nn.Parameter(torch.zeros(normalized_shape))
        self.eps, self.data_format, self.normalized_shape = eps, data_format, (normalized_shape,)

    def forward(self, x):
        if self.data_format == "channels_last":
            return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        u = x.mean(1, keepdim=True)
        s = (x - u).pow(2).mean(1, keepdim=True)
        x = (x - u) / torch.sqrt(s + self.eps)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class Block(nn.Module):
    def __init__(self, dim, layer_scale_init_value=1e-6):
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, kernel_size=7, padding=3, groups=dim)
        self.norm = LayerNorm(dim)
        self.pwconv1, self.act, self.pwconv2 = nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(layer_scale_init_value * torch.ones(dim))

    def forward(self, x):
        input = x
        x = self.dwconv(x).permute(0, 2, 3, 1)
        x = self.gamma * self.pwconv2(self.act(self.pwconv1(self.norm(x))))
        return input + x.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    def __init__(self, num_classes=10, depths=(2, 2, 2), dims=(16, 32, 48)):
        super().__init__()
        self.downsample_layers, self.stages = nn.ModuleList(), nn.ModuleList()
        stem = nn.Conv2d(3, dims[0], 2, 2), LayerNorm(dims[0], data_format="channels_first")
        self.downsample_layers.append(nn.Sequential(*stem))
        for i in range(len(dims) - 1):
            parts = LayerNorm(dims[i], data_format="channels_first"), nn.Conv2d(dims[i], dims[i + 1], 2, 2)
            self.downsample_layers.append(nn.Sequential(*parts))
        for i in range(len(dims)):
            self.stages.append(nn.Sequential(*[Block(dims[i]) for _ in range(depths[i])]))
        self.norm = nn.LayerNorm(dims[-1], eps=1e-6)
        self.head = nn.Linear(dims[-1], num_classes)
        self.apply(self._init_weights)

    def _init_weights(self, m):
        if isinstance(m, nn.Conv2d | nn.Linear):
            nn.init.trunc_normal_(m.weight, std=0.02)
            nn.init.constant_(m.bias, 0)

    def forward(self, x):
        for down, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(down(x))
        return self.head(self.norm(x.mean([-2, -1])))


def build_convnext():
    return ConvNeXt(), *pictures(24, 16), None


# A U-Net that predicts the noise of a diffusion.
def timestep_embedding(timesteps, dim, max_period=10000):
    half = dim // 2
    freqs = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float32) / half)
    args = timesteps[:, None].float() * freqs[None]
    return torch.cat([torch.cos(args), torch.sin(args)], dim=-1)


def zero_module(module):
    for p in module.parameters():
        p.detach().zero_()
    return module


class GroupNorm32(nn.GroupNorm):
    def forward(self, x):
        return super().forward(x.float()).type(x.dtype)


class ResBlock(nn.Module):
    def __init__(self, channels, emb_channels, out_channels):
        super().__init__()
        conv = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.in_layers = nn.Sequential(GroupNorm32(8, channels), nn.SiLU(), conv)
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, 2 * out_channels))
        last = zero_module(nn.Conv2d(out_channels, out_channels, 3, padding=1))
        self.out_layers = nn.Sequential(GroupNorm32(8, out_channels), nn.SiLU(), nn.Dropout(0.0), last)
        same = out_channels == channels
        self.skip_connection = nn.Identity() if same else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x, emb):
        h = self.in_layers(x)
        emb_out = self.emb_layers(emb).type(h.dtype)[..., None, None]
        out_norm, out_rest = self.out_layers[0], self.out_layers[1:]
        scale, shift = torch.chunk(emb_out, 2, dim=1)
        return self.skip_connection(x) + out_rest(out_norm(h) * (1 + scale) + shift)


class QKVBlock(nn.Module):
    def __init__(self, channels, num_heads=2):
        super().__init__()
        self.num_heads = num_heads
        self.norm, self.qkv = GroupNorm32(8, channels), nn.Conv1d(channels, channels * 3, 1)
        self.proj_out = zero_module(nn.Conv1d(channels, channels, 1))

    def forward(self, x):
        b, c, *spatial = x.shape
        x = x.reshape(b, c, -1)
        q, k, v = self.qkv(self.norm(x)).reshape(b * self.num_heads, -1, x.shape[-1]).chunk(3, dim=1)
        scale = 1 / math.sqrt(math.sqrt(q.shape[1]))
        weight = torch.softmax(torch.einsum("bct,bcs->bts", q * scale, k * scale), dim=-1)
        h = torch.einsum("bts,bcs->bct", weight, v).reshape(b, c, -1)
        return (x + self.proj_out(h)).reshape(b, c, *spatial)


class UNetModel(nn.Module):
    def __init__(self, ch=16):
        super().__init__()
        self.ch, emb = ch, 4 * ch
        self.time_embed = nn.Sequential(nn.Linear(ch, emb), nn.SiLU(), nn.Linear(emb, emb))
        self.conv_in = nn.Conv2d(3, ch, 3, padding=1)
        self.down1, self.op = ResBlock(ch, emb, ch), nn.Conv2d(ch, ch, 3, stride=2, padding=1)
        self.down2 = ResBlock(ch, emb, 2 * ch)
        self.mid, self.mid_attn = ResBlock(2 * ch, emb, 2 * ch), QKVBlock(2 * ch)
        self.up2, self.up1 = ResBlock(4 * ch, emb, 2 * ch), ResBlock(3 * ch, emb, ch)
        self.up_conv = nn.Conv2d(2 * ch, 2 * ch, 3, padding=1)
        out = zero_module(nn.Conv2d(ch, 3, 3, padding=1))
        self.out = nn.Sequential(GroupNorm32(8, ch), nn.SiLU(), out)

    def forward(self, x, timesteps):
        emb = self.time_embed(timestep_embedding(timesteps, self.ch))
        h1 = self.down1(self.conv_in(x), emb)
        h2 = self.down2(self.op(h1), emb)
        h = self.mid_attn(self.mid(h2, emb))
        h = self.up2(torch.cat([h, h2], dim=1), emb)
        h = self.up_conv(F.interpolate(h, scale_factor=2, mode="nearest"))
        return self.out(self.up1(torch.cat([h, h1], dim=1), emb))


def noisy(n, size, channels=3):
    """Return noisy images, times, and the noise."""
    x, labels = pictures(n, size, channels)
    t, noise = torch.randint(0, 1000, (n,)), torch.randn_like(x)
    share = torch.cos(t / 1000 * math.pi / 2)[:, None, None, None]
    return share * x + (1 - share**2).sqrt() * noise, t, labels, noise


def build_unet():
    x, t, _, noise = noisy(16, 8)
    return UNetModel(), {"x": x, "timesteps": t}, noise, None


# A DiT.
def modulate(x, shift, scale):
    return x * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)


class Attention(nn.Module):
    def __init__(self, dim, num_heads=4):
        super().__init__()
        self.num_heads, self.scale = num_heads, (dim // num_heads) ** -0.5
        self.qkv, self.proj = nn.Linear(dim, dim * 3), nn.Linear(dim, dim)

    def forward(self, x):
        B, N, C = x.shape
        q, k, v = self.qkv(x).reshape(B, N, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        attn = (q * self.scale) @ k.transpose(-2, -1)
        return self.proj((attn.softmax(dim=-1) @ v).transpose(1, 2).reshape(B, N, C))


class DiTBlock(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.norm1 = nn.LayerNorm(hidden, elementwise_affine=False, eps=1e-6)
        self.norm2 = nn.LayerNorm(hidden, elementwise_affine=False, eps=1e-6)
        self.attn = Attention(hidden)
        gelu = nn.GELU(approximate="tanh")
        self.mlp = nn.Sequential(nn.Linear(hidden, 4 * hidden), gelu, nn.Linear(4 * hidden, hidden))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden, 6 * hidden))

    def forward(self, x, c):
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.adaLN_modulation(c).chunk(6, dim=1)
        x = x + gate_a.unsqueeze(1) * self.attn(modulate(self.norm1(x), shift_a, scale_a))
        return x + gate_m.unsqueeze(1) * self.mlp(modulate(self.norm2(x), shift_m, scale_m))


class FinalLayer(nn.Module):
    def __init__(self, hidden, out):
        super().__init__()
        self.norm_final = nn.LayerNorm(hidden, elementwise_affine=False, eps=1e-6)
        self.linear = nn.Linear(hidden, out)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden, 2 * hidden))

    def forward(self, x, c):
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=1)
        return self.linear(modulate(self.norm_final(x), shift, scale))


class DiT(nn.Module):
    def __init__(self, size=8, patch=2, channels=4, hidden=48, depth=4, classes=10):
        super().__init__()
        self.patch, self.channels, self.hidden = patch, channels, hidden
        self.x_embedder = nn.Conv2d(channels, hidden, patch, patch)
        self.t_embedder = nn.Sequential(nn.Linear(32, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.y_embedder = nn.Embedding(classes + 1, hidden)
        grid = timestep_embedding(torch.arange((size // patch) ** 2), hidden, 100)
        self.pos_embed = nn.Parameter(grid[None], requires_grad=False)
        self.blocks = nn.ModuleList([DiTBlock(hidden) for _ in range(depth)])
        self.final_layer = FinalLayer(hidden, patch * patch * channels)
        self.initialize_weights()

    def initialize_weights(self):
        for m in self.modules():
            if isinstance(m, nn.Linear):
                nn.init.xavier_uniform_(m.weight)
                nn.init.constant_(m.bias, 0)
        nn.init.xavier_uniform_(self.x_embedder.weight.view(self.hidden, -1))
        nn.init.constant_(self.x_embedder.bias, 0)
        nn.init.normal_(self.y_embedder.weight, std=0.02)
        nn.init.normal_(self.t_embedder[0].weight, std=0.02)
        nn.init.normal_(self.t_embedder[2].weight, std=0.02)
        for block in [*self.blocks, self.final_layer]:
            nn.init.constant_(block.adaLN_modulation[-1].weight, 0)
        nn.init.constant_(self.final_layer.linear.weight, 0)

    def forward(self, x, t, y):
        tokens = self.x_embedder(x).flatten(2).transpose(1, 2) + self.pos_embed
        c = self.t_embedder(timestep_embedding(t, 32)) + self.y_embedder(y)
        for block in self.blocks:
            tokens = block(tokens, c)
        tokens = self.final_layer(tokens, c)
        h, p = int(tokens.shape[1] ** 0.5), self.patch
        tokens = tokens.reshape(len(x), h, h, p, p, self.channels)
        return torch.einsum("nhwpqc->nchpwq", tokens).reshape(len(x), self.channels, h * p, h * p)


def build_dit():
    *inputs, noise = noisy(16, 8, 4)
    return DiT(), tuple(inputs), noise, None


# An MLP-Mixer in bare parameters.
class Dense(nn.Module):
    def __init__(self, n_in, n_out):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(n_in, n_out) / n_in**0.5)
        self.bias = nn.Parameter(torch.zeros(n_out))

    def forward(self, x):
        return x @ self.kernel + self.bias


class MixerBlock(nn.Module):
    def __init__(self, tokens, dim):
        super().__init__()
        self.g1, self.g2 = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.ones(dim))
        self.token_in, self.token_out = Dense(tokens, 32), Dense(32, tokens)
        self.channel_in, self.channel_out = Dense(dim, 4 * dim), Dense(4 * dim, dim)

    @staticmethod
    def norm(x, g):
        x = x - x.mean(-1, keepdim=True)
        return g * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)

    @staticmethod
    def gelu(x):
        return 0.5 * x * (1 + torch.tanh((2 / math.pi) ** 0.5 * (x + 0.044715 * x**3)))

    def forward(self, x):
        y = self.norm(x, self.g1).transpose(1, 2)
        x = x + self.token_out(self.gelu(self.token_in(y))).transpose(1, 2)
        return x + self.channel_out(self.gelu(self.channel_in(self.norm(x, self.g2))))


class Mixer(nn.Module):
    def __init__(self, patch=4, dim=48, depth=4, tokens=16, classes=10):
        super().__init__()
        self.patch = patch
        self.stem = Dense(3 * patch * patch, dim)
        self.mixers = nn.ModuleList(MixerBlock(tokens, dim) for _ in range(depth))
        self.g = nn.Parameter(torch.ones(dim))
        self.head = nn.Parameter(torch.zeros(dim, classes))

    def forward(self, image, **kwargs):
        x = F.unfold(image, self.patch, stride=self.patch).transpose(1, 2)
        x = self.stem(x)
        for mixer in self.mixers:
            x = mixer(x)
        return {"logits": MixerBlock.norm(x, self.g).mean(1) @ self.head}


def build_mixer():
    x, labels = pictures(16, 16)
    return Mixer(), {"image": x}, labels, None


def qk_times_8(name, dim):
    """Return what multiplies queries and keys by 8, the first two thirds of a projection."""
    return torch.no_grad()(lambda model: model.get_parameter(name)[: 2 * dim].mul_(8.0))


_two_zeros = several(filled("stages.1.0.gamma", 0.0), filled("stages.1.0.pwconv2.weight", 0.0))
SPECIMENS = (
    Specimen(
        "convnext",
        build_convnext,
        (
            Planted("two zeros", _two_zeros, ("stages.1.0",)),
            Planted("LayerScale 1e6", scaled("stages.1.1.gamma", 1e12), ("stages.1.1",)),
            Planted("detach", cut("stages.0"), ("stages.0", "downsample_layers.0")),
        ),
        classes=10,
    ),
    Specimen(
        "unet",
        build_unet,
        (
            Planted(
                "two zeros",
                several(filled("mid_attn.qkv.weight", 0.0), filled("mid_attn.qkv.bias", 0.0)),
                ("mid_attn",),
            ),
            Planted(
                "time dead",
                several(filled("time_embed.0.bias", -200.0), filled("time_embed.2.bias", -200.0)),
                ("time_embed",),
            ),
            Planted("last N(0, 1)", lambda model: nn.init.normal_(model.out[2].weight), ("out.2",)),
        ),
    ),
    Specimen(
        "dit",
        build_dit,
        (
            Planted("two zeros", filled("blocks.2.mlp.2.weight", 0.0), ("blocks.2",)),
            Planted("positions x 30", scaled("pos_embed", 30.0), ("pos_embed", "x_embedder")),
            Planted("dead condition", filled("t_embedder.2.bias", -200.0), ("t_embedder", "y_embedder")),
        ),
    ),
    Specimen(
        "mixer",
        build_mixer,
        (
            Planted("stem 0", filled("stem.kernel", 0.0), ("stem",)),
            Planted("detach", cut("mixers.1"), ("stem", "mixers.0", "mixers.1")),
            Planted(
                "two zeros",
                several(filled("mixers.2.g2", 0.0), filled("mixers.2.channel_out.kernel", 0.0)),
                ("mixers.2",),
            ),
        ),
        classes=10,
    ),
)
