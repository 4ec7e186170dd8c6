"""Gradients against brute force on every demo and a model of many layers; `make bench` prints ranks and passes."""

from __future__ import annotations

import pytest

import qexplore as qx
from tests.test_sensitivity import at_bits, compared, many_layers, mode_of


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", [*qx.workloads(), "mobilenet_v2"])
def test_gradients_against_brute_force(name: str) -> None:
    calibration = qx.calibrate(many_layers() if name == "mobilenet_v2" else qx.workload(name))
    for bits in (8, 6, 4):
        for per_channel in (True, False):
            rank, _, _ = compared(calibration, at_bits(bits, per_channel, mode_of(name)))
            assert rank > 0.5
