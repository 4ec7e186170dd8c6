"""Which layers are out of the ordinary, why, and what would mend it: every cause is weighed by what it costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from qexplore.analysis.causes import Cause, causes
from qexplore.analysis.checks import PER_TENSOR_ONLY
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
from qexplore.engines import ENGINES
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
    if run is not None and run.recipe != recipe:
        raise QexploreError("The run belongs to another recipe; give the run of this one, or none.")
    report = progress or no_report
    ledger = error_ledger(calibration, recipe, samples, part(report, 0.0, 0.5), cancel)
    with exclusive(report, cancel), seeded(recipe.seed):
        ats = linearized(ledger.prediction, samples, no_report, cancel)
        looked_at = _unusual(ledger)
        found: list[Finding] = list(_overflows(ledger, run))
        for position, layer in enumerate(looked_at):
            part(report, 0.5, 1.0)(f"Causes in layer {layer!r}", position / len(looked_at))
            own = list(_findings(ledger, layer, ats, cancel))
            found += own or list(_position(ledger, layer))
        found += _unfused(ledger)
    found.sort(key=lambda finding: -finding.cost)
    return Diagnosis(ledger, tuple(found), model_fixes(ledger.prediction, [f.cause for f in found]))


def _unusual(ledger: Ledger) -> list[str]:
    """The layers to look into, the costliest first."""
    table = ledger.layers
    costly = table.output_mse > OFTEN * table.output_mse.mean()
    chosen = table[(table.unusual & (table.share >= LEAST)) | costly | (table.index == table.output_mse.idxmax())]
    return list(chosen.sort_values("output_mse", ascending=False).index[:MOST])


def _findings(ledger: Ledger, layer: str, ats: list[Linearized], cancel: Cancel) -> Iterator[Finding]:
    prediction = ledger.prediction
    before = float(ledger.layers.output_mse[layer])
    rows = prediction.tensors.set_index(["kind", "name"])
    weighed: dict[tuple[str, str], list[tuple[float, Cause]]] = {}
    for planned in _tensors(prediction, layer):
        key = planned.kind, planned.name
        row = rows.loc[key]
        share = float(row.clipping_mse / row.mse) if row.mse else 0.0
        tensor, stats = prediction.quantized[key], prediction.stats(*key)
        activation, weight = prediction.recipe.specs_at(planned.rule) or (None, None)
        spec = weight if planned.kind == "weight" else activation
        if spec is None:
            continue
        for cause in causes(tensor, spec, stats, share, float(row.codes_used)):
            if not _allowed(prediction, planned, cause):
                continue
            after = _without(prediction, planned, cause, layer, ats, cancel)
            if before - after > MATTERS * before:
                weighed.setdefault(key, []).append((before - after, cause))
    for (kind, name), options in weighed.items():
        cost, cause = max(options, key=lambda option: option[0])
        fixes = fixes_of(prediction, layer, kind, name, [c for _, c in sorted(options, key=lambda o: -o[0])])
        yield Finding(layer, kind, name, cause.name, cause.evidence, cost, fixes)


def _tensors(prediction: Prediction, layer: str) -> list[PlannedTensor]:
    """What a layer reads quantized, and its weights."""
    switches = switched_of(prediction)
    read = {t.name for (reader, _), t in switches.reads.items() if switches.layer_of[reader] == layer}
    return [
        planned
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


def _without(
    prediction: Prediction, planned: PlannedTensor, cause: Cause, layer: str, ats: list[Linearized], cancel: Cancel
) -> float:
    """The error that a layer brings to the output with one tensor quantized without the cause."""
    codes = quant_range(cause.spec, planned.kind, prediction.overflow_guard)
    tensor, _ = predicted_tensor(prediction.calibration, planned, cause.spec, codes, prediction.overflow_guard)
    assert prediction.graph is not None
    tensors = prediction.quantized | {(planned.kind, planned.name): tensor}
    switches = switched(prediction.graph, prediction.plan, tensors)
    errors = local_errors(switches, ats, False, no_report, cancel, only={layer})
    return float(errors.output_mse().mean())


def switched_of(prediction: Prediction) -> Switched:
    """The switched model of a prediction that a ledger was made of."""
    assert prediction.graph is not None
    return switched(prediction.graph, prediction.plan, prediction.quantized)


def _position(ledger: Ledger, layer: str) -> Iterator[Finding]:
    """What is left to say of a layer whose tensors are as they should be."""
    layers = list(ledger.layers.index)
    place = {layers[0]: "first layer", layers[-1]: "last layer"}.get(layer, "no single cause")
    words = {
        "first layer": "reads the model's input, and what it loses nothing behind it brings back",
        "last layer": "gives the model's output, so that its error is not averaged by anything behind it",
    }.get(place, "has the error that its bits give, and the layers behind it pass it on")
    row = ledger.layers.loc[layer]
    evidence = f"Layer {layer!r} {words}: it makes {row.share:.0%} of the error at the output."
    fixes = fixes_of(ledger.prediction, layer, "", "", [])
    yield Finding(layer, "", "", place, evidence, float(row.output_mse), fixes)


def _unfused(ledger: Ledger) -> Iterator[Finding]:
    """Whether a BatchNorm on its own, which rounds once more, is what costs most."""
    recipe = ledger.prediction.recipe
    alone = [name for name, kind in ledger.layers.kind.items() if str(kind).startswith("BatchNorm")]
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
        yield Finding(str(alone[0]), "", "", "unfused BatchNorm", evidence, gain, (fix,))


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
