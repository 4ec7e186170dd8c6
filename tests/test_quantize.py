"""What a person gets from `quantize`: true figures, their own things left alone, and plain words when it fails."""

from __future__ import annotations

import dataclasses
import json
import math
import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from qexplore import Cancelled, LayerRule, QexploreError, Recipe, Run, TensorSpec, Workload, calibrate, load_run
from qexplore import quantize as quantize_workload
from qexplore.analysis.run import RECORDED
from qexplore.numerics.errors import sqnr_db
from tests.conftest import ResidualNet, accuracy, as_workload, images, normal, seeded_model, train_a_little

pytestmark = pytest.mark.usefixtures("quick_timing")

MIN_MAX = TensorSpec("minmax")
STATIC = Recipe(activation=MIN_MAX)
QAT = Recipe(mode="qat", activation=TensorSpec("moving_average"), epochs=2)
DYNAMIC = Recipe(mode="dynamic")
FOUR_BITS = Recipe(activation=TensorSpec("minmax", bits=4), weight=TensorSpec(bits=4, symmetric=True, per_channel=True))
MODES = pytest.mark.parametrize("recipe", [DYNAMIC, STATIC, QAT], ids=["dynamic", "static", "qat"])


def quantize(workload: Workload, recipe: Recipe = STATIC, **settings: Any) -> Run:
    return quantize_workload(workload, recipe, **settings)


def refusal(workload: Workload, recipe: Recipe = STATIC) -> str:
    """The sentence that quantizing is refused with."""
    with pytest.raises(QexploreError) as error:
        quantize(workload, recipe)
    message = str(error.value)
    assert "\n" not in message and message.endswith((".", "?")), message
    return message


class From(nn.Module):
    """Any function as a model, with a Linear in front of it."""

    def __init__(self, function: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self.linear(x))


X = normal(8, 4)


@pytest.fixture(scope="module")
def runs() -> dict[str, Run]:
    """One run of each kind, which several tests look at."""
    workload = as_workload(seeded_model(ResidualNet), *images(), evaluate=accuracy, train=train_a_little)
    recipes = {"dynamic": DYNAMIC, "static": STATIC, "qat": QAT, "simulated": FOUR_BITS}
    return {name: quantize(workload, recipe) for name, recipe in recipes.items()}


# What belongs to the person stays as it was.


def state(model: nn.Module) -> dict[str, Any]:
    return {
        "values": {name: value.clone() for name, value in model.state_dict().items()},
        "training": [m.training for m in model.modules()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()],
        "types": [type(m) for m in model.modules()],
        "grads": [(p.requires_grad, p.grad is None) for p in model.parameters()],
    }


@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
@MODES
def test_the_persons_model_is_left_alone(conv: Workload, recipe: Recipe, training: bool) -> None:
    calls: list[object] = []
    model = conv.model.train(training)
    model.stem.register_forward_hook(lambda m, args, out: calls.append(m))
    model.register_forward_pre_hook(lambda m, args: calls.append(m))
    before = state(model)
    quantize(conv, recipe)
    after = state(model)
    values, same = before.pop("values"), after.pop("values")
    assert all(torch.equal(value, same[name]) for name, value in values.items())
    assert after == before
    assert model not in calls and model.stem not in calls


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(1))


@pytest.mark.parametrize("fails", [False, True], ids=["done", "failed"])
@MODES
def test_random_states_are_left_alone(conv_net: nn.Module, recipe: Recipe, fails: bool) -> None:
    def evaluate(model: nn.Module) -> float:
        return math.nan if fails else sum(draws())

    def train(model: nn.Module, epochs: int, progress: Callable[..., None]) -> None:
        draws()

    def seed() -> None:
        random.seed(5)
        np.random.seed(5)
        torch.manual_seed(5)

    workload = as_workload(conv_net, *images(), evaluate=evaluate, train=train)
    seed()
    expected = draws()
    seed()
    if fails:
        refusal(workload, recipe)
    else:
        quantize(workload, recipe)
    assert draws() == expected


