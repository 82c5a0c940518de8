"""The judges: one function for each fault that `diagnose` finds.

A fault rests on an effect: a signal, a gradient or a loss of the wrong size, or units that cannot learn. The
law that the weights follow explains it; only one that contradicts those of other layers is a fault by itself.

To add a fault, write a judge here, among those of its stage: `@judge(stage, name)` adds its name to FAULTS.
Stages are heard by their numbers, those of `relations` too, each only if those before it found no fault.
"""

import math
from collections.abc import Callable
from itertools import groupby
from operator import itemgetter

from torch import Tensor, nn

from course_utils.doctor import thresholds as limit
from course_utils.doctor.findings import (
    LAWS,
    Case,
    Finding,
    Findings,
    Law,
    is_right,
    say,
    say_names,
    standard_error,
)
from course_utils.doctor.measuring import Moments, has_identical_units, owned
from course_utils.doctor.recording import Call
from course_utils.doctor.vocabulary import EMBEDDINGS, ODD, SIGMOIDS

Judge = Callable[[Case], Findings]
JUDGES: list[tuple[int, tuple[str, ...], Judge]] = []


def judge(stage: int, *faults: str) -> Callable[[Judge], Judge]:
    """Register a judge of a stage, and the names of the faults that it finds."""
    return lambda function: JUDGES.append((stage, faults, function)) or function


@judge(0, "not finite")
def _broken_values(case: Case) -> Findings:
    for name in case.broken[:1]:
        evidence = f"It is the first tensor with NaN or infinity, of {len(case.broken)} in all."
        cause = "A bad value in the data or the checkpoint, or a division by 0 in an initializer."
        yield Finding(name, "not finite", evidence, cause, "Replace the value where it comes from.")


@judge(1, "input scale")
def _input_scale(case: Case) -> Findings:
    """Look at the first layer that takes an input, of the wrong size; in front of a norm it does no harm."""
    taking = [n for n in case.rows if n.role in ("layer", "composite") and n.parents]
    sizes = [(n, n.entered) for n in taking if n.parents[0].role == "input"]
    joined = [(n, p) for n in taking for p in n.parents[0].parents if n.parents[0].role == "join"]
    behind = [(n, p.parents[0]) for n in taking for p in n.parents if p.role == "activation" and p.parents]
    also = [(n, p) for n, p in joined + behind if p.role == "input" and n.entered.second > limit.LARGE_INPUT]
    sizes += [(n, p.left) for n, p in also if p.left.second > limit.LARGE_INPUT]
    small, large, offset = limit.SMALL_INPUT, limit.LARGE_INPUT, limit.OFFSET
    odd = [(n, x) for n, x in sizes if x.second < small or x.second > large or x.mean**2 > offset * x.second]
    for n, x in odd[:1]:
        evidence = f"Its inputs have mean {x.mean:.2g} and second moment {x.second:.2g}."
        cause = "Initializations are made for inputs of mean 0 and second moment 1."
        remedy = "Standardize the inputs: subtract their mean, divide by their standard deviation."
        yield from say([n], "input scale", evidence, cause, remedy, not n.norm_next)


@judge(1)
def _fresh_statistics(case: Case) -> Findings:
    nodes = [n for n in case.rows if n.role == "norm" and _is_fresh(n.module)]
    evidence = "It divides by statistics that no batch has updated yet, and so does not normalize."
    cause = "The model is in eval mode, and its running means are 0, its variances 1."
    remedy = "Call model.train() before you diagnose a start, or load the statistics of its training."
    yield from say(nodes, "fresh statistics", evidence, cause, remedy, False)


def _is_fresh(norm: nn.Module | None) -> bool:
    """Return whether a norm uses running statistics that are still those of its construction."""
    mean, variance = (getattr(norm, f"running_{name}", None) for name in ("mean", "var"))
    used = mean is not None and variance is not None and not norm.training
    return used and not mean.any() and bool((variance == 1).all())


