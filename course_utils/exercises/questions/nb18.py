"""Exercises of notebook 18: sizes, slopes and spectra of sine layers, and what a bandwidth learns first."""

import math

from course_utils.exercises.asking import Choice, Number, Open

_FIXED = 0.7968121300200199  # the positive solution of q = 1 - exp(-2 q)


QUESTIONS = (
    Number(
        statement="Pre-activations are normal with variance 0.5. What is the second moment behind a sine?",
        stars=1,
        minutes=3,
        answer=(1 - math.exp(-1)) / 2,
        mistakes=(
            ((1 - math.exp(-0.5)) / 2, "You took 0.5 for the std; it is the variance a²."),
            (0.5, "One half is the limit of large variances."),
            ((1 + math.exp(-1)) / 2, "That is the second moment of the cosine."),
            (1 - math.exp(-1), "A factor ½ is missing: sin² = (1 - cos 2z)/2."),
        ),
        hints=("Which a² is meant in the formula for E sin²(aZ)?", "a² = 0.5, so that exp(-2a²) = exp(-1)."),
        because="a² is the variance: (1 - exp(-1))/2.",
        solution="(1 - exp(-2 · 0.5))/2 = 0.316.",
    ),
    Number(
        statement="A sine network has the factor 10 in front of all its pre-activations. Which bound $u$ do "
        "uniform hidden weights in $\\pm u$ get by SIREN's law at width 150?",
        stars=1,
        minutes=3,
        answer=math.sqrt(6 / 150) / 10,
        mistakes=(
            (math.sqrt(6 / 150), "The factor 10 stands in front of the weights as well: divide by it."),
            (math.sqrt(2 / 150) / 10, "That is the standard deviation; the bound is √3 times as large."),
            (math.sqrt(6 / 150) / 30, "The factor is 10 here, not 30."),
            (6 / 150 / 100, "That is the square of the bound."),
        ),
        hints=("With all factors included the variance is 2/n.", "u²/3 · 10² = 2/150."),
        because="10² u²/3 = 2/150.",
        solution="u = √(6/150)/10 = 0.02.",
    ),
    Number(
        statement="Deep in a sine network with SIREN's law: by which factor does the *RMS* slope grow in "
        "twenty layers?",
        stars=2,
        minutes=5,
        answer=(2 - _FIXED) ** 10,
        tolerance=0.03,
        mistakes=(
            ((2 - _FIXED) ** 20, "That is the mean square; take the root."),
            ((1 + math.exp(-2)) ** 10, "You kept q = 1; the layers settle at q = 0.797."),
            (1.0, "The law keeps the size, not the slope."),
        ),
        hints=(
            "Which q do the layers settle at, and what is the factor there?",
            "2 - q* = 1.203 in mean square.",
        ),
        because="1.203 per layer in mean square, so 1.203^(20/2).",
        solution="q* = 0.797 solves q = 1 - exp(-2q); (2 - q*)^10 = 6.36.",
    ),
    Number(
        statement="One sine layer and linear output weights, $x$ in $[-1, 1]$, phases uniform. Which "
        "$\\omega_0$ gives a function with 40 zeros on average?",
        stars=2,
        minutes=5,
        answer=20 * math.pi * math.sqrt(3),
        mistakes=(
            (20 * math.pi, "The weights are uniform in ±1: their RMS is 1/√3."),
            (40 * math.pi * math.sqrt(3), "The interval has length 2."),
            (10 * math.pi * math.sqrt(3), "Rice's formula has 1/π zeros per unit of angle, not 2/π."),
        ),
        hints=("Solve the formula for the zeros of one layer.", "40 = 2 ω₀/(π√3)."),
        because="40 π √3/2.",
        solution="ω₀ = 40 π √3/2 = 109.",
    ),
    Choice(
        statement="A fit on Fourier features passes through every sample and is wild between them. Which "
        'change is the first to try? Answer "smaller s", "larger s", "more steps" or "more features".',
        stars=2,
        minutes=3,
        options={
            "smaller s": "Then less of what was learned goes to frequencies that samples cannot tell apart.",
            "larger s": "That gives still more to the frequencies that the samples cannot tell apart.",
            "more steps": "The samples are met already; more steps change nothing between them.",
            "more features": "The law is that of very many features, and it has the noise.",
        },
        answer="smaller s",
        hints=(
            "Which term of the error is large?",
            "The sum over j ≠ 0: shares of frequencies k + jN. What makes them small?",
        ),
        solution="A smaller s: the shares at k + jN fall, and what is learned stays at k.",
    ),
    Open(
        statement="A colleague takes $\\omega_0 = 30$ from a paper for one second of sound, 16,000 samples, "
        "with time in $[-1, 1]$. What do you expect, and which number do you try?",
        stars=3,
        minutes=6,
        hints=("How many turns does the network start with?", "About eleven zeros in the whole second."),
        because="at 30 the network starts with five or six periods in the whole second, while sound has "
        "hundreds to thousands: it will blur, or learn slowly. I would try a factor of some thousands, so "
        "that the zeros before training are of the order of those in the sound, below the 16,000 that the "
        "samples can tell apart, and listen on both sides.",
        solution="There is no single answer; `check` with your own shows one to compare with.",
    ),
    Number(
        statement="The pre-activations of a sine layer have the variance $q = 2$. Which share of the power "
        "behind it belongs to sums of *three* frequencies of the layer before?",
        stars=2,
        minutes=5,
        answer=8 / 6 / math.sinh(2),
        mistakes=(
            (math.exp(-2) * 8 / 6, "Only odd numbers count: divide by sinh q, not by exp q."),
            (8 / math.sinh(2), "The 3! is missing: the weight is q³/3!."),
            (1 - 2 / math.sinh(2), "That is all but the single waves; sums of five and more are in it."),
            (2 / math.sinh(2), "That is the share of the single waves, J = 1."),
            (8 / 6 / math.cosh(2), "The odd terms make the hyperbolic sine, not the cosine."),
            (1 / 6 / math.sinh(1), "That is for q = 1, SIREN's second layer."),
        ),
        hints=(
            "Which weights do J = 1, 3, 5 have in sinh q?",
            "q + q³/6 + q⁵/120 + … = sinh q: take the second term's share.",
        ),
        because="q³/6 over sinh q.",
        solution="(2³/6)/sinh 2 = 1.333/3.627 = 0.368.",
    ),
    Number(
        statement="One sine layer with frequencies of $s = 2$ cycles per picture (normal, phases uniform) "
        "and output weights of variance $1/n$. What is the mean square difference of two neighbouring pixels "
        "before training, if a row has 64 pixels?",
        stars=2,
        minutes=5,
        answer=1 - math.exp(-((2 * math.pi * 2 / 64) ** 2) / 2),
        mistakes=(
            (
                (1 - math.exp(-((2 * math.pi * 2 / 64) ** 2) / 2)) / 2,
                "The difference has the second moment 2(m - κ), with m = ½.",
            ),
            (
                1 - math.exp(-((2 * math.pi * 2 / 32) ** 2) / 2),
                "That is for 32 pixels in a row; the distance is halved.",
            ),
            (
                1 - math.exp(-((math.pi * 2 / 64) ** 2) / 2),
                "One pixel of 64 is 1/64 of the picture: s cycles turn by 2π s/64.",
            ),
            (1 - math.exp(-((2 * math.pi * 2 / 64) ** 2)), "The ½ of E cos(aZ) = exp(-a²/2) is missing."),
            (
                math.sqrt(1 - math.exp(-((2 * math.pi * 2 / 64) ** 2) / 2)),
                "That is the RMS; the mean square is asked for.",
            ),
            (math.exp(-((2 * math.pi * 2 / 64) ** 2) / 2), "That is the correlation ρ; take 2 m (1 - ρ)."),
        ),
        hints=(
            "By which angle does a wave of b cycles turn from one pixel to the next?",
            "2π b/64, with b = 2Z: ρ = exp(-(2π · 2/64)²/2).",
        ),
        because="2(m - κ) = 1 - ρ with m = ½, and ρ = exp(-(2π s/64)²/2).",
        solution="ρ = exp(-(0.196)²/2) = 0.9809, so that 1 - ρ = 0.0191.",
    ),
    Number(
        statement="How many random frequencies $M$, each with its cosine and sine, make the kernel's "
        "standard deviation 0.01 between distant places?",
        stars=2,
        minutes=3,
        answer=5000,
        mistakes=(
            (10_000, "A cosine of a random angle has the variance ½, not 1."),
            (50, "The error falls as the root of M: square 0.01."),
            (100, "The error falls as the root of M: square 0.01, and halve."),
            (20_000, "The variance is 1/(2M), not 2/M."),
            (2500, "The variance is 1/(2M), not 1/(4M)."),
        ),
        hints=("What is the variance of the mean of M cosines?", "1/(2M) = 0.01²."),
        because="1/√(2M) = 0.01.",
        solution="2M = 1/0.0001, M = 5,000.",
    ),
)
