"""Bits for each layer's weights, chosen so that the model meets a target, from one backward pass for all choices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from qexplore.analysis.bit_choices import FLOAT_BITS, bit_choices, mixed_recipe
from qexplore.analysis.bit_search import Choices, Picked, descent, within_bytes, within_mse
from qexplore.analysis.checks import check_arguments, check_samples
from qexplore.analysis.fixes import expected
from qexplore.analysis.linearize import SAMPLES
from qexplore.analysis.sensitivity import COLLAPSED_DB, FACTOR
from qexplore.calibrate import Calibration
from qexplore.errors import QexploreError
from qexplore.exclusive import exclusive
from qexplore.isolate import seeded
from qexplore.progress import Cancel, Report, no_report, part, stop_if
from qexplore.recipe import Recipe

BITS = (8, 6, 5, 4, 3, 2)
CLOSER = 0.9  # at least so much nearer goes each next try for an error that is measured


@dataclass(frozen=True, repr=False, eq=False)
class MixedPrecision:
    """Bits of each layer's weights for a target.

    Attributes:
        recipe: the given one with a rule for each layer whose bits differ.
        layers: a row for each layer that could be chosen, indexed by name: bits; output_mse, what it brings to the
            output to first order (reads included); bytes, of its weights with their scales.
        curve: the whole trade-off, a row for each step of the greedy search from the most bits to the fewest bytes:
            bytes and output_mse (to first order) of the model, and the layer and the bits that the step gave it ("" in
            the first row, where all have the most).
        uniform: the same bits for all these layers, indexed by bits: bytes, output_mse (to first order).
        size: bytes of the model, as the recipe's `Prediction.size["int8_bytes"]`: codes packed to their bits.
        predicted_mse: mean squared error at the output to first order, with the errors of layers summed.
        output_mse, sqnr_db: the same measured on the simulation, and in dB of the output.
    """

    recipe: Recipe
    layers: pd.DataFrame
    curve: pd.DataFrame
    uniform: pd.DataFrame
    size: int
    predicted_mse: float
    output_mse: float
    sqnr_db: float

    @property
    def words(self) -> str:
        """What was found, in one sentence."""
        counts = self.layers.bits.value_counts().sort_index(ascending=False)
        shares = [f"{n} at {'float' if b == FLOAT_BITS else f'{b} bits'}" for b, n in counts.items()]
        ratio = self.predicted_mse / self.output_mse if self.output_mse else 1.0
        beyond = self.sqnr_db < COLLAPSED_DB or not 1 / FACTOR < ratio < FACTOR
        return (
            f"Layers: {', '.join(shares)}; {self.size:,} bytes, output error {self.output_mse:.3g} measured "
            f"({self.sqnr_db:.1f} dB) and {self.predicted_mse:.3g} to first order"
            + (", which errors this large exceed, so other choices may be better." if beyond else ".")
        )

    def __repr__(self) -> str:
        return f"<MixedPrecision. {self.words}>"


def mixed_precision(
    calibration: Calibration,
    recipe: Recipe,
    *,
    max_bytes: float | None = None,
    max_output_mse: float | None = None,
    bits: Sequence[int] = BITS,
    samples: int = SAMPLES,
    progress: Report | None = None,
    cancel: Cancel = None,
) -> MixedPrecision:
    """Choose the bits of each layer's weights for a target, by a greedy search on first-order errors.

    Layers whose weights a rule of the recipe sets stay as they are, and so do all activations. What is found is
    measured on the simulation: for `max_bytes` against the most bits for all layers that fit, of which the better is
    returned; for `max_output_mse` until the measured error meets it. No speed is promised below 8 bits: there are no
    kernels for it. Steps that change the model's function are left out, as in `predict`.

    Args:
        max_bytes: largest size of the model in bytes, packed codes and what is not quantized together.
        max_output_mse: largest mean squared error at the model's output, in its squared unit.
        bits: what to choose from: 2 to 8, and 32 for float.
        samples: so many samples of the calibration data, or the whole batches that hold them.

    Raises:
        QexploreError: not exactly one target, a target out of reach, no layer to choose for, a recipe that does not
            fit, or a model that cannot be traced.
    """
    check_arguments("mixed_precision", (calibration, Calibration), (recipe, Recipe))
    _check_target(max_bytes, max_output_mse)
    falling = _checked_bits(bits)
    check_samples(samples)
    report = progress or no_report
    with exclusive(report, cancel), seeded(recipe.seed):
        choices = bit_choices(calibration, recipe, falling, samples, part(report, 0.0, 0.7), cancel)
        search = _Search(calibration, recipe, choices, samples, part(report, 0.7, 1.0), cancel, {})
        picked = search.for_bytes(max_bytes) if max_bytes is not None else search.for_mse(max_output_mse or 0.0)
        output_mse, sqnr_db = search.measured(picked)
    report("Done", 1.0)
    return MixedPrecision(
        recipe=mixed_recipe(recipe, choices, picked, only_changed=True),
        layers=_layers(choices, picked),
        curve=_curve(choices),
        uniform=_uniform(choices),
        size=choices.bytes_of(picked),
        predicted_mse=choices.mse_of(picked),
        output_mse=output_mse,
        sqnr_db=sqnr_db,
    )


@dataclass(frozen=True, eq=False)
class _Search:
    """The search with what it has measured, by choice."""

    calibration: Calibration
    recipe: Recipe
    choices: Choices
    samples: int
    report: Report
    cancel: Cancel
    known: dict[Picked, tuple[float, float]]

    def measured(self, picked: Picked) -> tuple[float, float]:
        """Mean squared error at the output of the simulation, and its SQNR in dB."""
        if picked not in self.known:
            stop_if(self.cancel)
            if all(self.choices.bits[choice] == FLOAT_BITS for choice in picked):
                raise QexploreError(
                    "The target leaves every layer float; give a smaller max_bytes or a larger max_output_mse."
                )
            self.report(f"Measuring choice {len(self.known) + 1}", 1 - 0.5 ** len(self.known))
            recipe = mixed_recipe(self.recipe, self.choices, picked)
            found = expected(self.calibration, recipe, self.samples)
            self.known[picked] = found.output_mse, found.sqnr_db
        return self.known[picked]

    def for_bytes(self, most: float) -> Picked:
        """The better, as measured, of the greedy choice and the most bits for all layers that fit."""
        picked = within_bytes(self.choices, most)
        if picked is None:
            least = self.choices.bytes_of(list(descent(self.choices))[-1])
            raise QexploreError(f"max_bytes is {most!r}, but the fewest bits leave {least} bytes; give at least those.")
        uniform = (tuple([i] * len(self.choices.layers)) for i in range(len(self.choices.bits)))
        fitting = [each for each in uniform if self.choices.bytes_of(each) <= most]
        return min([picked, *fitting[:1]], key=lambda each: self.measured(each)[0])

    def for_mse(self, most: float) -> Picked:
        """The fewest bytes found whose error, as measured, is small enough."""
        most_bits = next(i for i, bits in enumerate(self.choices.bits) if bits != FLOAT_BITS)
        uniform = (most_bits,) * len(self.choices.layers)
        least = self.measured(uniform)[0]
        if least > most and most_bits == 0:
            raise QexploreError(
                f"max_output_mse is {most!r}, but with all layers at {self.choices.bits[0]} bits the error is "
                f"{least:.4g}; give at least that, or add 32 to bits to let layers stay float."
            )
        # Errors of several layers together part from their sum: measure, and correct the bound for the sum.
        bound = most * max(self.choices.mse_of(uniform) / least, 1.0) if least else most
        picked = within_mse(self.choices, bound)
        while (error := self.measured(picked)[0]) > most:
            bound *= min(most / error, CLOSER)
            picked = within_mse(self.choices, bound)
        return picked


def _layers(choices: Choices, picked: Picked) -> pd.DataFrame:
    rows = range(len(picked))
    table = {
        "bits": [choices.bits[choice] for choice in picked],
        "output_mse": choices.mse[rows, picked].numpy(),
        "bytes": choices.sizes[rows, picked].long().numpy(),
    }
    return pd.DataFrame(table, index=pd.Index(choices.layers, name="layer"))


def _curve(choices: Choices) -> pd.DataFrame:
    rows, before = [], choices.most
    for picked in descent(choices):
        changed = next((i for i, (a, b) in enumerate(zip(before, picked, strict=True)) if a != b), None)
        layer, bits = ("", choices.bits[0])
        if changed is not None:
            layer, bits = choices.layers[changed], choices.bits[picked[changed]]
        rows.append((choices.bytes_of(picked), choices.mse_of(picked), layer, bits))
        before = picked
    return pd.DataFrame(rows, columns=["bytes", "output_mse", "layer", "bits"])


def _uniform(choices: Choices) -> pd.DataFrame:
    same = [(choice,) * len(choices.layers) for choice in range(len(choices.bits))]
    table = {"bytes": [choices.bytes_of(each) for each in same], "output_mse": [choices.mse_of(each) for each in same]}
    return pd.DataFrame(table, index=pd.Index(choices.bits, name="bits"))


def _check_target(max_bytes: object, max_output_mse: object) -> None:
    targets = {"max_bytes": max_bytes, "max_output_mse": max_output_mse}
    given = {name: value for name, value in targets.items() if value is not None}
    if len(given) != 1:
        raise QexploreError("mixed_precision takes one target; give either max_bytes or max_output_mse.")
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise QexploreError(f"{name} is {value!r}; give a number above 0.")


def _checked_bits(bits: object) -> tuple[int, ...]:
    """The choices, most bits first."""
    allowed = (*range(2, 9), FLOAT_BITS)
    given = list(bits) if isinstance(bits, Sequence) and not isinstance(bits, str) else []
    if not given or any(isinstance(b, bool) or b not in allowed for b in given):
        raise QexploreError(f"bits is {bits!r}; give a list of whole numbers from 2 to 8, and 32 for float.")
    if set(given) == {FLOAT_BITS}:
        raise QexploreError("bits is 32 alone, which leaves nothing to quantize; give a number from 2 to 8 too.")
    return tuple(sorted(set(given), reverse=True))
