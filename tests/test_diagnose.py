"""Diagnosis: planted troubles are named first, at the right tensor, and the fixes mend them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

import qexplore as qx
from qexplore import LayerRule, QexploreError, Recipe, TensorSpec, Workload
from qexplore.analysis import why
from qexplore.analysis.diagnose import Diagnosis, diagnose
from qexplore.analysis.fixes import Expected, expected, with_spec
from qexplore.engines.engine import saturates, supported_engines
from tests.conftest import as_workload, images, normal, seeded_model
from tests.test_ledger import Plain, plain_images
from tests.test_overflow_guard import Depthwise

pytestmark = [pytest.mark.usefixtures("quick_timing"), pytest.mark.filterwarnings("ignore")]

MINMAX, PER_TENSOR = TensorSpec("minmax"), TensorSpec(symmetric=True)
QUIET = {"first layer", "last layer", "no single cause", "shared range"}
X86 = pytest.mark.skipif("fbgemm" not in supported_engines(), reason="FBGEMM is for x86 CPUs")


class OddInput(Plain):
    """Has small weights for one channel of its input, whose values may be large."""

    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.conv1.weight[:, 1] *= 0.02


class Pooled(nn.Module):
    """Pooling, which gives values in the range of what it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 16, 3, padding=1), nn.ReLU()
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.pool(self.relu(self.conv(x))).flatten(1))