def test_gradients_stay_as_they_were(conv: Workload) -> None:
    quantize(conv)
    assert torch.is_grad_enabled()
    with torch.no_grad():
        quantize(conv, QAT)
        assert not torch.is_grad_enabled()


FIGURES = [name for name in RECORDED if name not in ("speed", "seconds")]


def assert_same_figures(one: Run, two: Run, names: list[str]) -> None:
    for name in names:
        a, b = getattr(one, name), getattr(two, name)
        if isinstance(a, pd.DataFrame):
            pd.testing.assert_frame_equal(a, b, check_exact=True)
        else:
            assert a == b, name


@MODES
def test_the_same_recipe_gives_the_same_figures(conv_net: nn.Module, recipe: Recipe) -> None:
    def noisy(model: nn.Module, epochs: int, progress: Callable[..., None]) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        loss = model(torch.randn(8, 3, 8, 8)).square().mean()
        loss.backward()
        optimizer.step()
        progress("Training", 1.0, loss=loss.item())

    data = torch.utils.data.TensorDataset(torch.cat(images()))
    loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True)
    workload = as_workload(conv_net, calibration=loader, evaluate=accuracy, train=noisy)
    torch.manual_seed(1)
    first = quantize(workload, recipe)
    torch.manual_seed(2)
    assert_same_figures(first, quantize(workload, recipe), FIGURES)


def test_a_calibration_made_before_gives_the_same_figures(conv: Workload) -> None:
    assert_same_figures(quantize(conv), quantize(conv, calibration=calibrate(conv)), FIGURES)


def test_a_calibration_of_another_workload_is_refused(conv: Workload, lstm: Workload) -> None:
    with pytest.raises(QexploreError, match=r"belongs to (another )?workload .* make one with qx\.calibrate"):
        quantize(conv, calibration=calibrate(lstm))


# What cannot work is refused in one sentence that names the thing and what to do.


def rule(pattern: str, **settings: Any) -> Recipe:
    return Recipe(activation=MIN_MAX, rules=[LayerRule(pattern, **(settings or {"keep_float": True}))])


BAD_RECIPES = {
    "observer": (Recipe(activation=TensorSpec("minmacs")), "observer named 'minmacs'", "did you mean 'minmax'"),
    "weight-observer": (Recipe(weight=TensorSpec("no")), "observer named 'no'", "choose one of"),
    "rule-observer": (rule("fc", weight=TensorSpec("no")), "observer named 'no'", "choose one of"),
    "observer-per-channel": (
        Recipe(weight=TensorSpec("histogram", per_channel=True)),
        "'histogram' works per tensor only",
        "per-tensor weights",
    ),
    "engine": (Recipe(engine="x68"), "engine named 'x68'", "did you mean 'x86'"),
    "rule": (rule("fc2"), "'fc2' matches no layer", "layers are stem, block"),
    "rule-wildcard": (rule("blocks.*"), "'blocks.*' matches no layer", "layers are stem, block"),
    "all-float": (rule("*"), "nothing to quantize", "at least one layer"),
    "all-float-dynamic": (dataclasses.replace(rule("*"), mode="dynamic"), "nothing is left to quantize", "Linear"),
}


@pytest.mark.parametrize(("recipe", "named", "remedy"), BAD_RECIPES.values(), ids=BAD_RECIPES)
def test_recipes_that_do_not_fit(conv: Workload, recipe: Recipe, named: str, remedy: str) -> None:
    message = refusal(conv, recipe)
    assert named in message and remedy in message


def raising(*args: Any) -> float:
    raise KeyError("labels")


BAD_EVALUATIONS = {
    "raises": (raising, "labels"),
    "nan": (lambda model: math.nan, "finite number"),
    "infinite": (lambda model: math.inf, "finite number"),
    "none": (lambda model: None, "number"),
    "text": (lambda model: "good", "number"),
    "vector": (lambda model: torch.ones(3), "number"),
}


