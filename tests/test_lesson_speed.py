"""What lessons 02 and 05 measure with: counted traffic, timed layers, verdicts on promises, and their figures."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import qexplore as qx
from qexplore.analysis.layer_speed import layer_speeds
from qexplore.analysis.promises import (
    FASTER,
    KEPT,
    QAT_BEST,
    SMALLER,
    Measured,
    measured_size,
    measured_speed,
    promise_table,
    verdict,
)
from qexplore.analysis.speed import benchmark
from qexplore.analysis.traffic import code_bytes, stored_bytes, totals, traffic
from qexplore.exclusive import exclusive
from qexplore.plots.layer_speed import layer_speed
from qexplore.plots.promises import promises
from qexplore.zoo.pydoc_lstm import VOCABULARY, CharLSTM, write


def test_each_operation_is_counted_once() -> None:
    model = nn.Sequential(nn.Linear(10, 20), nn.ReLU()).eval()
    rows = traffic(model, torch.zeros(3, 10))
    assert rows.operation.tolist() == ["addmm", "relu"]
    assert rows.layer.tolist() == ["0", "1"]
    assert rows.weight_bytes.tolist() == [4 * (10 * 20 + 20), 0]
    assert rows.input_bytes.tolist() == [4 * 30, 4 * 60]
    assert rows.output_bytes.tolist() == [4 * 60, 4 * 60]
    assert totals(rows) == {"weights": 880, "activations": 840, "all": 1720}
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_dynamic_saves_weights_only(lstm: qx.Workload, symbols: torch.Tensor, quick_timing: None) -> None:
    run = qx.quantize(lstm, qx.Recipe(mode="dynamic"))
    before, after = traffic(lstm.model, symbols[:1]), traffic(run.model, symbols[:1])
    assert after.operation.tolist()[:2] == ["embedding", "lstm"]
    assert after.set_index("layer").weight_type.to_dict() == {"embedding": "float32", "lstm": "qint8", "out": "qint8"}
    assert set(after.output_type) == {"float32"}
    a, b = totals(before), totals(after)
    assert a["activations"] == b["activations"]
    # weights [4 * 16, 8] and [4 * 16, 16], two scales and zero points, and two biases that are stored once
    assert stored_bytes(run.model.lstm) == 64 * (8 + 16) + 2 * 64 * 16 + 2 * 64 * 4
    assert code_bytes(run.model) == 64 * (8 + 16) + 20 * 16
    assert b["weights"] == stored_bytes(run.model.lstm) + stored_bytes(run.model.out) - 12 + 6 * 8 * 4


def test_static_moves_a_quarter_of_the_activations_and_fuses(conv: qx.Workload, quick_timing: None) -> None:
    run = qx.quantize(conv, qx.Recipe())
    batch = next(iter(conv.calibration))
    before, after = traffic(conv.model, batch), traffic(run.model, batch)
    conv_before, conv_after = before[before.layer == "block.conv1"], after[after.layer == "block.conv1"]
    assert conv_after.operation.item() == "conv2d_relu"
    assert 4 * conv_after.output_bytes.item() == conv_before.output_bytes.item()
    assert {"quantize_per_tensor", "dequantize"} <= set(after.operation)
    assert "native_batch_norm" in set(before.operation) - set(after.operation)


def test_layers_are_timed_and_threads_restored() -> None:
    threads = torch.get_num_threads()
    rows = pd.concat([layer_speeds("Linear", [8, 16], 1, rounds=1), layer_speeds("LSTM", [8], 4, rounds=1)])
    assert torch.get_num_threads() == threads
    assert rows.width.tolist() == [8, 16, 8]
    assert rows.weight_mib.tolist() == pytest.approx([256 / 2**20, 1024 / 2**20, 4 * 2 * 256 / 2**20])
    assert (rows[["float_ms", "int8_ms", "speedup"]] > 0).all(axis=None)
    figure = layer_speed(rows)
    assert [trace.name for trace in figure.data] == ["Linear, 1 row", "LSTM, 4 steps"]
    assert np.asarray(figure.data[0].y) == pytest.approx(rows.speedup.to_numpy()[:2])


@pytest.mark.parametrize(
    ("promise", "value", "low", "high", "word"),
    [
        (FASTER, 2.5, 2.1, 2.9, "held"),
        (FASTER, 2.5, 1.5, 2.9, "partly"),
        (FASTER, 0.8, 0.7, 2.9, "not held"),
        (SMALLER, 3.81, 3.81, 3.81, "held"),
        (SMALLER, 3.7, 3.7, 3.7, "partly"),
        (KEPT, 0.99, 0.99, 0.99, "held"),
        (KEPT, 0.98, 0.98, 0.98, "not held"),
        (QAT_BEST, 1.01, 0.99, 1.02, "partly"),
        (QAT_BEST, 0.99, 0.98, 1.02, "not held"),
    ],
)
def test_verdicts(promise, value: float, low: float, high: float, word: str) -> None:
    assert verdict(Measured("m", promise, value, low, high)) == word


def test_a_slow_model_is_given_a_reason(lstm: qx.Workload, quick_timing: None) -> None:
    run = qx.quantize(lstm, qx.Recipe(mode="dynamic"))
    slow = replace(run, speed=run.speed | {"speedup": 0.5, "speedup_low": 0.4, "speedup_high": 0.6})
    assert "every step, finds ranges" in measured_speed("m", slow).why
    unsure = replace(run, speed=run.speed | {"speedup": 2.5, "speedup_low": 1.4, "speedup_high": 2.6})
    assert "the rounds differ too much" in measured_speed("m", unsure).why
    size = measured_size("m", run)
    assert size.value == run.size["ratio"]
    assert "% of the int8 file is no code" in size.why


def test_promises_are_shown() -> None:
    measured = [Measured("a", SMALLER, 3.0, 3.0, 3.0, "small"), Measured("b", FASTER, 2.5, 2.1, 3.1)]
    table = promise_table(measured)
    assert table.verdict.tolist() == ["partly", "held"]
    assert table.promised.tolist() == ["4", "2 to 4"]
    assert table.spread.tolist() == ["counted", "2.1 to 3.1"]
    figure = promises(measured)
    assert {trace.name: list(trace.x) for trace in figure.data} == {"held": [2.5], "partly": [3.0], "not held": []}
    assert figure.layout.title.text.startswith("1 of 2 promises held")


def test_writing_is_repeatable() -> None:
    torch.manual_seed(0)
    model = CharLSTM(hidden=8)
    written = write(model, "import", 20, seed=3)
    assert written == write(model, "import", 20, seed=3) != write(model, "import", 20, seed=4)
    assert len(written) == 20
    assert set(written) <= set(VOCABULARY)
    assert model.training


def test_timing_waits_for_other_torch_work() -> None:
    model = torch.nn.Linear(4, 4)
    timing = threading.Thread(target=benchmark, args=(model, model, torch.zeros(1, 4), 1))
    with exclusive():
        timing.start()
        timing.join(0.3)
        assert timing.is_alive()
    timing.join(30)
    assert not timing.is_alive()
