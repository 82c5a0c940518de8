"""The judges of what the parts of a model do to one another, and of what its targets ask of it."""

import math

from course_utils.doctor import thresholds as limit
from course_utils.doctor.faults import judge
from course_utils.doctor.findings import Case, Finding, Findings, escaped, say, say_names, two_softmaxes
from course_utils.doctor.graph import by_weight
from course_utils.doctor.measuring import second_moment
from course_utils.doctor.recording import Call
from course_utils.doctor.vocabulary import NORMS

_DRAW_ANEW, _SCALE = "Draw the weights with std gain / sqrt(fan_in).", "Scale its weights down."
_CONSTANT = "It does not depend on the input."


@judge(1)
def _copies(case: Case) -> Findings:
    """Layers with equal weights stay copies if they get equal gradients, too; else it is a remark."""
    first_of: dict[tuple, Call] = {}
    copies: dict[Call, list[Call]] = {}
    for n in case.trained:
        if n.largest > 0 and not n.identical and n.weight.numel() > 1:
            first = first_of.setdefault((n.weight.shape, n.weight_std, n.largest), n)
            if first.weight is not n.weight and first.weight.equal(n.weight):
                copies.setdefault(first, []).append(n)
    for first, others in copies.items():
        g = first.weight_gradient
        same = [n for n in others if g > 0 and math.isclose(n.weight_gradient, g, rel_tol=1e-5)]
        name, more = "identical units", " and get the same gradient, so they stay copies"
        if not same:
            name, more = "copies", ""
        evidence = f"Others have the same weights{more}."
        cause = "Layers that were copied after they were drawn."
        yield from say([first, *(same or others)], name, evidence, cause, _DRAW_ANEW, bool(same))


@judge(1, "unbounded loss")
def _softmax_twice(case: Case) -> Findings:
    if case.losses.second_softmax and case.rows:
        evidence = "The outputs are probabilities, and the loss takes another softmax or sigmoid of them."
        cause = f"The loss cannot come below {case.losses.second_softmax:.2f}, and gradients are small."
        remedy = "Return what enters the first one, or take a loss of probabilities: "
        remedy += "BCELoss, nll_loss of the log."
        yield Finding(case.rows[-1].layer, "softmax twice", evidence, cause, remedy)
        return
    inner = [n for n in case.nodes if n.twice]
    evidence = "A softmax takes probabilities, which add up to 1 already."
    cause = "What it returns is nearly equal, whatever enters the first one."
    remedy = "Take one of the two softmaxes out."
    yield from say(_made_by(inner), "softmax twice", evidence, cause, remedy)
    evidence = f"Outputs that are right and sure cost {case.losses.sure:.2f}."
    if case.rows and math.isclose(case.losses.sure, two_softmaxes(math.exp(case.losses.equal)), rel_tol=1e-3):
        cause = "The loss takes a softmax of a softmax, and cannot come below that."
        remedy = "Take one of them out of the loss."
        yield Finding(case.rows[-1].layer, "softmax twice", evidence, cause, remedy)
    elif case.rows and -math.inf < case.losses.sure < -0.5:
        cause = "The loss takes logarithms of probabilities, and the outputs are none: it has no lower end."
        remedy = "Return a log_softmax, or take a cross-entropy."
        yield Finding(case.rows[-1].layer, "unbounded loss", evidence, cause, remedy)


@judge(3)
def _small_norms(case: Case) -> Findings:
    """Look at norms whose own weights make the signal small, or whose epsilon does."""
    known = NORMS.keys() - {"normalize", "local_response_norm"}  # what is only called a norm may be none
    norms = [n for n in case.rows if n.role == "norm" and n.function in known]
    norms = [n for n in norms if not (n.last or n.bypassed or n.norm_next)]
    for n in (n for n in norms if 0 < n.left.second < limit.SMALL_NORM):
        evidence = "It returns second moment {n.left.second:.2g}."
        cause, remedy = "What enters it is smaller than its epsilon.", "Scale up what leads to it."
        weight = n.parameters[0] if n.parameters else None
        if weight is not None and second_moment(weight) < limit.SMALL_NORM:
            cause, remedy = "Its weights are small.", "Let them start at 1."
        yield from say([n], "vanishing signal", evidence, cause, remedy)


