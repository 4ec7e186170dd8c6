"""Draws of calibration batches whose statistics cost no pass of the float model.

Every batch is calibrated once, on its own; statistics merge, and those of a draw are those of one pass over it.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from itertools import combinations
from random import Random
from typing import Any

from qexplore.calibrate import Calibration, TensorStats, calibrate
from qexplore.calibrate.stats import SAMPLES as RAW_VALUES
from qexplore.calibrate.stats import sample_share
from qexplore.progress import Cancel, Report, part
from qexplore.workload import Batch, Workload

Draw = tuple[int, ...]  # positions of the batches, rising


def calibrated(workload: Workload, batches: Sequence[Batch], report: Report, cancel: Cancel) -> list[Calibration]:
    """A calibration of each batch; of raw values it keeps what a merge of all has room for."""
    share = sample_share(len(batches), RAW_VALUES)
    found = []
    for position, batch in enumerate(batches):
        within = part(report, position / len(batches), (position + 1) / len(batches))
        one = calibrate(replace(workload, calibration=[batch]), progress=within, cancel=cancel)
        stats = {
            name: replace(s, samples=tuple(values[:share].clone() for values in s.samples))
            for name, s in one.stats.items()
        }
        found.append(Calibration(workload, stats, one.inputs))
    return found


def merged(each: Sequence[Calibration], draw: Sequence[int], cache: dict[Hashable, Any]) -> Calibration:
    """The calibration on some of the batches, in the order of the data, which moving averages depend on."""
    taken = [each[i] for i in draw]
    names = dict.fromkeys(name for one in taken for name in one.stats)
    stats = {name: reduce(TensorStats.merge, [c.stats[name] for c in taken if name in c.stats]) for name in names}
    return Calibration(taken[0].workload, stats, taken[0].inputs, cache)


def independent(cache: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
    """What a calibration keeps that does not depend on its statistics: model, plan and all about weights."""
    return {key: value for key, value in cache.items() if _is_independent(key)}


def _is_independent(key: Hashable) -> bool:
    # Only keys that no tensor's name can imitate: plans of activations are kept under names alone.
    match key:
        case "float" | "model" | "file bytes":
            return True
        case ("plan", tuple()) | ("layer bytes", tuple()) | ("stats", int()):
            return True
        case ("weight", str(), str(), tuple(), *_):
            return True
    return False


def draws_of(batches: int, size: int, most: int, seed: int) -> Iterator[Draw]:
    """Different draws of `size` of the batches: all there are, or `most` at random."""
    if math.comb(batches, size) <= most:
        yield from combinations(range(batches), size)
        return
    known: set[Draw] = set()
    random = Random(f"{seed} {size}")
    while len(known) < most:
        draw = tuple(sorted(random.sample(range(batches), size)))
        if draw not in known:
            known.add(draw)
            yield draw
