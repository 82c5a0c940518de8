"""The patients of the clinic: small networks, the faults planted in them, and the truth about each.

`clinic_patient` draws one. All else here gives the answers away; `exercises` grades what a learner answers.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Generator, Tensor, nn

from course_utils.initializers import kaiming_normal_, kaiming_uniform_, lecun_normal_

Repair = Callable[[nn.Module, Tensor], object]

CLASSES, BATCH = 10, 64


# ---- Healthy networks and their tasks ----------------------------------------------------------------------


class _Residual(nn.Module):
    def __init__(self, *branch: nn.Module) -> None:
        super().__init__()
        self.branch = nn.Sequential(*branch)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class _Text(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.recurrent = nn.Embedding(50, 32), nn.GRU(32, 64, batch_first=True)
        self.hidden, self.head = nn.Linear(64, 64), nn.Linear(64, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(torch.relu(self.hidden(self.recurrent(self.embedding(ids))[0][:, -1])))


class _Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        options = {"dropout": 0.0, "batch_first": True, "norm_first": True}
        self.embedding = nn.Embedding(50, 32)
        self.blocks = nn.Sequential(*(nn.TransformerEncoderLayer(32, 4, 64, **options) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.embedding(ids)).mean(1)))


class _Product(nn.Module):
    """Weights are kept (in, out), for h @ W."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.matrices = nn.ParameterList(torch.zeros(pair) for pair in pairwise(widths))

    def forward(self, h: Tensor) -> Tensor:
        for matrix in self.matrices[:-1]:
            h = torch.relu(h @ matrix)
        return h @ self.matrices[-1]


def _mlp(*widths: int, act: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    layers = [layer for pair in pairwise(widths) for layer in (nn.Linear(*pair), act())]
    return nn.Sequential(*layers[:-1])


def _cnn() -> nn.Sequential:
    convs = [layer for c in (3, 24, 24) for layer in (nn.Conv2d(c, 24, 3, padding=1), nn.ReLU())]
    return nn.Sequential(*convs, nn.Flatten(), nn.Linear(24 * 64, CLASSES))


def _residual(*, norm: bool) -> nn.Sequential:
    def branch() -> list[nn.Module]:
        return [nn.LayerNorm(64)] * norm + [nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)]

    end = [nn.LayerNorm(64)] * norm + [nn.Linear(64, CLASSES)]
    return nn.Sequential(nn.Linear(64, 64), *(_Residual(*branch()) for _ in range(6)), *end)


def _batch_norms() -> nn.Sequential:
    def branch() -> list[nn.Module]:
        return [nn.Linear(64, 64, bias=False), nn.BatchNorm1d(64), nn.ReLU()]

    blocks = [_Residual(*branch()) for _ in range(30)]
    return nn.Sequential(*blocks, nn.BatchNorm1d(64), nn.Linear(64, CLASSES))


