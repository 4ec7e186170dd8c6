"""Why int8 layers differ from their simulation on identical inputs: the rules, and the words for them."""

from __future__ import annotations

import math

import pandas as pd

from qexplore.engines.codes import LayerCodes

EQUAL = ""
FLIPS = "rounding flips"
OVERFLOW_32 = "overflow (32 bits)"
OVERFLOW_16 = "overflow (16 bits, no VNNI)"
IGNORED = "quant_max ignored"
UNKNOWN = "unknown: more than one code off"

SAME = 1e-5  # relative difference that adding float32 in another order gives
HALF_A_STEP = 0.5 / 127  # the largest error of rounding the inputs, of their range; most dynamic kernels have 7 bits


def reason(codes: LayerCodes) -> str:
    """Why the codes of a layer differ.

    Flips only where no code is more than one off; overflow only where more than half of the sums behind codes that
    are further off do overflow, and in 16 bits only where the layer's kernel is found to saturate; an ignored
    quant_max only where clamping to it leaves no code more than one off.
    """
    if not codes.differ:
        return EQUAL
    if codes.beyond and not codes.unexplained:
        return IGNORED
    if not codes.off:
        return FLIPS
    sums = codes.unexplained_sums
    if codes.saturates and 2 * sums.saturating > sums.count:
        return OVERFLOW_16  # first: sums of saturated pairs are smaller and may not wrap after all
    return OVERFLOW_32 if 2 * sums.wrapping > sums.count else UNKNOWN


def dynamic_reason(difference: float) -> str:
    """Why a dynamic layer differs by this relative RMS: it has no output codes, so only the size can tell."""
    return EQUAL if difference <= SAME else FLIPS if difference <= HALF_A_STEP else UNKNOWN


ENDS = {
    OVERFLOW_32: ": its sums of products do not fit 32 bits and wrap; keep it float with a rule.",
    OVERFLOW_16: (
        ": its kernel adds pairs of products in 16 bits (no VNNI), which saturates; set overflow_guard to 'weights' "
        "or take another engine."
    ),
    IGNORED: (
        ": int8 kernels clamp to all 8-bit codes and not to the layer's quant_max; set overflow_guard to 'weights' or "
        "take an observer that clips nothing."
    ),
    UNKNOWN: ", and no overflow explains it; take another engine or keep it float with a rule.",
}


def why_words(row: pd.Series) -> str:
    """One sentence on a row of the table of `three_way`: what differs, by how much, why, and what to do."""
    layer, why = f"Layer {row.name!r}", row["why"]
    if not math.isnan(row["relative_difference"]):
        return _dynamic_words(layer, why, row["relative_difference"])
    if math.isnan(row["codes_differ"]):
        return f"{layer} has no int8 codes to compare with a simulation."
    if why == EQUAL:
        elsewhere = f", though without VNNI about {_percent(row['saturated'])} of its sums would overflow 16 bits"
        return f"{layer} gives the same codes in int8 as simulated{elsewhere if row['saturated'] > 0 else ''}."
    differs = f"{layer} differs from its simulation in {_percent(row['codes_differ'])} of its codes"
    if why == FLIPS:
        return f"{differs}, by one at most: values about halfway between two codes round the other way; ignore it."
    return f"{differs}, by up to {row['largest']:.0f}{ENDS[why]}"


def _dynamic_words(layer: str, why: str, difference: float) -> str:
    if why == EQUAL:
        return f"{layer} gives the same in int8 as simulated."
    differs = f"{layer} differs from its simulation by {_percent(difference)} of its output (RMS)"
    if why == FLIPS:
        return f"{differs}: some inputs are rounded to the next code; ignore it."
    return f"{differs}, more than rounding explains; take another engine or keep it float with a rule."


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
