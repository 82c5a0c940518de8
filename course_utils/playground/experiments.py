"""The prepared experiments: two networks each, a question, and what to expect."""

from dataclasses import dataclass

from course_utils.playground.engine import Pair
from course_utils.playground.network import Settings

_DEFAULT, _TINY, _KAIMING = "torch default U(±1/√n)", "N(0, 0.01²)", Settings()


@dataclass(frozen=True)
class Experiment:
    """Two networks to compare: a question to answer before, and what to expect after `steps` steps."""

    name: str
    question: str
    expectation: str
    a: Settings
    b: Settings = _KAIMING
    data: str = "moons"
    steps: int = 300

    def pair(self, seed: int = 0) -> Pair:
        """Return the two networks at step 0."""
        return Pair(self.a, self.b, self.data, seed)


EXPERIMENTS = (
    Experiment(
        "1 All weights zero",
        "A starts from zeros, B from Kaiming's law. Which parts of A will ever move?",
        "A: only the biases of the output. All outputs and gradients of the hidden layers are 0, every "
        "ReLU is dead, and the loss stays at ln 2. B classifies 90 % or more.",
        Settings(scheme="zeros"),
    ),
    Experiment(
        "2 All weights equal",
        "A starts with every weight 0.1: signals and gradients flow. What can 32 equal units draw?",
        "A: what one unit can. All units of a layer stay equal, so A sees one weighted sum of the "
        "coordinates: its boundaries are parallel lines, and it classifies less than 80 %. B closes the "
        "circle.",
        Settings(depth=2, scheme="constant 0.1"),
        Settings(depth=2),
        data="circles",
        steps=500,
    ),
    Experiment(
        "3 Too small: N(0, 0.01²)",
        "By which factor does A's signal shrink in each layer of 32 units? And its gradient?",
        "A: at step 0 by 0.01 × √(32/2) = 0.04 a layer, and the gradient on its way back as well. Update "
        "ratios of the hidden layers are a few millionths at most. Only the biases near the output move, and "
        "in a hundred steps they kill 90 % or more of layer 4. The loss stays at ln 2. B learns.",
        Settings(scheme=_TINY),
    ),
    Experiment(
        "4 Too small, but with Adam",
        "The same bad start on both sides. Adam divides each gradient by its own size: does that save B?",
        "Yes, here. Adam's first steps hardly depend on the gradient's size while it is above 1e-8, and the "
        "weights grow until a signal comes through: B classifies 75 % or more. A stays at ln 2.",
        Settings(scheme=_TINY),
        Settings(scheme=_TINY, optimizer="Adam", learning_rate=0.01),
    ),
    Experiment(
        "5 Too large: N(0, 1)",
        "Each layer of 32 units multiplies A's signal by √(32/2) = 4. How many steps will A make?",
        "A handful: outputs of 10,000 at step 0, gradients as large, and the first update throws the "
        "weights so far that the loss overflows after the next. B learns.",
        Settings(depth=8, scheme="N(0, 1)"),
        Settings(depth=8),
    ),
    Experiment(
        "6 Too large, but with batch norm",
        "The same N(0, 1) weights; B normalizes each layer's pre-activations. What is left of the scale?",
        "Nothing in the forward direction: B's outputs have RMS 0.7 in every layer, and it learns. A "
        "diverges within a handful of steps.",
        Settings(depth=8, scheme="N(0, 1)"),
        Settings(depth=8, scheme="N(0, 1)", norm="batch"),
    ),
    Experiment(
        "7 The framework's default, 8 layers",
        "torch's default has variance 1/(3n), a sixth of what a ReLU needs. Is that enough for eight layers?",
        "Not with SGD at this learning rate: the part of the signal that tells the digits apart shrinks "
        "by 0.41 a layer, and A still guesses at step 200. B classifies 70 % or more.",
        Settings(depth=8, scheme=_DEFAULT),
        Settings(depth=8),
        data="digits",
        steps=200,
    ),
    Experiment(
        "8 The default, with residual branches",
        "Sixteen default layers; B adds each layer's input to its output. Predict both gradients.",
        "A's gradient is a millionth or less at layer 1, and its loss stays at ln 2. B's is of order 1, "
        "because the sums carry it past the small weights, and B learns.",
        Settings(depth=16, scheme=_DEFAULT, learning_rate=0.02),
        Settings(depth=16, scheme=_DEFAULT, learning_rate=0.02, residual=True),
    ),
    Experiment(
        "9 Sigmoid or tanh",
        "Xavier's law was made for a slope of 1 at 0; the sigmoid's is 1/4. Does that matter in four layers?",
        "A's gradient at layer 1 is more than 10 times smaller than B's. B learns; A is still near ln 2.",
        Settings(activation="sigmoid", scheme="Xavier normal"),
        Settings(activation="tanh", scheme="Xavier normal"),
    ),
    Experiment(
        "10 A good start, a learning rate too large",
        "The same weights, but B's learning rate is 100 times larger. What becomes of its ReLUs?",
        "B's first step is about as large as its weights: ReLUs end up where no input reaches them, and 40 % "
        "or more of B's are dead, of A's less than 25 %. A good start does not protect from the optimizer.",
        Settings(optimizer="Adam", learning_rate=0.003),
        Settings(optimizer="Adam", learning_rate=0.3),
    ),
)
