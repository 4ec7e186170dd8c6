"""Which layers are out of the ordinary, why, and what would mend it: every cause is weighed by what it costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from qexplore.analysis.checks import check_arguments, check_samples
from qexplore.analysis.fixes import Fix, expected, fixes_of, model_fixes
from qexplore.analysis.ledger import Ledger, error_ledger
from qexplore.analysis.linearize import SAMPLES, Linearized
from qexplore.analysis.run import Run
from qexplore.analysis.sensitivity import linearized, switches_of
from qexplore.analysis.weigh import MATTERS, weigh
from qexplore.analysis.why import OVERFLOW_16, OVERFLOW_32, why_words
from qexplore.calibrate import Calibration
from qexplore.engines.switched import Switched
from qexplore.errors import QexploreError
from qexplore.exclusive import exclusive
from qexplore.isolate import seeded
from qexplore.progress import Cancel, Report, no_report, part
from qexplore.recipe import Recipe

OFTEN = 3.0  # times the mean layer's error at the output: out of the ordinary, whatever its own SQNR
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
    check_samples(samples)
    if run is not None and (run.recipe != recipe or run.workload != calibration.workload.name):
        raise QexploreError("The run belongs to another recipe or workload; give the run of this one, or none.")
    report = progress or no_report
    ledger = error_ledger(calibration, recipe, samples, part(report, 0.0, 0.5), cancel)
    with exclusive(report, cancel), seeded(recipe.seed):
        ats = linearized(ledger.prediction, samples, no_report, cancel)
        switches = switches_of(ledger.prediction)
        unusual, looked_at = _unusual(ledger)
        found: list[Finding] = [*_overflows(ledger, run, ats), *_unfused(calibration, ledger, samples)]
        explained = {finding.cause for finding in found}
        for position, layer in enumerate(looked_at):
            part(report, 0.5, 1.0)(f"Causes in layer {layer!r}", position / len(looked_at))
            own = list(_findings(ledger, switches, layer, ats, cancel))
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


def _findings(
    ledger: Ledger, switches: Switched, layer: str, ats: list[Linearized], cancel: Cancel
) -> Iterator[Finding]:
    for planned, weighed in weigh(ledger.prediction, switches, layer, ats, cancel):
        cost, cause = weighed[0]
        fixes = fixes_of(ledger.prediction, layer, planned.kind, planned.name, [c for _, c in weighed])
        name = cause.seen or planned.name
        yield Finding(layer, planned.kind, name, cause.name, cause.evidence, cost, fixes)


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


def _unfused(calibration: Calibration, ledger: Ledger, samples: int) -> Iterator[Finding]:
    """Whether a BatchNorm on its own, which rounds once more, is what costs most."""
    recipe = ledger.prediction.recipe
    alone = [str(name) for name in ledger.layers.index if _is_batchnorm(ledger, str(name))]
    if recipe.fuse or not alone:
        return
    fused = replace(recipe, fuse=True)
    gain = ledger.output_mse - expected(calibration, fused, samples).output_mse
    if gain > MATTERS * ledger.output_mse:
        evidence = (
            f"{len(alone)} BatchNorms, from {alone[0]!r} on, are operations of their own whose inputs are rounded once "
            f"more: fused, the error at the output is {gain / ledger.output_mse:.0%} less."
        )
        fix = Fix("fuse Conv, BatchNorm and ReLU", fused)
        yield Finding(alone[0], "", "", "unfused BatchNorm", evidence, gain, (fix,))


def _overflows(ledger: Ledger, run: Run | None, ats: list[Linearized]) -> Iterator[Finding]:
    """Layers whose int8 sums overflow, from a run."""
    if run is None or "why" not in run.layers:
        return
    power = sum(float(at.output.double().square().mean()) for at in ats) / len(ats)
    for layer, row in run.layers.iterrows():
        if row.why not in (OVERFLOW_16, OVERFLOW_32):
            continue
        simulated, real = (10 ** (-db / 10) for db in (row.simulated_sqnr_db, row.sqnr_db))
        fixes = fixes_of(ledger.prediction, str(layer), "overflow", row.why, [])
        cost = max(real - simulated, 0.0) * power  # as if all of the output had the layer's relative error
        yield Finding(str(layer), "", "", row.why, why_words(row), cost, fixes)
