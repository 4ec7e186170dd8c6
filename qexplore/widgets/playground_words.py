"""What the playground says about a mapping: the facts, and one number worked through."""

from __future__ import annotations

import html
import math

from qexplore.numerics.mapping import AffineMapping
from qexplore.numerics.samples import Values
from qexplore.plots.words import decibels, number, percent
from qexplore.widgets.html import card


def about(values: Values) -> str:
    """How many values a tensor has, and from where to where."""
    some = f"; of {values.every} in a row, one is looked at" if values.every > 1 else ""
    return f"{values.count:,} values, {number(values.lo)} to {number(values.hi)}{some}."


def facts(mapping: AffineMapping, values: Values) -> str:
    """What the mapping does to the values, as cards."""
    parts = mapping.parts(values.values)
    rounding, clipping = number(parts.rounding), number(parts.clipping)
    codes = mapping.quant_max - mapping.quant_min + 1
    cards = [
        ("Scale", number(mapping.scale, 4), f"zero point {mapping.zero_point}".replace("-", "−")),
        (
            "Levels used",
            f"{round(parts.used * codes)} of {codes}",
            f"codes {mapping.quant_min} to {mapping.quant_max}".replace("-", "−")
            + f" cover {number(mapping.lo)} to {number(mapping.hi)}",
        ),
        ("Clipped", percent(parts.clipped), f"of {values.count:,} values"),
        ("SQNR", decibels(parts.sqnr_db), "6 dB more is half the error"),
        (
            "Mean squared error",
            number(parts.mse),
            f"rounding {rounding}, clipping {clipping}",
        ),
        (
            "RMSE / scale",
            f"{mapping.rmse_in_steps(parts):.4g}",
            f"ideal: 1/√12 = {1 / math.sqrt(12):.4f}",
        ),
    ]
    return '<div class="qx-cards qx-facts">' + "".join(card(*each) for each in cards) + "</div>"


def worked(mapping: AffineMapping, x: float) -> str:
    """The way of the value x to its code and back, with all digits."""
    steps, code, back = mapping.steps(x), mapping.code(x), mapping.value(x)
    scale, zero = f"{mapping.scale:.6g}", mapping.zero_point
    free = f"{float(f'{steps:.0f}') + zero:.0f}"
    lines = [
        "q = clamp(round(x / scale) + zero_point)",
        f"  = clamp(round({x:.6g} / {scale}) {_signed(zero)})",
        f"  = clamp(round({steps:.6g}) {_signed(zero)})",
        f"  = clamp({free})",
        f"  = {code}" + ("" if free == str(code) else f", clipped to {mapping.quant_min} … {mapping.quant_max}"),
        "x' = (q - zero_point) * scale",
        f"   = ({code} {_signed(-zero)}) * {scale}",
        f"   = {back:.6g}",
        f"error x' - x = {back - x:.3g} = {(back - x) / mapping.scale:.3g} steps",
    ]
    text = html.escape("\n".join(lines)).replace("-", "−").replace("*", "×")
    return f'<pre class="qx-worked">{text}</pre>'


def _signed(term: int) -> str:
    """A term of a sum with its sign before it."""
    return f"{'-' if term < 0 else '+'} {abs(term)}"