@pytest.mark.parametrize(("evaluate", "told"), BAD_EVALUATIONS.values(), ids=BAD_EVALUATIONS)
def test_an_evaluate_that_fails(conv_net: nn.Module, evaluate, told: str) -> None:
    message = refusal(as_workload(conv_net, *images(), evaluate=evaluate))
    assert "evaluate of workload 'tiny'" in message and told in message


def breaking(model: nn.Module, epochs: int, progress: Callable[..., None]) -> None:
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)


BAD_TRAININGS = {
    "missing": (None, "no train function; give Workload(train=...) or use mode 'static'"),
    "raises": (raising, "train of workload 'tiny' failed: 'labels'"),
    "diverges": (breaking, "diverged to NaN in epoch 1; lower its rate"),
}


@pytest.mark.parametrize(("train", "told"), BAD_TRAININGS.values(), ids=BAD_TRAININGS)
def test_a_training_that_fails(conv_net: nn.Module, train, told: str) -> None:
    message = refusal(as_workload(conv_net, *images(), train=train), QAT)
    assert told in message and "'tiny'" in message


ODD_VALUES = {"nan": math.nan, "infinite": math.inf}


@pytest.mark.parametrize("value", ODD_VALUES.values(), ids=ODD_VALUES)
@pytest.mark.parametrize("recipe", [STATIC, Recipe(), DYNAMIC], ids=["minmax", "histogram", "dynamic"])
def test_odd_values_in_the_data(recipe: Recipe, value: float) -> None:
    x = X.clone()
    x[3, 1] = value
    message = refusal(as_workload(nn.Sequential(nn.Linear(4, 4)), X, x), recipe)
    assert "'input'" in message and "mend the data" in message


class Divides(nn.Module):
    """Gives infinite values where it meets a zero."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 1 / x


@pytest.mark.parametrize("recipe", [STATIC, DYNAMIC], ids=["static", "dynamic"])
def test_odd_values_inside_name_the_layer(recipe: Recipe) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), Divides(), nn.Linear(4, 2))
    message = refusal(as_workload(model, X, evaluate=lambda model: 1.0), recipe)
    assert "'2." in message and "NaN or infinite" in message


def test_an_untraceable_model_is_for_dynamic_mode(make: Callable[..., Workload], untraceable: nn.Module) -> None:
    workload = make(untraceable, normal(8, 6), train=train_a_little)
    for recipe in (STATIC, QAT):
        message = refusal(workload, recipe)
        assert "module 'gate'" in message and "mode 'dynamic'" in message
    run = quantize(workload, DYNAMIC)
    assert list(run.layers.index) == ["first", "last"]
    assert run.metrics["sqnr_db"] > 20


def test_dynamic_mode_needs_a_layer_it_knows(make: Callable[..., Workload]) -> None:
    message = refusal(make(nn.Sequential(nn.Conv2d(3, 2, 3)), images()[0]), DYNAMIC)
    assert "Linear, LSTM and GRU" in message and "mode 'static' or 'qat'" in message


BAD_MODELS = {
    "meta": (lambda: nn.Linear(4, 4, device="meta"), "on meta", "model.cpu()"),
    "half": (lambda: nn.Linear(4, 4).half(), "torch.float16", "model.float()"),
    "double": (lambda: nn.Linear(4, 4).double(), "torch.float64", "model.float()"),
    "bfloat": (lambda: nn.Linear(4, 4).bfloat16(), "torch.bfloat16", "model.float()"),
}


@pytest.mark.parametrize(("make_model", "named", "remedy"), BAD_MODELS.values(), ids=BAD_MODELS)
@pytest.mark.parametrize("recipe", [STATIC, DYNAMIC], ids=["static", "dynamic"])
def test_models_of_another_kind(make_model, named: str, remedy: str, recipe: Recipe) -> None:
    message = refusal(as_workload(nn.Sequential(make_model()), X), recipe)
    assert "'0.weight'" in message and named in message and remedy in message


def test_a_nan_weight_is_named() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    nn.init.constant_(model[0].bias, math.nan)
    assert "'0.bias'" in refusal(as_workload(model, X))


NO_TENSOR = {"nothing": lambda x: None, "text": lambda x: "done", "empty": lambda x: ()}


@pytest.mark.parametrize("output", NO_TENSOR.values(), ids=NO_TENSOR)
@pytest.mark.parametrize("recipe", [STATIC, DYNAMIC], ids=["static", "dynamic"])
def test_a_model_has_to_return_a_tensor(recipe: Recipe, output) -> None:
    message = refusal(as_workload(From(output), X, evaluate=lambda model: 1.0), recipe)
    assert "returns no tensor" in message


def test_a_model_that_fails_on_its_data_is_named() -> None:
    message = refusal(as_workload(nn.Sequential(nn.Linear(4, 4)), normal(8, 5), evaluate=lambda model: 1.0))
    assert "'tiny'" in message


BAD_WORKLOADS = {
    "model": ({"model": "resnet"}, "model of workload 'tiny' is a str; give a torch.nn.Module"),
    "evaluate": ({"evaluate": 0.9}, "evaluate of workload 'tiny' is not callable; give a function"),
    "train": ({"train": 3}, "train of workload 'tiny' is not callable; give a function"),
}


@pytest.mark.parametrize(("settings", "told"), BAD_WORKLOADS.values(), ids=BAD_WORKLOADS)
def test_workloads_are_checked(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(QexploreError) as error:
        Workload(**{"name": "tiny", "model": nn.Linear(4, 4), "calibration": [X], "evaluate": raising} | settings)
    assert told in str(error.value)


# Models of every shape.


class Tied(nn.Module):
    """Two Linears with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)))


