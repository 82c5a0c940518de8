"""State spaces, time mixing, and coordinate networks."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from zoo.others import both, constant, every, waves
from zoo.specimen import Planted, Specimen, filled, scaled


class S4DKernel(nn.Module):
    """Generate the convolution kernel from diagonal SSM parameters."""

    def __init__(self, d_model, N=16, dt_min=0.01, dt_max=0.3):
        super().__init__()
        log_dt = torch.rand(d_model) * (math.log(dt_max) - math.log(dt_min)) + math.log(dt_min)
        self.C = nn.Parameter(torch.view_as_real(torch.randn(d_model, N // 2, dtype=torch.cfloat)))
        self.log_dt = nn.Parameter(log_dt)
        self.log_A_real = nn.Parameter(torch.log(0.5 * torch.ones(d_model, N // 2)))
        self.A_imag = nn.Parameter(math.pi * torch.arange(N // 2).repeat(d_model, 1).float())

    def forward(self, L):
        dt, C = torch.exp(self.log_dt), torch.view_as_complex(self.C)
        A = -torch.exp(self.log_A_real) + 1j * self.A_imag
        dtA = A * dt.unsqueeze(-1)
        K = dtA.unsqueeze(-1) * torch.arange(L, device=A.device)
        C = C * (torch.exp(dtA) - 1.0) / A
        return 2 * torch.einsum("hn, hnl -> hl", C, torch.exp(K)).real


class S4D(nn.Module):
    def __init__(self, d_model):
        super().__init__()
        self.D = nn.Parameter(torch.randn(d_model))
        self.kernel = S4DKernel(d_model)
        self.activation = nn.GELU()
        self.output_linear = nn.Sequential(nn.Conv1d(d_model, 2 * d_model, kernel_size=1), nn.GLU(dim=-2))

    def forward(self, u):
        L = u.size(-1)
        k_f, u_f = torch.fft.rfft(self.kernel(L=L), n=2 * L), torch.fft.rfft(u, n=2 * L)
        y = torch.fft.irfft(u_f * k_f, n=2 * L)[..., :L] + u * self.D.unsqueeze(-1)
        return self.output_linear(self.activation(y))


class S4Model(nn.Module):
    def __init__(self, d_input=4, d_output=5, d_model=24, n_layers=4):
        super().__init__()
        self.encoder = nn.Linear(d_input, d_model)
        self.s4_layers = nn.ModuleList(S4D(d_model) for _ in range(n_layers))
        self.norms = nn.ModuleList(nn.LayerNorm(d_model) for _ in range(n_layers))
        self.decoder = nn.Linear(d_model, d_output)

    def forward(self, x):
        x = self.encoder(x).transpose(-1, -2)
        for layer, norm in zip(self.s4_layers, self.norms, strict=True):
            x = norm((layer(x) + x).transpose(-1, -2)).transpose(-1, -2)
        return self.decoder(x.mean(dim=-1))


def s4d():
    return S4Model(), *waves(32, 32, 4, 5), None


class RMSNorm(nn.Module):
    def __init__(self, d_model: int, eps: float = 1e-5):
        super().__init__()
        self.eps, self.weight = eps, nn.Parameter(torch.ones(d_model))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


class MambaBlock(nn.Module):
    def __init__(self, d_model, d_inner, d_state=4, dt_rank=2, d_conv=4):
        super().__init__()
        self.dt_rank, self.d_state, self.d_inner = dt_rank, d_state, d_inner
        self.in_proj = nn.Linear(d_model, d_inner * 2, bias=False)
        self.conv1d = nn.Conv1d(d_inner, d_inner, d_conv, groups=d_inner, padding=d_conv - 1)
        self.x_proj = nn.Linear(d_inner, dt_rank + d_state * 2, bias=False)
        self.dt_proj = nn.Linear(dt_rank, d_inner)
        self.A_log = nn.Parameter(torch.log(torch.arange(1.0, d_state + 1).repeat(d_inner, 1)))
        self.D = nn.Parameter(torch.ones(d_inner))
        self.out_proj = nn.Linear(d_inner, d_model, bias=False)
        nn.init.uniform_(self.dt_proj.weight, -(dt_rank**-0.5), dt_rank**-0.5)
        dt = torch.exp(torch.rand(d_inner) * math.log(100) + math.log(0.001))
        with torch.no_grad():
            self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))

    def forward(self, x):
        x, res = self.in_proj(x).split([self.d_inner, self.d_inner], dim=-1)
        x = self.conv1d(x.transpose(1, 2))[:, :, : x.shape[1]].transpose(1, 2)
        x = F.silu(x)
        return self.out_proj(self.ssm(x) * F.silu(res))

    def ssm(self, u):
        A = -torch.exp(self.A_log.float())
        delta, B, C = self.x_proj(u).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        delta = F.softplus(self.dt_proj(delta))
        deltaA = torch.exp(torch.einsum("bld,dn->bldn", delta, A))
        deltaB_u = torch.einsum("bld,bln,bld->bldn", delta, B, u)
        x, ys = torch.zeros_like(deltaA[:, 0]), []
        for i in range(u.shape[1]):
            x = deltaA[:, i] * x + deltaB_u[:, i]
            ys.append(torch.einsum("bdn,bn->bd", x, C[:, i]))
        return torch.stack(ys, dim=1) + u * self.D


class Mamba(nn.Module):
    def __init__(self, vocab_size=32, d_model=24, n_layer=4):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, d_model)
        self.layers = nn.ModuleList(MambaBlock(d_model, 2 * d_model) for _ in range(n_layer))
        self.norms = nn.ModuleList(RMSNorm(d_model) for _ in range(n_layer + 1))
        self.lm_head = nn.Linear(d_model, vocab_size, bias=False)
        self.lm_head.weight = self.embedding.weight
        nn.init.normal_(self.embedding.weight, std=0.02)
        for block in self.layers:
            nn.init.kaiming_uniform_(block.out_proj.weight, a=math.sqrt(5))
            block.out_proj.weight.data /= math.sqrt(n_layer)

    def forward(self, input_ids, **kwargs):
        x = self.embedding(input_ids)
        for norm, mixer in zip(self.norms, self.layers, strict=False):
            x = mixer(norm(x)) + x
        return self.lm_head(self.norms[-1](x))


def counting(n, steps, vocabulary):
    """Return sequences of token ids with a constant stride each, and what comes next."""
    ids = torch.randint(vocabulary, (n, 1)) + torch.randint(1, 4, (n, 1)) * torch.arange(steps + 1)
    return ids[:, :-1] % vocabulary, ids[:, 1:] % vocabulary


def mamba():
    return Mamba(), *counting(16, 10, 32), None


class RWKV_TimeMix(nn.Module):
    def __init__(self, n_embd, layer_id, n_layer):
        super().__init__()
        ratio = 1 - layer_id / n_layer
        self.time_decay = nn.Parameter(-5 + 8 * torch.linspace(0, 1, n_embd) ** (0.7 + 1.3 * (1 - ratio)))
        self.time_first = nn.Parameter(torch.ones(n_embd) * math.log(0.3))
        mix = torch.linspace(0, 1, n_embd).view(1, 1, -1)
        self.time_mix_k, self.time_mix_v, self.time_mix_r = (nn.Parameter(mix**a) for a in (ratio, 1.0, 0.5))
        self.time_shift = nn.ZeroPad2d((0, 0, 1, -1))
        self.key, self.value, self.receptance, self.output = (
            nn.Linear(n_embd, n_embd, bias=False) for _ in range(4)
        )
        nn.init.orthogonal_(self.value.weight)
        for zero in (self.key, self.receptance, self.output):
            nn.init.zeros_(zero.weight)

    def forward(self, x):
        xx = self.time_shift(x)
        k = self.key(x * self.time_mix_k + xx * (1 - self.time_mix_k))
        v = self.value(x * self.time_mix_v + xx * (1 - self.time_mix_v))
        r = torch.sigmoid(self.receptance(x * self.time_mix_r + xx * (1 - self.time_mix_r)))
        w, a, b, out = -torch.exp(self.time_decay), 0.0, 0.0, []
        for kt, vt in zip(k.unbind(1), v.unbind(1), strict=True):
            bonus, ek = torch.exp(self.time_first + kt), torch.exp(kt)
            out += [(a + bonus * vt) / (b + bonus)]
            a, b = torch.exp(w) * a + ek * vt, torch.exp(w) * b + ek
        return self.output(r * torch.stack(out, 1))


class RWKV_ChannelMix(nn.Module):
    def __init__(self, n_embd):
        super().__init__()
        self.key, self.value = (
            nn.Linear(n_embd, 2 * n_embd, bias=False),
            nn.Linear(2 * n_embd, n_embd, bias=False),
        )
        self.receptance = nn.Linear(n_embd, n_embd, bias=False)
        nn.init.orthogonal_(self.key.weight, gain=2**0.5)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.receptance.weight)

    def forward(self, x):
        k = torch.square(torch.relu(self.key(x)))
        return torch.sigmoid(self.receptance(x)) * self.value(k)


class RWKV(nn.Module):
    def __init__(self, vocab=32, n_embd=24, n_layer=4):
        super().__init__()
        self.emb = nn.Embedding(vocab, n_embd)
        nn.init.uniform_(self.emb.weight, a=-1e-4, b=1e-4)
        self.ln0, self.ln_out = nn.LayerNorm(n_embd), nn.LayerNorm(n_embd)
        self.att = nn.ModuleList(RWKV_TimeMix(n_embd, i, n_layer) for i in range(n_layer))
        self.ffn = nn.ModuleList(RWKV_ChannelMix(n_embd) for _ in range(n_layer))
        self.ln1, self.ln2 = (nn.ModuleList(nn.LayerNorm(n_embd) for _ in range(n_layer)) for _ in range(2))
        self.head = nn.Linear(n_embd, vocab, bias=False)
        nn.init.orthogonal_(self.head.weight, gain=0.5)

    def forward(self, idx):
        x = self.ln0(self.emb(idx))
        for ln1, att, ln2, ffn in zip(self.ln1, self.att, self.ln2, self.ffn, strict=True):
            x = x + att(ln1(x))
            x = x + ffn(ln2(x))
        return self.head(self.ln_out(x))


def rwkv():
    return RWKV(), *counting(16, 10, 32), None


def squared(out, y):
    return ((out["model_out"] - y) ** 2).mean()


class SineLayer(nn.Module):
    def __init__(self, in_features, out_features, is_first=False, omega_0=30):
        super().__init__()
        self.omega_0, self.linear = omega_0, nn.Linear(in_features, out_features)
        bound = 1 / in_features if is_first else math.sqrt(6 / in_features) / omega_0
        self.linear.weight.data.uniform_(-bound, bound)

    def forward(self, input):
        return torch.sin(self.omega_0 * self.linear(input))


class Siren(nn.Module):
    def __init__(self, hidden=48, depth=4):
        super().__init__()
        layers = [SineLayer(hidden if i else 2, hidden, is_first=not i) for i in range(depth)]
        final = nn.Linear(hidden, 1)
        final.weight.data.uniform_(-math.sqrt(6 / hidden) / 30, math.sqrt(6 / hidden) / 30)
        self.net = nn.Sequential(*layers, final)

    def forward(self, coords):
        coords = coords.clone().detach().requires_grad_(True)
        return {"model_out": self.net(coords), "model_in": coords}


def siren():
    xy = torch.rand(64, 2) * 2 - 1
    return Siren(), xy, torch.sin(6 * xy[:, :1]) * torch.cos(4 * xy[:, 1:]), squared


class NeRF(nn.Module):
    def __init__(self, D=6, W=64, L=4, skips=(3,)):
        super().__init__()
        self.register_buffer("freqs", 2.0 ** torch.arange(L), persistent=False)
        self.skips, ch = skips, 3 + 6 * L
        widths = [ch] + [W + ch if i in skips else W for i in range(D - 1)]
        self.pts_linears = nn.ModuleList(nn.Linear(n, W) for n in widths)
        self.alpha_linear, self.feature_linear = nn.Linear(W, 1), nn.Linear(W, W)
        self.views_linear, self.rgb_linear = nn.Linear(W + 3, W // 2), nn.Linear(W // 2, 3)
        for m in self.modules():
            if isinstance(m, nn.Linear):
                nn.init.xavier_uniform_(m.weight)
                nn.init.zeros_(m.bias)

    def forward(self, pts, views):
        angles = pts[..., None] * self.freqs
        h = gamma = torch.cat([pts, angles.sin().flatten(1), angles.cos().flatten(1)], -1)
        for i, layer in enumerate(self.pts_linears):
            h = F.relu(layer(h))
            if i in self.skips:
                h = torch.cat([gamma, h], -1)
        alpha = self.alpha_linear(h)
        h = torch.relu(self.views_linear(torch.cat([self.feature_linear(h), views], -1)))
        return torch.cat([self.rgb_linear(h), alpha], -1)


def nerf():
    pts, views = torch.rand(64, 3) * 2 - 1, F.normalize(torch.randn(64, 3), dim=-1)
    colour = torch.sigmoid(3 * torch.sin(3 * pts) + views)
    return NeRF(), (pts, views), torch.cat([colour, (pts.norm(dim=-1, keepdim=True) < 0.8).float()], -1), None


SPECIMENS = (
    Specimen(
        "s4d",
        s4d,
        (
            Planted("gates shut", every("output_linear.0.bias", lambda b: b[24:].fill_(-12)), ("s4_layers",)),
            Planted("decoder x 50", scaled("decoder.weight", 50), ("decoder",)),
            Planted("zero encoder", filled("encoder.weight", 0), ("encoder",)),
        ),
        classes=5,
    ),
    Specimen(
        "mamba",
        mamba,
        (
            Planted("tied embedding N(0, 1)", scaled("embedding.weight", 50), ("embedding", "lm_head")),
            Planted(
                "zero projections and convolutions' biases",
                both(every("in_proj.weight", torch.zero_), every("conv1d.bias", torch.zero_)),
                ("layers",),
            ),
            Planted("zero embedding", filled("embedding.weight", 0), ("embedding", "lm_head")),
        ),
        classes=32,
    ),
    Specimen(
        "rwkv",
        rwkv,
        (
            Planted("zero key and value", constant("ffn.", 0), ("ffn",)),
            Planted("head x 50", scaled("head.weight", 50), ("head",)),
            Planted("zero value and output", every("value.weight", torch.zero_), ("att",)),
        ),
        classes=32,
    ),
    Specimen(
        "siren",
        siren,
        (
            Planted("no omega in the law", every("linear.weight", lambda w: w.mul_(30)), ("net",)),
            Planted("hidden x 0.05", every("linear.weight", lambda w: w.mul_(0.05)), ("net",)),
            Planted("constant layer", constant("net.1.", 0.01), ("net.1",)),
        ),
    ),
    Specimen(
        "nerf",
        nerf,
        (
            Planted("biases of -5", filled("pts_linears.2.bias", -5), ("pts_linears.2",)),
            Planted("weights x 0.001", scaled("pts_linears.5.weight", 0.001), ("pts_linears.5",)),
            Planted("weights x 100", scaled("pts_linears.1.weight", 100), ("pts_linears.1",)),
        ),
    ),
)
