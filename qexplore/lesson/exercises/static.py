"""Exercises of lesson 03: static quantization."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from qexplore.calibrate import TensorStats
from qexplore.lesson.exercise import called, close, exercise
from qexplore.numerics.affine import code_range, qparams
from qexplore.recipe import Recipe, TensorSpec
from qexplore.workload import workload

ENOUGH = 0.01  # of the accuracy


@exercise(
    "whole range",
    start="The table above has the names of the smallest and the largest value of all: put them in place of the dots.",
    right="This is minmax, the simplest observer there is.",
)
def whole_range(function: Any) -> str | None:
    halves = [TensorStats.of(part) for part in (torch.linspace(-1, 2, 50), torch.linspace(-0.5, 7, 50))]
    stats = halves[0].merge(halves[1])
    given = called(function, stats, TensorSpec("minmax"))
    if not isinstance(given, tuple | list) or len(given) != 2:
        return f"It gave {given!r}; give two numbers, lo and hi."
    if any(torch.is_tensor(end) and end.numel() > 1 for end in given):
        return "batch_lo and batch_hi have an entry for each batch; the range needs one smallest and one largest value."
    lo, hi = (float(end) for end in given)
    if hi == 2 ** TensorSpec().bits - 1:
        return "These are the smallest and the largest code; the range is in the tensor's own values."
    if close(-lo, hi):
        return "That is a symmetric range; give the values seen, the scheme is seen to elsewhere."
    if lo >= hi:
        return f"It gave lo = {lo:g}, hi = {hi:g}; the smaller one comes first."
    if not close(lo, stats.lo):
        why = "Negative values count too" if close(lo, 0) else f"Values down to {stats.lo:g} were seen"
        return f"{why}; your range begins at {lo:g}."
    if not close(hi, stats.hi):
        return f"Values up to {stats.hi:g} were seen; your range ends at {hi:g}."
    return None


@exercise(
    "percentile",
    start="One image is spoilt. Which share of all images is that, in percent? Leave out a little more than that.",
    right="The spoilt values hardly count any more, and almost all good ones are kept.",
)
def percentile(given: Any, accuracy: Callable[[Recipe], float], five_bits: Callable[..., Recipe]) -> str | None:
    if 0 < float(given) <= 1:
        return (
            f"The percentile is in percent, from 60 to 100; {float(given):g} looks like a share of 1, "
            "or like the share to leave out: give 100 minus that."
        )
    digits = workload("digits")
    share = 100 / sum(len(batch) for batch in digits.calibration)
    reached, needed = accuracy(five_bits("percentile", percentile=float(given))), digits.evaluate(digits.model) - ENOUGH
    if reached >= needed:
        return None
    said = f"That gives an accuracy of {reached:.3f}; at least {needed:.3f} is asked for."
    left_out = f"{said} It leaves out {100 - float(given):.3g} % of the values at each end"
    if 100 - float(given) < share:
        return f"{left_out}, less than the spoilt image has."
    return f"{left_out}, and so clips many good values too."


@exercise(
    "scales of a weight",
    start="a is the largest magnitude: of the whole weight, or of each output channel, which is dimension 0.",
    right="With one scale for all, the step is that of the largest channel.",
)
def scales_of_a_weight(per_tensor: Any, per_channel: Any, weight: torch.Tensor) -> str | None:
    codes, rows = code_range(8, signed=True), weight.flatten(1)
    right = [qparams(w.amin(-1), w.amax(-1), *codes, symmetric=True)[0] for w in (weight.flatten(), rows)]
    if torch.as_tensor(per_tensor).numel() != 1:
        return f"per_tensor has {torch.as_tensor(per_tensor).numel()} entries; one scale serves the whole tensor."
    if not close(per_tensor, float(right[0])):
        if close(per_tensor, float(right[0]) / 2):
            return "per_tensor is half of what it should be: the range reaches from -a to a, so it is 2a wide."
        if close(per_tensor, float(2 * weight.max() / 255)):
            return "per_tensor is made from the largest value; take the largest magnitude, negative values count too."
        if any(close(per_tensor, float(right[0]) * 255 / steps) for steps in (254, 256)):
            return "per_tensor has another number of steps: the codes -128 to 127 have 255 steps between them."
        if close(per_tensor, float(weight.max() - weight.min()) / 255):
            return "per_tensor spans from the smallest to the largest value, which is affine; symmetric is 2a wide."
        return f"per_tensor is {float(per_tensor):.6g}; 2a / 255 with a the largest magnitude is another number."
    channels = torch.as_tensor(per_channel).float()
    if channels.numel() != len(weight):
        return (
            f"per_channel has {channels.numel()} entries; the weight has {len(weight)} output channels, dimension 0: "
            "take the largest over the other three dimensions."
        )
    if not torch.allclose(channels.flatten(), right[1], rtol=1e-3):
        if torch.allclose(channels.flatten(), (2 * rows.amax(1) / 255), rtol=1e-3):
            return (
                "per_channel is made from the largest values; take the largest magnitudes, negative values count too."
            )
        return "per_channel has other numbers than 2a / 255 with a the largest magnitude within each channel."
    return None
