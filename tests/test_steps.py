"""Preparation steps: what they promise of the float model, and what quantizing it costs after them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from qexplore import (
    Cancelled,
    LayerRule,
    QexploreError,
    Recipe,
    TensorSpec,
    Workload,
    calibrate,
    diagnose,
    predict,
    quantize,
)
from qexplore import workload as demo
from qexplore.analysis.steps import adaround, rounding
from qexplore.analysis.steps.pairs import found_pairs
from qexplore.analysis.steps.prepare import prepared
from qexplore.analysis.steps.rows import sampled_rows
from qexplore.analysis.steps.step import STEPS, in_order, step
from qexplore.calibrate.graph import float_copy, trace
from qexplore.numerics.affine import along
from qexplore.numerics.affine import quantize as codes_of
from qexplore.numerics.errors import sqnr_db
from qexplore.plots.words import recipe_words
from qexplore.zoo.digits_data import digits
from tests.conftest import ResidualNet, as_workload, images, normal, seeded_model

pytestmark = pytest.mark.usefixtures("quick_timing")

PER_TENSOR = Recipe(weight=TensorSpec(symmetric=True))
FOUR_BITS = Recipe(activation=TensorSpec("minmax"), weight=TensorSpec(symmetric=True, bits=4, per_channel=True))
MIN_MAX = Recipe(activation=TensorSpec("minmax"), weight=TensorSpec(symmetric=True, bits=4))


def steps(recipe: Recipe, *names: str) -> Recipe:
    return replace(recipe, steps=names)


def start(workload: Workload, recipe: Recipe, **settings: Any) -> nn.Module:
    """The float model after a recipe's steps."""
    return prepared(workload, recipe, calibrate(workload), list(workload.calibration), **settings)[1]


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same_state(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert list(a) == list(b)
    assert all(torch.equal(a[name], b[name]) for name in a)


def refusal(workload: Workload, recipe: Recipe) -> str:
    with pytest.raises(QexploreError) as error:
        start(workload, recipe)
    message = str(error.value)
    assert "\n" not in message and message.endswith("."), message
    return message


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An AdaRound that is good enough to look at."""
    monkeypatch.setattr(rounding, "ITERATIONS", 60)
    yield


@pytest.fixture
def own_steps() -> Iterator[None]:
    """Steps registered in the test are gone after it."""
    before = dict(STEPS._entries)
    yield
    STEPS._entries = before


# All steps.


@pytest.mark.parametrize("name", ["equalize", "adaround", "bias_correction", "batchnorm"])
def test_the_model_is_left_alone_and_the_result_is_always_the_same(quick: None, name: str) -> None:
    workload = as_workload(seeded_model(Chain), *vectors())
    before, recipe = state(workload.model), steps(MIN_MAX, name)
    calibration = calibrate(workload)
    reference, first, of_first = prepared(workload, recipe, calibration, vectors())
    torch.rand(7)  # the state outside has no say
    second = start(workload, recipe)
    assert_same_state(state(workload.model), before)
    assert_same_state(state(calibration.float_model()), before)
    assert_same_state(state(first), state(second))
    assert any(not torch.equal(before[name], value) for name, value in state(first).items() if name in before)
    assert [n for n, _ in first.named_modules()] == [n for n, _ in workload.model.named_modules()]
    assert trace(first).names == trace(workload.model).names
    assert not first.training
    assert_same_state(state(of_first.float_model()), state(first))
    if STEPS[name].keeps_function:
        assert_same_state(state(reference), state(first))
    else:
        assert_same_state(state(reference), before)


def test_the_steps_join_quantizing_and_predicting(quick: None) -> None:
    workload = as_workload(seeded_model(Chain), *vectors())
    recipe = steps(replace(MIN_MAX, weight=TensorSpec(symmetric=True)), "equalize", "bias_correction")
    calibration = calibrate(workload)
    plain, run = quantize(workload, replace(recipe, steps=()), calibration), quantize(workload, recipe, calibration)
    assert run.metrics["float"] == plain.metrics["float"] and run.size["float_bytes"] == plain.size["float_bytes"]
    assert list(run.layers.index) == list(plain.layers.index)
    assert run.layers.kind.tolist() == plain.layers.kind.tolist()
    # Tensors within are rescaled, so errors against the model as it was would be as large as the signal.
    assert run.layers.sqnr_db[["3", "4", "6"]].min() > 20
    x = workload.calibration[0]
    with torch.no_grad():
        wanted = workload.model(x)
        assert run.metrics["sqnr_db"] == pytest.approx(sqnr_db(*outputs(workload, run.model)), abs=0.05)
        assert sqnr_db(wanted, run.model(x)) > 20
    prediction = predict(calibration, recipe)
    assert prediction.unpredicted == ("bias_correction",)
    weights = run.tensors[run.tensors.kind == "weight"].set_index("name")
    for name in weights.index:
        assert float(prediction.quantized["weight", name].scale) == pytest.approx(weights.scale[name], rel=1e-6)
    assert predict(calibration, replace(recipe, steps=())).unpredicted == ()
    assert predict(calibration, recipe).calibration is prediction.calibration is not calibration
    assert "prepared: equalize, bias_correction" in recipe_words(recipe)


def outputs(workload: Workload, model: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.cat(list(workload.calibration))
    with torch.no_grad():
        return workload.model(x), model(x)


def test_qat_starts_from_the_prepared_model(conv: Workload) -> None:
    recipe = Recipe(mode="qat", activation=TensorSpec("moving_average"), epochs=1, steps=("equalize",))
    run = quantize(conv, recipe)
    assert len(run.history) == 2 and run.model is not None


@pytest.mark.parametrize("name", ["no_such_step", "equalise"])
def test_unknown_steps_are_refused_before_any_work(conv: Workload, name: str) -> None:
    for work in (
        lambda: quantize(conv, steps(PER_TENSOR, name)),
        lambda: predict(calibrate(conv), steps(PER_TENSOR, name)),
    ):
        with pytest.raises(QexploreError, match=rf"no step named '{name}'.*equalize"):
            work()


def test_steps_that_keep_the_function_come_first(conv: Workload) -> None:
    message = refusal(conv, steps(PER_TENSOR, "adaround", "equalize"))
    assert "'equalize' leaves what the model computes as it is" in message
    assert "steps=('equalize', 'adaround')" in message


@pytest.mark.parametrize("name", ["equalize", "bias_correction", "batchnorm"])
def test_steps_without_anything_to_do_in_dynamic_mode(lstm: Workload, name: str) -> None:
    assert name in refusal(lstm, Recipe(mode="dynamic", steps=(name,)))


@pytest.mark.parametrize("name", ["equalize", "adaround", "bias_correction", "batchnorm"])
def test_steps_find_nothing_to_do(name: str) -> None:
    workload = as_workload(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sigmoid(), nn.ReLU()), *images())
    recipe = steps(replace(PER_TENSOR, rules=(LayerRule("0", keep_float=True),)), name)
    assert f"Step '{name}' finds no" in refusal(workload, recipe)


def test_a_step_of_ones_own(conv: Workload, own_steps: None) -> None:
    @step("halve", 9, "halves the last layer")
    def halve(model: nn.Module, *_: Any) -> nn.Module:
        changed = float_copy(model)
        changed.fc.weight.data /= 2
        return changed

    assert torch.equal(start(conv, steps(PER_TENSOR, "halve")).fc.weight, conv.model.fc.weight / 2)


@pytest.mark.parametrize("name", ["equalize", "adaround", "bias_correction", "batchnorm"])
def test_cancelled_and_reported(quick: None, name: str) -> None:
    workload, said = as_workload(seeded_model(Chain), *vectors()), []
    start(workload, steps(MIN_MAX, name), report=lambda message, fraction: said.append((message, fraction)))
    fractions = [fraction for _, fraction in said]
    assert fractions == sorted(fractions) and fractions[0] >= 0 and fractions[-1] <= 1
    if name == "adaround":
        assert "Rounding layer '3', 2 of 3" in [message for message, _ in said]
    cancel = threading.Event()

    def stop(message: str, fraction: float) -> None:
        cancel.set()

    with pytest.raises(Cancelled):
        start(workload, steps(MIN_MAX, name), report=stop, cancel=cancel)


# Cross-layer equalization.


class Chain(nn.Sequential):
    """Vectors [N, 6] to 4 numbers; the second layer's channels have very uneven ranges."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU()),
            *(nn.Linear(16, 16), nn.LeakyReLU(), nn.Dropout(), nn.Linear(16, 4)),
        )
        with torch.no_grad():
            self[3].weight[:4] *= 30
            self[6].weight[:, :4] /= 30
            self[1].running_mean.uniform_(-0.2, 0.2)
            self[1].running_var.uniform_(0.5, 2.0)