class TwoInputs(nn.Module):
    """Adds two projections."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return self.a(left) + self.b(right)


class Symbols(nn.Module):
    """Reads whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.fc = nn.Embedding(10, 4), nn.Linear(4, 3)

    def forward(self, symbols: torch.Tensor) -> torch.Tensor:
        return self.fc(self.embedding(symbols).mean(1))


def two_layers(*extra: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), *extra)


SHAPES = {
    "root-linear": (lambda: nn.Linear(4, 3), X),
    "sequential": (two_layers, X),
    "nested-sequential": (lambda: nn.Sequential(two_layers(), nn.Sequential(nn.Linear(3, 2))), X),
    "tied": (Tied, X),
    "two-inputs": (TwoInputs, (X, X.flip(0))),
    "list-batch": (TwoInputs, [X, X.flip(0)]),
    "dict-batch": (TwoInputs, {"right": X, "left": X.flip(0)}),
    "tuple-output": (lambda: From(lambda y: (y, y * 2)), X),
    "dict-output": (lambda: From(lambda y: {"logits": y}), X),
    "integers": (Symbols, torch.arange(12).reshape(4, 3) % 10),
    "batch-of-one": (two_layers, X[:1]),
    "no-bias": (lambda: nn.Sequential(nn.Linear(4, 3, bias=False)), X),
    "one-output": (lambda: nn.Sequential(nn.Linear(4, 1)), X),
    "dropout": (lambda: two_layers(nn.Dropout(0.5)), X),
    "frozen": (lambda: two_layers().requires_grad_(False), X),
}


@pytest.mark.parametrize("recipe", [STATIC, DYNAMIC, FOUR_BITS], ids=["static", "dynamic", "simulated"])
@pytest.mark.parametrize(("make_model", "batch"), SHAPES.values(), ids=SHAPES)
def test_models_of_every_shape(make_model, batch, recipe: Recipe) -> None:
    torch.manual_seed(0)
    workload = as_workload(make_model().eval(), batch)
    run = quantize(workload, recipe)
    assert len(run.layers) and run.layers.quantized.any()
    assert set(run.tensors.kind) == {"activation", "weight"}
    assert (8 if recipe is FOUR_BITS else 25) < run.metrics["sqnr_db"] < 60  # quantized, and still close
    assert run.metrics["float"] == pytest.approx(workload.evaluate(workload.model))
    assert (run.layers.sqnr_db > 5).all()


