"""What quantization promises, beside what was measured: a verdict for each, with the reason where it fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf

import pandas as pd

from qexplore.analysis.run import Run
from qexplore.analysis.traffic import code_bytes, totals


@dataclass(frozen=True)
class Promise:
    """A promise in figures.

    Attributes:
        low, high: what is promised, as a ratio; more is better. `high` is for figures only.
        nothing: the ratio from which on there is any gain; what lies between it and `low` holds partly.
    """

    name: str
    low: float
    high: float
    nothing: float


# PyTorch's introduction to quantization states the first three, and that QAT "typically results in highest accuracy":
# https://pytorch.org/blog/introduction-to-quantization-on-pytorch/ . "Slightly less accuracy" is taken to be what its
# table shows: the largest loss there is ShuffleNet-v2's, from 69.4 % to 68.4 %.
SMALLER = Promise("file smaller", 4.0, 4.0, 1.0)
TRAFFIC = Promise("less memory traffic", 2.0, 4.0, 1.0)
FASTER = Promise("faster", 2.0, 4.0, 1.0)
KEPT = Promise("quality kept", 68.4 / 69.4, 1.0, 68.4 / 69.4)
QAT_BEST = Promise("QAT at least as good as static", 1.0, inf, 1.0)
NEAR = 0.95  # of what is promised counts as held: "4x" is a rounded figure


@dataclass(frozen=True)
class Measured:
    """What came out for one promise and one model.

    Attributes:
        value, low, high: a ratio and its quartiles, all the same where it was counted rather than timed.
        why: the reason, in a sentence.
    """

    model: str
    promise: Promise
    value: float
    low: float
    high: float
    why: str = ""


def verdict(measured: Measured) -> str:
    """ "held", "partly" (some gain, less than promised or not surely) or "not held"."""
    promise = measured.promise
    enough = promise.low * NEAR if promise.nothing < promise.low else promise.low
    if measured.low >= enough:
        return "held"
    return "partly" if measured.value > promise.nothing else "not held"


def promise_table(measured: Sequence[Measured]) -> pd.DataFrame:
    """A row for each: promise, model, what was promised, measured, its spread, the verdict and why."""
    return pd.DataFrame(
        [
            {
                "promise": each.promise.name,
                "model": each.model,
                "promised": _interval(each.promise.low, each.promise.high),
                "measured": f"{each.value:.4g}",
                "spread": "counted" if each.low == each.high else _interval(each.low, each.high),
                "verdict": verdict(each),
                "why": each.why,
            }
            for each in measured
        ]
    )


def measured_size(name: str, run: Run) -> Measured:
    """How many times smaller the file is; the reason is the share of it that is no codes."""
    assert run.model is not None
    share = 1 - code_bytes(run.model) / run.size["int8_bytes"]
    why = f"{100 * share:.0f} % of the int8 file is no code: scales, zero points, biases, float layers, names"
    ratio = float(run.size["ratio"])
    return Measured(name, SMALLER, ratio, ratio, ratio, why)


def measured_traffic(name: str, before: pd.DataFrame, after: pd.DataFrame) -> Measured:
    """How many times fewer bytes one run moves.

    Args:
        before, after: `traffic` of the float and the int8 model.
    """
    ratio = totals(before)["all"] / totals(after)["all"]
    kept = after[after.input_type == "float32"]
    floats = float((kept.input_bytes + kept.output_bytes).sum()) / totals(after)["all"]
    why = f"{100 * floats:.0f} % of int8's bytes are activations of operations that read float"
    if len(after) < len(before):
        why += f"; fusion leaves {len(after)} of {len(before)} operations"
    return Measured(name, TRAFFIC, ratio, ratio, ratio, why)


def measured_speed(name: str, run: Run) -> Measured:
    """How many times as fast, with the quartiles of the rounds."""
    assert run.speed is not None
    speed = run.speed
    facts = f"batch {speed['batch']}, {speed['threads']} thread(s), {speed['int8_ms']:.2g} ms a batch"
    found = Measured(name, FASTER, speed["speedup"], speed["speedup_low"], speed["speedup_high"], facts)
    if verdict(found) == "held":
        return found
    if found.value >= FASTER.low * NEAR:
        reason = "the median is fast enough, but the rounds differ too much to be sure"
    elif run.recipe.mode == "dynamic":
        reason = "every call, in a recurrent layer every step, finds ranges and converts"
    else:
        reason = "overhead of each operation counts where operations are this short"
    return replace(found, why=f"{facts}; {reason}")


def measured_quality(name: str, run: Run) -> Measured:
    """The share of float's metric that is left; of its inverse where lower is better."""
    before, after = run.metrics["float"], run.quantized_metric
    assert before is not None
    kept = after / before if run.higher_is_better else before / after
    return Measured(name, KEPT, kept, kept, kept, f"{run.metric}: {before:.4f} → {after:.4f}")


def _interval(low: float, high: float) -> str:
    if low == high:
        return f"{low:.3g}"
    return f"{low:.3g} or more" if high == inf else f"{low:.3g} to {high:.3g}"
