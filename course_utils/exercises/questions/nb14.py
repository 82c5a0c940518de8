"""Exercises of notebook 14: attention at the start, words, recipes and experts."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from course_utils import attention_laws, initializers
from course_utils.exercises.asking import Choice, Experiment, Function, Number, Open, Values
from course_utils.exercises.running import Unreadable
from course_utils.exercises.trying import check_independence, check_law, in_place
from course_utils.quadrature import gaussian_expectation

_V_W = 256 * 0.05**2
_HARMONIC = sum(1 / t for t in range(1, 65))
_HEAD = 64.0
_Q, _HIDDEN = 1024 * 0.02**2, 2752 * 0.02**2


def _gated(q: float) -> float:
    """Return E (silu(a) b)² for independent a, b ~ N(0, q)."""
    return q * float(gaussian_expectation(lambda z: torch.nn.functional.silu(z) ** 2, math.sqrt(q)))


def _own_logit(std: float, width: int, moment: float) -> float:
    """Return a token's mean logit for its own word, from words of this std in a stream of this moment."""
    return std * width * std / math.sqrt(moment)


_concentration = partial(attention_laws.over_queries, attention_laws.concentration)


def _matrices(layer: nn.TransformerEncoderLayer) -> list[torch.Tensor]:
    """Return query, key, value, and the weights of out_proj, linear1 and linear2."""
    attention = layer.self_attn
    last = attention.out_proj.weight, layer.linear1.weight, layer.linear2.weight
    return [*attention.in_proj_weight.chunk(3), *last]


@torch.no_grad()
def _encoder_starts(mend_: Callable) -> Values:
    """Return what a mended encoder starts from, each number over the wanted one, for two encoders.

    Raises: Unreadable for matrices that are not drawn by Xavier's law, each for itself.
    """
    found = []
    for width, heads, hidden, layers in ((64, 4, 128, 3), (48, 2, 144, 6)):
        layer = nn.TransformerEncoderLayer(width, heads, hidden, batch_first=True, norm_first=True)
        encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        for layer in encoder.layers:  # torch starts them at 0
            for bias in (layer.self_attn.in_proj_bias, layer.self_attn.out_proj.bias):
                bias.normal_(std=0.1)
        in_place(mend_, encoder)
        drawn, last = [_matrices(layer) for layer in encoder.layers], 2 * layers
        for weights, factor in zip(zip(*drawn, strict=True), (1, 1, 1, last, 1, last), strict=True):
            flat = torch.stack(weights)
            found.append(flat.square().mean() * sum(flat.shape[1:]) / 2 * factor)
        first, *others = [torch.cat([W.flatten() for W in weights]) for weights in drawn]
        likest = torch.cosine_similarity(first, torch.stack(others), dim=1).max()
        found.append((1 - likest).clamp(min=0).round(decimals=3))
        named = [*encoder.named_parameters()]
        for attention in (False, True):
            biases = [p for name, p in named if name.endswith("bias") and ("self_attn" in name) is attention]
            found.append((torch.cat(biases) != 0).double().mean())
        norms = [p for name, p in named if "norm" in name and name.endswith("weight")]
        found.append(max((weight - 1).abs().max() for weight in norms))
    if likest < 0.9:  # copies of a layer get a message of their own
        _check_draws([W for weights in drawn for W in weights])
    return tuple(value.item() for value in found)


def _check_draws(weights: list[torch.Tensor]) -> None:
    """Check that matrices follow Xavier's law, uniform or normal, each drawn for itself."""
    check_independence(weights)
    found = [(W.pow(4).mean() / W.square().mean() ** 2).item() for W in weights]
    if odd := [x for x in found if abs(x - 1.8) > 0.3 and abs(x - 3) > 0.6]:
        raise Unreadable(f"E w⁴/(E w²)² is {odd[0]:.2f}: neither that of uniform weights, 1.8, nor 3")
    for kurtosis in (1.8, 3.0):
        if alike := [W for W, x in zip(weights, found, strict=True) if abs(x - kurtosis) <= 0.6]:
            check_law(alike, kurtosis)