@judge(2)
def _constants(case: Case) -> Findings:
    """Judge parameters that are added, such as positions, and those that multiply."""
    for name, ratio in case.added.items():
        if ratio > limit.CONSTANT:
            evidence = f"It is added to what has {1 / ratio:.2g} of its second moment."
            yield Finding(name, "exploding signal", evidence, _CONSTANT, "Scale it down.")
    for name, (rms, _) in case.factors.items():
        if rms > limit.LARGE_FACTOR:
            evidence = f"It multiplies a signal by {rms:.2g}."
            yield Finding(name, "exploding signal", evidence, "", "Let it start between 0 and 1.")


@judge(3)
def _huge(case: Case) -> Findings:
    """Judge what is too large wherever it stands: layers, rows, modules whose gates no pass sees."""
    growing: list[Call] = []
    modules = {n.module: n for n in reversed(case.nodes) if n.role == "composite"}  # by their first calls
    for module, n in modules.items():
        for name, p in module.named_parameters():
            ratio = math.sqrt(second_moment(p) * p.shape[-1])
            if "weight_" in name and ratio > limit.LARGE_CELL:
                evidence = f"The std of {escaped(name)} is {ratio:.2g} times 1 / sqrt({p.shape[-1]})."
                cause = "Its gates are open or shut, whatever the input."
                yield from say([n], "exploding signal", evidence, cause, _DRAW_ANEW)
    for n in case.nodes:
        received = min(n.left.second, n.activated.left.second, *n.arriving)
        ratio = n.weight_std * math.sqrt(n.seen) / (1.0 if math.isnan(n.gain) else n.gain)
        grows = received > max(1.0, limit.FAR_STEP * n.entered.second) and ratio**2 > limit.FAR_STEP / 2
        if grows and n.parameters[:1] != (None,) and not (n.last or case.is_scale_free(n)):
            growing.append(n)
        rows = n.role == "layer" and math.isnan(n.fan_in)
        if rows and n.left.second > limit.LARGE_ROWS and not case.is_scale_free(n):
            cause = "Rows that are looked up should have second moment 1 or less."
            evidence = "It returns second moment {n.left.second:.2g}."
            yield from say([n], "exploding signal", evidence, cause, "Scale them down.")
    for calls in by_weight(growing):
        evidence = "It returns second moment {n.left.second:.2g} of {n.entered.second:.2g}; its weights' std "
        evidence += "is {n.weight_std:.2g}."
        yield from say(calls, "exploding signal", evidence, "", _DRAW_ANEW)


@judge(5)
def _decided(case: Case) -> Findings:
    found = [n for n in case.nodes if n.decided > limit.SATURATED]
    most = max((n.decided for n in found), default=0)
    evidence = f"The softmax behind it has lost {most:.0%} of its slope."
    cause = "What enters it is large: its probabilities are nearly 0 or 1."
    remedy = "Draw its weights smaller, or divide what enters the softmax, in attention by sqrt(d)."
    yield from say(_made_by(found), "saturated", evidence, cause, remedy)


def _made_by(nodes: list[Call]) -> list[Call]:
    """Return the sources among some calls, and those that feed the others."""
    return sorted({m for n in nodes for m in ([n] if n.is_source else n.feeders)}, key=lambda n: n.index)


@judge(6)
def _drowned(case: Case) -> Findings:
    """Look where branches meet: for one far larger than the others, the stream, or its neighbour."""
    scores = [n for n in case.nodes if n.decided > 0]  # in front of a softmax
    weighing = {m for n in scores for m in ([n] if n.is_source else n.feeders)}
    for second, added in case.meetings:
        sizes = {n: s for n, s in added.items() if s > 1e-7 * second}  # else a norm came in between
        total = sum(sizes.values())
        is_sum = limit.NORMALIZED * second < total < limit.ADDITIVE * second
        if len(sizes) < 2 or not is_sum or any(n.recurrent for n in sizes):
            continue
        root = min(n.depth for n in sizes)
        behind = [n for n in sizes if n.depth > root and any(n.follows(m) for m in sizes if m.depth == root)]
        ends = sorted(behind, key=sizes.get)
        stream = total - sum(sizes[n] for n in ends)
        most = {n: limit.LOST_STREAM if n.norm_next else limit.DROWNING for n in ends}
        large = [n for n in reversed(ends) if sizes[n] > max(most[n] * stream, 1.0)]
        least = max(limit.CONSTANT * stream, 1.0)  # a branch of the right size is none too many
        if len(ends) > 2 and sizes[ends[-1]] > max(least, limit.DROWNING * sizes[ends[-2]]):
            evidence = f"It adds {sizes[ends[-1]] / sizes[ends[-2]]:.2g} times what any other branch adds."
            cause = "The others hardly count beside it."
            yield from say(ends[-1:], "exploding signal", evidence, cause, _SCALE)
        elif large:
            evidence = f"It adds {sizes[large[0]] / stream:.2g} times what it is added to."
            yield from say(large, "exploding signal", evidence, "What came before is lost in it.", _SCALE)
        yield from _beside(sizes, max(sizes, key=sizes.get), weighing)