def vectors() -> list[torch.Tensor]:
    return [normal(32, 6, seed=seed) for seed in range(3)]


class Functional(nn.Module):
    """Images [N, 3, 8, 8] through functions instead of modules, grouped convolutions and a Flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.b = nn.Conv2d(8, 8, 3, groups=8, padding=1)
        self.c = nn.Conv2d(8, 12, 1, groups=2)
        self.d = nn.Linear(12 * 4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.bn(self.a(x))), 2)
        x = self.c(self.b(x).relu())
        return self.d(torch.flatten(F.adaptive_avg_pool2d(F.leaky_relu(x, 0.1), 2), 1))


class Ends(nn.Module):
    """Nothing here may be equalized: ReLU6 saturates, and `b` is read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.relu6 = nn.ReLU6()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.b(self.relu6(self.a(x)))
        return self.c(y) + y


MODELS: dict[str, tuple[Callable[[], nn.Module], list[torch.Tensor], list[tuple[str, str, int]]]] = {
    "chain": (Chain, vectors(), [("0", "3", 1), ("3", "6", 1)]),
    "functional": (Functional, images(), [("a", "b", 1), ("b", "c", 1), ("c", "d", 4)]),
    "residual": (ResidualNet, images(), [("block.conv1", "block.conv2", 1)]),
}