def _draw(model: nn.Module, generator: Generator, law_: Callable = kaiming_normal_) -> nn.Module:
    """Fill every parameter: weights by `law_`, the last layer's by LeCun's; biases with 0, norms with 1."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    for name, parameter in model.named_parameters():
        last = bool(layers) and parameter is layers[-1].weight
        if "embedding" in name:
            parameter.normal_(generator=generator)
        elif "recurrent" in name:
            parameter.uniform_(-0.125, 0.125, generator=generator)  # torch's default for 64 units
        elif parameter.ndim > 1:
            weight = parameter.T if isinstance(model, _Product) else parameter
            (lecun_normal_ if last or name == "matrices.3" else law_)(weight, generator=generator)
        else:
            parameter.fill_(float(name.endswith("weight")))
    return model


def _clusters(generator: Generator, *shape: int) -> tuple[Tensor, Tensor]:
    """Return (inputs, targets): an example is the centre of its class plus noise, both N(0, 1 / 2)."""
    targets = torch.arange(BATCH) % CLASSES
    centres = torch.randn(CLASSES, *shape, generator=generator)
    noise = torch.randn(BATCH, *shape, generator=generator)
    return (centres[targets] + noise) / math.sqrt(2), targets


def _sentences(generator: Generator) -> tuple[Tensor, Tensor]:
    """Return ids (batch, 12) and targets: two tokens in three are of the five that belong to the class."""
    targets = torch.arange(BATCH) % CLASSES
    own = 5 * targets[:, None] + torch.randint(5, (BATCH, 12), generator=generator)
    other = torch.randint(50, (BATCH, 12), generator=generator)
    return torch.where(torch.rand(BATCH, 12, generator=generator) < 2 / 3, own, other), targets


def _vectors(generator: Generator) -> tuple[Tensor, Tensor]:
    return _clusters(generator, 64)


def _images(generator: Generator) -> tuple[Tensor, Tensor]:
    return _clusters(generator, 3, 8, 8)


# ---- Faults ------------------------------------------------------------------------------------------------

Plant = Callable[[nn.Module, Tensor, Generator], None]


def _linear(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]


def _scaled(factor: Callable[[nn.Module], float], *names: str) -> Plant:
    """Multiply the weights of the named layers, or of all if none is named."""

    def plant(model: nn.Module, inputs: Tensor, generator: Generator) -> None:
        for layer in [model.get_submodule(name) for name in names] or _linear(model):
            layer.weight.mul_(factor(layer))

    return plant


def _filled(value: float, *names: str) -> Plant:
    def plant(model: nn.Module, inputs: Tensor, generator: Generator) -> None:
        for name in names:
            model.get_parameter(name).fill_(value)

    return plant


def _nothing(model: nn.Module, inputs: Tensor, generator: Generator) -> None:
    pass


def _one_nan(model: nn.Module, inputs: Tensor, generator: Generator) -> None:
    model.get_parameter("3.branch.3.weight")[17, 3] = math.nan


def _grey_levels(model: nn.Module, inputs: Tensor, generator: Generator) -> None:
    inputs.mul_(50).add_(128).clamp_(0, 255).round_()


def _to_sigmoids(model: nn.Module, inputs: Tensor, generator: Generator) -> None:
    for i in range(1, len(model), 2):
        model[i] = nn.Sigmoid()


def _without_skips(model: nn.Module, inputs: Tensor, generator: Generator) -> None:
    for i in range(30):
        model[i] = model[i].branch


def _transposed(model: nn.Module, inputs: Tensor, generator: Generator) -> None:
    kaiming_normal_(model.matrices[1], generator=generator)


def _misplaced(model: nn.Module, inputs: Tensor, generator: Generator) -> None:
    model[2].weight.div_(math.sqrt(2))
    model[6].weight.mul_(math.sqrt(2))


# ---- Reference repairs -------------------------------------------------------------------------------------

# Written as a learner would write them: `solution` shows their source.


def _repair_fixed_std(model, inputs):
    for layer in model[::2]:
        std = layer.weight.square().mean().sqrt()
        layer.weight.mul_(math.sqrt(2 / layer.in_features) / std)


def _repair_dead(model, inputs):
    model[4].bias.zero_()


def _repair_missing_gain(model, inputs):
    for layer in model[:-1:2]:
        layer.weight.mul_(math.sqrt(2))


def _repair_zero(model, inputs):
    generator = torch.Generator().manual_seed(0)
    kaiming_normal_(model.hidden.weight, generator=generator)


def _repair_sigmoids(model, inputs):
    for i in range(1, len(model), 2):
        model[i] = nn.Tanh()  # the weights follow LeCun's law, as tanh wants


def _repair_inputs(model, inputs):
    inputs.sub_(inputs.mean()).div_(inputs.std())


def _repair_constant(model, inputs):
    generator = torch.Generator().manual_seed(0)
    lecun_normal_(model[4].weight, generator=generator)


def _repair_head(model, inputs):
    model.head.weight.zero_()


def _repair_kernel(model, inputs):
    for layer in (model[0], model[2], model[4]):
        layer.weight.div_(3)  # the root of the kernel's area


def _repair_without_skips(model, inputs):
    class Residual(nn.Module):
        def __init__(self, branch):
            super().__init__()
            self.branch = branch

        def forward(self, x):
            return x + self.branch(x)

    for i in range(30):
        model[i] = Residual(model[i])


def _repair_nan(model, inputs):
    model[3].branch[3].weight.nan_to_num_(nan=0.0)  # one weight of 64 * 64 may be 0


def _repair_transposed(model, inputs):
    generator = torch.Generator().manual_seed(0)
    kaiming_normal_(model.matrices[1].T, generator=generator)


def _repair_saturated(model, inputs):
    for layer in model[::2]:
        layer.weight.div_(math.sqrt(layer.in_features))


def _repair_double(model, inputs):
    model[6].weight.mul_(math.sqrt(128 / 2))


def _repair_misplaced(model, inputs):
    model[2].weight.mul_(math.sqrt(2))
    model[6].weight.div_(math.sqrt(2))


def _repair_nothing(model, inputs):
    pass


# ---- The patients ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A patient's healthy twin, what is done to it, the truth, and the texts.

    `also` are further answers (fault, layer) that are as right. `rewires`: the repair may change activations,
    connections and inputs, so that not the parameters but the model that it leaves is measured.
    """

    complaint: str
    network: Callable[[Generator], nn.Module]
    plant: Plant
    fault: str
    layer: str
    look: str
    why: str
    repair: Repair
    also: tuple[tuple[str, str], ...] = ()
    rewires: bool = False
    task: Callable[[Generator], tuple[Tensor, Tensor]] = _vectors


