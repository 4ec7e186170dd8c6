"""What to look at before a model of one's own is quantized: each point looked up, with what was found."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import torch
from torch import nn

from qexplore.analysis.checks import check_arguments, check_output, inspect
from qexplore.analysis.evaluate import evaluated
from qexplore.analysis.size import tensors_of
from qexplore.batches import batch_size, call, checked
from qexplore.calibrate.graph import float_copy
from qexplore.errors import QexploreError, first_line
from qexplore.workload import Workload

FEW_SAMPLES = 64  # a rule of thumb; `qx.uncertainty` measures how many are enough

Point = tuple[bool, str]


def checklist(workload: Workload) -> pd.DataFrame:
    """Look at everything a workload brings. The model runs a few times; nothing is quantized.

    Returns:
        a row for each point, indexed by its name: "fine" (bool), and "found", a sentence.
    """
    check_arguments("checklist", (workload, Workload))
    rows = [{"point": name, **_looked_up(look, workload)} for name, look in POINTS.items()]
    return pd.DataFrame(rows).set_index("point")


def _looked_up(look: Callable[[Workload], Point], workload: Workload) -> dict[str, bool | str]:
    try:
        fine, found = look(workload)
    except QexploreError as error:
        fine, found = False, str(error)
    except Exception as error:  # the model's own
        fine, found = False, f"It could not be looked at: {first_line(error)}."
    return {"fine": fine, "found": found}


def _mode(mode: str, works: str) -> Callable[[Workload], Point]:
    def look(workload: Workload) -> Point:
        found = inspect(workload)
        problem = found.problems.get(mode)
        return problem is None, problem or found.hints.get(mode, works)

    return look


def _batches(workload: Workload) -> Point:
    model = float_copy(workload.model)
    position = -1
    for position, batch in enumerate(checked(workload.calibration, workload.name)):
        try:
            check_output(model, batch)
        except QexploreError:
            raise
        except Exception as error:
            return False, f"The model does not take calibration batch {position}: {first_line(error)}."
    return True, f"The model takes all {position + 1} batches."


def _samples(workload: Workload) -> Point:
    sizes = [batch_size(batch) for batch in checked(workload.calibration, workload.name)]
    have = f"{sum(sizes)} samples in {len(sizes)} batches"
    if len(sizes) < 2:
        return False, f"{have}; give several smaller batches, so that qx.uncertainty can draw among them."
    if sum(sizes) < FEW_SAMPLES:
        return False, f"{have} are few; give more, and let qx.uncertainty say how many are enough."
    return True, f"{have}; qx.uncertainty says whether they are enough."


def _finite(workload: Workload) -> Point:
    model = float_copy(workload.model)
    for position, batch in enumerate(checked(workload.calibration, workload.name)):
        with torch.no_grad():
            outputs = [each for each in tensors_of([call(model, batch)]) if each.is_floating_point()]
        if not all(bool(each.isfinite().all()) for each in outputs):
            return False, f"The float model gives NaN or infinite values on batch {position}; mend data or model."
    return True, "The float model gives finite values on all batches."


def _measure(workload: Workload) -> Point:
    model = float_copy(workload.model)
    first, second = (evaluated(workload, None, model) for _ in range(2))
    if first != second:
        return False, f"evaluate gave {first:.4g} and then {second:.4g} for one model; take the same data every time."
    return True, f"{workload.metric} of the float model: {first:.4g}, twice the same."


def _leaves_alone(workload: Workload) -> Point:
    model = float_copy(workload.model)
    state = {name: value.clone() for name, value in _named_tensors(model)}
    evaluated(workload, None, model)
    if any(not torch.allclose(value, state[name], 0, 0, equal_nan=True) for name, value in _named_tensors(model)):
        return False, "evaluate changes the model; run it in eval mode, and train nothing there."
    if any(module.training for module in model.modules()):
        return False, "evaluate leaves the model in train mode; put it back into the mode it came in."
    return True, "The model is after evaluate what it was before."


def _named_tensors(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """What the model keeps, packed weights of int8 layers aside."""
    kept = [(name, value) for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)]
    return [(name, value) for name, value in kept if not value.is_quantized]


def _eval_mode(workload: Workload) -> Point:
    model = float_copy(workload.model)
    quiet = evaluated(workload, None, model)
    noisy = evaluated(workload, None, float_copy(workload.model).train())
    if quiet != noisy:
        return False, f"evaluate gives {noisy:.4g} for a model in train mode; call model.eval() in it."
    return True, "evaluate gives the same for a model in train mode: it calls model.eval() itself."


POINTS: dict[str, Callable[[Workload], Point]] = {
    "dynamic mode": _mode("dynamic", "There are layers that it quantizes."),
    "static mode": _mode("static", "torch.fx can trace the model."),
    "QAT": _mode("qat", "torch.fx can trace the model, and there is a train function."),
    "calibration: batches": _batches,
    "calibration: samples": _samples,
    "calibration: values": _finite,
    "evaluate: number": _measure,
    "evaluate: model unchanged": _leaves_alone,
    "evaluate: eval mode": _eval_mode,
}
