"""Which layers are out of the ordinary, why, and what would mend it: every cause is weighed by what it costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from qexplore.analysis.causes import Cause, causes, shared_range
from qexplore.analysis.checks import PER_TENSOR_ONLY, check_arguments
from qexplore.analysis.fixes import Fix, expected, fixes_of, model_fixes
from qexplore.analysis.ledger import Ledger, error_ledger
from qexplore.analysis.linearize import SAMPLES, Linearized
from qexplore.analysis.local_errors import local_errors
from qexplore.analysis.predict_tensor import predicted_tensor
from qexplore.analysis.prediction import Prediction
from qexplore.analysis.run import Run
from qexplore.analysis.sensitivity import linearized
from qexplore.analysis.why import OVERFLOW_16, OVERFLOW_32, why_words
from qexplore.calibrate import Calibration
from qexplore.calibrate.graph import FloatGraph
from qexplore.engines import ENGINES, QuantizedTensor
from qexplore.engines.observers import quant_range
from qexplore.engines.plan import PlannedTensor
from qexplore.engines.switched import Switched, switched
from qexplore.errors import QexploreError
from qexplore.exclusive import exclusive
from qexplore.isolate import seeded
from qexplore.progress import Cancel, Report, no_report, part
from qexplore.recipe import Recipe

OFTEN = 3.0  # times the mean layer's error at the output: out of the ordinary, whatever its own SQNR
MATTERS = 0.3  # share of a layer's error that a cause takes away
LEAST = 0.01  # of the error at the output: a layer below it is left alone however unusual
MOST = 8  # layers that are looked into


@dataclass(frozen=True)
class Finding:
    """A layer out of the ordinary and why.

    Attributes:
        layer: its name; `kind` and `tensor`: what of it, "" for the layer itself.
        cause: a few words; `evidence`: one sentence with the figures that show it.
        cost: the mean squared error at the model's output that goes with the cause.
        fixes: recipes that mend it, the likeliest first.
    """

    layer: str
    kind: str
    tensor: str
    cause: str
    evidence: str
    cost: float
    fixes: tuple[Fix, ...]


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What is wrong with a recipe, the costliest first.

    Attributes:
        ledger: the error of every layer.
        findings: at most one for each cause of a layer.
        fixes: for the whole model.
    """

    ledger: Ledger
    findings: tuple[Finding, ...]
    fixes: tuple[Fix, ...]

    def __repr__(self) -> str:
        if not self.findings:
            return "<Diagnosis: no layer is out of the ordinary>"
        first = self.findings[0]
        return f"<Diagnosis: {len(self.findings)} findings, first {first.cause} in {first.layer!r}>"


def diagnose(
    calibration: Calibration,
    recipe: Recipe,
    run: Run | None = None,
    samples: int = SAMPLES,
    progress: Report | None = None,
    cancel: Cancel = None,
) -> Diagnosis:
    """Find the layers that are out of the ordinary and say why.

    A cause is proposed from a tensor's statistics and weighed by running its layers once more without it, on the float
    values and gradients that the ledger keeps; it is named where it makes 30 % of a layer's error.

    Args:
        run: of the same recipe; where its int8 layers overflow, that is named too.

    Raises:
        QexploreError: as `error_ledger`, or the run is of another recipe.
    """
    given: list[tuple[object, type]] = [(calibration, Calibration), (recipe, Recipe)]
    check_arguments("diagnose", *given, *([] if run is None else [(run, Run)]))
    if run is not None and (run.recipe != recipe or run.workload != calibration.workload.name):
        raise QexploreError("The run belongs to another recipe or workload; give the run of this one, or none.")
    report = progress or no_report
    ledger = error_ledger(calibration, recipe, samples, part(report, 0.0, 0.5), cancel)
    with exclusive(report, cancel), seeded(recipe.seed):
        ats = linearized(ledger.prediction, samples, no_report, cancel)
        unusual, looked_at = _unusual(ledger)
        found: list[Finding] = [*_overflows(ledger, run), *_unfused(ledger)]
        explained = {finding.cause for finding in found}
        for position, layer in enumerate(looked_at):
            part(report, 0.5, 1.0)(f"Causes in layer {layer!r}", position / len(looked_at))
            own = list(_findings(ledger, layer, ats, cancel))
            if layer not in unusual:  # every layer has few levels where one has
                own = [finding for finding in own if finding.cause != "few levels"]
            elif not own and not ("unfused BatchNorm" in explained and _is_batchnorm(ledger, layer)):
                own = list(_position(ledger, layer))
            found += own
    found.sort(key=lambda finding: -finding.cost)
    return Diagnosis(ledger, tuple(found), model_fixes(ledger.prediction, [f.cause for f in found]))