def _beside(sizes: dict[Call, float], largest: Call, weighing: set[Call]) -> Findings:
    """Look for what is far smaller than another; neither leads to the other, or only weighs what is added."""
    small = [n for n in sizes if sizes[n] * limit.DROWNED < sizes[largest] and n not in weighing]
    side = [n for n in small if not (n.follows(largest) or largest.follows(n))]
    for n in side[:1]:
        share = sizes[n] / sizes[largest]
        if n.left.varying > 0 and (largest.left.varying == 0 or not largest.parents):
            evidence = f"It adds {1 / share:.2g} times what {escaped(n.layer)} adds beside it."
            yield from say([largest], "exploding signal", evidence, _CONSTANT, _SCALE)  # such as positions
        else:
            evidence = f"What it adds is {share:.2g} of what {escaped(largest.layer)} adds beside it."
            remedy = "Bring the two to one size, or train it at a rate of its own."
            yield from say(side, "drowned", evidence, "Its path is scaled down.", remedy, False)


@judge(7, "target scale")
def _target_scale(case: Case) -> Findings:
    last = [n for n in case.rows if n.last and n.weight is not None][-1:]
    evidence = f"Targets have second moment {case.losses.targets:.2g}, and outputs {{n.left.second:.2g}}."
    cause = "Initializations, and usual rates, are made for outputs of size 1."
    remedy = "Standardize the targets: subtract their mean, divide by their standard deviation."
    if last and case.losses.targets > limit.LARGE_TARGETS * max(last[0].left.second, 1.0):
        yield from say(last, "target scale", evidence, cause, remedy)


@judge(7)
def _lost(case: Case) -> Findings:
    """Look for layers that receive next to nothing, or nothing that depends on the input."""
    varying = sum(1 << n.index for n in case.nodes if n.role == "input" and n.left.varying > 0)
    gates = sum(1 << n.index for n in case.nodes if n.gated)
    for n in (n for n in case.rows if n.last and n.function == "normalize" and n.examples > 1):
        if n.left.varying < limit.ALIKE * n.left.second and n.ancestors & varying:
            evidence = f"What {escaped(n.layer)} returns varies over the batch by {n.left.varying:.2g} of "
            evidence += f"{n.left.second:.2g}."
            cause = "A part that is the same for all examples is far larger than the rest of what enters it."
            yield from say(n.feeders or [n], "vanishing signal", evidence, cause, "Set biases to 0.")
            return
    for n in (n for n in case.rows if n.role in ("layer", "composite")):
        x, from_input = n.entered, n.parents and n.parents[0].role == "input"
        if n.bypassed or from_input or not n.ancestors & varying or n.ancestors & gates:
            continue
        nothing, same = x.second < limit.FAR**-2, x.varying < limit.LOST * x.second and n.examples > 1
        if nothing or same:
            zero = [m for m in case.trained if n.follows(m) and m is not n and m.largest == 0]
            blamed = [*dict.fromkeys([*n.feeders, *zero] or [n])]
            what = f"varies over the batch by {x.varying:.2g} of {x.second:.2g}"
            if nothing:
                what = f"has second moment {x.second:.2g}"
            evidence = f"What enters {escaped(n.layer)}, behind it, {what}."
            cause = "It is scaled down, switched off, or drowned by what does not depend on the input."
            remedy = "Draw the weights at random; set biases to 0."
            yield from say(blamed, "vanishing signal", evidence, cause, remedy)
            return