@judge(1, "identical units")
def _identical(case: Case) -> Findings:
    nodes = [n for n in case.nodes if n.identical and n.largest > 0]
    alike = {n for n in nodes if any(has_identical_units(p, None, n.out_dim) for p in _made_of(n))}
    nodes = [n for n in nodes if n.trained or n in alike]
    evidence = "All its units have the same weights and biases."
    cause = "A constant initialization: its units are copies, and stay so unless their outgoing "
    cause += "weights differ."
    yield from say(nodes, "identical units", evidence, cause, "Draw the weights at random.")
    some = [n for n in case.trained if n.copies]
    evidence = "{n.copies} of its units have the weights of another one, and get the same gradient."
    cause = "Units that were copied: they stay copies."
    yield from say(some, "identical units", evidence, cause, "Draw each unit's weights at random.")


def _made_of(n: Call) -> list[Tensor]:
    """Return the trained parameters that a layer's weights are computed from, entry by entry."""
    own = owned(n.module) if n.weight is not None and n.weight.requires_grad else []
    return [p for p in own if p.shape == n.weight.shape and p.requires_grad]


_ONLY_LAST = "Only the last layer, of the network or of a residual branch, may start at 0."


@judge(1, "zero layer")
def _zero(case: Case) -> Findings:
    nodes = [n for n in case.nodes if n.largest == 0 and not (n.last or n.bypassed)]
    layers = [n for n in nodes if n.trained or _made_of(n)]
    frozen = [n for n in case.nodes if n.largest == 0 and n.parameters[0] is not None and n not in layers]
    frozen = [n for n in frozen if not n.parameters[0].requires_grad and _blocks(case, n)]
    norms = [n for n in nodes if n.role == "norm" and n not in frozen]
    evidence = "All its weights are 0: what follows does not depend on the input."
    yield from say(layers, "zero layer", evidence, _ONLY_LAST, "Draw the weights at random.")
    yield from say(norms, "zero layer", evidence, _ONLY_LAST, "Let them start at 1.")
    cause, remedy = "They are frozen, and stay 0.", "Unfreeze them, or load them."
    yield from say(frozen, "zero layer", evidence, cause, remedy)
    silent = [n for n in case.rows if n.last and n.examples > 1 and n.entered.varying == 0]
    for name, (rms, before) in case.factors.items():
        if rms == 0 and not before.bypassed and any(n.follows(before) for n in silent):
            evidence = "It multiplies a signal by 0: what follows does not depend on the input."
            yield Finding(name, "zero layer", evidence, _ONLY_LAST, "Let it start at 1.")


def _blocks(case: Case, frozen: Call) -> bool:
    """Return whether all that passes, or all that some layer could learn by, passes through it."""
    return not frozen.bypassed or any(n.layer in case.stuck and frozen.follows(n) for n in case.trained)


def _lacking(case: Case) -> list[Call]:
    """Return the layers before a ReLU or the like whose law is right but for the gain."""
    needy = [n for n in case.judged if n.gain > limit.GAIN and n.activation != "pooled"]
    needy = [n for n in needy if not n.activated.dead > limit.DEAD]  # their gain was measured at 0
    lacking = [n for n in needy if not is_right(n) and {"LeCun", "Xavier"} & {*n.laws}]
    # LeCun's law is also He's with fan_out if fan_out = 2 fan_in.
    return [n for n in lacking if not {"fan_out"} & case.shared & {*n.laws}]


@judge(1, "misplaced gain", "missing gain")
def _gains(case: Case) -> Findings:
    """Blame a gain that is due elsewhere, else a minority without one; of a whole network it is a remark."""
    owners, lacking = [n for n in case.judged if n.gain < limit.GAIN and "He" in n.laws], _lacking(case)
    having = [n for n in case.judged if n.gain > limit.GAIN and n not in lacking]
    if not any(is_right(n) for n in having):
        owners = [n for n in owners if not is_right(n)]  # the others may be Xavier's, as the whole network
    if lacking and owners:
        needy = lacking[0].layer
        evidence = f"Its weights carry a ReLU's gain, but none follows; {needy}, before one, lacks it."
        cause = "The gain of an activation belongs to the weights in front of it."
        remedy = f"Draw {needy} with std sqrt(2 / fan_in), and {{n.layer}} with sqrt(1 / fan_in)."
        yield from say(owners, "misplaced gain", evidence, cause, remedy)
    else:
        others = sum(is_right(n) or "fan_out" in n.laws for n in having)
        evidence = "Its weights' std is {n.weight_ratio:.2g} times the wanted {n.wanted_std:.2g}."
        cause = f"LeCun's or Xavier's law without {{n.activation}}'s gain; other layers with it: {others}."
        remedy = "Multiply the weights by {n.gain:.3g}."
        yield from say(lacking, "missing gain", evidence, cause, remedy, others >= len(lacking))