def test_in_place_operations_change_no_figure(make: Callable[..., Workload]) -> None:
    for fuse in (True, False):
        recipe = dataclasses.replace(STATIC, fuse=fuse)
        plain, inplace = (quantize(make(seeded_model(ResidualNet, kind), *images()), recipe) for kind in (False, True))
        assert_same_figures(plain, inplace, ["tensors", "layers", "metrics", "histograms"])


@pytest.mark.skipif("fbgemm" not in torch.backends.quantized.supported_engines, reason="fbgemm is for x86")
def test_transposed_and_depthwise_convolutions(make: Callable[..., Workload]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.ReLU6(), nn.ConvTranspose2d(3, 2, 2, stride=2))
    recipe = Recipe(activation=MIN_MAX, weight=TensorSpec(symmetric=True), engine="fbgemm")
    run = quantize(make(model, *images()), recipe)
    assert run.metrics["sqnr_db"] > 30
    assert run.layers.loc[["0", "2"], "quantized"].all()


# Progress and Cancel.


@MODES
def test_progress_only_grows_and_ends_at_one(conv: Workload, recipe: Recipe) -> None:
    said: list[tuple[str, float]] = []
    quantize(conv, recipe, progress=lambda message, fraction: said.append((message, fraction)))
    fractions = [fraction for _, fraction in said]
    assert fractions == sorted(fractions)
    assert fractions[0] >= 0 and fractions[-1] == 1 and fractions.count(1) <= 2
    assert all(isinstance(message, str) and message for message, _ in said)
    assert len(said) > 10


def test_a_wild_progress_of_train_is_held_in_bounds(conv_net: nn.Module) -> None:
    def train(model: nn.Module, epochs: int, progress: Callable[..., None]) -> None:
        for fraction in (-1, 0.5, 70, 0.2, None):
            progress("Training", fraction, loss=1.0)
        progress()

    said: list[float] = []
    workload = as_workload(conv_net, *images(), train=train)
    quantize(workload, QAT, progress=lambda message, fraction: said.append(fraction))
    assert min(said) >= 0 and max(said) == said[-1] == 1


def test_cancelled_before_it_begins(conv_net: nn.Module) -> None:
    cancel = threading.Event()
    cancel.set()
    evaluations: list[nn.Module] = []
    with pytest.raises(Cancelled):
        quantize(as_workload(conv_net, *images(), evaluate=evaluations.append), cancel=cancel)
    assert not evaluations


@pytest.mark.parametrize("step", ["Calibration", "Observing", "Comparing", "Measuring", "Timing"])
def test_cancelled_at_a_step(conv: Workload, step: str) -> None:
    cancel, said = threading.Event(), []

    def progress(message: str, fraction: float) -> None:
        said.append(message)
        if message.startswith(step):
            cancel.set()

    with pytest.raises(Cancelled):
        quantize(conv, progress=progress, cancel=cancel)
    assert sum(message.startswith(step) for message in said) == 1
    assert said[-1].startswith(step)


def test_cancelled_within_an_evaluation(conv_net: nn.Module) -> None:
    cancel, passes = threading.Event(), []

    def evaluate(model: nn.Module) -> float:
        for position in range(10):
            model(images()[0])
            passes.append(position)
            if position == 2:
                cancel.set()
        return 1.0

    with pytest.raises(Cancelled):
        quantize(as_workload(conv_net, *images(), evaluate=evaluate), cancel=cancel)
    assert passes == [0, 1, 2]