class Wide(nn.Module):
    """A Linear with so many inputs of one size that its sums leave 32 bits."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.wide, self.out = nn.Linear(inputs, 3, bias=False), nn.Linear(3, 2)
        nn.init.constant_(self.wide.weight, 0.01)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.wide(x))


def plain(kind: type[nn.Module] = Plain, change: Callable[[nn.Module], None] | None = None) -> Workload:
    model = seeded_model(kind)
    if change is not None:
        with torch.no_grad():
            change(model)
    return as_workload(model, *plain_images())


def output_db(run: qx.Run) -> float:
    return float(run.metrics["sqnr_db"] or 0.0)


def check_fixes(calibration: qx.Calibration, diagnosis: Diagnosis) -> dict[str, Expected]:
    """Every fix is another valid recipe that can be predicted; what each is expected to give, by title."""
    recipe, found = diagnosis.ledger.prediction.recipe, {}
    assert all(finding.fixes for finding in diagnosis.findings)
    for fix in [fix for finding in diagnosis.findings for fix in finding.fixes] + list(diagnosis.fixes):
        assert fix.recipe != recipe, fix.title
        assert Recipe.from_json(fix.recipe.to_json()) == fix.recipe
        if fix.title not in found:
            try:
                found[fix.title] = expected(calibration, fix.recipe)
            except QexploreError as error:
                assert "equalize" in fix.recipe.steps and "equalize" in str(error)  # it finds no pair of layers
    return found


@pytest.fixture(scope="module")
def mobile() -> tuple[qx.Calibration, Diagnosis]:
    calibration = qx.calibrate(qx.workload("digits_mobile"))
    return calibration, diagnose(calibration, Recipe(weight=PER_TENSOR))


def test_uneven_channels_of_a_depthwise_network(mobile: tuple[qx.Calibration, Diagnosis]) -> None:
    calibration, diagnosis = mobile
    first = diagnosis.findings[0]
    assert (first.cause, first.kind) == ("channel imbalance", "weight") and "depthwise" in first.layer
    assert first.layer == first.tensor == diagnosis.ledger.layers.output_mse.idxmax()
    assert re.search(r"widest reaches \d+.*times the middle one", first.evidence)
    fix = next(fix for fix in first.fixes if "equalize" in fix.recipe.steps)
    before = qx.quantize(calibration.workload, Recipe(weight=PER_TENSOR), calibration)
    after = qx.quantize(calibration.workload, fix.recipe, calibration)
    says = expected(calibration, fix.recipe)
    print(f"accuracy {before.metrics}, equalized {after.metrics}, expected {says}")
    assert abs(says.sqnr_db - output_db(after)) < 3  # within a factor of two
    assert says.output_mse < diagnosis.ledger.output_mse / 10
    assert before.loss > 0.3 and before.loss - after.loss >= 0.8 * before.loss


def test_every_fix_is_a_recipe(mobile: tuple[qx.Calibration, Diagnosis]) -> None:
    calibration, diagnosis = mobile
    found = check_fixes(calibration, diagnosis)
    assert found["one scale per channel for all weights"].sqnr_db > diagnosis.ledger.sqnr_db + 10
    assert any("equalize" in title for title in found) and any(says.unpredicted for says in found.values())


def test_uneven_channels_of_what_a_layer_reads() -> None:
    calibration = qx.calibrate(qx.workload("digits_mobile"))
    diagnosis = diagnose(calibration, Recipe())
    first = diagnosis.findings[0]
    assert (first.kind, first.cause) == ("activation", "channel imbalance") and "depthwise" in first.layer
    assert first.cost > 0.3 * diagnosis.ledger.layers.output_mse[first.layer]
    assert first.fixes[0].recipe == Recipe(steps=("equalize",))
    after = qx.quantize(calibration.workload, first.fixes[0].recipe, calibration)
    assert output_db(after) > diagnosis.ledger.sqnr_db + 10
    check_fixes(calibration, diagnosis)


def test_an_outlier_in_one_sample() -> None:
    batches = plain_images()
    batches[0][3, 1, 2, 2] = 60
    calibration, recipe = qx.calibrate(as_workload(seeded_model(OddInput), *batches)), Recipe(activation=MINMAX)
    diagnosis = diagnose(calibration, recipe)
    first = diagnosis.findings[0]
    assert (first.layer, first.kind, first.tensor, first.cause) == ("conv1", "activation", "input", "outlier")
    assert "60" in first.evidence
    # The fix serves all samples but that one.
    model, others = calibration.workload.model, torch.cat(plain_images()[1:])

    def error(recipe: Recipe) -> float:
        simulated = qx.quantize(calibration.workload, recipe, calibration).simulated
        with torch.no_grad():
            return float((simulated(others) - model(others)).square().mean())

    assert error(first.fixes[0].recipe) < error(recipe) / 4
    check_fixes(calibration, diagnosis)
    without = diagnose(qx.calibrate(plain(OddInput)), recipe)
    assert all(finding.cause != "outlier" for finding in without.findings)


def test_an_outlier_is_judged_by_the_samples_without_it() -> None:
    batches = plain_images()
    batches[0][3, 1, 2, 2] = 60  # its sample alone loses more by clipping than all others gain
    calibration, recipe = qx.calibrate(as_workload(seeded_model(Plain), *batches)), Recipe(activation=MINMAX)
    diagnosis = diagnose(calibration, recipe)
    found = next(finding for finding in diagnosis.findings if finding.cause == "outlier")
    assert (found.layer, found.tensor) == ("conv1", "input") and "serves all others" in found.evidence
    assert expected(calibration, found.fixes[0].recipe).output_mse > diagnosis.ledger.output_mse


def test_an_outlier_among_weights() -> None:
    def change(model: nn.Module) -> None:
        model.conv2.weight[5, 3, 1, 1] = 40 * model.conv2.weight.std()

    calibration, recipe = qx.calibrate(plain(change=change)), Recipe(weight=PER_TENSOR)
    diagnosis = diagnose(calibration, recipe)
    first = diagnosis.findings[0]
    assert (first.layer, first.kind, first.tensor, first.cause) == ("conv2", "weight", "conv2", "outlier")
    assert expected(calibration, first.fixes[0].recipe).output_mse < diagnosis.ledger.output_mse / 2
    check_fixes(calibration, diagnosis)


@pytest.mark.parametrize(("layer", "tensor", "reader"), [("conv1", "act1", "conv2"), ("conv2", "act2", "conv3")])
def test_a_clipped_activation(layer: str, tensor: str, reader: str) -> None:
    clipping = TensorSpec("percentile", options={"percentile": 60.0})
    # What stays is set by the rule as well, and has to outlive the fix.
    weight = TensorSpec("mse", symmetric=True, per_channel=True)
    rule = LayerRule(layer, activation=clipping, weight=weight)
    calibration, recipe = qx.calibrate(plain()), Recipe(activation=MINMAX, rules=[rule])
    diagnosis = diagnose(calibration, recipe)
    first = diagnosis.findings[0]
    assert (first.layer, first.kind, first.tensor, first.cause) == (reader, "activation", tensor, "clipping")
    fix = first.fixes[0].recipe
    assert fix.specs_for(layer) == (MINMAX, weight)
    assert expected(calibration, fix).output_mse < diagnosis.ledger.output_mse / 100
    assert output_db(qx.quantize(calibration.workload, fix, calibration)) > diagnosis.ledger.sqnr_db + 20
    check_fixes(calibration, diagnosis)


def test_a_clipped_weight() -> None:
    clipping = TensorSpec("percentile", symmetric=True, per_channel=True, options={"percentile": 60.0})
    recipe = Recipe(rules=[LayerRule("conv2", weight=clipping)])
    calibration = qx.calibrate(plain())
    diagnosis = diagnose(calibration, recipe)
    first = diagnosis.findings[0]
    assert (first.layer, first.kind, first.tensor, first.cause) == ("conv2", "weight", "conv2", "clipping")
    assert expected(calibration, first.fixes[0].recipe).output_mse < diagnosis.ledger.output_mse / 100
    check_fixes(calibration, diagnosis)


def test_a_symmetric_range_of_values_above_zero() -> None:
    calibration, recipe = qx.calibrate(plain()), Recipe(activation=TensorSpec("minmax", symmetric=True))
    diagnosis = diagnose(calibration, recipe)
    first = diagnosis.findings[0]
    assert first.cause == "symmetric range" and first.kind == "activation" and first.tensor in ("flatten", "act3")
    assert expected(calibration, first.fixes[0].recipe).output_mse < 0.7 * diagnosis.ledger.output_mse
    check_fixes(calibration, diagnosis)
    rule = LayerRule("conv1", activation=TensorSpec("minmax", symmetric=True))
    one = diagnose(calibration, Recipe(activation=MINMAX, rules=[rule]))
    assert [(f.layer, f.tensor) for f in one.findings if f.cause == "symmetric range"] == [("conv2", "act1")]


def test_too_few_bits() -> None:
    calibration = qx.calibrate(plain())
    recipe = Recipe(rules=[LayerRule("conv2", weight=TensorSpec("mse", 3, symmetric=True, per_channel=True))])
    diagnosis = diagnose(calibration, recipe)
    assert (diagnosis.findings[0].cause, diagnosis.findings[0].tensor) == ("few levels", "conv2")
    assert expected(calibration, diagnosis.findings[0].fixes[0].recipe).output_mse < diagnosis.ledger.output_mse / 10
    check_fixes(calibration, diagnosis)


def test_batchnorm_on_its_own() -> None:
    calibration = qx.calibrate(qx.workload("digits"))
    diagnosis = diagnose(calibration, Recipe(fuse=False), samples=64)
    first = diagnosis.findings[0]
    assert first.cause == "unfused BatchNorm" and first.layer == "stem.1"
    assert first.fixes[0].recipe == Recipe()
    fused = expected(calibration, Recipe(), samples=64).output_mse
    assert first.cost == pytest.approx(diagnosis.ledger.output_mse - fused) and first.cost > 0.3 * fused
    assert "unfused BatchNorm" not in {f.cause for f in diagnose(calibration, Recipe(), samples=64).findings}


def test_a_recipe_with_steps_is_compared_with_the_same_steps() -> None:
    calibration = qx.calibrate(qx.workload("digits_mobile"))
    recipe = Recipe(weight=PER_TENSOR, steps=("equalize",), fuse=False)
    diagnosis = diagnose(calibration, recipe, samples=64)
    fused = expected(calibration, replace(recipe, fuse=True), samples=64).output_mse
    gain = diagnosis.ledger.output_mse - fused
    costs = [finding.cost for finding in diagnosis.findings if finding.cause == "unfused BatchNorm"]
    assert costs == ([pytest.approx(gain)] if gain > 0.3 * diagnosis.ledger.output_mse else [])
    assert all(fix.recipe.steps == ("equalize",) for finding in diagnosis.findings for fix in finding.fixes)


def test_a_layer_that_no_setting_explains_says_so() -> None:
    def change(model: nn.Module) -> None:
        model.conv2.weight *= 0.01  # what it gives is little against what its bias brings
        model.conv2.bias += 30

    diagnosis = diagnose(qx.calibrate(plain(change=change)), Recipe(activation=MINMAX))
    for finding in diagnosis.findings:
        if finding.cause == "no single cause" and diagnosis.ledger.layers.unusual[finding.layer]:
            assert "where its bits give" in finding.evidence
        else:
            assert "where its bits give" not in finding.evidence


def test_pooling_keeps_the_range_of_what_it_reads() -> None:
    calibration = qx.calibrate(as_workload(seeded_model(Pooled), *images()))
    diagnosis = diagnose(calibration, Recipe(activation=MINMAX))
    finding = next(f for f in diagnosis.findings if f.cause == "shared range")
    assert (finding.layer, finding.kind, finding.tensor) == ("flatten", "activation", "pool")
    assert finding.fixes[0].recipe.specs_for("pool") is None
    after = qx.quantize(calibration.workload, finding.fixes[0].recipe, calibration)
    assert output_db(after) > diagnosis.ledger.sqnr_db + 1
    check_fixes(calibration, diagnosis)


@X86
@pytest.mark.parametrize("engine", ["x86", "fbgemm"])
def test_sums_that_leave_16_bits(engine: str) -> None:
    workload = as_workload(seeded_model(Depthwise), *[normal(8, 3, 8, 8, seed=seed) for seed in range(3)])
    calibration, recipe = qx.calibrate(workload), Recipe(engine=engine, overflow_guard="none")
    run = qx.quantize(workload, recipe, calibration)
    diagnosis = diagnose(calibration, recipe, run)
    first = diagnosis.findings[0]
    assert (first.layer, first.cause) == ("depthwise", why.OVERFLOW_16) and "16 bits" in first.evidence
    mended = qx.quantize(workload, first.fixes[0].recipe, calibration)
    print(engine, output_db(run), first.fixes[0].title, output_db(mended))
    assert output_db(mended) > output_db(run) + 15
    assert (mended.layers.codes_off.dropna() == 0).all()
    guarded = next(fix for fix in first.fixes if fix.recipe.overflow_guard == "weights")
    assert output_db(qx.quantize(workload, guarded.recipe, calibration)) > output_db(run) + 15
    check_fixes(calibration, diagnosis)
    assert all("overflow" not in finding.cause for finding in diagnose(calibration, recipe).findings)


@pytest.mark.parametrize("inputs", [70_000, 140_000])
def test_sums_that_leave_32_bits(inputs: int) -> None:
    engine = next((name for name in supported_engines() if not saturates(name)), None)
    if engine is None:
        pytest.skip("every engine saturates in 16 bits here before 32 bits matter")
    workload = as_workload(seeded_model(Wide, inputs), torch.ones(4, inputs))
    calibration = qx.calibrate(workload)
    recipe = Recipe(activation=MINMAX, weight=PER_TENSOR, engine=engine, overflow_guard="none")
    run = qx.quantize(workload, recipe, calibration)
    diagnosis = diagnose(calibration, recipe, run)
    first = diagnosis.findings[0]
    assert (first.layer, first.cause) == ("wide", why.OVERFLOW_32) and "32 bits" in first.evidence
    mended = qx.quantize(workload, first.fixes[0].recipe, calibration)
    assert output_db(mended) > output_db(run) + 15


@pytest.mark.parametrize("activation", [MINMAX, TensorSpec("histogram"), TensorSpec("mse")], ids=lambda s: s.observer)
def test_a_good_recipe_alarms_nobody(activation: TensorSpec) -> None:
    for workload in (plain(), plain(OddInput)):
        diagnosis = diagnose(qx.calibrate(workload), Recipe(activation=activation))
        assert {finding.cause for finding in diagnosis.findings} <= QUIET
        assert diagnosis.findings[0].layer == diagnosis.ledger.layers.output_mse.idxmax()


def test_good_demos_alarm_nobody() -> None:
    diagnosis = diagnose(qx.calibrate(qx.workload("digits")), Recipe(), samples=64)
    assert {finding.cause for finding in diagnosis.findings} <= QUIET


def test_costs_are_what_is_gained_and_the_costliest_comes_first(mobile: tuple[qx.Calibration, Diagnosis]) -> None:
    _, diagnosis = mobile
    costs = [finding.cost for finding in diagnosis.findings]
    assert costs == sorted(costs, reverse=True) and min(costs) > 0
    for finding in diagnosis.findings:
        assert finding.cost <= diagnosis.ledger.layers.output_mse[finding.layer]


def test_dynamic_mode(lstm: Workload) -> None:
    calibration = qx.calibrate(lstm)
    for weight in (TensorSpec(symmetric=True, per_channel=True), PER_TENSOR, TensorSpec(bits=3, symmetric=True)):
        diagnosis = diagnose(calibration, Recipe("dynamic", weight=weight))
        assert diagnosis.findings and check_fixes(calibration, diagnosis)
        assert set(diagnosis.ledger.layers.index) == {"lstm", "out"}
    assert {f.cause for f in diagnosis.findings if f.kind == "weight"} & {"few levels", "one scale for all channels"}


def test_settings_for_one_layer_leave_its_others_alone() -> None:
    weight, activation = TensorSpec("mse", 4, symmetric=True), TensorSpec("mse", 5)
    recipe = Recipe(rules=[LayerRule("conv*", weight=weight, activation=activation), LayerRule("fc", keep_float=True)])
    changed = with_spec(recipe, "conv2", "activation", MINMAX)
    assert changed.specs_for("conv2") == (MINMAX, weight) and changed.specs_for("conv1") == (activation, weight)
    assert changed.specs_for("fc") is None
    # The recipe's own settings as well, which the rule is in the way of.
    ruled = Recipe(rules=[LayerRule("conv*", activation=activation)])
    plainly = with_spec(ruled, "conv2", "activation", Recipe().activation)
    assert plainly.specs_for("conv2") == (Recipe().activation, Recipe().weight)
    assert plainly.specs_for("conv1") == (activation, Recipe().weight)


def test_what_does_not_fit_is_refused(untraceable: nn.Module) -> None:
    workload = plain()
    calibration = qx.calibrate(workload)
    run = qx.quantize(workload, Recipe(), calibration)
    with pytest.raises(QexploreError, match="another recipe"):
        diagnose(calibration, Recipe(fuse=False), run)
    with pytest.raises(QexploreError, match="another recipe or workload"):
        diagnose(calibration, Recipe(), replace(run, workload="other"))
    with pytest.raises(QexploreError, match=r"diagnose got .* give a qx\.Recipe"):
        diagnose(calibration, "static")  # type: ignore[arg-type]
    with pytest.raises(QexploreError, match=r"give a qx\.Calibration"):
        diagnose(workload, Recipe())  # type: ignore[arg-type]
    with pytest.raises(QexploreError, match=r"diagnose got .* give a qx\.Run"):
        diagnose(calibration, Recipe(), Recipe())  # type: ignore[arg-type]
    with pytest.raises(QexploreError, match="needs its graph"):
        diagnose(qx.calibrate(as_workload(untraceable, normal(4, 6))), Recipe("dynamic"))