def _unusual(ledger: Ledger) -> tuple[list[str], list[str]]:
    """The layers out of the ordinary, and those to look into, the costliest first."""
    table = ledger.layers.sort_values("output_mse", ascending=False)
    often = table.output_mse > OFTEN * table.output_mse.mean()
    unusual = (table.unusual & (table.share >= LEAST)) | often | (table.index == table.output_mse.idxmax())
    costly = table.output_mse > table.output_mse.mean()
    return list(table.index[unusual][:MOST]), list(table.index[unusual | costly][:MOST])


def _findings(ledger: Ledger, layer: str, ats: list[Linearized], cancel: Cancel) -> Iterator[Finding]:
    prediction = ledger.prediction
    switches = switched_of(prediction)
    before = _brought(switches, layer, ats, cancel)
    for planned, given in _tensors(prediction, switches, layer):
        weighed = []
        for cause in _proposed(prediction, planned, given):
            if _allowed(prediction, planned, cause):
                tensor = _tensor_without(prediction, planned, cause)
                tensors = prediction.quantized | {(planned.kind, planned.name): tensor}
                changed = switched(_graph(prediction), prediction.plan, tensors)
                counted = torch.ones(len(before), dtype=torch.bool)
                if cause.lone:
                    counted = ~_beyond(tensor, switches, ats)
                now, after = before[counted].sum(), _brought(changed, layer, ats, cancel)[counted].sum()
                if 2 * int(counted.sum()) > len(before) and now - after > MATTERS * now:
                    weighed.append((float(now - after) / len(before), cause))
        if weighed:
            weighed.sort(key=lambda option: -option[0])
            cost, cause = weighed[0]
            fixes = fixes_of(prediction, layer, planned.kind, planned.name, [c for _, c in weighed])
            name = cause.seen or planned.name
            yield Finding(layer, planned.kind, name, cause.name, cause.evidence, cost, fixes)


def _proposed(prediction: Prediction, planned: PlannedTensor, given: str) -> Iterator[Cause]:
    """The causes that a tensor's statistics suggest; `given`: name of the tensor that is read in its place."""
    key = planned.kind, planned.name
    specs = prediction.recipe.specs_at(planned.rule)
    if specs is None:
        return
    row = prediction.tensors.set_index(["kind", "name"]).loc[key]
    share = float(row.clipping_mse / row.mse) if row.mse else 0.0
    tensor, spec = prediction.quantized[key], specs[planned.kind == "weight"]
    yield from causes(tensor, spec, prediction.stats(*key), share, float(row.codes_used))
    stats = prediction.calibration.stats
    if given in planned.seen and not planned.fixed:
        yield from shared_range(tensor, spec, stats[given], given)


def _brought(switches: Switched, layer: str, ats: list[Linearized], cancel: Cancel) -> torch.Tensor:
    """The error that a layer brings to the output, by sample."""
    return local_errors(switches, ats, False, no_report, cancel, only={layer}).output_mse()[0]


def _beyond(tensor: QuantizedTensor, switches: Switched, ats: list[Linearized]) -> torch.Tensor:
    """For each sample, whether it has values of a tensor that its range leaves out."""
    sources = {source for (_, source), t in switches.reads.items() if t.name == tensor.name}
    found = []
    for at in ats:
        beyond = torch.zeros(at.samples, dtype=torch.bool)
        for source in sources:
            x = at.values[switches.float_nodes.get(source, source)]
            parts = at.samples if x.dim() and x.shape[0] % at.samples == 0 else 1
            beyond |= tensor.outside(x).reshape(parts, -1).any(1)
        found.append(beyond)
    return torch.cat(found)


def _tensors(prediction: Prediction, switches: Switched, layer: str) -> list[tuple[PlannedTensor, str]]:
    """What a layer reads quantized, with the name of the tensor that gives it, and its weights."""
    graph, read = _graph(prediction), dict[str, str]()
    for (reader, source), t in switches.reads.items():
        if switches.layer_of[reader] == layer:
            read[t.name] = graph.names.get(switches.float_nodes.get(source, source), "")
    return [
        (planned, read.get(planned.name, ""))
        for planned in prediction.plan.tensors
        if (planned.layer == layer if planned.kind == "weight" else planned.name in read)
    ]


