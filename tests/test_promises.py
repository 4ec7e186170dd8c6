"""What the demo workloads are there to show, on real data; `pytest tests/test_promises.py -s` prints the figures."""

from __future__ import annotations

from functools import cache

import pytest

import qexplore as qx

PER_TENSOR = qx.TensorSpec(observer="minmax", symmetric=True)
PER_CHANNEL = qx.TensorSpec(observer="minmax", symmetric=True, per_channel=True)


@cache
def quantized(name: str, mode: str, weight: qx.TensorSpec) -> qx.Run:
    run = qx.quantize(qx.workload(name), qx.Recipe(mode=mode, weight=weight))
    assert run.speed is not None
    print(
        f"\n{name} {mode} per {'channel' if weight.per_channel else 'tensor'}: {run.metric} "
        f"{run.metrics['float']:.4f} -> {run.metrics['int8']:.4f}, file {1 / run.size['ratio']:.3f} of float, "
        f"{run.speed['speedup']:.2f}x at batch {run.speed['batch']}, took {run.seconds:.1f} s"
    )
    return run


@pytest.mark.slow
def test_per_tensor_weights_break_digits_mobile_and_per_channel_and_qat_mend_it() -> None:
    per_tensor = quantized("digits_mobile", "static", PER_TENSOR).loss
    assert per_tensor >= 0.30
    assert quantized("digits_mobile", "static", PER_CHANNEL).loss <= 0.02
    assert quantized("digits_mobile", "qat", PER_TENSOR).loss <= per_tensor / 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "mode", "loss", "share"),
    [
        ("digits", "static", 0.01, 0.30),
        ("digits", "qat", 0.01, 0.30),
        ("pydoc_lstm", "dynamic", 0.02, 0.30),
        ("denoise", "static", 0.5, 0.40),  # 120 KB of weights: file overhead counts
        ("denoise", "qat", 0.5, 0.40),
    ],
)
def test_int8_keeps_the_metric_and_shrinks_the_file(name: str, mode: str, loss: float, share: float) -> None:
    run = quantized(name, mode, PER_CHANNEL)
    assert run.loss <= loss
    assert 1 / run.size["ratio"] <= share


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "pydoc_lstm"])
def test_dynamic_mode_touches_linear_and_recurrent_layers_only(name: str) -> None:
    run = quantized(name, "dynamic", PER_CHANNEL)
    assert set(run.layers.kind) <= {"Linear", "LSTM", "GRU"}
    assert run.loss <= 0.02
