"""The cases of the clinic. Each is one entry: what is done to which network, the truth, the texts, a repair.

All here gives the answers away.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from course_utils.exercises import healthy
from course_utils.initializers import kaiming_normal_, lecun_normal_

Repair = Callable[[nn.Module, Tensor], object]
Plant = Callable[[nn.Module, Tensor, Generator], object]


@dataclass(frozen=True, repr=False)
class Case:
    """A patient's healthy twin, what is done to it, the truth, and the texts; printed, the solution.

    answers: (fault, layer) as planted, and others that are as right. look, why: the first hint, the reason.
    """

    complaint: str
    fault: str
    layer: str
    answers: tuple[tuple[str, str], ...]
    network: healthy.Twin
    look: str
    why: str
    repair: Repair
    plant: Plant = lambda model, inputs, generator: None

    def __str__(self) -> str:
        source = inspect.getsource(self.repair).rpartition("\ndef _(")[2]
        head = f"{self.fault}, layer {self.layer}" if self.layer else self.fault
        return f"{head}\n\n{self.why}\n\ndef repair({source}"

    __repr__ = __str__


CASES: list[Case] = []


def _patient(complaint: str, *answers: tuple[str, str], **entry: object) -> Callable[[Repair], None]:
    """Add a case whose repair is the function below, written as a learner would write it."""
    return lambda repair: CASES.append(Case(complaint, *answers[0], answers, repair=repair, **entry))


def _scaled(factor: Callable[[nn.Module], float], *names: str) -> Plant:
    """Multiply the weights of the named layers, or of all if none is named."""

    def plant(model: nn.Module, inputs: Tensor, generator: Generator) -> None:
        every = [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
        for layer in [model.get_submodule(name) for name in names] or every:
            layer.weight.mul_(factor(layer))

    return plant


def _replaced(places: range, new: Callable[[nn.Module], nn.Module]) -> Plant:
    def plant(model: nn.Module, inputs: Tensor, generator: Generator) -> None:
        for i in places:
            model[i] = new(model[i])

    return plant


@_patient(
    "I used the initialization of a paper from 2012, with thirteen layers instead of their eight. "
    "The loss has read 2.303 for an hour.",
    ("vanishing signal", "0"),
    network=healthy.deep(12),
    plant=_scaled(lambda layer: 0.01 / layer.weight.std()),
    look="Compare second_moment from row to row, and weight_std with 1 / sqrt(fan_in).",
    why="All weights follow N(0, 0.01²), whatever the fan-in of the layer; a ReLU layer needs 2 / fan_in.",
)
def _(model, inputs):
    for layer in model[::2]:
        layer.weight.mul_(math.sqrt(2 / layer.in_features) / layer.weight.std())


@_patient(
    "A blog says that sparse activations are good, so we helped them along in one place. "
    "Now all inputs get the same output.",
    ("dead", "4"),
    network=healthy.deep(5),
    plant=lambda model, *_: model[4].bias.fill_(-6.0),
    look="From which row on does nothing arrive? Read the mean of the row before, with a ReLU in mind.",
    why="The biases of layer 4 are -6: hardly a unit ever exceeds 0, and a ReLU below 0 has no gradient.",
)
def _(model, inputs):
    model[4].bias.zero_()


@_patient(
    "Xavier Glorot's paper is the most cited one on the subject, so my sixteen layers follow its law. "
    "My colleague's network of three layers learns with the same code.",
    ("missing gain", "0"),
    network=healthy.deep(16),
    plant=_scaled(lambda layer: math.sqrt(layer.in_features / (layer.in_features + layer.out_features))),
    look="Look at growth, and at weight_std * sqrt(fan_in) in the square layers.",
    why="Xavier's law is made for tanh. A ReLU halves the second moment, and no gain makes up for it.",
)
def _(model, inputs):
    for layer in model[:-1:2]:
        layer.weight.mul_(math.sqrt(2))


@_patient(
    "Somebody left half of my residual network at zero, and the last layer, too. "
    "Every input gets exactly the same output!",
    ("healthy", ""),
    network=healthy.fixup,
    look="Find out which layers are 0, and what they are the last layer of.",
    why="Only the last layer of each branch and of the network is 0. They get a gradient within two steps, "
    "the blocks start as identities, and the loss starts at ln 10 exactly.",
)
def _(model, inputs):
    pass


@_patient(
    "Our recurrent classifier of sentences knows the frequencies of the classes and nothing else. "
    "The recurrent part is torch's own; the layers after it I wrote myself.",
    ("zero layer", "hidden"),
    network=healthy.text_network,
    plant=lambda model, *_: model.hidden.weight.zero_(),
    look="Look at weight_std, and at what arrives in the last layer.",
    why="The weights of `hidden` are 0. Neither the signal nor the gradient gets through, so they stay 0.",
)
def _(model, inputs):
    kaiming_normal_(model.hidden.weight, generator=torch.Generator().manual_seed(0))


@_patient(
    "I rebuilt a network from an old textbook, with ten layers instead of its two. "
    "The loss came down to 2.3 at once, and has stayed there since.",
    ("vanishing gradient", "0"),
    network=healthy.deep(10, lecun_normal_, act=nn.Tanh),
    plant=_replaced(range(1, 20, 2), lambda tanh: nn.Sigmoid()),
    look="Compare second_moment and gradient_second_moment: one of them is quite steady.",
    why="The derivative of a sigmoid is at most 1/4: each layer divides the squared gradient by 16 or more.",
)
def _(model, inputs):
    for i in range(1, len(model), 2):
        model[i] = nn.Tanh()  # the weights follow LeCun's law, as tanh wants


@_patient(
    "Two colleagues use the same convolutional network, and I copied theirs to the letter. "
    "On my images, straight from the camera, its first loss is a hundred times theirs.",
    ("input scale", "0"),
    ("input scale", ""),
    ("input scale", "inputs"),
    network=healthy.cnn,
    plant=lambda model, inputs, _: inputs.mul_(50).add_(128).clamp_(0, 255).round_(),
    look="Start at the very left: what enters the first layer?",
    why="The images are grey levels from 0 to 255. Initializations are made for mean 0 and second moment 1.",
)
def _(model, inputs):
    inputs.sub_(inputs.mean()).div_(inputs.std())


@_patient(
    "Each layer has 128 units, yet before training the outputs of all examples lie on one curve. "
    "I wanted a reproducible start without any seed, and tried it in one place first.",
    ("identical units", "4"),
    network=healthy.deep(5, lecun_normal_, act=nn.Tanh),
    plant=lambda model, *_: model[4].weight.fill_(1 / 128),
    look="The table shows little but a weight_std; print a corner of the weights of each layer.",
    why="All weights of layer 4 equal 1/128: its units are copies, so one number per example gets through. "
    "Random weights follow here; were those constant, too, the units would stay copies for ever.",
)
def _(model, inputs):
    lecun_normal_(model[4].weight, generator=torch.Generator().manual_seed(0))


@_patient(
    "The small transformer learns in the end, but the first steps are wasted on forgetting. "
    "Before training it already is very sure of the wrong class.",
    ("large initial loss", "head"),
    network=healthy.encoder,
    plant=_scaled(lambda layer: math.sqrt(layer.in_features), "head"),
    look="Compute the cross entropy before training, and compare it with ln 10.",
    why="The head follows N(0, 1), so its logits have variance 32 instead of 1. Small or 0 is right there.",
)
def _(model, inputs):
    model.head.weight.zero_()


@_patient(
    "This initializer has served all my fully connected networks, so I trust it with conv layers. "
    "The first loss has two digits before the point.",
    ("wrong fan", "0"),
    network=healthy.cnn,
    plant=_scaled(lambda layer: 3.0, "0", "2", "4"),
    look="Take growth, and compare weight_std² with 2 / fan_in.",
    why="Each output has channels * 9 inputs; the law counted channels, so each layer multiplies by 9.",
)
def _(model, inputs):
    for layer in (model[0], model[2], model[4]):
        layer.weight.div_(3)  # the root of the kernel's area


@_patient(
    "Batch norm after every layer, thirty layers: initialization cannot matter any more, they say. "
    "Yet the first step throws the first layers away.",
    ("exploding gradient", "0.1"),
    ("exploding gradient", "0.0"),
    network=healthy.batch_norms,
    plant=_replaced(range(30), lambda block: block.branch),
    look="The signal is perfect. Read the gradient from the last row to the first.",
    why="On its way back, each batch norm with ReLU multiplies the squared gradient by pi / (pi - 1) = 1.47.",
)
def _(model, inputs):
    class Residual(nn.Sequential):
        def forward(self, x):
            return x + super().forward(x)

    for i in range(30):
        model[i] = Residual(*model[i])


@_patient(
    "This checkpoint survived a crash of the disk. The file has the right size, the loss has not.",
    ("not finite", "3.branch.3"),
    network=healthy.layer_norms,
    plant=lambda model, *_: model[3].branch[3].weight[17, 3].fill_(math.nan),
    look="Find the first row that is not a number; what follows is a consequence.",
    why="One of the 4096 weights is NaN, and whatever touches it becomes NaN, too.",
)
def _(model, inputs):
    model[3].branch[3].weight.nan_to_num_(nan=0.0)  # one weight of 64 * 64 may be 0


@_patient(
    "My own layers compute h @ W, with weights kept (in, out), all filled by nn.init.kaiming_normal_. "
    "One of them is four times as quiet as its neighbours.",
    ("transposed weight", "matrices.1"),
    ("wrong fan", "matrices.1"),
    network=healthy.product,
    plant=lambda model, _, generator: kaiming_normal_(model.matrices[1], generator=generator),
    look="Compare weight_std² with 2 / fan_in and with 2 / fan_out.",
    why="torch takes the second dimension for the fan-in: right for (out, in). This one is kept (in, out), "
    "so it was drawn with 2 / fan_out.",
)
def _(model, inputs):
    kaiming_normal_(model.matrices[1].T, generator=torch.Generator().manual_seed(0))


@_patient(
    "I read that torch's default is wrong for ReLU by a factor of six, and I use it. "
    "Signal and gradient shrink in every layer, so I shall have to start again, shall I not?",
    ("healthy", ""),
    network=healthy.torch_defaults,
    look="Multiply the growths: how much is lost from end to end, and is the depth going to grow?",
    why="The default shrinks the signal, by 6 per layer at most, but with two hidden layers little is lost.",
)
def _(model, inputs):
    pass


@_patient(
    "With five layers of tanh, plain gradient descent lands somewhere else in each step. "
    "The histograms of the outputs have two peaks, which I find beautiful.",
    ("saturated", "0"),
    network=healthy.deep(5, lecun_normal_, act=nn.Tanh),
    plant=_scaled(lambda layer: math.sqrt(layer.in_features)),
    look="What enters the activations? Read second_moment, and recall where tanh is steep.",
    why="The weights follow N(0, 1), so what enters tanh has a standard deviation of 8, where it is flat.",
)
def _(model, inputs):
    for layer in model[::2]:
        layer.weight.div_(math.sqrt(layer.in_features))


@_patient(
    "Half of the layers come from my colleague, the others are mine, all with the same helper function. "
    "Since we merged our halves, the outputs hardly differ from one input to the next.",
    ("double init", "6"),
    network=healthy.deep(6),
    plant=_scaled(lambda layer: math.sqrt(2 / layer.in_features), "6"),
    look="One value of growth is not like the others; how does that layer's weight_std relate to theirs?",
    why="The weights were multiplied by sqrt(2 / fan_in) twice, so their std is 2 / fan_in.",
)
def _(model, inputs):
    model[6].weight.mul_(math.sqrt(128 / 2))


@_patient(
    "To be on the safe side I standardized everything: the inputs, and the weights. "
    "The first loss is a number that I cannot pronounce.",
    ("exploding signal", "0"),
    network=healthy.deep(6, act=nn.GELU),
    plant=_scaled(lambda layer: math.sqrt(layer.in_features / 2)),
    look="Compare second_moment from row to row, and weight_std with 1 / sqrt(fan_in).",
    why="All weights follow N(0, 1): each layer multiplies the second moment by about fan_in / 2.",
)
def _(model, inputs):
    for layer in model[::2]:
        layer.weight.mul_(math.sqrt(2 / layer.in_features) / layer.weight.std())


@_patient(
    "All my layers follow either He's law or LeCun's, and in the right proportion, I counted. "
    "From end to end the signal is as large as it should be, but my reviewer is not content.",
    ("misplaced gain", "6"),
    ("misplaced gain", "2"),
    network=healthy.bottleneck,
    plant=lambda model, *_: (model[2].weight.div_(math.sqrt(2)), model[6].weight.mul_(math.sqrt(2))),
    look="Compute weight_std * sqrt(fan_in) in each row, and read the column activation beside it.",
    why="Layer 2 is followed by a ReLU and lacks the gain; layer 6, which no activation follows, has it.",
)
def _(model, inputs):
    model[2].weight.mul_(math.sqrt(2))
    model[6].weight.div_(math.sqrt(2))