@torch.no_grad()
def mend_(encoder):
    """Draw all matrices of an encoder again by Xavier's law, with 1/√(2L) on the last of each branch."""
    s = 1 / math.sqrt(2 * len(encoder.layers))
    for layer in encoder.layers:
        attention = layer.self_attn
        for W in attention.in_proj_weight.chunk(3):  # query, key and value
            initializers.xavier_normal_(W)
        initializers.xavier_normal_(attention.out_proj.weight, gain=s)
        initializers.xavier_normal_(layer.linear1.weight)
        initializers.xavier_normal_(layer.linear2.weight, gain=s)
        for bias in (attention.in_proj_bias, attention.out_proj.bias, layer.linear1.bias, layer.linear2.bias):
            bias.zero_()


def _wrongly(
    encoder: nn.TransformerEncoder,
    factor: Callable = lambda layers: 1 / math.sqrt(2 * layers),
    names: tuple[str, ...] = ("out_proj", "linear2"),
    chunks: int = 3,
    biases: str = "none",
    copied: bool = False,
    norm: float = 1.0,
) -> None:
    """Mend an encoder with one mistake: factor(layers) on the named matrices, stacked, as copies ..."""
    kept = {name: p.clone() for name, p in encoder.named_parameters() if name.endswith("bias")}
    mend_(encoder)
    count = len(encoder.layers)
    for layer in encoder.layers:
        for stack in layer.self_attn.in_proj_weight.chunk(chunks):
            initializers.xavier_normal_(stack)
        for name, module in layer.named_modules():
            if isinstance(module, nn.Linear):
                initializers.xavier_normal_(module.weight)
                if name.rpartition(".")[2] in names:
                    module.weight.mul_(factor(count))
        if "in_proj" in names:
            layer.self_attn.in_proj_weight.mul_(factor(count))
        layer.norm1.weight.fill_(norm)
        layer.norm2.weight.fill_(norm)
        if copied:
            layer.load_state_dict(encoder.layers[0].state_dict())
    for name, value in kept.items():
        if biases in name:
            encoder.get_parameter(name).copy_(value)


