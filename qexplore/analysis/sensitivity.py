"""How much each layer's quantization moves the output of the model: from gradients, or one layer at a time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from qexplore.analysis.checks import check_arguments, check_calibration, check_samples
from qexplore.analysis.evaluate import evaluated
from qexplore.analysis.exact import exact_errors
from qexplore.analysis.linearize import DRAWS, ENOUGH, SAMPLES, Linearized, chosen, linearize
from qexplore.analysis.local_errors import local_errors
from qexplore.analysis.predict import predict
from qexplore.analysis.prediction import Prediction, kept
from qexplore.analysis.resample import intervals
from qexplore.batches import batch_size, checked, first_tensor
from qexplore.calibrate import Calibration, calibrate
from qexplore.calibrate.graph import float_copy
from qexplore.engines.switched import Switched, switched
from qexplore.errors import QexploreError
from qexplore.exclusive import exclusive
from qexplore.isolate import seeded
from qexplore.numerics.errors import ratio_db
from qexplore.progress import Cancel, Report, no_report, part
from qexplore.recipe import Recipe
from qexplore.workload import Workload

METHODS = ("adjoint", "exact")
COLLAPSED_DB = 10.0  # below, the errors are no small part of the signal
FACTOR = 2.0  # between the sum to first order and the measured error


@dataclass(frozen=True, repr=False, eq=False)
class Sensitivity:
    """What each layer's quantization does to the output.

    Attributes:
        workload: its name; `recipe`, `method`: as asked for.
        layers: a row for each quantized layer, indexed by name, in the model's order: kind; output_mse, the mean
            squared error at the model's output with this layer quantized and all others float; low and high, its 90 %
            bootstrap interval over samples; rank (1 is the worst), rank_low and rank_high (its interval) and stability
            (share of the resamples in which the layer keeps its rank). Method "exact" adds without_mse, the error at
            the output with all but this layer quantized, and with `metric` metric_loss, how much worse the workload's
            metric is with this layer alone quantized.
        output_mse: mean squared error at the output with all layers quantized, measured on the simulation.
        sqnr_db: the same in dB of the output.
        total_mse: what the gradients say of it; NaN for "exact".
        passes: forward passes' worth of work, a backward pass taken as two.
        samples: how many samples it was measured on.
        seconds: what it took.
    """

    workload: str
    recipe: Recipe
    method: str
    layers: pd.DataFrame
    output_mse: float
    sqnr_db: float
    total_mse: float
    passes: float
    samples: int
    seconds: float

    @property
    def beyond_first_order(self) -> bool:
        """Whether errors are too large for gradients to say more than which layer is worse."""
        ratio = self.total_mse / self.output_mse if self.output_mse else 1.0
        return self.method == "adjoint" and (self.sqnr_db < COLLAPSED_DB or not 1 / FACTOR < ratio < FACTOR)

    @property
    def words(self) -> str:
        """What the figures are worth, in one sentence."""
        if self.method == "exact":
            return "Measured with one layer quantized at a time."
        if self.beyond_first_order:
            return (
                f"Beyond first order: the quantized output has {self.sqnr_db:.1f} dB and gradients say "
                f"{self.total_mse:.3g} where {self.output_mse:.3g} was measured; trust the ranks, not the values, or "
                'take method="exact".'
            )
        return f"To first order, which holds here: {self.total_mse:.3g} against {self.output_mse:.3g} measured."

    def __repr__(self) -> str:
        worst = self.layers.output_mse.idxmax() if len(self.layers) else "none"
        return f"<Sensitivity of {self.workload!r} by {self.method!r}: worst layer {worst!r}. {self.words}>"


def sensitivity(
    workload: Workload,
    recipe: Recipe,
    method: str = "adjoint",
    calibration: Calibration | None = None,
    samples: int = SAMPLES,
    metric: bool = False,
    progress: Report | None = None,
    cancel: Cancel = None,
) -> Sensitivity:
    """Rank the layers by how much their quantization moves the model's output.

    A layer's quantization is that of its weight and of what it reads, and of the model's output where it gives that.

    Args:
        method: "adjoint": from a few backward passes through the float model, whatever the number of layers; what they
            give is kept in `calibration`, so that another recipe needs none. "exact": with one layer quantized at a
            time, and with all but one; only what depends on the layer is run again. What is done is kept in
            `calibration`: after a cancelled call the next one goes on from there.
        calibration: from `qx.calibrate(workload)`; made here where None.
        samples: so many samples of the calibration data, or the whole batches that hold them.
        metric: with "exact", measure the workload's own metric too.

    Raises:
        QexploreError: the recipe does not fit, the model cannot be traced, or an unknown method.
    """
    check_arguments("sensitivity", (workload, Workload), (recipe, Recipe))
    if method not in METHODS:
        raise QexploreError(f'method is {method!r}; give "adjoint" or "exact".')
    check_samples(samples)
    check_calibration("sensitivity", workload, calibration)
    if metric and method != "exact":
        raise QexploreError('metric=True needs method="exact": gradients are those of the output.')
    started = time.perf_counter()
    report = progress or no_report
    with exclusive(report, cancel), seeded(recipe.seed):
        calibration = calibration or calibrate(workload, progress=part(report, 0.0, 0.1), cancel=cancel)
        prediction = predict(calibration, recipe)
        switches = switches_of(prediction)
        rest = part(report, 0.1, 1.0)
        if method == "adjoint":
            ats = linearized(prediction, samples, part(rest, 0.0, 0.5), cancel)
            errors = local_errors(switches, ats, False, part(rest, 0.5, 1.0), cancel)
            by_sample, extra = errors.output_mse(), {}
            total, passes = errors.total_mse(), 1 + 2 * len(ats[0].gradients) + 1 + 3 / len(ats)  # the last to check
            names = errors.layers
        else:
            ats = linearized(prediction, samples, no_report, cancel, gradients=False)
            judge = _judge(workload, cancel) if metric else None
            found = exact_errors(calibration, recipe, switches, ats, judge, rest, cancel)
            names, by_sample, extra = found.layers, found.alone, found.columns()
            total, passes = math.nan, found.passes
        measured, sqnr_db = whole_error(switches, ats)
    table = intervals(by_sample, recipe.seed).rename(columns={"mean": "output_mse"})
    kinds = {layer.name: layer.kind for layer in prediction.plan.layers}
    table.insert(0, "kind", [kinds.get(name, "") for name in names])
    table.index = pd.Index(names, name="layer")
    return Sensitivity(
        workload=workload.name,
        recipe=recipe,
        method=method,
        layers=table.assign(**extra),
        output_mse=measured,
        sqnr_db=sqnr_db,
        total_mse=total,
        passes=passes + 1,
        samples=sum(at.samples for at in ats),
        seconds=time.perf_counter() - started,
    )


def switches_of(prediction: Prediction) -> Switched:
    """The switched model of a prediction.

    Raises:
        QexploreError: the model cannot be traced.
    """
    if prediction.graph is None:
        raise QexploreError(
            f"torch.fx cannot trace the model of {prediction.calibration.workload.name!r}, and the error of single "
            "layers needs its graph; make the branch that depends on data independent of it."
        )
    return switched(prediction.graph, prediction.plan, prediction.quantized)


def linearized(
    prediction: Prediction, samples: int, report: Report, cancel: Cancel, gradients: bool = True
) -> list[Linearized]:
    """The float model on the first samples of the calibration data, made once for this calibration.

    Args:
        gradients: whether those are needed; without them it is one forward pass.
    """
    calibration, graph = prediction.calibration, prediction.graph
    assert graph is not None

    def make() -> list[Linearized]:
        workload = calibration.workload
        batches = chosen(list(checked(workload.calibration, workload.name)), samples)
        draws = DRAWS[sum(map(batch_size, batches)) < ENOUGH] if gradients else 0
        return linearize(graph, batches, 0, report, cancel, draws)

    known = calibration.cache.get(("linearized", samples, True))
    return known or kept(calibration, ("linearized", samples, gradients), make)


def whole_error(switches: Switched, ats: list[Linearized]) -> tuple[float, float]:
    """Mean squared error at the output with all quantizers on, and its SQNR in dB."""
    error = signal = 0.0
    count = 0
    with torch.no_grad():
        for at in ats:
            output = first_tensor(switches.run(inputs_of(switches, at), set(switches.quantized_nodes())))
            assert output is not None
            error += float((output - at.output).double().square().sum())
            signal += float(at.output.double().square().sum())
            count += at.output.numel()
    return error / count, ratio_db(signal, error)


def inputs_of(switches: Switched, at: Linearized) -> dict[str, Any]:
    """The model's inputs by node name."""
    return {name: at.values[name] for name, node in switches.nodes.items() if node.op == "placeholder"}


def _judge(workload: Workload, cancel: Cancel) -> Callable[[torch.nn.Module], float]:
    sign = 1.0 if workload.higher_is_better else -1.0
    float_metric = evaluated(workload, cancel, float_copy(workload.model))
    return lambda model: sign * (float_metric - evaluated(workload, cancel, model))
