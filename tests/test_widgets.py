"""The explorer's widgets, through their state: what applies, what recipe they add up to, what stays after errors."""

from __future__ import annotations

import html
import json
import threading
import time

import pytest
import torch
from torch import nn

import qexplore as qx
from qexplore.exclusive import exclusive
from qexplore.glossary import GLOSSARY
from qexplore.plots import PLOTS
from qexplore.widgets.availability import unavailable
from qexplore.widgets.chooser import Chooser, description
from qexplore.widgets.controls import Controls
from qexplore.widgets.explorer import Explorer
from qexplore.widgets.results import RUNS, TABLE

WAIT = 60


@pytest.fixture
def workload() -> qx.Workload:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()
    batches = [torch.randn(4, 1, 8, 8) for _ in range(2)]

    def evaluate(candidate: nn.Module) -> float:
        with torch.no_grad():
            return float(candidate(batches[0]).argmax(1).float().mean())

    def train(candidate: nn.Module, epochs: int, progress: object) -> None:
        for step in range(200):
            candidate(batches[0])
            time.sleep(0.01)
            progress(f"step {step}", step / 200, loss=1.0)  # type: ignore[operator]

    return qx.Workload("tiny", model, batches, evaluate, train=train)


@pytest.fixture
def explorer(workload: qx.Workload) -> Explorer:
    return opened(workload)


def opened(workload: qx.Workload) -> Explorer:
    explorer = Explorer(workload)
    explorer.wait(WAIT)
    return explorer


def run(explorer: Explorer) -> None:
    explorer.quantize()
    explorer.task.wait(WAIT)
    assert not explorer.task.busy


def test_default_controls_are_the_default_recipe(explorer: Explorer) -> None:
    assert explorer.recipe == qx.Recipe()


@pytest.mark.parametrize(
    "recipe",
    [
        qx.Recipe(),
        qx.Recipe(mode="qat", fuse=False, epochs=7, seed=3, engine="fbgemm", overflow_guard="weights"),
        qx.Recipe(activation=qx.TensorSpec("minmax", 5, symmetric=True), weight=qx.TensorSpec("minmax", 4)),
        qx.Recipe(rules=(qx.LayerRule("0", keep_float=True), qx.LayerRule("4", weight=qx.TensorSpec(bits=4)))),
        qx.Recipe(steps=("equalize", "adaround", "bias_correction")),
    ],
    ids=["default", "qat", "low bits", "rules", "steps"],
)
def test_controls_show_a_recipe_and_give_it_back(explorer: Explorer, recipe: qx.Recipe) -> None:
    if recipe.engine not in ("auto", *torch.backends.quantized.supported_engines):
        pytest.skip(f"this PyTorch lacks {recipe.engine}")
    explorer.controls.show(recipe)
    assert explorer.recipe == recipe


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"mode": "dynamic"},
            {"activation_observer", "activation_scheme", "fuse", "overflow_guard", "epochs"}
            | {"step_equalize", "step_batchnorm", "step_bias_correction"},
        ),
        ({"mode": "static"}, {"epochs"}),
        ({"mode": "qat"}, set()),
        ({"mode": "qat", "weight_observer": "histogram"}, {"weight_granularity"}),
        ({"mode": "qat", "engine": "onednn"}, {"weight_scheme"}),
        ({"mode": "qat", "weight_bits": 4}, {"engine", "overflow_guard"}),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_controls_that_do_not_apply_say_why(explorer: Explorer, changes: dict, expected: set) -> None:
    reasons = unavailable(explorer.controls.values | changes)
    assert set(reasons) == expected
    assert all(reason.endswith(".") for reason in reasons.values())


def test_disabled_controls_show_their_reason(explorer: Explorer) -> None:
    controls: Controls = explorer.controls
    controls.by_name["mode"].value = "dynamic"
    assert controls.by_name["fuse"].disabled
    assert "nothing is fused" in controls._notes["fuse"].value
    controls.by_name["mode"].value = "static"
    assert not controls.by_name["fuse"].disabled
    assert controls._notes["fuse"].value == ""


def test_a_mode_the_workload_cannot_do_is_explained_and_blocked(workload: qx.Workload) -> None:
    explorer = Explorer(qx.Workload("fixed", workload.model, workload.calibration, workload.evaluate))
    explorer.wait(WAIT)
    explorer.controls.by_name["mode"].value = "qat"
    assert explorer.quantize_button.disabled
    assert "no train function" in explorer.quantize_button.tooltip
    explorer.controls.by_name["mode"].value = "static"
    assert not explorer.quantize_button.disabled


def test_quantize_fills_headline_table_and_tabs(explorer: Explorer) -> None:
    run(explorer)
    assert explorer.run is not None and explorer.runs == [explorer.run]
    assert "static" in explorer.table.value
    assert "KiB" in explorer.headline.value
    assert explorer.progress.value == 1.0
    titles = set()
    for title in [*PLOTS, RUNS, TABLE]:
        explorer.results.open_tab(title)
        assert explorer.results.title == title
        shows_tensor = title in {"Activations", "Weights", "Channels", "Codes", "Observers", "Clip range"}
        assert (explorer.results.tensor.layout.display is None) == shows_tensor
        titles.add(explorer.results.figure.shown.layout.title.text)
    assert len(titles) == len(list(PLOTS)) + 1


