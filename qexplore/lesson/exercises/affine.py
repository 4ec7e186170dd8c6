"""Exercises of lesson 01: the affine mapping."""

from __future__ import annotations

import math
from typing import Any

import torch

from qexplore.lesson.exercise import called, close, exercise
from qexplore.numerics.affine import code_range, fake_quantize, qparams
from qexplore.numerics.mapping import AffineMapping
from qexplore.numerics.samples import sample

LO, HI = -0.5, 1.5


@exercise(
    "scale and zero point",
    start="256 codes have 255 steps between them. How wide is a step if they span the range? "
    "Which code, from 0 to 255, does 0.0 fall on?",
    right="Two numbers describe the whole mapping, and 0.0 has a code of its own.",
)
def scale_and_zero_point(scale: Any, zero_point: Any) -> str | None:
    steps = AffineMapping.of_range(LO, HI, 8, symmetric=False, signed=False)
    if not close(scale, steps.scale):
        if close(scale, (HI - LO) / 256):
            return "The scale divides by the number of codes; count the steps between them, one less."
        if close(scale, HI / 127) or close(scale, HI / 127.5):
            return "The scale is that of a symmetric range; an affine one spans only from the smallest to the largest."
        return f"A scale of {float(scale):.6g} does not span from {LO} to {HI} in 255 steps."
    if float(zero_point) != int(zero_point):
        return "The zero point is a code, so a whole number: round it."
    if int(zero_point) == 0:
        return f"The code 0 stands for the smallest value, {LO}; 0.0 lies some steps above it."
    if int(zero_point) != steps.zero_point:
        return f"From {LO} up to 0.0, count the steps of the scale; {int(zero_point)} is not that number, rounded."
    return None


@exercise(
    "quantize and back",
    start="Divide by the scale, round, add the zero point, clamp to 0 … 255; then back: take the zero point off, "
    "multiply by the scale.",
    right="This is what fake-quantize does to every tensor, value by value.",
)
def quantize_and_back(function: Any) -> str | None:
    codes = code_range(8, signed=False)
    # No value lies between two levels, where kernels differ: the text says so.
    cases = {
        "inside the range": torch.linspace(LO + 0.003, HI - 0.003, 97),
        "beyond the range": torch.tensor([-9.0, 9.0]),
    }
    scale, zero_point = qparams(torch.tensor(LO), torch.tensor(HI), *codes, symmetric=False)
    for where, values in cases.items():
        given = torch.as_tensor(called(function, values, scale, zero_point)).float()
        if given.shape != values.shape:
            return f"For {len(values)} values it gave a tensor of shape {tuple(given.shape)}; give one value for each."
        right = fake_quantize(values, scale, zero_point, *codes)
        if torch.allclose(given, right, atol=1e-5):
            continue
        if torch.allclose(given, values):
            return "Nothing was rounded: the values came back as they were."
        if torch.allclose(given, right / scale + zero_point, atol=1e-3):
            return "These are the codes; turn them back into float values."
        if where == "beyond the range":
            return "Values beyond the range must be clipped: clamp the codes to 0 … 255."
        worst = float((given - values).abs().max() / scale)
        return f"Inside the range no error is above half a step; yours reaches {worst:.2f} steps. Do you round?"
    return None


@exercise(
    "best clip",
    start="Try some values for clip with errors(clip) and look for the smallest total.",
    right="Neither the whole range nor the narrowest one: the best clip balances rounding and clipping.",
)
def best_clip(clip: Any) -> str | None:
    values = sample("Laplace")
    if not 0 < float(clip) < math.inf:
        return "clip is a magnitude: give a number above 0."

    def error(at: float) -> float:
        return AffineMapping.of_range(-at, at, 4, symmetric=False, signed=False).parts(values).mse

    best = min(error(float(at)) for at in torch.linspace(0.02, 1.0, 200) * values.abs().max())
    given = error(float(clip))
    if given <= 1.02 * best:
        return None
    parts = AffineMapping.of_range(-float(clip), float(clip), 4, symmetric=False, signed=False).parts(values)
    which = "clipping" if parts.clipping > parts.rounding else "rounding"
    move = "wider" if which == "clipping" else "narrower"
    return (
        f"The error is {given / best:.2f} times the smallest one, and most of it is {which}: try a {move} range. "
        "Come within 2 % of the smallest."
    )
