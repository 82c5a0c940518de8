"""GPT, Llama and BERT, each written as in another repository, with the initialization of the original."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.specimen import Planted, Specimen, filled, scaled


def text(batch: int, time: int, vocab: int) -> tuple[Tensor, Tensor]:
    """Return token ids of a noisy arithmetic progression, and the ids that follow."""
    ids = [torch.randint(vocab, (batch,))]
    for _ in range(time):
        ids.append((3 * ids[-1] + torch.randint(3, (batch,))) % vocab)
    ids = torch.stack(ids, 1)
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def images(batch: int, classes: int, channels: int, size: int) -> tuple[Tensor, Tensor]:
    """Return standardized images, each a pattern of its class with noise, and the classes."""
    y = torch.randint(classes, (batch,))
    x = torch.randn(classes, channels, size, size)[y] + torch.randn(batch, channels, size, size)
    return (x - x.mean()) / x.std(), y


def all_scaled(ending: str, factor: float):
    """Return what multiplies each parameter with a name of that ending."""

    @torch.no_grad()
    def plant(model: nn.Module) -> None:
        for name, p in model.named_parameters():
            if name.endswith(ending):
                p.mul_(factor)

    return plant


# --- GPT-2


class NewGELU(nn.Module):
    def forward(self, x):
        return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))


class CausalSelfAttention(nn.Module):
    def __init__(self, n_embd, n_head, block_size):
        super().__init__()
        self.c_attn = nn.Linear(n_embd, 3 * n_embd)
        self.c_proj = nn.Linear(n_embd, n_embd)
        self.register_buffer("bias", torch.tril(torch.ones(1, 1, block_size, block_size)))
        self.n_head, self.n_embd = n_head, n_embd

    def forward(self, x):
        B, T, C = x.size()
        q, k, v = self.c_attn(x).split(self.n_embd, dim=2)
        k = k.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        q = q.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        v = v.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
        att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
        att = att.masked_fill(self.bias[:, :, :T, :T] == 0, float("-inf"))
        y = F.softmax(att, dim=-1) @ v
        return self.c_proj(y.transpose(1, 2).contiguous().view(B, T, C))


class GPTBlock(nn.Module):
    def __init__(self, n_embd, n_head, block_size):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(n_embd), nn.LayerNorm(n_embd)
        self.attn = CausalSelfAttention(n_embd, n_head, block_size)
        c_fc, c_proj = nn.Linear(n_embd, 4 * n_embd), nn.Linear(4 * n_embd, n_embd)
        self.mlp = nn.ModuleDict(dict(c_fc=c_fc, c_proj=c_proj, act=NewGELU()))

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        m = self.mlp
        return x + m.c_proj(m.act(m.c_fc(self.ln_2(x))))


class GPT(nn.Module):
    def __init__(self, vocab_size=32, block_size=12, n_layer=5, n_head=4, n_embd=32):
        super().__init__()
        wte, wpe = nn.Embedding(vocab_size, n_embd), nn.Embedding(block_size, n_embd)
        h = nn.ModuleList([GPTBlock(n_embd, n_head, block_size) for _ in range(n_layer)])
        self.transformer = nn.ModuleDict(dict(wte=wte, wpe=wpe, h=h, ln_f=nn.LayerNorm(n_embd)))
        self.lm_head = nn.Linear(n_embd, vocab_size, bias=False)
        self.transformer.wte.weight = self.lm_head.weight
        self.apply(self._init_weights)
        for pn, p in self.named_parameters():
            if pn.endswith("c_proj.weight"):
                nn.init.normal_(p, mean=0.0, std=0.02 / math.sqrt(2 * n_layer))

    def _init_weights(self, module):
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, mean=0.0, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, idx, targets=None):
        pos = torch.arange(0, idx.size(1), dtype=torch.long, device=idx.device)
        x = self.transformer.wte(idx) + self.transformer.wpe(pos)
        for block in self.transformer.h:
            x = block(x)
        logits = self.lm_head(self.transformer.ln_f(x))
        loss = None if targets is None else F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        return logits, loss


@torch.no_grad()
def gpt_sharp(model):
    for block in model.transformer.h:
        block.attn.c_attn.weight[:64].mul_(40.0)


def build_gpt():
    return GPT(), *text(16, 12, 32), None


GPT_FAULTS = (
    Planted("tied embedding N(0, 1)", scaled("lm_head.weight", 50.0), ("lm_head", "transformer.wte")),
    Planted("residual ends x 300", all_scaled("c_proj.weight", 300.0), ("transformer.h",)),
    Planted("queries and keys x 40", gpt_sharp, ("transformer.h",)),
)

# --- Llama


class RMSNorm(torch.nn.Module):
    def __init__(self, dim: int, eps: float = 1e-6):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return (x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + self.eps)) * self.weight


def precompute_freqs_cis(dim: int, end: int, theta: float = 10000.0):
    freqs = 1.0 / (theta ** (torch.arange(0, dim, 2).float() / dim))
    return torch.polar(torch.ones(end, dim // 2), torch.outer(torch.arange(end).float(), freqs))


def apply_rotary_emb(x: Tensor, freqs_cis: Tensor) -> Tensor:
    x_ = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(x_ * freqs_cis[None, :, None]).flatten(3).type_as(x)


class LlamaLayer(nn.Module):
    def __init__(self, dim, n_heads, hidden):
        super().__init__()
        self.n_heads, self.head_dim = n_heads, dim // n_heads
        self.wq, self.wk, self.wv, self.wo = (nn.Linear(dim, dim, bias=False) for _ in range(4))
        self.w1, self.w3 = nn.Linear(dim, hidden, bias=False), nn.Linear(dim, hidden, bias=False)
        self.w2 = nn.Linear(hidden, dim, bias=False)
        self.attention_norm, self.ffn_norm = RMSNorm(dim), RMSNorm(dim)

    def attention(self, x, freqs_cis, mask):
        bsz, seqlen, _ = x.shape
        xq, xk, xv = (
            w(x).view(bsz, seqlen, self.n_heads, self.head_dim) for w in (self.wq, self.wk, self.wv)
        )
        xq, xk = apply_rotary_emb(xq, freqs_cis), apply_rotary_emb(xk, freqs_cis)
        scores = torch.einsum("bqhd,bkhd->bhqk", xq, xk) / math.sqrt(self.head_dim) + mask
        scores = torch.exp(scores - scores.amax(-1, keepdim=True))
        scores = scores / scores.sum(-1, keepdim=True)
        return self.wo(torch.einsum("bhqk,bkhd->bqhd", scores, xv).reshape(bsz, seqlen, -1))

    def forward(self, x, freqs_cis, mask):
        h = x + self.attention(self.attention_norm(x), freqs_cis, mask)
        n = self.ffn_norm(h)
        return h + self.w2(F.silu(self.w1(n)) * self.w3(n))


class LlamaTransformer(nn.Module):
    def __init__(self, vocab_size=32, dim=32, n_layers=6, n_heads=4, max_seq_len=16):
        super().__init__()
        self.tok_embeddings = nn.Embedding(vocab_size, dim)
        self.layers = nn.ModuleList(LlamaLayer(dim, n_heads, 88) for _ in range(n_layers))
        self.norm = RMSNorm(dim)
        self.output = nn.Linear(dim, vocab_size, bias=False)
        self.register_buffer("freqs_cis", precompute_freqs_cis(dim // n_heads, max_seq_len), persistent=False)
        for name, p in self.named_parameters():
            if p.dim() > 1:
                end = name.endswith(("w2.weight", "wo.weight"))
                torch.nn.init.normal_(p, mean=0.0, std=0.02 / math.sqrt(2 * n_layers) if end else 0.02)

    def forward(self, tokens: Tensor, start_pos: int = 0):
        h = self.tok_embeddings(tokens)
        mask = torch.triu(torch.full((tokens.shape[1], tokens.shape[1]), -1e9), diagonal=1)
        for layer in self.layers:
            h = layer(h, self.freqs_cis[start_pos : start_pos + tokens.shape[1]], mask)
        return self.output(self.norm(h)).float()


def build_llama():
    return LlamaTransformer(), *text(16, 16, 32), None


@torch.no_grad()
def llama_two_zeros(model):
    model.norm.weight.zero_()
    model.output.weight.zero_()


LLAMA_FAULTS = (
    Planted("last norm and output both 0", llama_two_zeros, ("output", "norm", "layers", "tok_emb")),
    Planted("wo x 3000 in one layer", scaled("layers.1.wo.weight", 3000.0), ("layers.1",)),
    Planted("constant embedding", filled("tok_embeddings.weight", 0.02), ("tok_embeddings",)),
)

# --- BERT


class BertSelfAttention(nn.Module):
    def __init__(self, hidden_size, num_heads):
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key, self.value = (nn.Linear(hidden_size, hidden_size) for _ in range(3))
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.LayerNorm = nn.LayerNorm(hidden_size, eps=1e-12)

    def transpose_for_scores(self, x):
        return x.view(*x.size()[:-1], self.num_heads, -1).permute(0, 2, 1, 3)

    def forward(self, hidden_states, attention_mask):
        q, k, v = (self.transpose_for_scores(f(hidden_states)) for f in (self.query, self.key, self.value))
        scores = torch.matmul(q, k.transpose(-1, -2)) / math.sqrt(q.size(-1)) + attention_mask
        context = torch.matmul(scores.softmax(-1), v).permute(0, 2, 1, 3).contiguous()
        return self.LayerNorm(self.dense(context.view(*hidden_states.size())) + hidden_states)


class BertLayer(nn.Module):
    def __init__(self, hidden_size, num_heads):
        super().__init__()
        self.attention = BertSelfAttention(hidden_size, num_heads)
        self.intermediate = nn.Linear(hidden_size, 4 * hidden_size)
        self.output = nn.Linear(4 * hidden_size, hidden_size)
        self.LayerNorm = nn.LayerNorm(hidden_size, eps=1e-12)

    def forward(self, hidden_states, attention_mask):
        hidden_states = self.attention(hidden_states, attention_mask)
        x = self.intermediate(hidden_states)
        x = x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0)))
        return self.LayerNorm(self.output(x) + hidden_states)


class BertForSequenceClassification(nn.Module):
    def __init__(
        self, vocab_size=30, hidden_size=32, num_layers=4, num_heads=4, num_labels=4, max_position=24
    ):
        super().__init__()
        self.word_embeddings = nn.Embedding(vocab_size, hidden_size, padding_idx=0)
        self.position_embeddings = nn.Embedding(max_position, hidden_size)
        self.token_type_embeddings = nn.Embedding(2, hidden_size)
        self.LayerNorm = nn.LayerNorm(hidden_size, eps=1e-12)
        self.dropout = nn.Dropout(0.0)
        self.encoder = nn.ModuleList([BertLayer(hidden_size, num_heads) for _ in range(num_layers)])
        self.pooler = nn.Sequential(nn.Linear(hidden_size, hidden_size), nn.Tanh())
        self.classifier = nn.Linear(hidden_size, num_labels)
        self.register_buffer("position_ids", torch.arange(max_position).expand((1, -1)))
        self.apply(self._init_weights)

    def _init_weights(self, module, initializer_range=0.1):
        if isinstance(module, nn.Linear | nn.Embedding):
            module.weight.data.normal_(mean=0.0, std=initializer_range)
        if isinstance(module, nn.Linear):
            module.bias.data.zero_()
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            module.weight.data[module.padding_idx].zero_()

    def embed(self, input_ids, token_type_ids):
        x = self.word_embeddings(input_ids) + self.token_type_embeddings(token_type_ids)
        return self.LayerNorm(x + self.position_embeddings(self.position_ids[:, : input_ids.size(1)]))

    def forward(self, input_ids, attention_mask=None, token_type_ids=None, **kwargs):
        hidden_states = self.dropout(self.embed(input_ids, token_type_ids))
        extended = (1.0 - attention_mask[:, None, None, :].float()) * torch.finfo(torch.float32).min
        for layer_module in self.encoder:
            hidden_states = layer_module(hidden_states, extended)
        logits = self.classifier(self.pooler(hidden_states[:, 0]))
        return {"logits": logits, "last_hidden_state": hidden_states}


def build_bert():
    length = torch.randint(8, 13, (32,))
    mask = (torch.arange(12) < length[:, None]).long()
    labels = torch.randint(4, (32,))
    words = torch.randint(2, 16, (32, 12)) + 4 * labels[:, None]
    words[:, 0] = 1
    batch = {"input_ids": words % 30 * mask, "attention_mask": mask}
    batch["token_type_ids"] = (torch.arange(12) >= 6).long().expand(32, -1).contiguous()
    return BertForSequenceClassification(), batch, labels, lambda out, y: F.cross_entropy(out["logits"], y)


def cut_embeddings(model):
    embed = model.embed
    model.embed = lambda *ids: embed(*ids).detach()


BERT_FAULTS = (
    Planted("pooler x 30", scaled("pooler.0.weight", 30.0), ("pooler",)),
    Planted("embeddings cut off", cut_embeddings, ("word_emb", "position_emb", "token_type", "LayerNorm")),
    Planted("classifier x 100", scaled("classifier.weight", 100.0), ("classifier",)),
)

SPECIMENS = (
    Specimen("gpt-2 (nanoGPT)", build_gpt, GPT_FAULTS, 32),
    Specimen("llama", build_llama, LLAMA_FAULTS, 32),
    Specimen("bert (transformers)", build_bert, BERT_FAULTS, 4),
)