@pytest.mark.parametrize(("make", "batches", "pairs"), MODELS.values(), ids=MODELS)
def test_equalizing_keeps_the_function(
    make: Callable[[], nn.Module], batches: list[torch.Tensor], pairs: list[tuple[str, str, int]]
) -> None:
    workload = as_workload(seeded_model(make), *batches)
    found = found_pairs(trace(float_copy(workload.model)), PER_TENSOR)
    assert [(pair.first.name, pair.second.name, pair.places) for pair in found] == pairs
    changed = start(workload, steps(PER_TENSOR, "equalize"))
    wanted, got = outputs(workload, changed)
    assert float((wanted - got).abs().max() / wanted.abs().max()) < 1e-5
    for _, second, _ in pairs:
        assert not torch.equal(workload.model.get_submodule(second).weight, changed.get_submodule(second).weight)


def test_equalized_ranges_are_equal() -> None:
    changed = start(as_workload(seeded_model(Chain), *vectors()), steps(PER_TENSOR, "equalize"))
    norm, first, second, third = changed[1], changed[0].weight, changed[3].weight, changed[6].weight
    folded = first * (norm.weight / (norm.running_var + norm.eps).sqrt())[:, None]
    for above, below in ((folded, second), (second, third)):
        assert above.abs().amax(1).detach() == pytest.approx(below.abs().amax(0).detach(), rel=2e-3)


def test_ranges_are_those_with_batchnorm_folded_in() -> None:
    """Which of the second layer's outputs has the largest weight depends on the BatchNorm behind it."""
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.BatchNorm1d(5)).eval()
    with torch.no_grad():
        model[3].running_var.copy_(torch.tensor([1.0, 1e-2, 1.0, 1e2, 1.0]))
    changed = start(as_workload(model, *vectors()), steps(PER_TENSOR, "equalize"))
    folded = changed[2].weight * torch.rsqrt(changed[3].running_var + changed[3].eps)[:, None]
    assert changed[0].weight.abs().amax(1).detach() == pytest.approx(folded.abs().amax(0).detach(), rel=2e-3)


