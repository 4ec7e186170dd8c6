"""Exercises of lesson 02: dynamic quantization."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd
import torch

from qexplore.lesson.exercise import called, close, exercise
from qexplore.numerics.affine import code_range, fake_quantize, qparams
from qexplore.numerics.errors import sqnr_db

INPUTS, OUTPUTS = 1000, 400
CODE, SCALE, ZERO_POINT, BIAS, FLOAT = 1, 8, 8, 4, 4  # bytes
ENOUGH_DB, TOO_GOOD_DB = 30.0, 70.0


@exercise(
    "bytes of an int8 Linear",
    start="Count what the file holds: one byte for each weight, and for each output a scale, a zero point and a bias.",
    right="The weights shrink to a quarter; the 20 bytes for each output are the price of one scale per channel.",
)
def bytes_of_linear(size: Any) -> str | None:
    weights = INPUTS * OUTPUTS
    right = weights * CODE + OUTPUTS * (SCALE + ZERO_POINT + BIAS)
    if close(size, right, relative=1e-9):
        return None
    if float(size) in (weights * FLOAT, weights * FLOAT + OUTPUTS * BIAS):
        return "These are the bytes of the float layer; an int8 weight takes one byte, not four."
    if close(size, weights * CODE):
        return "These are the weights alone; each output has a scale, a zero point and a bias besides."
    if close(size, weights * CODE + OUTPUTS * BIAS):
        return "Weights and biases are there; add the scale and the zero point of each output."
    if close(size, weights * CODE + INPUTS * (SCALE + ZERO_POINT + BIAS)):
        return "There is a scale for each output, not for each input."
    if close(size, weights * CODE + SCALE + ZERO_POINT + OUTPUTS * BIAS):
        return "That is one scale for the whole tensor; per channel, each output has its own."
    return f"{float(size):,.0f} is not it. There are {INPUTS} times {OUTPUTS} weights of one byte to begin with."


@exercise(
    "dynamic linear",
    start="Find scale and zero point of x, its codes, the weight's scale and codes; then multiply the codes.",
    right="The range is found in each call, so loud and quiet inputs come out equally well.",
)
def dynamic_linear(function: Any) -> str | None:
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(32, 64, generator=generator) / 8, torch.randn(32, generator=generator)
    x = torch.randn(16, 64, generator=generator) + 0.5
    for factor in (1.0, 100.0, 0.01):
        given = torch.as_tensor(called(function, factor * x, weight, bias)).float()
        right = factor * x @ weight.T + bias
        if given.shape != right.shape:
            return f"It gave the shape {tuple(given.shape)}; {tuple(right.shape)} is right: x @ weight.T is."
        if not given.isfinite().all():
            return "It gives NaN or infinite values: is there a division by zero?"
        for words, wrong in (
            ("The bias is missing: add it to the float result.", right - bias),
            ("The bias is added twice.", right + bias),
        ):
            if sqnr_db(wrong, given) > ENOUGH_DB and sqnr_db(right, given) < ENOUGH_DB:
                return words
        rounded_x, rounded_weight = _affine(factor * x), _symmetric(weight)
        symmetric_x = _symmetric(factor * x) @ rounded_weight.T
        for words, wrong in (
            ("The weight was not rounded: turn it into codes too.", rounded_x @ weight.T),
            ("x was not rounded: turn it into codes too.", factor * x @ rounded_weight.T),
            ("The range of x is symmetric; let it reach from its smallest to its largest value.", symmetric_x),
        ):
            if sqnr_db(wrong, given - bias) > TOO_GOOD_DB:
                return words
        reached = sqnr_db(right - bias, given - bias)
        if reached > TOO_GOOD_DB:
            return "This is the float result: nothing was rounded. Turn x and the weight into codes first."
        if reached < ENOUGH_DB and factor != 1.0:
            return f"With x {factor:g} times as large the error grows: find the scale of x anew in each call."
        if reached < ENOUGH_DB:
            return (
                f"The SQNR to the float layer is {reached:.1f} dB; {ENOUGH_DB:.0f} dB are in reach. Take the zero "
                "point off the codes of x before the product, and multiply the result by both scales."
            )
    return None


@exercise(
    "sizes that pay",
    start="Give a list of widths, those rows of one_row whose column low is above 1.",
    right="These are the sizes worth quantizing here. On another machine the list may be another one.",
)
def sizes_that_pay(measured: pd.DataFrame, pays: Any) -> str | None:
    if not isinstance(pays, Iterable) or isinstance(pays, str):
        return "Give a list, such as [64, 128]."
    given = {int(width) for width in pays}
    low = dict(zip(measured.width.astype(int), measured.low, strict=True))
    for width in sorted(given - set(low)):
        return f"There is no width {width} in the table; it has {', '.join(map(str, low))}."
    for width, quartile in low.items():
        if width in given and quartile <= 1:
            return f"{width} is in your list, but its lower quartile is {quartile:.2f}, so not above 1."
        if width not in given and quartile > 1:
            return f"{width} is missing: its lower quartile is {quartile:.2f}, so above 1."
    return None


def _affine(x: torch.Tensor) -> torch.Tensor:
    codes = code_range(8, signed=False)
    return fake_quantize(x, *qparams(x.min(), x.max(), *codes, symmetric=False), *codes)


def _symmetric(x: torch.Tensor) -> torch.Tensor:
    scale = x.abs().max() / 127
    return (x / scale).round() * scale
