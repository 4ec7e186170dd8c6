"""Exercises of lesson 05: size and speed."""

from __future__ import annotations

from typing import Any

import numpy as np

from qexplore.lesson.exercise import called, close, exercise

FILTERS, TAPS = 64, 9
PER_OUTPUT = 8 + 8 + 4  # bytes of scale, zero point and bias
OVERHEAD, GAIN = 30.0, 3.0  # microseconds; how many times faster the product is


@exercise(
    "expected file ratio",
    start="Count the bytes of the float layer and those of the int8 layer, then divide the first by the second.",
    right="Nine weights for each scale are few: a depthwise layer shrinks far less than the promise says.",
)
def expected_file_ratio(ratio: Any) -> str | None:
    weights = FILTERS * TAPS
    before, after = 4 * (weights + FILTERS), weights + FILTERS * PER_OUTPUT
    if close(ratio, before / after, relative=5e-3):
        return None
    if close(ratio, 4, relative=5e-3):
        return "4 is the ratio of a weight alone; count scales, zero points and biases too."
    if close(ratio, after / before, relative=5e-3):
        return "This is int8 over float; the ratio is float over int8."
    if close(ratio, 4 * (weights + FILTERS) / (weights + 4 * FILTERS), relative=5e-3):
        return "The scales and zero points are missing: 16 bytes for each filter."
    if close(ratio, before / (weights + PER_OUTPUT), relative=5e-3):
        return "Each of the filters has a scale, a zero point and a bias, not the layer as a whole."
    return f"{float(ratio):.3g} is not it: {weights} weights, {FILTERS} biases, and {FILTERS} scales and zero points."


@exercise(
    "surely faster",
    start="Divide the float times by the int8 times, round by round, and look at the lower quartile of the ratios.",
    right="Ratios round by round cancel what slows both models down, and quartiles ignore single odd rounds.",
)
def surely_faster(function: Any) -> str | None:
    quiet = np.array([1.00, 1.01, 0.99, 1.02, 1.00, 1.01, 0.98, 1.00])
    drift = np.linspace(1, 3, 8)  # the machine gets slower while it is measured
    odd = np.array([9.0, 1, 1, 1, 1, 1, 1, 1])  # one round was disturbed
    noisy = np.array([0.6, 1.5, 0.7, 1.6, 0.8, 1.4, 0.9, 1.5])
    one_bad = np.array([9.0, 1, 1, 1, 1, 1, 1, 1])
    cases = (
        (2.0 * np.ones(8), one_bad, True, "one odd round makes int8 slow; use the lower quartile, not the smallest"),
        (1.2 * drift[::-1], 1.0 * drift[::-1], True, "the machine speeds up; compare round by round"),
        (2.0 * quiet, 1.0 * quiet[::-1], True, "float takes twice as long in each round"),
        (1.0 * quiet, 2.0 * quiet[::-1], False, "int8 takes twice as long in each round"),
        (1.2 * drift, 1.0 * drift, True, "the machine slows down, for both models alike; compare round by round"),
        (1.0 * noisy, np.ones(8), False, "the median says faster, but more than a quarter of the rounds say slower"),
        (0.9 * odd, np.ones(8), False, "one odd round makes float's mean large; use quartiles, which it cannot move"),
    )
    for before, after, right, words in cases:
        given = called(function, before.tolist(), after.tolist())
        if bool(given) != right:
            return f"Your function says {bool(given)} where {words}: {right} is right."
    return None


@exercise(
    "break-even",
    start="Write the int8 time as a formula of the float time t, and find the t at which the two are equal.",
    right="Layers below this time lose. It is why the same recipe wins on a large model and loses on a small one.",
)
def break_even(microseconds: Any) -> str | None:
    if close(microseconds, OVERHEAD / (1 - 1 / GAIN), relative=5e-3):
        return None
    if close(microseconds, OVERHEAD):
        return f"At {OVERHEAD:g} the overhead alone takes that long; the product, {OVERHEAD / GAIN:g}, comes on top."
    if close(microseconds, OVERHEAD * GAIN):
        return "There the product alone takes as long as the overhead. Look for t = overhead + t / 3."
    given = float(microseconds)
    return f"At t = {given:g} int8 takes {OVERHEAD + given / GAIN:.1f}, which is not {given:g}."