def _blame_weights(nodes: list[Call], symptom: str = "", is_fault: bool = True) -> Findings:
    """Yield the fault of layers whose weights have the wrong scale, explained by the law that they follow."""
    first, name = nodes[0], next(iter(nodes[0].laws), "")
    law = LAWS.get(name, Law(lambda n: math.nan, cause="The weights follow no law known here."))
    fault, cause = law.fault or f"{'exploding' if first.weight_ratio > 1 else 'vanishing'} signal", law.cause
    remedy = "Draw the weights with std gain / sqrt(fan_in) = {n.wanted_std:.3g}"
    if own := sorted({n.wanted_std for n in nodes[1:]} - {first.wanted_std}):
        extremes = dict.fromkeys(f"{std:.3g}" for std in (own[0], own[-1]))
        remedy += f", each with its own: {' to '.join(extremes)} in the others"
    remedy += "."
    if name == "fan_out" and first.out_dim == first.area == 1:
        fault, remedy = "transposed weight", remedy + " Initialize W.T."
        cause = "The weight is kept (in, out), but was drawn as if it were (out, in)."
    evidence = symptom + "The layer multiplies the second moment by {n.growth:.2g}; its weights' std "
    evidence += "{n.weight_std:.2g} is {n.weight_ratio:.2g} times the wanted {n.wanted_std:.2g}."
    yield from say(nodes, fault, evidence, cause.replace("{law}", name), remedy, is_fault)


@judge(1, "wrong fan", "transposed weight")
def _wrong_fan(case: Case) -> Findings:
    """Blame fan_out where at least as many layers use fan_in; all of them may use it."""
    outwards = [n for n in case.telling if "fan_out" in n.laws and not is_right(n)]
    if any(n.gain > limit.GAIN and {"Xavier"} == {*n.laws} for n in case.telling):
        # Where fan_in is small, Xavier's law, as of the whole network, is also fan_out's with a ReLU's gain.
        outwards = [n for n in outwards if "Xavier" not in n.laws]
    if any(n.gain > limit.GAIN and is_right(n) for n in case.judged):
        # He's law throughout, the last layer too, is also fan_out's there if fan_out = fan_in / 2.
        outwards = [n for n in outwards if not (n.gain < limit.GAIN and "He" in n.laws)]
    inwards = [n for n in case.telling if {"fan_in", "LeCun"} & {*n.laws} and n not in outwards]
    if outwards and len(inwards) >= len(outwards):
        yield from _blame_weights(outwards)


@judge(1, "double init")
def _step(case: Case) -> Findings:
    """Blame layers whose weights alone change the second moment by more than STEP."""
    found: dict[tuple, list[Call]] = {}
    for n in case.judged:
        direction = _jump(n)
        excused = n.laws if n.orthogonal else {"torch default", *case.shared} & {*n.laws}
        if n.last:  # it may be small, and the loss shows whether it is too large
            excused = excused or direction < 0 or not math.isnan(case.losses.equal)
        if direction and not excused:
            found.setdefault((*n.laws[:1], direction), []).append(n)
    for (*_, direction), nodes in found.items():  # what is small may be so on purpose, or be made up for
        known = any(LAWS[law].fault for law in nodes[0].laws[:1])
        serious = direction > 0 or known or nodes[0].growth < limit.SMALL_STEP
        yield from _blame_weights(nodes, "", serious)


