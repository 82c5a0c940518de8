"""The functions of torch that are understood, by name: whether in torch, in nn.functional or a method.

To teach `diagnose` and `initialize_` the name of a norm or an activation, add it here, and nowhere else. A
function that is not named here hands the signal on; what it does to a layer's gain is measured.
"""

from torch import nn

CONVOLUTIONS = {f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3)}
EMBEDDINGS = {"embedding", "embedding_bag"}
LAYERS = CONVOLUTIONS | EMBEDDINGS | {"linear", "bilinear"}
# Layers if just one factor is a parameter.
PRODUCTS = {"matmul", "rmatmul", "mm", "bmm", "addmm", "baddbmm", "einsum"}
BIAS_PLACE = {**dict.fromkeys(LAYERS, 2), "bilinear": 3, "addmm": 0, "baddbmm": 0}  # among the arguments
NORMS = {"batch_norm": 1, "group_norm": 1, "instance_norm": 1, "local_response_norm": 1, "normalize": 1}
NORMS |= {"layer_norm": -1, "rms_norm": -1}  # the dimension of their units
CELLS = {"lstm", "gru", "rnn_tanh", "rnn_relu"}
COMPOSITES = CELLS | {f"{cell}_cell" for cell in CELLS} | {"multi_head_attention_forward"}
SIGMOIDS, ODD = {"sigmoid", "hardsigmoid", "logsigmoid"}, {"tanh", "softsign", "hardtanh"}
CUT_OFF = {"relu", "relu6"}  # exactly 0 on a whole interval: a unit may be dead
ACTIVATIONS = {"leaky_relu", "prelu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish"}
ACTIVATIONS |= {"softplus", "tanhshrink"} | CUT_OFF | SIGMOIDS | ODD
SPELLINGS = {"where", "div", "mul", "clamp", "clamp_min", "maximum"}  # other ways to write an activation
# Each factor is needed: none of them leads around another.
FACTORS = PRODUCTS | {"mul", "scaled_dot_product_attention", "div"}
SUMS, JOINS = {"add", "sub", "rsub"}, {"cat", "concat", "concatenate", "stack", "hstack", "vstack"}

_KINDS = {name.lower(): name for name in dir(nn)} | {"batchnorm": "BatchNorm", "instancenorm": "InstanceNorm"}
_KINDS |= {"multiheadattentionforward": "MultiheadAttention", "rnntanh": "RNN", "rnnrelu": "RNN"}


def kind(function: str) -> str:
    """Return the name of the module that calls the function: "Conv2d" for "conv2d"."""
    return _KINDS.get(function.replace("_", "").lower(), function)