@pytest.mark.parametrize("reports", [True, False], ids=["reporting", "silent"])
def test_cancelled_within_the_training(conv_net: nn.Module, reports: bool) -> None:
    cancel, steps = threading.Event(), []

    def train(model: nn.Module, epochs: int, progress: Callable[..., None]) -> None:
        for step in range(10):
            if not reports or step < 2:
                model(images()[0])
            steps.append(step)
            if step == 2:
                cancel.set()
            if reports:
                progress("Training", step / 10)

    with pytest.raises(Cancelled):
        quantize(as_workload(conv_net, *images(), train=train), QAT, cancel=cancel)
    assert steps == [0, 1, 2]


# Figures that hold together.


@pytest.mark.parametrize("kind", ["dynamic", "static", "qat", "simulated"])
def test_save_and_load(runs: dict[str, Run], kind: str, tmp_path) -> None:
    run = runs[kind]
    loaded = load_run(run.save(tmp_path / "run.json"))
    assert_same_figures(run, loaded, RECORDED)
    assert loaded.model is None and loaded.simulated is None and loaded.pictures == {}
    assert loaded.loss == run.loss and loaded.quantized_metric == run.quantized_metric
    assert loaded.save(tmp_path / "again.json").read_text() == (tmp_path / "run.json").read_text()


def test_save_and_load_of_odd_numbers(runs: dict[str, Run], tmp_path) -> None:
    layers = runs["static"].layers.copy()
    layers["mse"] = [math.nan, math.inf, -math.inf, *[0.1] * (len(layers) - 3)]
    run = dataclasses.replace(runs["static"], layers=layers, metrics={**runs["static"].metrics, "sqnr_db": math.inf})
    path = run.save(tmp_path / "run.json")
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert_same_figures(run, load_run(path), RECORDED)


def test_per_channel_cells_are_tuples_again(runs: dict[str, Run], tmp_path) -> None:
    weights = load_run(runs["static"].save(tmp_path / "run.json")).tensors.set_index("name")
    scale = weights[weights.kind == "weight"].scale["stem"]
    assert isinstance(scale, tuple) and len(scale) == 8


NO_RUNS = {
    "garbage": b"\x00\xff\xfe",
    "empty": b"",
    "text": b"hello",
    "list": b"[1, 2]",
    "number": b"3",
    "other-json": b'{"name": "x"}',
    "notebook": b'{"cells": [], "nbformat": 4}',
    "only-format": b'{"format": "qexplore run 1"}',
    "older": b'{"format": "qexplore run 0"}',
}


