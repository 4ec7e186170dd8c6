"""Quantize a workload with a recipe for real, and measure everything about the result."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import torch
from torch import nn

from qexplore.analysis.checks import check_arguments, check_calibration, check_output, checked_graph
from qexplore.analysis.compare import compare
from qexplore.analysis.convert import against, convert_model
from qexplore.analysis.evaluate import evaluated
from qexplore.analysis.finetune import Watch, no_watch
from qexplore.analysis.predict import predict
from qexplore.analysis.run import Run
from qexplore.analysis.size import compared, file_bytes, layer_bytes, packed_away
from qexplore.analysis.speed import benchmark
from qexplore.analysis.steps.prepare import prepared
from qexplore.analysis.tables import histograms, layer_table, tensor_table
from qexplore.analysis.three_way import three_way
from qexplore.batches import call, checked, first_tensor
from qexplore.calibrate import Calibration, calibrate
from qexplore.calibrate.graph import float_copy, trace
from qexplore.engines import Conversion, resolve_engine, resolve_guard
from qexplore.engines.engine import using
from qexplore.exclusive import exclusive
from qexplore.isolate import seeded
from qexplore.progress import Cancel, Report, no_report, part
from qexplore.recipe import Recipe
from qexplore.workload import Batch, Workload

COMPARED_BATCHES = 4


def quantize(
    workload: Workload,
    recipe: Recipe,
    calibration: Calibration | None = None,
    progress: Report | None = None,
    cancel: Cancel = None,
    watch: Watch | None = None,
) -> Run:
    """Quantize a copy of the workload's model and measure error, metric, size and speed against float.

    Args:
        calibration: from `qx.calibrate(workload)`, to save its pass; made here where None.
        progress: `progress(message, fraction)`, called while the work goes on.
        cancel: a `threading.Event`; once set, the work stops with `Cancelled` at its next step.
        watch: in QAT mode, `watch(epoch, loss=...)` is called after every step that reports a loss, and
            `watch(epoch, metric=...)` before training and after every epoch; `epoch` counts parts of one too.

    Raises:
        QexploreError: the recipe does not fit the workload, the engine or the data; the message says what to do.
        Cancelled: `cancel` was set.
    """
    check_arguments("quantize", (workload, Workload), (recipe, Recipe))
    started = time.perf_counter()
    report = progress or no_report
    check_calibration("quantize", workload, calibration)
    with exclusive(report, cancel):  # trying an engine runs its kernels
        engine = resolve_engine(recipe, workload.model)
    evaluate = partial(evaluated, workload, cancel)
    with exclusive(report, cancel), seeded(recipe.seed), using(engine.name):
        guard = resolve_guard(recipe, engine, workload.model)
        model = float_copy(workload.model)
        graph = checked_graph(workload, model, recipe)
        batches = list(checked(workload.calibration, workload.name))
        calibration = calibration or calibrate(workload, progress=part(report, 0.0, 0.1), cancel=cancel)
        check_output(model, batches[0])
        start, reference, before, rest = model, model, calibration, report
        weights: dict[str, torch.Tensor] = {}
        if recipe.steps:
            preparing, rest = part(report, 0.1, 0.5), part(report, 0.5, 1.0)
            reference, start, calibration = prepared(workload, recipe, calibration, batches, preparing, cancel)
            graph = None if graph is None else trace(start)
        qat = recipe.mode == "qat"
        converting, comparing, measuring, timing = _parts(rest, 0.1, *((0.8, 0.85, 0.95) if qat else (0.4, 0.6, 0.8)))
        conversion, history = convert_model(
            workload,
            start,
            graph,
            recipe,
            engine,
            guard,
            calibration,
            batches,
            evaluate,
            converting,
            cancel,
            watch or no_watch,
        )
        if recipe.steps:
            conversion = against(conversion, reference)
        if start is not reference and not qat:  # training gives weights of its own
            expected = predict(before, recipe).quantized.values()
            weights = {t.name: t.weight for t in expected if t.weight is not None}
        comparison = compare(conversion, batches, COMPARED_BATCHES, comparing, cancel)
        on_same_inputs = three_way(conversion, batches[:1])
        models = {"float": model, "simulated": conversion.simulated, "int8": conversion.int8}
        metrics: dict[str, float | None] = {}
        for position, (kind, candidate) in enumerate(models.items()):
            measuring(f"Measuring {workload.metric} of the {kind} model", position / len(models))
            metrics[kind] = None if candidate is None else evaluate(candidate)
        speed = None
        if conversion.int8 is not None:
            speed = benchmark(model, conversion.int8, batches[0], progress=timing, cancel=cancel)
        pictures = _pictures(model, conversion, batches[0] if workload.picture is None else workload.picture)
    best = "simulated" if conversion.int8 is None else "int8"
    metrics |= {"agreement": comparison.agreement(best), "sqnr_db": comparison.outputs[best].sqnr_db}
    names = [layer.name for layer in conversion.layers]
    tensors = tensor_table(conversion, comparison, calibration.stats, weights)
    int8_bytes = layer_bytes(conversion.int8, names) if conversion.int8 is not None else None
    report("Done", 1.0)
    return Run(
        workload=workload.name,
        metric=workload.metric,
        higher_is_better=workload.higher_is_better,
        recipe=recipe,
        engine=engine.name,
        overflow_guard=guard,
        tensors=tensors,
        layers=layer_table(conversion, comparison, tensors, layer_bytes(model, names), int8_bytes).join(on_same_inputs),
        metrics=metrics,
        size=_size(model, conversion),
        speed=speed,
        history=history,
        histograms=histograms(conversion, calibration.stats),
        machine={
            "torch": torch.__version__,
            "cpu": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
        },
        seconds=time.perf_counter() - started,
        model=conversion.int8,
        simulated=conversion.simulated,
        pictures=pictures,
    )


def _parts(report: Report, *ends: float) -> list[Report]:
    """One callback for each stretch between the given points, the last one up to 1."""
    return [part(report, start, end) for start, end in zip(ends, [*ends[1:], 1.0], strict=True)]


def _size(model: nn.Module, conversion: Conversion) -> dict[str, Any]:
    before = file_bytes(model)
    estimated = conversion.int8 is None
    after = before - packed_away(list(conversion.tensors)) if conversion.int8 is None else file_bytes(conversion.int8)
    return compared(before, after, estimated)


def _pictures(model: nn.Module, conversion: Conversion, batch: Batch) -> dict[str, torch.Tensor]:
    """Input and outputs of one sample, where the model maps images to images of the same size; else nothing."""
    image = first_tensor(batch)
    if image is None or image.dim() != 4 or image.shape[1] not in (1, 3):
        return {}
    with torch.no_grad():
        before = first_tensor(call(model, batch))
        after = first_tensor(call(conversion.int8 or conversion.simulated, batch))
    if before is None or after is None or before.shape != image.shape:
        return {}
    return {"input": image[0].clone(), "float": before[0].clone(), "int8": after[0].clone()}
