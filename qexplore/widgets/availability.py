"""Which controls apply: for each that does not, a sentence that says why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qexplore.analysis.steps.step import STEPS
from qexplore.engines import ENGINES
from qexplore.engines.observers import per_tensor_only


def step_control(name: str) -> str:
    """The name of a preparation step's control."""
    return f"step_{name}"


def unavailable(values: Mapping[str, Any]) -> dict[str, str]:
    """The reason by control name, for the controls that have no effect with these values.

    Args:
        values: the controls' values by name (see `controls.Controls.values`).
    """
    reasons: dict[str, str] = {}
    if values["mode"] == "dynamic":
        reasons["activation_observer"] = "Dynamic mode reads each batch's own range at run time."
        reasons["activation_scheme"] = "Dynamic kernels are affine."
        reasons["fuse"] = "Dynamic mode works on single Linear, LSTM and GRU layers; nothing is fused."
        reasons["overflow_guard"] = "Dynamic kernels keep activations to 7 bits where it matters."
        for name in set(STEPS) - {"adaround"}:
            reasons[step_control(name)] = "Works on static models."
    if values["mode"] != "qat":
        reasons["epochs"] = "Only QAT trains."
    if per_tensor_only(values["weight_observer"]):
        reasons["weight_granularity"] = f"Observer {values['weight_observer']} works per tensor only."
    engine = values["engine"]
    if engine != "auto" and not ENGINES[engine].affine_weights:
        reasons["weight_scheme"] = f"Engine {engine} takes symmetric weights only."
    if min(values["activation_bits"], values["weight_bits"]) < 8:
        reasons["engine"] = "Below 8 bits there are no kernels; the result is simulated."
        reasons["overflow_guard"] = "Simulated arithmetic does not overflow."
    return reasons