def _deep(depth: int, law_: Callable = kaiming_normal_, **kwargs) -> Callable[[Generator], nn.Module]:
    return lambda generator: _draw(_mlp(64, *[128] * depth, CLASSES, **kwargs), generator, law_)


def _fixup(generator: Generator) -> nn.Module:
    model = _draw(_residual(norm=False), generator)
    model[0].weight.div_(math.sqrt(2))
    for block in model[1:-1]:
        block.branch[2].weight.zero_()
    model[-1].weight.zero_()
    return model


def _defaults(generator: Generator) -> nn.Module:
    model = _mlp(64, 128, 128, CLASSES)
    for layer in model[::2]:
        kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
        bound = layer.in_features**-0.5
        layer.bias.uniform_(-bound, bound, generator=generator)
    return model


def _bottleneck(generator: Generator) -> nn.Module:
    narrow = nn.Linear(128, 128)  # no activation follows
    layers = *_mlp(64, 128, 128, 128), nn.ReLU(), narrow, *_mlp(128, 128, CLASSES)
    model = _draw(nn.Sequential(*layers), generator)
    model[6].weight.div_(math.sqrt(2))
    return model


_CASES = (
    Case(
        "I used the initialization of a paper from 2012, with twelve hidden layers instead of their eight. "
        "The loss has read 2.303 for an hour.",
        _deep(12),
        _scaled(lambda layer: 0.01 / layer.weight.std()),
        "vanishing signal",
        "0",
        "Compare second_moment from row to row, and weight_std with 1 / sqrt(fan_in).",
        "All weights follow N(0, 0.01²), whatever the fan-in of the layer; a ReLU layer needs 2 / fan_in.",
        _repair_fixed_std,
    ),
    Case(
        "A blog says that sparse activations are good, so we helped them along in one place. "
        "Now all inputs get the same output.",
        _deep(5),
        _filled(-6.0, "4.bias"),
        "dead",
        "4",
        "From which row on does nothing arrive? Read the mean of the row before, with a ReLU in mind.",
        "The biases of layer 4 are -6: hardly a unit ever exceeds 0, and a ReLU below 0 has no gradient.",
        _repair_dead,
    ),
    Case(
        "Xavier Glorot's paper is the most cited one on the subject, so my sixteen layers follow its law. "
        "My colleague's network of three layers learns with the same code.",
        _deep(16),
        _scaled(lambda layer: math.sqrt(layer.in_features / (layer.in_features + layer.out_features))),
        "missing gain",
        "0",
        "Look at growth, and at weight_std * sqrt(fan_in) in the square layers.",
        "Xavier's law is made for tanh. A ReLU halves the second moment, and no gain makes up for it.",
        _repair_missing_gain,
    ),
    Case(
        "Somebody left half of my residual network at zero, and the last layer, too. "
        "Every input gets exactly the same output!",
        _fixup,
        _nothing,
        "healthy",
        "",
        "Find out which layers are 0, and what they are the last layer of.",
        "Only the last layer of each branch and of the network is 0. They get a gradient within two steps, "
        "the blocks start as identities, and the loss starts at ln 10 exactly.",
        _repair_nothing,
    ),
    Case(
        "Our recurrent classifier of sentences knows the frequencies of the classes and nothing else. "
        "The recurrent part is torch's own; the layers after it I wrote myself.",
        lambda generator: _draw(_Text(), generator),
        _filled(0.0, "hidden.weight"),
        "zero layer",
        "hidden",
        "Look at weight_std, and at what arrives in the last layer.",
        "The weights of `hidden` are 0. Neither the signal nor the gradient gets through, so they stay 0.",
        _repair_zero,
        task=_sentences,
    ),
    Case(
        "I rebuilt a network from an old textbook, with ten layers instead of its two. "
        "The loss came down to 2.3 at once, and has stayed there since.",
        _deep(10, lecun_normal_, act=nn.Tanh),
        _to_sigmoids,
        "vanishing gradient",
        "0",
        "Compare second_moment and gradient_second_moment: one of them is quite steady.",
        "The derivative of a sigmoid is at most 1/4: each layer divides the squared gradient by 16 or more.",
        _repair_sigmoids,
        rewires=True,
    ),
    Case(
        "Two colleagues use the same convolutional network, and I copied theirs to the letter. "
        "On my images, straight from the camera, its first loss is a hundred times theirs.",
        lambda generator: _draw(_cnn(), generator),
        _grey_levels,
        "input scale",
        "0",
        "Start at the very left: what enters the first layer?",
        "The images are grey levels from 0 to 255. Initializations are made for mean 0 and second moment 1.",
        _repair_inputs,
        also=(("input scale", ""), ("input scale", "inputs")),
        rewires=True,
        task=_images,
    ),
    Case(
        "Each layer has 128 units, yet before training the outputs of all examples lie on one curve. "
        "I wanted a reproducible start without any seed, and tried it in one place first.",
        _deep(5, lecun_normal_, act=nn.Tanh),
        _filled(1 / 128, "4.weight"),
        "identical units",
        "4",
        "The table shows little but a weight_std; print a corner of the weights of each layer.",
        "All weights of layer 4 equal 1/128: its units are copies, so one number per example gets through. "
        "Random weights follow here; were those constant, too, the units would stay copies for ever.",
        _repair_constant,
    ),
    Case(
        "The small transformer learns in the end, but the first steps are wasted on forgetting. "
        "Before training it already is very sure of the wrong class.",
        lambda generator: _draw(_Encoder(), generator, lecun_normal_),
        _scaled(lambda layer: math.sqrt(layer.in_features), "head"),
        "large initial loss",
        "head",
        "Compute the cross entropy before training, and compare it with ln 10.",
        "The head follows N(0, 1), so its logits have variance 32 instead of 1. Small or 0 is right there.",
        _repair_head,
        task=_sentences,
    ),
    Case(
        "This initializer has served all my fully connected networks, so I trust it with conv layers. "
        "The first loss has two digits before the point.",
        lambda generator: _draw(_cnn(), generator),
        _scaled(lambda layer: 3.0, "0", "2", "4"),
        "wrong fan",
        "0",
        "Take growth, and compare weight_std² with 2 / fan_in.",
        "Each output has channels * 9 inputs; the law counted channels, so each layer multiplies by 9.",
        _repair_kernel,
        task=_images,
    ),
    Case(
        "Batch norm after every layer, thirty layers: initialization cannot matter any more, they say. "
        "Yet the first step throws the first layers away.",
        lambda generator: _draw(_batch_norms(), generator),
        _without_skips,
        "exploding gradient",
        "0.1",
        "The signal is perfect. Read the gradient from the last row to the first.",
        "On its way back, each batch norm with ReLU multiplies the squared gradient by pi / (pi - 1) = 1.47.",
        _repair_without_skips,
        also=(("exploding gradient", "0.0"),),
        rewires=True,
    ),
    Case(
        "This checkpoint survived a crash of the disk. The file has the right size, the loss has not.",
        lambda generator: _draw(_residual(norm=True), generator),
        _one_nan,
        "not finite",
        "3.branch.3",
        "Find the first row that is not a number; what follows is a consequence.",
        "One of the 4096 weights is NaN, and whatever touches it becomes NaN, too.",
        _repair_nan,
    ),
    Case(
        "My own layers compute h @ W, with weights kept (in, out), all filled by nn.init.kaiming_normal_. "
        "One of them is four times as quiet as its neighbours.",
        lambda generator: _draw(_Product(256, 64, 256, 64, CLASSES), generator),
        _transposed,
        "transposed weight",
        "matrices.1",
        "Compare weight_std² with 2 / fan_in and with 2 / fan_out.",
        "torch takes the second dimension for the fan-in: right for (out, in). This one is kept (in, out), "
        "so it was drawn with 2 / fan_out.",
        _repair_transposed,
        also=(("wrong fan", "matrices.1"),),  # the same mistake, named by its result
        task=lambda generator: _clusters(generator, 256),
    ),
    Case(
        "I read that torch's default is wrong for ReLU by a factor of six, and I use it. "
        "Signal and gradient shrink in every layer, so I shall have to start again, shall I not?",
        _defaults,
        _nothing,
        "healthy",
        "",
        "Multiply the growths: how much is lost from end to end, and is the depth going to grow?",
        "The default shrinks the signal, by 6 per layer at most, but with two hidden layers little is lost.",
        _repair_nothing,
    ),
    Case(
        "With five layers of tanh, plain gradient descent lands somewhere else in each step. "
        "The histograms of the outputs have two peaks, which I find beautiful.",
        _deep(5, lecun_normal_, act=nn.Tanh),
        _scaled(lambda layer: math.sqrt(layer.in_features)),
        "saturated",
        "0",
        "What enters the activations? Read second_moment, and recall where tanh is steep.",
        "The weights follow N(0, 1), so what enters tanh has a standard deviation of 8, where it is flat.",
        _repair_saturated,
    ),
    Case(
        "Half of the layers come from my colleague, the others are mine, all with the same helper function. "
        "Since we merged our halves, the outputs hardly differ from one input to the next.",
        _deep(6),
        _scaled(lambda layer: math.sqrt(2 / layer.in_features), "6"),
        "double init",
        "6",
        "One value of growth is not like the others; how does that layer's weight_std relate to theirs?",
        "The weights were multiplied by sqrt(2 / fan_in) twice, so their std is 2 / fan_in.",
        _repair_double,
    ),
    Case(
        "To be on the safe side I standardized everything: the inputs, and the weights. "
        "The first loss is a number that I cannot pronounce.",
        _deep(6, act=nn.GELU),
        _scaled(lambda layer: math.sqrt(layer.in_features / 2)),
        "exploding signal",
        "0",
        "Compare second_moment from row to row, and weight_std with 1 / sqrt(fan_in).",
        "All weights follow N(0, 1): each layer multiplies the second moment by about fan_in / 2.",
        _repair_fixed_std,
    ),
    Case(
        "All my layers follow either He's law or LeCun's, and in the right proportion, I counted. "
        "From end to end the signal is as large as it should be, but my reviewer is not content.",
        _bottleneck,
        _misplaced,
        "misplaced gain",
        "6",
        "Compute weight_std * sqrt(fan_in) in each row, and read the column activation beside it.",
        "Layer 2 is followed by a ReLU and lacks the gain; layer 6, which no activation follows, has it.",
        _repair_misplaced,
        also=(("misplaced gain", "2"),),  # either end of the exchange
    ),
)
PATIENTS = range(1, len(_CASES) + 1)


