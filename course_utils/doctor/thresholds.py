"""Where `diagnose` draws the line between healthy and faulty: every limit, and why it is that one."""

# Effects. All factors are on the second moment, of the signal or of the gradient.
FAR = 1e4  # from the first layer to the last: healthy deep networks wander by 10 to 30
FAR_NORMED = 1e5  # of a gradient that grows where norms are: of thirty ReLUs, at π / (π - 1) each
STEP = 4.0  # in one layer: a ReLU's gain that is forgotten, or there twice, is worth 2
SMALL_STEP = 0.01  # in one layer: smaller is a fault, else a remark; what is small in many is FAR in the end
FAR_STEP = 100.0  # in one layer, wherever it stands: a weight that is scaled by 30 is worth 900
DEAD = 0.6  # share of a layer's units: of inputs that are all alike, half are dead
SATURATED = 0.5  # share of a layer's outputs: a tanh network with gain 1 has next to none, with gain 3 half
SMALL_NORM = 0.01  # second moment that a norm returns where no path leads around: 1 at the start
SMALL_FACTOR = 0.1  # of a branch, that learns: a gate that starts almost shut
AT_A_BOUND = 0.03  # a saturated output is that near to a bound: the derivative of tanh is 0.06 there
LARGE_CELL = 4.0  # std of a recurrent module's weights, times sqrt(fan_in): torch's own has 0.6 at most
LARGE_ROWS = 100.0  # second moment of what an embedding returns, with no norm behind it
LARGE_LOSS = 10.0  # times what outputs of 0 cost, where the last weights are LARGE_STD
FAR_LOSS = 100.0  # times what outputs of 0 cost: outputs ten times as large as the targets
NO_GRADIENT = 1e-25  # times the largest squared gradient: far below Adam's eps, where nothing moves
LOST = 1e-6  # share of the second moment that varies over the batch
ALIKE = 1e-3  # the same, of what is normalized and returned: directions are all that it tells
EXCESS_LOSS = 2.5  # above ln K: logits of variance 2, from He's law in the last layer, are worth 1
EXCESS_COSINE = 10.0  # the same, of cosines over a temperature: 0.07 is worth 6 in 16 dimensions, and trains
SMALL_INPUT, LARGE_INPUT = 1e-3, 10.0  # second moment: of pixels in 0 to 255 it is above 10,000
LARGE_TARGETS = 1e3  # times the outputs' second moment, or 1: thirty standard deviations to go
OFFSET = 0.9  # share of the inputs' second moment in their mean: of pixels in 0 to 1 it is 0.75

DROWNING = 100.0  # times what any other branch adds, or a stream without a norm: a scale of 30 is worth 900
LOST_STREAM = 1e6  # the same over the stream before a norm: a language model's first block adds 1e4 times
CONSTANT = 10.0  # times what it is added to: a parameter that does not depend on the input
BIAS = 2.0  # absolute value: torch's own are at most 1; what a larger one costs is tried
LARGE_OUTPUTS = 10.0  # second moment, of last layers: what those cost that are larger is tried
SAVED, SAVED_WEIGHTS = 0.5, 9.0  # of the loss by a bias, or by last weights, of 0, in units of what remains
SAVED_NATS = 0.5  # at least
SHIFTED = 1e-3  # share that varies behind a bias, over that in front of it: a bias thirty times the signal
COLD = 1e-4  # second moment of cosines times a factor: in 512 dimensions without one it is 2e-3
LARGE_FACTOR = 100.0  # a parameter that multiplies a signal
DROWNED = 1e3  # times smaller than what is added beside it
PRIOR_FACTOR = 2.0  # between the loss of outputs of 0 and that of the best constant ones, and
PRIOR = 0.3  # nats of loss that one constant output would save: at 1 % of one class it is 0.64

# Causes.
OFF = 1.5  # the second moment of weights that explain a drift is off by this factor at least
LARGE_STD = 1.5  # weights with a larger std, in units of the wanted one, explain what comes out too large
GAIN = 1.2  # below, a gain is not worth a remark: 1 for tanh and SELU, 1.41 for ReLU
FANS_DIFFER = 2.0  # a factor between fan_in and fan_out that tells their laws apart, by 1.41 in the std
ADDITIVE = 1.3  # what all that meets adds, over the whole: 1 in a sum, 2 in a product
NEEDED = 0.5  # what a factor adds, over the whole product, of which it is a factor: 1, and less of 1 + s
NORMALIZED = 0.1  # the same ratio, where a norm has come in between, is 0
SAME_MAP = 0.02  # relative error of a second moment behind the activation that a layer is taken for
SAME_STD = 0.03  # relative error of the std of weights that follow a law, or four standard errors if more