def _allowed(prediction: Prediction, planned: PlannedTensor, cause: Cause) -> bool:
    """Whether the engine can do what a cause's remedy asks for."""
    if planned.kind == "activation":
        return True
    if not cause.spec.symmetric and not ENGINES[prediction.engine].affine_weights:
        return False
    model = prediction.graph.module if prediction.graph is not None else prediction.calibration.float_model()
    return not (cause.spec.per_channel and isinstance(model.get_submodule(planned.layer), PER_TENSOR_ONLY))


def _tensor_without(prediction: Prediction, planned: PlannedTensor, cause: Cause) -> QuantizedTensor:
    """A tensor quantized without a cause."""
    guard = prediction.overflow_guard
    codes = quant_range(cause.spec, planned.kind, guard)
    own = replace(planned, name=cause.seen, seen=(cause.seen,)) if cause.seen else planned
    tensor, _ = predicted_tensor(prediction.calibration, own, cause.spec, codes, guard)
    return replace(tensor, name=planned.name)


def _graph(prediction: Prediction) -> FloatGraph:
    assert prediction.graph is not None  # a ledger needs it
    return prediction.graph


def switched_of(prediction: Prediction) -> Switched:
    """The switched model of a prediction that a ledger was made of."""
    return switched(_graph(prediction), prediction.plan, prediction.quantized)


def _is_batchnorm(ledger: Ledger, layer: str) -> bool:
    return str(ledger.layers.kind[layer]).startswith("BatchNorm")


def _position(ledger: Ledger, layer: str) -> Iterator[Finding]:
    """What is left to say of a layer whose tensors are as they should be."""
    layers, row = list(ledger.layers.index), ledger.layers.loc[layer]
    place = {layers[0]: "first layer", layers[-1]: "last layer"}.get(layer, "no single cause")
    words = {
        "first layer": "reads the model's input, and what it loses nothing behind it brings back",
        "last layer": "gives the model's output, so that its error is not averaged by anything behind it",
    }.get(place, "has about the error that its bits give, and the layers behind it pass it on")
    if row.unusual:
        place = "no single cause"
        words = (
            f"has {row.local_sqnr_db:.1f} dB where its bits give {row.normal_db:.1f} dB for normally distributed "
            "values, and no setting of one of its tensors alone explains it"
        )
    evidence = f"Layer {layer!r} {words}: it makes {row.share:.0%} of the error at the output."
    fixes = fixes_of(ledger.prediction, layer, "", "", [])
    yield Finding(layer, "", "", place, evidence, float(row.output_mse), fixes)


def _unfused(ledger: Ledger) -> Iterator[Finding]:
    """Whether a BatchNorm on its own, which rounds once more, is what costs most."""
    recipe = ledger.prediction.recipe
    alone = [str(name) for name in ledger.layers.index if _is_batchnorm(ledger, str(name))]
    if recipe.fuse or not alone:
        return
    fused = replace(recipe, fuse=True)
    gain = ledger.output_mse - expected(ledger.prediction.calibration, fused).output_mse
    if gain > MATTERS * ledger.output_mse:
        evidence = (
            f"{len(alone)} BatchNorms, from {alone[0]!r} on, are operations of their own whose inputs are rounded once "
            f"more: fused, the error at the output is {gain / ledger.output_mse:.0%} less."
        )
        fix = Fix("fuse Conv, BatchNorm and ReLU", fused)
        yield Finding(alone[0], "", "", "unfused BatchNorm", evidence, gain, (fix,))


def _overflows(ledger: Ledger, run: Run | None) -> Iterator[Finding]:
    """Layers whose int8 sums overflow, from a run."""
    if run is None or "why" not in run.layers:
        return
    for layer, row in run.layers.iterrows():
        if row.why not in (OVERFLOW_16, OVERFLOW_32):
            continue
        simulated, real = (10 ** (-db / 10) for db in (row.simulated_sqnr_db, row.sqnr_db))
        scale = ledger.output_mse * 10 ** (ledger.sqnr_db / 10)  # the output's mean square
        fixes = fixes_of(ledger.prediction, str(layer), "overflow", row.why, [])
        yield Finding(str(layer), "", "", row.why, why_words(row), max(real - simulated, 0.0) * scale, fixes)