@contextmanager
def own_stream(seed: int) -> Iterator[None]:
    """Let what draws without a generator draw from `seed`, and put torch's random state back."""
    state = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(state)


@dataclass(frozen=True, eq=False)
class Patient:
    """A network with a task: `inputs` (batch, ...), `targets` (batch,); its owner's complaint."""

    number: int
    complaint: str
    model: nn.Module
    inputs: Tensor
    targets: Tensor


def case_of(number: int) -> Case:
    """Return the case of patient `number`. Raises: ValueError for another number."""
    if number not in PATIENTS:
        raise ValueError(f"patients have the numbers {PATIENTS[0]} to {PATIENTS[-1]}; got {number!r}")
    return _CASES[number - 1]


def healthy_twin(number: int, seed: int) -> Patient:
    """Return the patient as it was before the fault."""
    case, generator = case_of(number), torch.Generator().manual_seed(seed)
    with own_stream(seed), torch.no_grad():
        model = case.network(generator)
        return Patient(number, case.complaint, model, *case.task(generator))


def clinic_patient(number: int, seed: int = 0) -> Patient:
    """Return a fresh network with the fault of patient `number`, one of PATIENTS, drawn from `seed`.

    Raises: ValueError for another number.
    """
    patient = healthy_twin(number, seed)
    with torch.no_grad():
        case_of(number).plant(patient.model, patient.inputs, torch.Generator().manual_seed(seed + 10**6))
    return patient
