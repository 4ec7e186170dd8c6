"""Latency of the float and the int8 model, measured in alternation so that both meet the same machine."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.benchmark import Timer

from qexplore.batches import batch_size, call_on, copied
from qexplore.errors import QexploreError
from qexplore.exclusive import exclusive
from qexplore.progress import Cancel, Report, no_report, stop_if
from qexplore.workload import Batch

ROUNDS = (7, 25)
ROUND_SECONDS = 0.02
TOTAL_SECONDS = 0.6
WARM_UPS = 3


def benchmark(
    float_model: nn.Module,
    int8_model: nn.Module,
    inputs: Batch,
    rounds: int | None = None,
    progress: Report = no_report,
    cancel: Cancel = None,
) -> dict[str, Any]:
    """Time both models on the same inputs with `torch.utils.benchmark`, in alternating rounds after warm-ups.

    Args:
        inputs: one batch.
        rounds: how often each model is timed, a round repeating it for about 0.02 s; by default for 0.6 s,
            7 to 25 rounds.

    Returns:
        `float_ms`, `int8_ms`: median milliseconds a batch; `speedup`: median of the rounds' own ratios
        float / int8, with their quartiles `speedup_low` and `speedup_high`; `float_times`, `int8_times`: the rounds,
        in milliseconds; `batch`, `threads`, `rounds`.
    """
    if rounds is not None and rounds < 1:
        raise QexploreError(f"rounds is {rounds!r}; give a whole number from 1 up.")
    threads, inputs = torch.get_num_threads(), copied(inputs)
    timers = [
        Timer("run(model, inputs)", globals={"run": call_on, "model": model, "inputs": inputs}, num_threads=threads)
        for model in (float_model, int8_model)
    ]
    times: list[list[float]] = [[], []]
    with exclusive(progress, cancel), torch.no_grad():
        once = [timer.timeit(WARM_UPS).mean for timer in timers]
        repeats = [max(1, round(ROUND_SECONDS / seconds)) for seconds in once]
        least, most = (rounds, rounds) if rounds is not None else ROUNDS
        started = time.perf_counter()
        while (done := len(times[0])) < most:
            elapsed = time.perf_counter() - started
            if done >= least and elapsed >= TOTAL_SECONDS:
                break
            stop_if(cancel)
            progress(f"Timing, round {done + 1}", max(done / most, min(elapsed / TOTAL_SECONDS, 0.99)))
            for timer, repeat, series in zip(timers, repeats, times, strict=True):
                series.append(timer.timeit(repeat).mean * 1e3)
    ratios = np.array(times[0]) / np.array(times[1])
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return {
        "float_ms": float(np.median(times[0])),
        "int8_ms": float(np.median(times[1])),
        "speedup": float(middle),
        "speedup_low": float(low),
        "speedup_high": float(high),
        "float_times": times[0],
        "int8_times": times[1],
        "batch": batch_size(inputs),
        "threads": threads,
        "rounds": len(times[0]),
    }