def test_dead_channels_stay() -> None:
    model = seeded_model(Chain)
    with torch.no_grad():
        model[3].weight[5], model[6].weight[:, 7] = 0.0, 0.0
    workload = as_workload(model, *vectors())
    changed = start(workload, steps(PER_TENSOR, "equalize"))
    assert all(bool(value.isfinite().all()) for value in state(changed).values())
    assert torch.equal(changed[3].bias[[5, 7]], model[3].bias[[5, 7]])
    wanted, got = outputs(workload, changed)
    assert float((wanted - got).abs().max() / wanted.abs().max()) < 1e-5


def test_what_ends_a_pair() -> None:
    workload = as_workload(seeded_model(Ends), *images())
    assert "finds no pair of quantized Conv or Linear layers" in refusal(workload, steps(PER_TENSOR, "equalize"))


def test_layers_kept_float_and_shared_weights_are_no_pairs() -> None:
    model = seeded_model(Chain)
    kept = replace(PER_TENSOR, rules=(LayerRule("6", keep_float=True),))
    assert [pair.second.name for pair in found_pairs(trace(model), kept)] == ["3"]
    tied = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)).eval()
    tied[4].weight = tied[0].weight
    assert found_pairs(trace(tied), PER_TENSOR) == []


@pytest.mark.parametrize(
    "between",
    [nn.Flatten(0), nn.Flatten(2), nn.Sigmoid(), nn.Softplus(), nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16))],
    ids=["flatten-0", "flatten-2", "sigmoid", "softplus", "late-norm"],
)
def test_what_is_not_channel_by_channel_ends_a_pair(between: nn.Module) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), between, nn.Linear(16, 2)).eval()
    assert found_pairs(trace(model), PER_TENSOR) == []


def test_equalizing_mends_per_tensor_weights() -> None:
    workload = demo("digits_mobile")
    calibration = calibrate(workload)
    before = quantize(workload, PER_TENSOR, calibration)
    after = quantize(workload, steps(PER_TENSOR, "equalize"), calibration)
    assert before.loss > 0.5
    assert after.loss < 0.2 * before.loss


# AdaRound.


def four_bits(name: str) -> Recipe:
    """Of `digits` the large layers stay float: they take most of the time and behave as the others."""
    rules = (LayerRule("layer2", keep_float=True),) if name == "digits" else ()
    return replace(FOUR_BITS, rules=rules)


@pytest.mark.parametrize("name", ["digits", "digits_mobile"])
def test_adaround_beats_rounding_to_nearest(name: str) -> None:
    workload = demo(name)
    recipe = four_bits(name)
    calibration = calibrate(workload)
    nearest = quantize(workload, recipe, calibration)
    run = quantize(workload, steps(recipe, "adaround"), calibration)
    unseen = digits()[2]
    with torch.no_grad():
        wanted, before, after = (model(unseen) for model in (workload.model, nearest.simulated, run.simulated))
    assert sqnr_db(wanted, after) > sqnr_db(wanted, before) + 3
    assert run.metrics["simulated"] >= nearest.metrics["simulated"] - 0.005
    # The weights themselves come out worse, against those of the float model as it was.
    before, after = (each.tensors.groupby("kind").sqnr_db.get_group("weight") for each in (nearest, run))
    assert (after < before).all()