@judge(8)
def _shifted(case: Case) -> Findings:
    """Look for biases that drown what depends on the input, also behind the next norm."""
    found = []
    for n in (n for n in case.rows if n.role == "layer" and not (n.last or n.bypassed) and n.examples > 1):
        after = [m.left if m.role == "norm" else m.entered for m in case.nodes if m.is_source and n in m.fed]
        shares = [x.varying / x.second for x in (n.entered, n.left, *after) if x.second > 0]
        small = max(shares[1:], default=math.nan) < limit.SHIFTED * shares[0] if shares else False
        if n.bias is not None and n.largest > 0 and second_moment(n.bias) > n.left.second / 2 and small:
            found.append(n)
    evidence = "What it returns varies over the batch by {n.left.varying:.2g} of {n.left.second:.2g}."
    cause, remedy = "The rest are its biases.", "Set them to 0."
    if found and found[0].entered.second < limit.SMALL_INPUT:
        cause = f"What enters it has second moment {found[0].entered.second:.2g}; the rest are its biases."
        remedy = "Scale up what leads to it."
    yield from say(found, "vanishing signal", evidence, cause, remedy)


@judge(7)
def _cold(case: Case) -> Findings:
    """Look at cosines times a factor that no layer can make large enough to decide."""
    last = [n for n in case.rows if n.last and n.norm_next and n.weight is not None][:1]
    evidence = f"What is returned has second moment {case.losses.outputs:.2g}: nearly equal probabilities."
    cause = "A norm takes the size from what it returns, and the factor behind the norm is too small."
    remedy = "Let that factor, such as one over a temperature, start larger."
    if 0 < case.losses.outputs < limit.COLD and not math.isnan(case.losses.equal):
        yield from say(last, "vanishing signal", evidence, cause, remedy)


@judge(6)
def _stuck(case: Case) -> Findings:
    evidence = "Its weights are used, but get no gradient, or one 1e12 times smaller than others, after "
    evidence += "three steps, too."
    cause = "Something behind it passes nothing back: two factors that are both 0, units that are off for "
    cause += "all inputs, a detached or rounded value."
    remedy = "Let one of the two factors be random, set biases to 0, or do not cut the graph; freeze what "
    remedy += "should not learn."
    yield from say_names(case.stuck, "vanishing gradient", evidence, cause, remedy, True)


@judge(8)
def _over_time(case: Case) -> Findings:
    """Compare the gradient at the first step with that at the best, where weights are used over and over."""
    cells: dict[int, list[Call]] = {}  # by their modules
    for n in (n for n in case.nodes if n.function.endswith("_cell") and n.gradient >= 0):
        cells.setdefault(id(n.module), []).append(n)
    recurrent = by_weight(n for n in case.trained if n.recurrent and n.gradient >= 0)
    for calls in [*recurrent, *cells.values()]:
        largest = max(n.gradient for n in calls)
        calls[0].over_time = calls[0].gradient / largest if largest > 0 else math.nan
    nodes = [n for n in case.nodes if n.over_time < 1 / limit.FAR]
    evidence = "The squared gradient at the first step is {n.over_time:.2g} of that at the best one."
    remedy = "Draw the weights over time orthogonal; give a gate that keeps the state a bias of about ln T."
    yield from say(nodes, "short memory", evidence, "What is remembered shrinks at each step.", remedy, False)


@judge(8)
def _prior(case: Case) -> Findings:
    lasts = [n for n in case.rows if n.last and n.weight is not None]
    last = ([n for n in lasts if n.has_gradient] or lasts)[-1:]
    zeros, constant = case.losses.zeros, case.losses.constant
    if min(zeros, case.losses.value) > max(constant + limit.PRIOR, limit.PRIOR_FACTOR * constant):
        evidence = f"Outputs of 0 cost {zeros:.3g}, better constant ones {constant:.3g}."
        cause = "The first steps go into learning how frequent, or how large, targets are."
        remedy = "Set the last bias to the mean, or the logarithm of the frequencies: "
        remedy += "for one, log p / (1 - p)."
        yield from say(last, "missing prior", evidence, cause, remedy, False)