def _jump(n: Call) -> int:
    """Return 1, or -1, if weights multiply, or divide, the second moment by STEP, also as received next."""
    entered, received = n.entered.second, [n.activated.left.second, *n.arriving]
    if n.activation == "pooled" and n.arriving:  # what counts is what comes out of the pool
        received = n.arriving
    off, slack = n.weight_ratio**2, (1 + 4 * standard_error(n)) ** 2  # what chance allows
    if min(received) > limit.STEP * entered and off > slack * limit.STEP / 2:
        return int(n.activated.function not in ODD)
    dead = n.activated.dead > limit.DEAD  # a fault of its own, whatever the weights
    small = max(received) < entered / limit.STEP and n.activation != "pooled"  # a mean makes smaller
    return -int(small and not dead and 0 < off < 2 / limit.STEP / slack)


@judge(2, "dead")
def _dead(case: Case) -> Findings:
    """Of aligned inputs half the units are dead: allow that, and four standard errors."""
    alive = [(n, n.activated) for n in case.rows if _taken(n).second > 0]
    nodes = [n for n, c in alive if c.dead > min(max(limit.DEAD, 0.5 + 2 / math.sqrt(max(c.units, 1))), 0.99)]
    evidence = "{n.activated.dead:.0%} of its units are 0 on the whole batch."
    cause = "What enters the activation lies too far below 0."
    if nodes and _taken(nodes[0]).mean < 0:  # else a bias is added to what it returns
        cause = f"What enters the activation lies too far below 0, on average at {_taken(nodes[0]).mean:.2g}."
    remedy = "Set the biases to 0, and centre the inputs and the weights."
    if nodes:
        evidence = evidence.format(n=nodes[0])
    yield from say(_blamed(nodes), "dead", evidence, cause, remedy)


def _taken(n: Call) -> Moments:
    """Return what enters an activation, be it in the row of the layer before or in a row of its own."""
    return n.entered if n.role == "activation" else n.left


def _blamed(nodes: list[Call]) -> list[Call]:
    """Return those layers, and in the place of an activation in a row of its own what feeds it."""
    found = [m for n in nodes for m in ([n] if n.role != "activation" else n.feeders or [n])]
    return [*dict.fromkeys(found)]


def _culprits(case: Case, last: Call, factor: float) -> list[Call]:
    """Return the layers up to `last` whose weights explain a factor on the second moment, or its root."""
    upto = [n for n in case.judged if n.index <= last.index and n.weight_ratio > 0]
    off = {n: abs(2 * math.log(n.weight_ratio)) for n in upto if (n.weight_ratio > 1) == (factor > 1)}
    off = {n: size for n, size in off.items() if size > math.log(limit.OFF)}
    return list(off) if factor > 0 and sum(off.values()) >= abs(math.log(factor)) / 2 else []


@judge(3, "exploding signal", "vanishing signal")
def _signal(case: Case) -> Findings:
    """Blame what makes the signal, or the part of it that depends on the input, leave [1 / FAR, FAR]."""
    for n in case.nodes:
        passing = (n.is_row and n.role not in ("norm", "composite")) or (n.role == "sum" and not n.last)
        after, may_fade = n.activated, n.last or n.activated.function in SIGMOIDS
        faded = min(after.total, after.total_varying) < 1 / limit.FAR and not may_fade
        size = after.total_varying if n.last and n.examples > 1 else after.total  # a last bias may be large
        exploded = size > limit.FAR and after.left.second > limit.LARGE_INPUT
        judged = passing and (faded or exploded) and not (n.bypassed or n.norm_next)
        if judged and (exploded or not _regained(case, n)):
            yield from _drift(case, n, faded)
            return


def _drift(case: Case, n: Call, faded: bool) -> Findings:
    """Explain a signal that is off from node n on: by the weights of the layers, if these do."""
    what, value = "The second moment of the signal", n.activated.total
    if faded and n.activated.total_varying < value:
        what, value = "The part of the second moment that depends on the input", n.activated.total_varying
    upto = case.nodes[: n.index + 1]
    depth = sum(m.role == "layer" for m in upto)
    layer = next((m.layer for m in reversed(upto) if m.is_row), "inputs")  # for a sum, the last before it
    evidence = f"{what} at {layer} is {value:.2g} of what entered the first layer, "
    evidence += f"a factor of {value ** (1 / max(depth, 1)):.2g} per layer. "
    if off := _culprits(case, n, value):
        later = [m for m in case.judged if m.index > n.index and not m.last]
        off += [m for m in later if off[0].laws and m.laws[:1] == off[0].laws[:1]]
        yield from _blame_weights(off, evidence)
    else:
        fault = f"{'vanishing' if faded else 'exploding'} signal"
        cause = "No weights of a known law explain it: look at others, at biases, at branches that are added."
        remedy = f"Normalize, or scale what leads to it {'up' if faded else 'down'}."
        if value != n.activated.total:
            remedy = "Normalize over the batch, or scale what varies up, and what does not, as biases, down."
        yield Finding(layer, fault, evidence.strip(), cause, remedy)