@pytest.mark.parametrize("spec", [TensorSpec(bits=4), TensorSpec(bits=3, symmetric=True, per_channel=True)], ids=str)
@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "unfused"])
def test_the_engine_finds_the_codes_that_were_chosen(
    monkeypatch: pytest.MonkeyPatch, quick: None, spec: TensorSpec, fuse: bool, conv: Workload
) -> None:
    chosen: list[torch.Tensor] = []

    def kept(task: rounding.Task, *arguments: Any) -> torch.Tensor:
        chosen.append(rounding.rounded_steps(task, *arguments))
        assert chosen[-1].sub(task.steps.clamp(task.low, task.high)).abs().max() < 1  # a neighbour of the weight
        return chosen[-1]

    monkeypatch.setattr(adaround, "rounded_steps", kept)
    recipe = replace(MIN_MAX, weight=spec, fuse=fuse)
    calibration = calibrate(conv)
    before = predict(calibration, recipe)
    changed = start(conv, steps(recipe, "adaround"))
    after = predict(calibrate(replace(conv, model=changed)), recipe)
    names = [name for kind, name in after.quantized if kind == "weight"]
    flips = 0
    for name, wanted in zip(names, chosen, strict=True):
        t, old = after.quantized["weight", name], before.quantized["weight", name]
        assert torch.equal(t.zero_point, old.zero_point)
        assert t.scale == pytest.approx(old.scale, rel=1e-5)
        found, nearest = (
            codes_of(q.weight, q.scale, q.zero_point, q.quant_min, q.quant_max, q.axis)
            - along(q.zero_point, q.weight, q.axis)
            for q in (t, old)
        )
        assert torch.equal(found.flatten().float(), wanted.flatten())
        flips += int((found != nearest).sum())
    assert flips > 10


def test_adaround_lowers_the_error_of_a_layer() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = normal(512, 1, 12) @ normal(12, 12, seed=1)  # inputs that go together, so that rounding errors can cancel
    weight = normal(1, 5, 12, seed=2) * 3
    task = rounding.Task(
        steps=weight,
        scale=torch.ones(1, 1, 1),
        low=torch.full((1, 1, 1), -8.0),
        high=torch.full((1, 1, 1), 7.0),
        nearest=weight.round().clamp(-8, 7),
        free=torch.ones_like(weight, dtype=torch.bool),
        rows=rows,
        wanted=rounding.outputs(rows, weight, torch.zeros(1, 1, 5), False),
        bias=torch.zeros(1, 1, 5),
        relu=False,
    )
    found, every = rounding.rounded_steps(task, generator, None), torch.arange(512)
    assert torch.equal(found, found.round())
    assert task.error(found, every) < 0.6 * task.error(task.nearest, every)
    fixed = replace(task, free=torch.zeros_like(task.free))
    assert torch.equal(rounding.rounded_steps(fixed, generator, None), task.nearest)


