"""How much the choice of the calibration data matters, and how many samples are enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from qexplore.analysis.checks import check_arguments
from qexplore.analysis.draws import Draw, calibrated, draws_of, independent, merged
from qexplore.analysis.evaluate import evaluated
from qexplore.analysis.exact import Running
from qexplore.analysis.linearize import SAMPLES, Linearized
from qexplore.analysis.local_errors import local_errors
from qexplore.analysis.predict import predict
from qexplore.analysis.resample import SURE
from qexplore.analysis.sensitivity import linearized, switches_of, whole_error
from qexplore.batches import batch_size, checked
from qexplore.engines.switched import Switched
from qexplore.errors import QexploreError
from qexplore.exclusive import exclusive
from qexplore.isolate import seeded
from qexplore.progress import Cancel, Report, no_report, part, stop_if
from qexplore.recipe import Recipe
from qexplore.workload import Workload

SETTLED_DB = 0.5  # changes of the output's SQNR below this count as none


@dataclass(frozen=True, repr=False, eq=False)
class Uncertainty:
    """What other draws of the calibration data would have given.

    Attributes:
        workload: its name; `metric`: the name of its metric.
        recipe: as given.
        curve: a row for each number of batches, rising: batches; samples (mean over draws); draws; sqnr_db, the
            output's SQNR in dB, mean over draws, with sqnr_low and sqnr_high (90 % of the draws); where asked for,
            metric, metric_low and metric_high. The output is the simulation's, on the first samples of the
            calibration data, whichever batches were drawn.
        ranks: a row for each quantized layer, indexed by name: rank by output_mse (1 is the worst) with all batches;
            rank_low and rank_high (90 %) and stability (share that keeps the rank) over draws of half the batches.
        enough: samples of the smallest draws from which on 90 % of them stay within 0.5 dB of all batches; None where
            only all batches do.
    """

    workload: str
    metric: str
    recipe: Recipe
    curve: pd.DataFrame
    ranks: pd.DataFrame
    enough: int | None

    @property
    def words(self) -> str:
        """How many samples are needed, in one sentence."""
        if self.enough is not None:
            return (
                f"{self.enough} samples are enough: beyond, the output SQNR changes by less than {SETTLED_DB} dB, "
                f"up to the {self._most(-1)} there are."
            )
        before, last = self.curve.iloc[-2], self.curve.iloc[-1]
        change = max(abs(before.sqnr_low - last.sqnr_db), abs(before.sqnr_high - last.sqnr_db))
        return (
            f"More than {self._most(-2)} samples are needed: from there to all {self._most(-1)} the output SQNR "
            f"changes by up to {change:.1f} dB; give more calibration data."
        )

    def _most(self, row: int) -> int:
        return round(float(self.curve.samples.iloc[row]))

    def __repr__(self) -> str:
        return f"<Uncertainty of {self.workload!r}. {self.words}>"


def uncertainty(
    workload: Workload,
    recipe: Recipe,
    sizes: Sequence[int] | None = None,
    draws: int = 8,
    metric: bool = False,
    progress: Report | None = None,
    cancel: Cancel = None,
) -> Uncertainty:
    """Repeat a recipe's calibration on random draws of the batches, without replacement, at several sizes.

    Args:
        sizes: numbers of batches to draw; 1, 2, 4, ... where None. Half of them and all are always among them.
        draws: how many draws of each size (fewer where there are no more). They follow from `recipe.seed`.
        metric: measure the workload's own metric of each draw's simulated model too.

    Raises:
        QexploreError: fewer than two batches, a size that cannot be drawn, steps that need the data, a recipe that
            does not fit, or a model that cannot be traced.
    """
    check_arguments("uncertainty", (workload, Workload), (recipe, Recipe))
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 2:
        raise QexploreError(f"draws is {draws!r}; give a whole number from 2 up.")
    if recipe.steps:
        raise QexploreError(
            f"Step {recipe.steps[0]!r} would have to be prepared for every draw; leave the recipe's steps out here."
        )
    batches = list(checked(workload.calibration, workload.name))
    planned = _sizes(sizes, len(batches), workload.name)
    report = progress or no_report
    with exclusive(report, cancel), seeded(recipe.seed):
        each = calibrated(workload, batches, part(report, 0.0, 0.2), cancel)
        base = merged(each, range(len(batches)), {})
        whole = predict(base, recipe)
        switches_of(whole)  # refuses a model without a graph
        ats = linearized(whole, SAMPLES, part(report, 0.2, 0.4), cancel)
        chosen = [draw for size in planned for draw in draws_of(len(batches), size, draws, recipe.seed)]
        rows, brought = [], {}
        for position, draw in enumerate(chosen):
            stop_if(cancel)
            part(report, 0.4, 1.0)(f"Draw {position + 1} of {len(chosen)}", position / len(chosen))
            switches = switches_of(predict(merged(each, draw, independent(base.cache)), recipe))
            row: dict[str, float] = {"batches": len(draw), "samples": sum(batch_size(batches[i]) for i in draw)}
            row["sqnr_db"] = whole_error(switches, ats)[1]
            if metric:
                row["metric"] = evaluated(workload, cancel, Running(switches, set(switches.quantized_nodes())))
            rows.append(row)
            if len(draw) in (len(batches) // 2, len(batches)):
                brought[draw] = _brought(switches, ats, cancel)
    report("Done", 1.0)
    curve = _curve(pd.DataFrame(rows))
    return Uncertainty(workload.name, workload.metric, recipe, curve, _ranks(brought, len(batches)), _enough(curve))


def _brought(switches: Switched, ats: Sequence[Linearized], cancel: Cancel) -> pd.Series:
    errors = local_errors(switches, ats, False, no_report, cancel)
    return pd.Series(errors.output_mse().mean(1).numpy(), index=pd.Index(errors.layers, name="layer"))


def _curve(rows: pd.DataFrame) -> pd.DataFrame:
    groups = rows.groupby("batches")
    table: dict[str, Any] = {"samples": groups.samples.mean(), "draws": groups.size()}
    for column, prefix in (("sqnr_db", "sqnr"), ("metric", "metric")):
        if column in rows:
            table[column] = groups[column].mean()
            table[f"{prefix}_low"] = groups[column].quantile((1 - SURE) / 2)
            table[f"{prefix}_high"] = groups[column].quantile((1 + SURE) / 2)
    return pd.DataFrame(table).reset_index()


def _ranks(brought: Mapping[Draw, pd.Series], batches: int) -> pd.DataFrame:
    ranks = {draw: errors.rank(ascending=False, method="first").astype(int) for draw, errors in brought.items()}
    whole = ranks[tuple(range(batches))]
    halves = np.stack([rank.reindex(whole.index).to_numpy() for draw, rank in ranks.items() if len(draw) < batches])
    low, high = np.quantile(halves, [(1 - SURE) / 2, (1 + SURE) / 2], axis=0).round().astype(int)
    stability = (halves == whole.to_numpy()).mean(0)
    return pd.DataFrame({"rank": whole, "rank_low": low, "rank_high": high, "stability": stability})


def _enough(curve: pd.DataFrame) -> int | None:
    """Samples from which on all draws' intervals stay within SETTLED_DB of all batches."""
    final = float(curve.sqnr_db.iloc[-1])
    found = None
    for row in curve.iloc[-2::-1].itertuples():
        if not max(abs(row.sqnr_low - final), abs(row.sqnr_high - final)) < SETTLED_DB:
            break
        found = round(float(row.samples))
    return found


def _sizes(sizes: Sequence[int] | None, batches: int, workload: str) -> list[int]:
    if batches < 2:
        raise QexploreError(
            f"Calibration of workload {workload!r} has one batch, so nothing can be drawn; give smaller batches."
        )
    given = [2**i for i in range(batches.bit_length()) if 2**i <= batches] if sizes is None else sizes
    fits = isinstance(given, Sequence) and not isinstance(given, str)
    if not fits or any(isinstance(s, bool) or not isinstance(s, int) or not 1 <= s <= batches for s in given):
        raise QexploreError(f"sizes is {sizes!r}; give a list of whole numbers from 1 to {batches}, the batches.")
    return sorted({*given, batches // 2, batches})