def _regained(case: Case, n: Call) -> bool:
    """Return whether the next weights receive what has faded in full size, as a sum over a set is."""
    after, start = [m for m in case.nodes if m.is_source and n in m.fed], n.activated.start
    return bool(after) and all(m.entered.varying > start.varying / limit.FAR for m in after)


@judge(4, "not finite")
def _broken_signal(case: Case) -> Findings:
    some = [n for n in case.rows if n.numel]  # else an expert that no example reaches
    layers = [n.layer for n in some if not math.isfinite(n.left.second + n.activated.left.second)]
    layers += ["loss"] * (case.has_loss and not math.isfinite(case.losses.value))
    for layer in layers[:1]:
        cause = "The parameters and inputs are finite: an overflow, or an operation outside its domain."
        yield Finding(layer, "not finite", "It returns NaN or infinity.", cause, "Scale down what enters it.")


@judge(4, "not finite")
def _broken_gradient(case: Case) -> Findings:
    evidence = "The gradient of its weights is NaN or infinite, though all that passes forward is finite."
    cause = "An infinite slope behind it, as that of a square root at 0, or an overflow on the way back."
    nodes = [n for n in case.trained if n.has_gradient and not math.isfinite(n.weight_gradient)]
    remedy = "Add a small constant inside the root."
    yield from say(nodes[::-1], "not finite", evidence, cause, remedy)
    if not nodes:
        for name in case.infinite[:1]:
            yield Finding(name, "not finite", evidence.replace("of its weights ", ""), cause, remedy)


@judge(5, "saturated")
def _saturated(case: Case) -> Findings:
    nodes = [n for n in case.rows if n.activated.saturated > limit.SATURATED]
    nodes = [n for n in nodes if not n.bypassed or n.weight_std * math.sqrt(n.seen) > limit.LARGE_CELL]
    for n in nodes[:1]:
        share = n.activated.saturated
        evidence = f"{share:.0%} of its outputs are at a bound, where the derivative is about 0."
        before = 0.0 if n.role == "activation" else n.left.second  # where the activation writes in place
        size = max(n.activated.entered.second, before)
        cause = f"What enters the activation is large: second moment {size:.2g}"
        if n.weight_ratio > limit.LARGE_STD:
            cause += f"; the weights' std is {n.weight_ratio:.2g} times the wanted one"
        remedy = "Draw weights with std 1 / sqrt(fan_in), and set the biases to 0."
        yield from say(_blamed(nodes), "saturated", evidence, cause + ".", remedy)


@judge(6, "exploding gradient", "vanishing gradient")
def _gradient(case: Case) -> Findings:
    """Compare the squared gradient, summed over a layer, at the first and at the deepest hidden layer."""
    looped = max((n.index for n in case.nodes if n.recurrent), default=-1)  # time has a judge of its own
    starts = 0  # a composite, whose gates have laws of their own, starts anew
    paths: dict[int, list[Call]] = {}
    for n in case.nodes:
        starts += n.role == "composite"
        hidden = (n.is_row or n.role == "sum") and not (n.bypassed or n.last or n.gated) and n.index > looped
        if hidden and (n.role == "norm" or not n.norm_next) and not math.isnan(n.gradient):
            paths.setdefault(starts, []).append(n)
    heads = [n for n in case.nodes if n.last and n.role in ("layer", "composite")]
    for hidden in paths.values():
        looked_at: set[Call] = set()
        leading = {n: [h for h in heads if h.follows(n)] for n in hidden}  # a gradient comes from each head
        for last in reversed(hidden):
            if last in looked_at:
                continue
            path = [n for n in hidden if last.follows(n) and leading[n] == leading[last]]
            looked_at |= {*path}
            if factor := _too_far(path):
                yield from _explain_gradient(case, path, factor)
                return