@pytest.mark.parametrize(
    ("module", "x"),
    [
        (nn.Linear(6, 4), normal(5, 3, 6)),
        (nn.Conv1d(4, 6, 3, padding=2, dilation=2, groups=2), normal(2, 4, 9)),
        (nn.Conv2d(4, 6, (3, 2), stride=2, padding=1, padding_mode="reflect"), normal(2, 4, 7, 6)),
        (nn.Conv2d(4, 4, 3, padding="same", groups=4), normal(3, 4, 5, 5)),
        (nn.Conv3d(2, 3, 2), normal(2, 2, 4, 3, 3)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_rows_are_what_the_outputs_are_made_of(module: nn.Module, x: torch.Tensor) -> None:
    (rows,) = sampled_rows(module, [[x]], 50, torch.Generator().manual_seed(0))
    groups = rows.shape[1]
    weight = module.weight.detach().reshape(groups, -1, rows.shape[2])
    got = rounding.outputs(rows, weight, module.bias.detach().reshape(groups, 1, -1), False).flatten(1)
    with torch.no_grad():
        y = module(x)
    every = (y if isinstance(module, nn.Linear) else y.movedim(1, -1)).flatten(0, -2)
    distance = (got[:, None] - every[None]).abs().amax(-1)
    assert distance.amin(1).max() < 1e-5
    assert len(distance.argmin(1).unique()) > 10


@pytest.mark.parametrize(("observer", "survives"), [("percentile", True), ("mse", False)])
def test_adaround_with_observers_that_choose_another_range_afterwards(
    quick: None, conv: Workload, observer: str, survives: bool
) -> None:
    recipe = steps(replace(MIN_MAX, weight=TensorSpec(observer, bits=4, symmetric=True)), "adaround")
    if survives:
        start(conv, recipe)
    else:
        message = refusal(conv, recipe)
        assert f"Observer '{observer}' gives the weights of layer 'block.conv2' another range" in message


def test_adaround_in_dynamic_mode(quick: None, lstm: Workload) -> None:
    recipe = Recipe(mode="dynamic", weight=TensorSpec(bits=4, symmetric=True), steps=("adaround",))
    changed = start(lstm, recipe)
    assert not torch.equal(changed.out.weight, lstm.model.out.weight)
    assert_same_state(state(changed.lstm), state(lstm.model.lstm))


# Bias correction and BatchNorm.


def shift(workload: Workload, model: nn.Module) -> float:
    """Mean over the output's channels of the absolute mean error."""
    wanted, got = outputs(workload, model)
    return float((got - wanted).mean(0).abs().mean())


def test_bias_correction_takes_the_mean_error_away() -> None:
    workload, recipe = demo("digits_mobile"), FOUR_BITS
    calibration = calibrate(workload)
    before, after = (
        quantize(workload, recipe, calibration),
        quantize(workload, steps(recipe, "bias_correction"), calibration),
    )
    assert shift(workload, after.simulated) < 0.1 * shift(workload, before.simulated)
    assert after.metrics["sqnr_db"] > before.metrics["sqnr_db"]


class Unbiased(nn.Sequential):
    """Convolutions without bias: before a BatchNorm without weights, before a ReLU, and at the end."""

    def __init__(self) -> None:
        conv = nn.Conv2d
        super().__init__(
            *(conv(3, 8, 3, bias=False), nn.BatchNorm2d(8, affine=False), nn.ReLU(inplace=True)),
            *(conv(8, 8, 3, bias=False), nn.ReLU(), conv(8, 5, 3, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        )


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "unfused"])
def test_bias_correction_of_layers_without_bias(fuse: bool) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        workload = as_workload(Unbiased().eval(), *images())
    recipe = replace(MIN_MAX, fuse=fuse)
    before, after = quantize(workload, recipe), quantize(workload, steps(recipe, "bias_correction"))
    assert shift(workload, after.simulated) < 0.15 * shift(workload, before.simulated)


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "unfused"])
def test_batchnorm_statistics_are_those_of_the_quantized_layers(fuse: bool) -> None:
    """With weights and activations of 8 bits they are nearly those that training mode finds in the float model."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.BatchNorm2d(4))
    norms = model[1], model[4]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.cat(images()))
    wanted = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in norms]
    for norm in norms:
        norm.running_mean -= 0.1
        norm.running_var *= 1.2
    workload = as_workload(model.eval(), *images())
    recipe = replace(MIN_MAX, weight=TensorSpec(per_channel=True), fuse=fuse)
    changed = start(workload, steps(recipe, "batchnorm"))
    for place, (mean, variance) in zip((1, 4), wanted, strict=True):
        assert changed[place].running_mean == pytest.approx(mean, abs=0.02)
        assert changed[place].running_var == pytest.approx(variance, rel=0.04)


def test_batchnorm_with_channels_that_give_nothing() -> None:
    model = seeded_model(ResidualNet)
    with torch.no_grad():
        model.block.bn1.weight[2] = 0.0
    changed = start(as_workload(model, *images()), steps(MIN_MAX, "batchnorm"))
    assert all(bool(value.isfinite().all()) for value in state(changed).values())
    assert changed.block.bn1.running_var[2] == model.block.bn1.running_var[2]


def test_steps_are_offered_and_taken_in_one_order(conv: Workload) -> None:
    with pytest.raises(QexploreError, match="give them in the order"):
        predict(calibrate(conv), Recipe(steps=("bias_correction", "adaround")))
    for fix in diagnose(calibrate(conv), Recipe(steps=("bias_correction",))).fixes:
        assert fix.recipe.steps == in_order(fix.recipe.steps)
