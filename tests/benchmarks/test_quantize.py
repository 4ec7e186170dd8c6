"""Timings of `quantize` and of the int8 models it makes; `make bench` prints them."""

from __future__ import annotations

import copy
import subprocess
import sys
import time

import pytest
import torch
from torch.ao.quantization import HistogramObserver, PerChannelMinMaxObserver, QConfig, QConfigMapping
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

import qexplore as qx

CASES = [
    ("digits", "static"),
    ("digits", "qat"),
    ("digits_mobile", "static"),
    ("digits_mobile", "qat"),
    ("pydoc_lstm", "dynamic"),
    ("denoise", "static"),
    ("denoise", "qat"),
]


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_quantize(name: str, mode: str) -> None:
    workload = qx.workload(name)
    started = time.perf_counter()
    run = qx.quantize(workload, qx.Recipe(mode=mode))
    speed = run.speed
    assert speed is not None
    print(
        f"\n{name} {mode}: {time.perf_counter() - started:.1f} s; {run.metric} {run.metrics['float']:.4f} -> "
        f"{run.metrics['int8']:.4f}; file {1 / run.size['ratio']:.3f} of float; batch {speed['batch']}: "
        f"{speed['float_ms']:.2f} -> {speed['int8_ms']:.2f} ms, {speed['speedup']:.2f}x "
        f"({speed['speedup_low']:.2f}-{speed['speedup_high']:.2f})"
    )


def test_latency_against_the_same_model_made_with_torch_alone() -> None:
    workload = qx.workload("digits")
    ours = qx.quantize(workload, qx.Recipe(overflow_guard="none")).model
    assert ours is not None
    batches = list(workload.calibration)
    qconfig = QConfig(
        activation=HistogramObserver.with_args(dtype=torch.quint8, quant_min=0, quant_max=255),
        weight=PerChannelMinMaxObserver.with_args(
            dtype=torch.qint8, qscheme=torch.per_channel_symmetric, quant_min=-128, quant_max=127
        ),
    )
    prepared = prepare_fx(copy.deepcopy(workload.model), QConfigMapping().set_global(qconfig), (batches[0],))
    with torch.no_grad():
        for batch in batches:
            prepared(batch)
    speed = qx.benchmark(convert_fx(prepared), ours, batches[0], rounds=40)
    print(f"\ntorch's own int8 model takes {speed['speedup']:.3f} of ours' time")
    assert 0.95 <= speed["speedup"] <= 1.05


def test_cold_import() -> None:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import qexplore as qx; qx.explore()"], check=True)
    print(f"\nimport and explorer in a new process: {time.perf_counter() - started:.1f} s")