def _too_far(path: list[Call]) -> float:
    """Return the squared gradient at the first over that at the last, if that is too far from 1, or 0."""
    first, last = (n.gradient * n.numel / max(n.examples, 1) for n in (path[0], path[-1]))
    sizes = (path[0].left.second or math.nan) / (path[-1].left.second or math.nan)  # of the signal
    far = limit.FAR
    if not last > 0 or last / far <= first <= last * far or last / far <= first * sizes <= last * far:
        return 0.0
    normalized = any(n.role == "norm" for n in path)  # in front of a norm the weights' scale is no matter
    return 0.0 if normalized and 1 < first / last < limit.FAR_NORMED else first / last


def _explain_gradient(case: Case, path: list[Call], factor: float) -> Findings:
    between = [n for n in case.rows if path[0].index <= n.index <= path[-1].index]
    rows, large = [n for n in path if n.layer] or between, factor > 1
    sigmoids = [n for n in rows if n.activated.function in SIGMOIDS]
    norms = [n for n in rows if n.role == "norm" and n.activated.function == "relu"]
    remedy = "Draw the weights with std gain / sqrt(fan_in)."
    if sigmoids and not large:
        guilty, cause = sigmoids, "A sigmoid's derivative is at most 1/4, so its square at most 1/16."
        remedy = "Use ReLU with He's initialization, or tanh with Xavier's."
    elif norms and large:
        cause = "Batch norm with ReLU multiplies the squared gradient by pi / (pi - 1) = 1.467 per layer."
        guilty, remedy = norms, "Add residual connections, or use fewer layers."
    elif guilty := _culprits(case, path[-1], factor):
        cause = "The weights are far from the wanted std."
    else:
        guilty, cause = rows, "The activations are far from critical, or branches that are added too large."
    evidence = f"The squared gradient at {rows[0].layer} is {factor:.2g} of that at {rows[-1].layer}, "
    evidence += f"a factor of {factor ** (1 / max(len(path) - 1, 1)):.2g} per layer on the way back."
    yield from say(guilty, f"{'exploding' if large else 'vanishing'} gradient", evidence, cause, remedy)


@judge(6, "large initial loss")
def _tried(case: Case) -> Findings:
    """Blame what, were it 0, would make the loss much smaller: that was tried."""
    value = case.losses.value
    for trial in case.trials:
        factor = limit.SAVED_WEIGHTS if trial.what == "its weights" else limit.SAVED
        if value > trial.loss + max(factor * abs(trial.loss), limit.SAVED_NATS):
            evidence = f"The loss is {value:.3g}; with {trial.what} at 0 it would be {trial.loss:.3g}."
            them = "it" if trial.what == "it" else "them"
            remedy = f"Set {them} to 0, or to what a prior asks for."
            if trial.what == "its weights":
                remedy = "Scale them down; 0 is fine."
            yield Finding(trial.name, "large initial loss", evidence, "", remedy)


@judge(7, "large initial loss")
def _loss(case: Case) -> Findings:
    guilty = _last_ones(case)
    n, losses = guilty[0] if guilty else None, case.losses
    excess = limit.EXCESS_COSINE if n and n.norm_next else limit.EXCESS_LOSS
    far = limit.LARGE_LOSS if n and n.weight_ratio > limit.LARGE_STD else limit.FAR_LOSS
    plain = max(-losses.plain, 1.0) if losses.plain < 0 else losses.plain  # of a density, in nats
    large = losses.value > losses.equal + excess
    if n is None or not (large or losses.value > far * plain > 0):
        return
    others = f"equal probabilities cost ln K = {losses.equal:.3g}"
    if not large:
        others = f"outputs of {int(not math.isfinite(losses.zeros))} cost {losses.plain:.3g}"
    evidence = f"The loss is {losses.value:.3g}; {others}."
    cause, remedy, is_fault = _why_large(case, n)
    yield from say(guilty, "large initial loss", evidence, cause, remedy, is_fault)