QUESTIONS = (
    Number(
        statement="Queries and keys have weights $N(0, 0.05^2)$, width $d = 256$ and $d_h = 64$ numbers in a "
        "head; the logits are divided by $\\sqrt{d_h}$. Tokens are orthogonal, of second moment 1. How large "
        "is the variance of the logits?",
        stars=1,
        minutes=3,
        answer=_V_W**2,
        mistakes=(
            (_V_W, "That is the variance of one query's entry; a logit has a query and a key in it."),
            (64 * _V_W**2, "That is without the root."),
            (_V_W**2 / 64, "Logits are divided by √64 = 8, so their variance by 64, from a sum of 64 terms."),
            ((256 * 0.05) ** 2, "0.05 is the standard deviation of the weights: v_w has its square."),
        ),
        hints=(
            "First the variance v_w of one entry of a query, then that of q·k/√d_h.",
            "v_w = 256 · 0.05² = 0.64.",
        ),
        because="v = v_w² with v_w = 256 · 0.0025 = 0.64; d_h drops out, thanks to the root.",
        solution="q·k is a sum of 64 products of variance v_w², divided by 8: v = v_w² = 0.64² = 0.41.",
    ),
    Number(
        statement="In a model several heads share their keys and values: $W_q$ has shape (512, 512), $W_k$ "
        "and $W_v$ have (128, 512) each. The three are stacked into one matrix of shape (768, 512), which "
        "Xavier's law fills. How large is $d\\operatorname{Var}(w)$ in it, for $d = 512$?",
        stars=2,
        minutes=4,
        answer=512 * 2 / (512 + 768),
        mistakes=(
            (1.0, "That is Xavier for W_q alone; it sees the stack's fan-out."),
            (0.5, "That is torch's stack of three square matrices, of shape (3d, d)."),
            (768 * 2 / (512 + 768), "You multiplied by the fan-out: a query sums over 512 inputs."),
            (512 * 2 / (512 + 128), "That is Xavier for W_k alone; it sees the stack's fan-out."),
            (2 / (512 + 768), "That is Var(w) itself: multiply by d."),
        ),
        hints=(
            "Xavier's variance is 2/(fan_in + fan_out). Which fans has the stack?",
            "They are 512 and 768.",
        ),
        because="d · 2/(512 + 768); three matrices by themselves would have got 1, 1.6 and 1.6.",
        solution="The stack has fan-in 512 and fan-out 768: 512 · 2/1280 = 0.8.",
    ),
    Number(
        statement="A text is read from left to right: token $t$ attends to tokens $1, \\dots, t$ only. All "
        "logits are nearly 0, tokens orthogonal, of second moment 1, and value and last matrix together keep "
        "the second moment. How large is attention's output in second moment, averaged over 64 tokens?",
        stars=2,
        minutes=5,
        answer=_HARMONIC / 64,
        mistakes=(
            (1 / 64, "That is token 64, which reads all; the early ones read fewer."),
            (2 / 65, "You averaged how many tokens are read, and then divided; average 1/t itself."),
            (math.sqrt(_HARMONIC / 64), "That is an RMS."),
            (sum(t**-0.5 for t in range(1, 65)) / 64, "You averaged the RMS: take second moments."),
            (1.0, "That is the first token, which can only read itself."),
        ),
        hints=(
            "What is P = Σp² for token t, and the second moment of an average of t orthogonal values?",
            "Both are 1/t.",
        ),
        because="Token t returns 1/t: the first one its own value, the last an average of 64.",
        solution="Token t averages t orthogonal values, of second moment 1/t; the mean is "
        "(1 + 1/2 + … + 1/64)/64 = 0.0741.",
    ),
    Experiment(
        statement="Random heads as in the notebook: $d = 64$, $d_h = 16$, weights $N(0, \\frac1d)$, logits "
        "divided by $\\sqrt{d_h}$. But now ten tokens of second moment 1 have the cosine 0.6 with each "
        "other. Over some thousands of heads: the mean square of the logits, and the concentration "
        "$\\sum_jp_j^2$?",
        stars=2,
        minutes=10,
        answer={"logits": 1.0, "concentration": _concentration(0.4, 10, 16)},
        mistakes=(
            (
                {"logits": 1.0, "concentration": _concentration(0.4, 8, 16)},
                "That is for the notebook's eight tokens; here there are ten.",
            ),
            (
                {"logits": 1.0, "concentration": _concentration(1.0, 10, 16)},
                "That is for orthogonal tokens. The softmax sees only by how much logits differ.",
            ),
            (
                {"logits": 16.0, "concentration": _concentration(6.4, 10, 16)},
                "Your logits are not divided by √16.",
            ),
            (
                {"logits": 1 / 16, "concentration": _concentration(0.4 / 16, 10, 16)},
                "Your logits are divided by 16, not by its root.",
            ),
            (
                {"logits": 0.4, "concentration": _concentration(0.4, 10, 16)},
                "The first is the variance within a token's logits; their mean square was asked for.",
            ),
            (
                {"logits": 0.52**2, "concentration": _concentration(0.52 * 0.16, 10, 16)},
                "Your tokens have a second moment of 0.52: mix common and own vectors with √0.6 and √0.4.",
            ),
        ),
        tolerance=0.06,  # 3,000 heads: some 2 % for the logits, 0.5 % for the concentration
        hints=(
            "Make tokens √0.6 × a common vector + √0.4 × one of their own, all orthogonal.",
            "Logits have variance 1 each, but what they share drops out of the softmax.",
        ),
        because="The logits are as large as before, but their own parts have variance 1 − 0.6 only, and "
        "shares get flatter.",
        solution="E z² = v_w² = 1 for any cosine; a token's logits share a part, and differ with variance "
        "v(1 − c) = 0.4, for which `of_a_head(concentration, 0.4, 10, 16)` is 0.138.",
    ),
    Choice(
        statement="Instead of dividing logits by $\\sqrt{d_h}$, a colleague multiplies the initial $W_q$ and "
        "$W_k$ by $d_h^{-1/4}$ and leaves out the root. How do this head and the usual one, from the same "
        "random numbers and with the same SGD, compare?",
        stars=2,
        minutes=4,
        answer="same start, other training",
        options={
            "same start, same training": "The logits are the same, the gradients of the weights are not: "
            "smaller weights, without the root, have larger ones.",
            "same start, other training": "The function is the same; but at the same rate its smaller "
            "weights get larger gradients, and change faster, the more the larger d_h is.",
            "same start on average only": "Both factors d_h^(−1/4) are constants: together they are 1/√d_h "
            "in every single logit.",
            "other start": "Multiply the two factors d_h^(−1/4) that meet in q·k.",
        },
        hints=(
            "Compare the logits first; then the gradient with respect to W_q.",
            "Write W = cU with c = d_h^(−1/4), as for the scale behind a batch norm (notebook 12).",
        ),
        solution="With W = cU the gradient is ∇L(U)/c, so U moves by η/c² = η√d_h times ∇L(U): the start is "
        "the same, the learning rate of W_q and W_k is √d_h times as large.",
    ),
    Function(
        statement="Write `mend_` (called under `no_grad`) for an `nn.TransformerEncoder` of any "
        "depth and width: each layer gets its own draw of Xavier's law in every matrix, query, key and value "
        "each for itself; the last matrix of every branch is multiplied by $1/\\sqrt{2L}$, and all biases "
        "are 0. In place; norm weights stay.",
        stars=3,
        minutes=12,
        stub="def mend_(encoder):",
        measure=_encoder_starts,
        names=tuple(
            f"{layers} layers: {name}"
            for layers in (3, 6)
            for name in (
                *(f"mean(w²) of {part} over the wanted one" for part in ("query", "key", "value")),
                *(f"of {part}" for part in ("out_proj", "linear1", "linear2")),
                "1 − largest cosine of two layers",
                "share of biases that are not 0, of attention aside",
                "of attention",
                "change of a norm's weight",
            )
        ),
        right=mend_,
        tolerance=0.08,  # mean(w²) of 12,000 normal weights is known to 1.3 %
        mistakes=(
            (partial(_wrongly, chunks=1), "Query, key and value were filled as one matrix of shape (3d, d)."),
            (partial(_wrongly, names=()), "No matrix has the factor 1/√(2L)."),
            (
                partial(_wrongly, factor=lambda layers: layers**-0.5),
                "Your factor is 1/√L, but a layer has two branches.",
            ),
            (
                partial(_wrongly, names=("linear2",)),
                "Attention is a branch, too: it ends in `self_attn.out_proj`.",
            ),
            (
                partial(_wrongly, names=("in_proj", "out_proj", "linear1", "linear2")),
                "The factor is on all matrices; it belongs on the last one of each branch.",
            ),
            (partial(_wrongly, biases="bias"), "Biases of all parts are not 0."),
            (
                partial(_wrongly, biases="linear"),
                "Biases of `linear1` and `linear2` are not 0.",
            ),
            (
                partial(_wrongly, biases="self_attn"),
                "Attention's biases are not 0: `in_proj_bias` and `out_proj.bias` count, too.",
            ),
            (partial(_wrongly, copied=True), "Your layers start as copies of each other."),
            (
                partial(_wrongly, norm=0.0),
                "Norm weights have one dimension, too: you set them to 0, and all branches are silent.",
            ),
            (
                partial(_wrongly, factor=lambda layers: 1 / (2 * layers)),
                "Your factor is 1/(2L), without root.",
            ),
            (
                partial(_wrongly, names=("out_proj",)),
                "The MLP is a branch, too: it ends in `linear2`.",
            ),
        ),
        hints=(
            "Print `[*encoder.layers[0].named_parameters()]`: which matrices end a branch?",
            "`in_proj_weight.chunk(3)` gives query, key and value; `out_proj` and `linear2` end a branch.",
        ),
        because="All layers have draws of their own, and their sum of branches is bounded at any depth.",
        solution="The stack is three matrices, `out_proj` and `linear2` end the two branches of a layer:",
    ),
    Number(
        statement="Attention averages all 16 tokens equally, in a wide post-norm network with $s = 1$ and "
        "branches of gain 1; the tokens are already alike. The loss reads one token. Which share of its "
        "squared gradient, summed over tokens, is left on its way back through three attention branches?",
        stars=3,
        minutes=10,
        answer=1 / 16 + 15 / 16 / 8,
        mistakes=(
            (1 / 8, "That is the part in which tokens differ; their mean keeps its size."),
            (1 / 16, "That is what remains after very many layers: three leave more."),
            (1.0, "So it would be for branches that treat each token alone, as MLPs do."),
            (
                1 / 16 + 15 / 16 / 8**0.5,
                "A layer halves the second moment of the part in which tokens differ, not its square root.",
            ),
            (math.sqrt(1 / 16 + 15 / 16 / 8), "That is the RMS: squares were asked for."),
        ),
        hints=(
            "Split the gradient into its mean over tokens and the rest. Which of them passes the average?",
            "A norm halves both; the branch gives the mean its half back, and nothing to the rest.",
        ),
        because="The mean over tokens, 1/16 of the squares, stays; the rest is halved three times.",
        solution="A layer's Jacobian is (I + J)/√2. On the mean over tokens |J'ḡ|² = |ḡ|², so that it stays; "
        "J vanishes on the rest, which is halved. Left are 1/16 + (15/16)/8 = 0.18.",
    ),
    Open(
        statement="A head with torch's stacked Xavier ($v = \\frac14$) reads a text of 4,096 unlike tokens. "
        "How many of them does a token read at the start, in effect, and how large is what it gets? Would "
        "you make the logits larger before training? Answer in a few sentences.",
        stars=3,
        minutes=6,
        hints=(
            "For many tokens Σ p² is about E e^(2z)/(T (E e^z)²), with z normal.",
            "That is e^v/T. What is the second moment of such an average of unlike values?",
        ),
        because="Σp² is about e^v/T, so that a token reads T/e^v, some 3,200 of 4,096, and the average of so "
        "many unlike values has 1/3,200 of their second moment: attention is nearly silent at the start. "
        "Logits large enough to single out a few tokens need v of about 2 ln T = 17, but then the draw "
        "chooses them, and the softmax lets little gradient through. Better to leave them small, when "
        "everything can still be learned, and let training make the queries look for keys.",
        solution="There is no single answer; `check` with your own shows one to compare with.",
    ),
    Number(
        statement="A head without norms on queries and keys. While it trains, the RMS of the tokens that it "
        "reads grows threefold, and its $W_q$ doubles; $W_k$ stays. By which factor does the mean square of "
        "its logits grow?",
        stars=2,
        minutes=3,
        answer=18.0**2,
        tolerance=0.02,
        mistakes=(
            (18.0, "That is the factor on a logit; its mean square grows by the square of it."),
            (36.0, "The tokens enter twice, in the query and in the key."),
            (81.0, "You left out W_q."),
            (1.0, "That is so with a norm on queries and keys; this head has none."),
            (4.0, "That is so behind a pre-norm, which takes off the tokens' size."),
        ),
        hints=("Which factors make a logit?", "Token, W_q, token, W_k: 3 · 2 · 3 · 1."),
        because="token and W_q and token make 3 · 2 · 3 = 18, and squares grow by 18².",
        solution="A logit is a product of token, W_q, token and W_k: it grows by 18, its square by 324.",
    ),
    Number(
        statement="Sixteen tokens of contrast 0.01, all pairs alike, pass one attention layer without a "
        "skip, with $v = 1$ and a norm behind it. How large is their contrast then?",
        stars=2,
        minutes=4,
        answer=15 / 256 * 1e-6,
        tolerance=0.05,
        mistakes=(
            (1e-6, "The power is right; the factor (1 - 1/T)/T is missing."),
            (15 / 256 * 1e-4, "Similar tokens ask similar questions, which costs one more power."),
            (1e-4, "The power is 3: similar tokens ask similar questions."),
            (7 / 64 * 1e-6, "There are sixteen tokens here, not eight."),
            (0.01, "A ReLU layer would leave small contrasts as they are; attention does not."),
        ),
        hints=("Step 5 of the derivation.", "(1/T)(1 - 1/T) v δ³ with T = 16."),
        because="δ' = (1 - 1/T) v δ³/T.",
        solution="(1/16)(15/16) · 10⁻⁶ = 5.9 · 10⁻⁸: five digits more agree than before.",
    ),
    Number(
        statement="A T5 of width 512 with heads of 64 numbers divides its logits by nothing. A loop over all "
        "modules calls `xavier_normal_` on each matrix, $W_q$ and $W_k$ of shape (512, 512) among them. "
        "Tokens have second moment 1. How large is the variance of attention's logits?",
        stars=1,
        minutes=3,
        answer=_HEAD,
        mistakes=(
            (1.0, "That is with T5's own law for W_q, which has the root in it, or with a division."),
            (math.sqrt(_HEAD), "That is the standard deviation."),
            (_HEAD**2, "q·k is a sum of 64 products: 64 times the variance of one."),
            (512.0, "The sum in q·k runs over the 64 numbers of a head."),
            (1 / _HEAD, "Nothing is divided here: the sum of 64 products is larger than one."),
        ),
        hints=("What is the variance of one entry of q under Xavier?", "512 · 2/1024 = 1, and so for k."),
        because="q and k have variance 1, and nothing divides the sum of 64 products.",
        solution="v = d_h · dVar(w_q) · dVar(w_k) = 64 · 1 · 1; T5's own W_q would have had 1/64.",
    ),
    Number(
        statement="A pre-norm model of width 1,024 starts its words at $N(0, 0.02^2)$, without positions; 24 "
        "branches each add $\\frac18$ to the stream's second moment. A norm follows, and a head that is tied "
        "to the words. How large is the logit of a token's own word on average?",
        stars=2,
        minutes=4,
        answer=_own_logit(0.02, 1024, 0.02**2 + 24 / 8),
        mistakes=(
            (0.02**2 * 1024, "So it would be without the norm, which divides the stream by its RMS."),
            (0.02 * 1024, "You took the stream for nothing but the word: α = 0.02/√m_K, not 1."),
            (0.02 * 1024**0.5, "That is the standard deviation of the other words' logits."),
            (0.02**3 * 1024 / (0.02**2 + 3), "α is a ratio of RMS, not of second moments."),
            (
                _own_logit(0.02, 1024, 0.02**2 + 1 / 8),
                "You added one branch; there are 24 of them, unrelated.",
            ),
        ),
        hints=("Which RMS has the word in the stream behind the norm?", "α = 0.02/√(0.0004 + 3)."),
        because="σαd with α = 0.0115: the word is lost in its stream, so that the tied head knows nothing.",
        solution="m_K = 0.0004 + 24/8 = 3.0004, α = 0.02/√m_K, and the logit is σαd = 0.236.",
    ),
    Number(
        statement="A gated MLP $W_3\\big(\\operatorname{silu}(W_1x)\\odot W_2x\\big)$ of width 1,024 has "
        "2,752 hidden numbers, and $N(0, 0.02^2)$ in all three matrices. Inputs have second moment 1. How "
        "large is the second moment of the output?",
        stars=2,
        minutes=6,
        answer=_HIDDEN * _gated(_Q),
        mistakes=(
            (_HIDDEN * _Q / 2, "That is a ReLU MLP: here two maps are multiplied."),
            (_HIDDEN * _gated(_Q) / _Q, "You left out W_2: its map has variance q, too."),
            (_HIDDEN * _Q**2 / 4, "q²/4 is for q near 0; here q is 0.41."),
            (_HIDDEN * _Q**2 / 2, "q²/2 is for very large q, where silu is a ReLU."),
            (_gated(_Q), "That is in front of W_3, which has 2,752 inputs of variance 0.02²."),
            (_HIDDEN * _gated(1.0), "You took q = 1; the weights give q = 1,024 · 0.02²."),
            (math.sqrt(_HIDDEN * _gated(_Q)), "That is an RMS."),
        ),
        tolerance=0.005,
        hints=("First the variance q of W_1 x.", "q = 0.4096; then q E silu(√q Z)², by quadrature."),
        because="q = 0.41, q E silu(√q Z)² and W_3's 2,752 · 0.02² = 1.1 multiply.",
        solution="`2752 * 4e-4 * gated(1024 * 4e-4)` = 0.0569.",
    ),
    Number(
        statement="Six unrelated experts each return outputs of second moment 0.3. A router whose logits are "
        "nearly 0 sends each token to two of them, and weighs their outputs by the softmax of all six. How "
        "large is the second moment of the sum?",
        stars=2,
        minutes=3,
        answer=0.3 * 2 / 36,
        mistakes=(
            (0.3 / 2, "So it is with weights that are divided by their sum; these are 1/6 each."),
            (0.3 / 9, "So it would be for experts that are copies, whose outputs add up: (2/6)²."),
            (math.sqrt(0.3 * 2 / 36), "That is an RMS."),
            (0.3 * 2 / 6, "A weight of 1/6 multiplies a second moment by 1/36."),
            (0.3 / 36, "That is one expert; each token has two."),
            (0.3 / 6, "So it would be if all six were summed."),
        ),
        hints=("Which weight has each of the two?", "Σp² = 2/36."),
        because="each of the two has the weight 1/6, and unrelated outputs add in second moment.",
        solution="0.3 · Σp² = 0.3 · 2/36 = 0.0167; with weights that add to 1 it would be 0.15.",
    ),
)