@pytest.mark.parametrize("content", NO_RUNS.values(), ids=NO_RUNS)
def test_what_is_no_saved_run(tmp_path, content: bytes) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(QexploreError, match=r"run\.json.* is no saved run") as error:
        load_run(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("field", ["tensors", "layers", "histograms", "recipe"])
def test_a_damaged_run_is_refused(runs: dict[str, Run], tmp_path, field: str) -> None:
    path = runs["static"].save(tmp_path / "run.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: 3}))
    with pytest.raises(QexploreError):
        load_run(path)


def test_a_missing_run_is_named(tmp_path) -> None:
    with pytest.raises(QexploreError, match=r"Cannot read the run .*missing\.json"):
        load_run(tmp_path / "missing.json")


def test_below_eight_bits_there_is_only_a_simulation(runs: dict[str, Run]) -> None:
    run = runs["simulated"]
    assert run.model is None and run.speed is None and run.metrics["int8"] is None
    assert run.size["estimated"] and run.layers.int8_bytes.isna().all()
    assert run.quantized_metric == run.metrics["simulated"]
    parameters = sum(p.numel() for p in run.simulated.parameters())
    assert run.size["int8_bytes"] > parameters // 2
    assert 1 < run.size["ratio"] < 16


def test_eight_bits_are_measured(runs: dict[str, Run]) -> None:
    for kind in ("static", "dynamic", "qat"):
        run = runs[kind]
        assert run.model is not None and not run.size["estimated"]
        assert run.size["ratio"] == run.size["float_bytes"] / run.size["int8_bytes"]
        assert run.speed["float_ms"] > 0 and run.speed["int8_ms"] > 0 and run.speed["batch"] == 8
        assert run.speed["speedup_low"] <= run.speed["speedup"] <= run.speed["speedup_high"]
        assert run.quantized_metric == run.metrics["int8"]


def test_metrics_are_those_of_the_models(runs: dict[str, Run], conv: Workload) -> None:
    run = runs["static"]
    models = {"float": conv.model, "simulated": run.simulated, "int8": run.model}
    assert {kind: accuracy(model) for kind, model in models.items()} == {kind: run.metrics[kind] for kind in models}
    x = torch.cat(images())
    with torch.no_grad():
        wanted, got = conv.model(x), run.model(x)
    assert run.metrics["agreement"] == pytest.approx(float((wanted.argmax(1) == got.argmax(1)).float().mean()))
    assert run.metrics["sqnr_db"] == pytest.approx(sqnr_db(wanted, got), abs=1e-3)
    assert run.layers.sqnr_db["fc"] == pytest.approx(sqnr_db(wanted, got), abs=1e-3)


def test_sizes_are_those_of_the_files(runs: dict[str, Run], conv: Workload, tmp_path) -> None:
    for kind, model in (("float_bytes", conv.model), ("int8_bytes", runs["static"].model)):
        torch.save(model.state_dict(), tmp_path / kind)
        assert runs["static"].size[kind] == pytest.approx(
            (tmp_path / kind).stat().st_size, rel=0.05
        )  # file names count
    layers = runs["static"].layers
    assert layers.float_bytes["fc"] == 4 * (32 * 5 + 5)
    assert 32 * 5 <= layers.int8_bytes["fc"] < layers.float_bytes["fc"]


def test_qat_keeps_a_history(runs: dict[str, Run]) -> None:
    history = runs["qat"].history
    assert history.epoch.tolist() == [0, 1, 2]
    assert math.isnan(history.loss[0]) and history.loss[2] < history.loss[1]
    assert history.metric.between(0, 1).all()
    assert runs["static"].history.empty and list(runs["static"].history) == ["epoch", "loss", "metric"]


def test_qat_losses_are_those_reported(conv_net: nn.Module) -> None:
    def train(model: nn.Module, epochs: int, progress: Callable[..., None]) -> None:
        for loss in (2.0, 4.0):
            progress("Training", 0.5, loss=loss)

    assert quantize(as_workload(conv_net, *images(), train=train), QAT).history.loss.tolist()[1:] == [3.0, 3.0]


def test_a_training_that_never_reports(conv_net: nn.Module) -> None:
    history = quantize(as_workload(conv_net, *images(), train=lambda *args: None), QAT).history
    assert history.loss.isna().all() and len(history) == 3


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "unfused"])
def test_qat_freezes_ranges_and_batchnorm_at_the_end(conv_net: nn.Module, fuse: bool) -> None:
    seen: list[list[torch.Tensor]] = []

    def train(model: nn.Module, epochs: int, progress: Callable[..., None]) -> None:
        model(images()[0] * 3)
        names = ("running_mean", "running_var", "min_val", "max_val")
        seen.append([value.clone() for name, value in model.named_buffers() if name.endswith(names)])

    quantize(as_workload(conv_net, *images(), train=train), dataclasses.replace(QAT, epochs=6, fuse=fuse))
    second_free, frozen = zip(*seen[:2], strict=True), zip(*seen[1:3], strict=True)
    assert not all(torch.equal(a, b) for a, b in second_free)
    assert all(torch.equal(a, b) for a, b in frozen)


OUTPUTS = {
    "classes": (nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), True),
    "images": (nn.Sequential(nn.Conv2d(3, 3, 3, padding=1)), False),
    "one-number": (nn.Sequential(nn.Flatten(), nn.Linear(192, 1)), False),
}