def _last_ones(case: Case) -> list[Call]:
    """Return the last layer, of several whose sum is returned the largest, and what adds most to it."""
    lasts = [n for n in case.rows if n.last and n.weight is not None] or case.rows
    last = ([n for n in lasts if n.left.second > 0] or lasts)[-1:]
    second, added = next(((s, a) for s, a in case.meetings if {*last} & {*a}), (0.0, {}))
    largest = [n for n in added if added[n] > second / 2 and added[n] == max(added.values())]
    if any(n.last and n.weight is not None for n in largest):
        return largest
    return last + [n for n in largest if n.weight is not None and not n.weight_ratio < limit.LARGE_STD]


def _why_large(case: Case, n: Call) -> tuple[str, str, bool]:
    """Return why what a last layer returns is large, what to do, and whether that is a fault."""
    if n.norm_next:
        cause = "A norm takes the size from what it returns: what multiplies behind that is too large."
        remedy = "Let the factor behind the norm, such as a scale or one over a temperature, start smaller."
        return cause, remedy, True
    same = [m for m in case.rows if n.weight is not None and m.weight is n.weight and m is not n]
    uses = [m.layer for m in same if m.function in EMBEDDINGS]
    cause = "Its inputs have second moment {n.entered.second:.2g}."
    if math.isnan(n.entered.second):
        cause = "It returns second moment {n.left.second:.2g}."
    remedy = "Scale the last layer's weights down; 0 is fine."
    if uses:
        remedy = f"Draw the weight with std 1 / sqrt(fan_in), and not 0: {uses[0]} uses it, too."
    if n.weight_ratio > limit.LARGE_STD:
        return "Its weights' std is {n.weight_ratio:.2g} times the wanted one.", remedy, True
    if uses and n.entered.second < limit.STEP:
        cause = f"Its weight is that of {uses[0]}, too: what was looked up there meets itself."
        remedy = "Training soon unlearns this; outputs with a weight of their own start without it."
        return cause, remedy, False
    return cause, remedy, True


@judge(8)
def _remarks(case: Case) -> Findings:
    nodes = [n for n in case.judged if n.gain > limit.GAIN and "torch default" in n.laws]
    evidence = "The layer multiplies the second moment by {n.growth:.2g}."
    remedy = "Harmless in a shallow network; draw a deep one from He's law."
    yield from say(nodes, "torch default", evidence, LAWS["torch default"].cause, remedy, False)
    if not case.rows:
        yield Finding("", "no layers", "No layer, norm or activation was called.", "", "", False)
    evidence = "It has a gradient, but no call was seen that takes it."
    cause = "What runs inside torch.func, or a function of one's own with a backward pass, is not seen."
    yield from say_names(case.unseen, "not seen", evidence, cause)
    cause = "It is not used there, or something in between, as NumPy or `.tolist()`, cuts it off."
    idle = case.idle if case.has_gradient else []
    yield from say_names(idle, "no gradient", "Nothing of what it returns gets to the loss.", cause)
    yield from say_names(case.frozen, "frozen", "It does not learn: it requires no gradient.")
    if not case.has_gradient:
        what = "loss" if case.has_loss else "output"
        cause = f"The {what} depends on no parameter that requires a gradient, nor on a floating-point input."
        yield Finding("", "no gradient", "The gradients are NaN.", cause, "", False)


FAULTS = tuple(dict.fromkeys(name for _, names, _ in JUDGES for name in names))


def verdict_on(case: Case) -> tuple[Finding, ...]:
    """Return what the first stage with a fault finds, one fault a layer, and the remarks made until then."""
    faults: dict[str, Finding] = {}
    remarks: list[Finding] = []
    for _, stage in groupby(sorted(JUDGES, key=itemgetter(0)), itemgetter(0)):
        for finding in (finding for *_, judge in stage for finding in judge(case)):
            if finding.is_fault:
                faults.setdefault(finding.layer, finding)  # one root cause a layer
            else:
                remarks.append(finding)
        if faults:  # what later stages see may be their consequence
            break
    named = {finding.fault for finding in faults.values()}
    return (*faults.values(), *(remark for remark in remarks if remark.fault not in named))