def test_the_figure_is_kept_and_drawn_again(explorer: Explorer) -> None:
    run(explorer)
    explorer.results.open_tab("Activations")
    figure, tensor = explorer.results.figure, explorer.results.tensor
    before = figure.shown.layout.title.text
    tensor.value = tensor.options[-1][1]
    assert explorer.results.figure is figure
    assert figure.shown.layout.title.text != before
    assert json.loads(figure.figure)["layout"]["title"]["text"] == figure.shown.layout.title.text


def test_a_second_run_is_a_second_row_and_the_first_can_be_shown_again(explorer: Explorer) -> None:
    run(explorer)
    first = explorer.run
    explorer.controls.by_name["weight_granularity"].value = False
    run(explorer)
    assert len(explorer.runs) == 2 and explorer.run is explorer.runs[1]
    explorer.shown.value = 0
    assert explorer.run is first
    explorer.reuse_button.click()
    assert explorer.recipe == first.recipe


def test_an_error_shows_in_the_panel_and_the_last_result_stays(explorer: Explorer) -> None:
    run(explorer)
    headline = explorer.headline.value
    explorer.controls.rules.pattern.value = "no_such_layer"
    explorer.controls.rules.add.click()
    run(explorer)
    assert "no_such_layer" in explorer.error_panel.message
    assert explorer.error_panel.layout.display == "flex"
    assert len(explorer.runs) == 1 and explorer.headline.value == headline
    explorer.controls.rules.show(())
    run(explorer)
    assert explorer.error_panel.message == "" and len(explorer.runs) == 2


def test_html_in_names_is_escaped_in_the_error_panel(explorer: Explorer) -> None:
    explorer.error_panel.show(qx.QexploreError("<script>alert(1)</script>"), False)
    assert "<script>" not in explorer.error_panel.message


def test_cancel_stops_training_and_the_next_run_works(explorer: Explorer) -> None:
    explorer.controls.by_name["mode"].value = "qat"
    explorer.quantize()
    deadline = time.monotonic() + WAIT
    while "Training" not in explorer.status.value and time.monotonic() < deadline:
        time.sleep(0.02)
    assert "Training" in explorer.status.value and not explorer.cancel_button.disabled
    assert explorer.quantize_button.disabled
    pressed = time.monotonic()
    explorer.cancel_button.click()
    explorer.task.wait(WAIT)
    assert time.monotonic() - pressed < 2
    assert "Cancelled" in explorer.status.value and explorer.runs == []
    assert explorer.error_panel.message == ""
    explorer.controls.by_name["mode"].value = "static"
    run(explorer)
    assert len(explorer.runs) == 1


def test_a_second_quantize_while_busy_does_nothing(explorer: Explorer) -> None:
    explorer.controls.by_name["mode"].value = "qat"
    explorer.quantize()
    assert explorer.task.start(lambda progress, cancel: None) is False
    explorer.cancel_button.click()
    explorer.task.wait(WAIT)
    assert threading.active_count() < 20


def test_chooser_keeps_each_workloads_explorer() -> None:
    chooser = Chooser()
    first = chooser.explorer
    assert description(chooser.choice.value)
    chooser.choice.value = "pydoc_lstm"
    assert chooser.explorer.workload.name == "pydoc_lstm"
    chooser.choice.value = first.workload.name
    assert chooser.explorer is first


def test_explorers_work_side_by_side(workload: qx.Workload) -> None:
    """torch.fx replaces Module.__call__ while it traces, in every thread."""
    explorers = [Explorer(workload) for _ in range(3)]
    for explorer in explorers:
        explorer.quantize()
    direct = qx.quantize(workload, qx.Recipe())
    for explorer in explorers:
        explorer.wait(WAIT)
        assert explorer.error_panel.message == ""
        assert explorer.run is not None and explorer.run.metrics == direct.metrics


def test_waiting_for_other_work_can_be_cancelled(explorer: Explorer) -> None:
    with exclusive():
        explorer.quantize()
        time.sleep(0.3)
        explorer.cancel_button.click()
        explorer.task.wait(5)
    assert "Cancelled" in explorer.status.value


def test_a_recurrent_model_begins_with_dynamic_mode_and_says_what_static_leaves() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.LSTM(3, 4))
    explorer = Explorer(qx.Workload("recurrent", model, [torch.randn(5, 2, 3)], lambda candidate: 0.0))
    explorer.wait(WAIT)
    controls = explorer.controls
    assert controls.by_name["mode"].value == "dynamic" and controls._notes["mode"].value == ""
    controls.by_name["mode"].value = "static"
    assert "stay float" in controls._notes["mode"].value and not explorer.quantize_button.disabled


def test_help_and_the_whole_glossary_are_folded_below_the_explorer(explorer: Explorer) -> None:
    text = explorer.children[-1].value
    assert text.count("<details>") == 2 and "<details open" not in text
    assert "Press <i>Quantize</i>" in text
    assert all(html.escape(meaning, quote=False) in text for meaning in GLOSSARY.values())
