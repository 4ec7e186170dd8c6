"""A recipe's preparation steps, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from qexplore.analysis.prediction import kept
from qexplore.analysis.steps.step import STEPS, split
from qexplore.batches import checked
from qexplore.calibrate import Calibration, calibrate
from qexplore.engines.plan import structure
from qexplore.exclusive import exclusive
from qexplore.isolate import seeded
from qexplore.progress import Cancel, Report, no_report, part, stop_if
from qexplore.recipe import Recipe
from qexplore.workload import Batch, Workload


def prepared(
    workload: Workload,
    recipe: Recipe,
    calibration: Calibration,
    batches: Sequence[Batch],
    report: Report = no_report,
    cancel: Cancel = None,
) -> tuple[nn.Module, nn.Module, Calibration]:
    """Apply a recipe's preparation steps.

    Args:
        calibration: of `workload`.
        batches: the workload's calibration batches.

    Returns:
        the reference, which is the float model after the steps that keep its function (those rescale tensors within,
        so single layers are compared with this one); the model after all steps; and the calibration of the latter.

    Raises:
        QexploreError: an unknown step, a wrong order, or a step that finds nothing to do.
    """
    assert calibration.workload is workload
    others = split(recipe)[1]
    share = 1 / (1 + len(others))
    calibration = reference_calibration(calibration, recipe, batches, part(report, 0.0, share), cancel)
    reference = calibration.float_model()
    for position, name in enumerate(others, 1):
        within = part(report, position * share, (position + 1) * share)
        calibration = _applied(name, reference, recipe, calibration, batches, within, cancel)
    return reference, calibration.float_model(), calibration


def reference_calibration(
    calibration: Calibration,
    recipe: Recipe,
    batches: Sequence[Batch] | None = None,
    report: Report = no_report,
    cancel: Cancel = None,
) -> Calibration:
    """The calibration of the model after the steps that keep its function, made once for a recipe's structure.

    Args:
        calibration: of the workload's own model.
        batches: the calibration batches; read from the workload where None.
    """
    names = split(recipe)[0]

    def make() -> Calibration:
        with exclusive(report, cancel):
            result, given = calibration, batches
            if given is None:
                given = list(checked(calibration.workload.calibration, calibration.workload.name))
            for name in names:
                result = _applied(name, result.float_model(), recipe, result, given, report, cancel)
            return result

    return kept(calibration, ("steps", names, structure(recipe)), make) if names else calibration


def _applied(
    name: str,
    reference: nn.Module,
    recipe: Recipe,
    calibration: Calibration,
    batches: Sequence[Batch],
    report: Report,
    cancel: Cancel,
) -> Calibration:
    """The calibration of the model after one step."""
    stop_if(cancel)
    with seeded(recipe.seed):
        model = STEPS[name].apply(
            calibration.float_model(), reference, recipe, calibration, batches, part(report, 0.0, 0.9), cancel
        )
    return calibrate(replace(calibration.workload, model=model), progress=part(report, 0.9, 1.0), cancel=cancel)