@pytest.mark.parametrize(("model", "has_classes"), OUTPUTS.values(), ids=OUTPUTS)
def test_agreement_is_for_classes(model: nn.Module, has_classes: bool) -> None:
    run = quantize(as_workload(model, *images()))
    assert (run.metrics["agreement"] is not None) == has_classes
    maps_images = isinstance(model[0], nn.Conv2d)
    assert set(run.pictures) == ({"input", "float", "int8"} if maps_images else set())


def test_layers_are_in_the_order_of_the_model(runs: dict[str, Run], lstm: Workload) -> None:
    for kind in ("static", "qat", "simulated"):
        layers = [name for name in runs[kind].layers.index if runs[kind].layers.weight_sqnr_db.notna()[name]]
        assert layers == ["stem", "block.conv1", "block.conv2", "fc"]
        rows = runs[kind].layers.index
        assert rows.is_unique and list(rows).index("block.conv2") < list(rows).index("fc") == len(rows) - 1
    assert list(quantize(lstm, DYNAMIC).layers.index) == ["lstm", "out"]
    assert runs["static"].tensors.name[0] == "input"


@pytest.mark.parametrize("kind", ["static", "qat"])
def test_scales_are_those_in_the_model(runs: dict[str, Run], kind: str) -> None:
    run = runs[kind]
    activations = run.tensors[run.tensors.kind == "activation"].set_index("layer")
    weights = run.tensors[run.tensors.kind == "weight"].set_index("layer")
    for name in ("stem", "block.conv1", "block.conv2", "fc"):
        module = run.model.get_submodule(name)
        assert module.scale == pytest.approx(activations.scale[name], rel=1e-7)
        assert module.zero_point == activations.zero_point[name]
        assert weights.scale[name] == pytest.approx(module.weight().q_per_channel_scales().tolist(), rel=1e-7)
        assert list(weights.zero_point[name]) == module.weight().q_per_channel_zero_points().tolist()
        assert run.layers.scale[name] == activations.scale[name]


def test_ranges_follow_from_scale_and_codes(runs: dict[str, Run]) -> None:
    rows = runs["static"].tensors[runs["static"].tensors.kind == "activation"]
    for row in rows.itertuples():
        assert row.lo == pytest.approx((row.quant_min - row.zero_point) * row.scale, rel=1e-6)
        assert row.hi == pytest.approx((row.quant_max - row.zero_point) * row.scale, rel=1e-6)
        assert row.lo - row.scale <= min(row.observed_min, 0) and max(row.observed_max, 0) <= row.hi + row.scale
        assert row.clipped == 0  # min-max clips nothing


def test_histograms_count_every_value(runs: dict[str, Run]) -> None:
    run = runs["static"]
    assert {f"{row.kind}:{row.name}" for row in run.tensors.itertuples()} == set(run.histograms)
    assert sum(run.histograms["activation:input"].counts) == pytest.approx(24 * 3 * 64)
    assert sum(run.histograms["weight:fc"].counts) == 32 * 5


def test_loss_knows_which_way_is_better(runs: dict[str, Run]) -> None:
    better = dataclasses.replace(runs["static"], metrics={"float": 2.0, "simulated": 1.0, "int8": 1.5})
    assert better.loss == 0.5
    assert dataclasses.replace(better, higher_is_better=False).loss == -0.5


def test_batches_survive_a_model_that_works_in_place(make: Callable[..., Workload], quick_timing: None) -> None:
    class Scales(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x *= 0.5
            return self.fc(x)

    batch = normal(16, 6)
    before = batch.clone()
    run = quantize_workload(make(seeded_model(Scales), batch), Recipe())
    assert torch.equal(batch, before)
    assert run.metrics["sqnr_db"] > 25


def test_layers_of_an_int8_lstm_count_each_tensor_once(lstm: Workload) -> None:
    run = quantize(lstm, Recipe(mode="dynamic"))
    row = run.layers.loc["lstm"]
    codes, scales, biases = 64 * (8 + 16), 2 * 64 * 16, 2 * 64 * 4
    assert row.int8_bytes == codes + scales + biases
    assert row.float_bytes == 4 * codes + biases
