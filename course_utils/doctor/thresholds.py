"""Where `diagnose` draws the line between healthy and faulty: every number, once, and why it is that one."""

# Effects. All factors are on the second moment, of the signal or of the gradient.
FAR = 1e4  # from the first layer to the last: healthy deep networks wander by 10 to 30
STEP = 4.0  # in one layer: a ReLU's gain that is forgotten, or there twice, is worth 2
DEAD = 0.6  # share of a layer's units: of inputs that are all alike, half are dead
SATURATED = 0.5  # share of a layer's outputs: a tanh network with gain 1 has next to none, with gain 3 half
AT_A_BOUND = 0.03  # a saturated output is that near to a bound: the derivative of tanh is 0.06 there
EXCESS_LOSS = 2.5  # above ln K: logits of variance 2, from He's law in the last layer, are worth 1
SMALL_INPUT, LARGE_INPUT = 1e-3, 10.0  # second moment: of pixels in 0 to 255 it is above 10,000
OFFSET = 0.9  # share of the inputs' second moment in their mean: of pixels in 0 to 1 it is 0.75

# Causes.
OFF = 1.5  # the second moment of weights that explain a drift is off by this factor at least
LARGE_STD = 1.5  # weights with a larger std, in units of the wanted one, explain what comes out too large
GAIN = 1.2  # below, a gain is not worth a remark: 1 for tanh and SELU, 1.41 for ReLU
FANS_DIFFER = 2.0  # a factor between fan_in and fan_out that tells their laws apart, by 1.41 in the std
SAME_MAP = 0.02  # relative error of a second moment behind the activation that a layer is taken for
SAME_STD = 0.03  # relative error of the std of weights that follow a law, or four standard errors if more
