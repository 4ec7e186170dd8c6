"""The explorer's tab about where the error comes from, through its widgets' state."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import qexplore as qx
from qexplore import QexploreError, Recipe, TensorSpec, Workload
from qexplore.widgets.explorer import Explorer
from qexplore.widgets.results import SOURCES

BROKEN = Recipe(weight=TensorSpec(symmetric=True))


@pytest.fixture(scope="module")
def explorer() -> Explorer:
    made = qx.explore(qx.workload("digits_mobile"), BROKEN)
    made.wait()
    made.results.open_tab(SOURCES)
    made.wait()
    return made


def test_the_controls_begin_with_the_recipe_given(explorer: Explorer) -> None:
    assert explorer.recipe == BROKEN
    with pytest.raises(QexploreError, match="without a workload"):
        qx.explore(recipe=BROKEN)


def test_opening_the_tab_finds_the_causes(explorer: Explorer) -> None:
    found = explorer.sources.found
    assert found is not None
    assert found.diagnosis.findings[0].cause == "channel imbalance"
    assert "channel imbalance" in explorer.sources.note
    assert explorer.sources.layer.value == found.diagnosis.findings[0].layer
    assert explorer.sources.figure.shown is not None


def test_every_view_can_be_drawn(explorer: Explorer) -> None:
    titles = set()
    for view in explorer.sources.view.options:
        explorer.sources.view.value = view
        shown = explorer.sources.figure.shown
        assert shown is not None and len(shown.data)
        titles.add(shown.to_json())
    assert len(titles) == len(explorer.sources.view.options)


def test_a_click_on_a_bar_chooses_its_layer(explorer: Explorer) -> None:
    explorer.sources.figure._answer(None, {"kind": "click", "customdata": ["blocks.1.pointwise", "text"]}, [])
    assert explorer.sources.layer.value == "blocks.1.pointwise"
    explorer.sources.figure._answer(None, {"kind": "click", "customdata": ["nothing like it"]}, [])
    assert explorer.sources.layer.value == "blocks.1.pointwise"


def test_a_layer_leads_to_its_histogram(explorer: Explorer) -> None:
    explorer.sources.layer.value = "blocks.1.depthwise"
    explorer.sources._histograms.children[1].click()
    assert explorer.results.title == "Weights"
    assert explorer.results.tensor.value == ("weight", "blocks.1.depthwise")
    explorer.results.open_tab(SOURCES)


def test_a_fix_is_set_expected_and_measured(explorer: Explorer, quick_timing: None) -> None:
    sources = explorer.sources
    button = next(b for b in sources.buttons if b.description.startswith("Equalize channels"))
    fix = next(f for f in sources.found.diagnosis.findings[0].fixes if f.recipe.steps == ("equalize",))
    button.click()
    assert explorer.recipe == fix.recipe
    assert explorer.controls.by_name["step_equalize"].value
    assert "Press Quantize" in sources.note
    explorer.quantize()
    explorer.wait()
    run = explorer.runs[-1]
    assert run.recipe == fix.recipe
    guess = sources.found.expected[fix.recipe]
    assert guess.sqnr_db == pytest.approx(run.metrics["sqnr_db"], abs=3.0)  # a factor of two in squared error
    assert run.metrics["int8"] > 0.95
    assert f"measured {run.metrics['sqnr_db']:.1f} dB" in sources.note


def test_moved_controls_make_it_stale(make: Callable[..., Workload], conv: Workload) -> None:
    explorer = qx.explore(conv)
    explorer.wait()
    explorer.results.open_tab(SOURCES)
    explorer.wait()
    fresh = explorer.sources.note
    explorer.controls.by_name["activation_bits"].value = 5
    assert "settings before" in explorer.sources.note
    explorer.controls.by_name["activation_bits"].value = 8
    assert explorer.sources.note == fresh


def test_a_model_without_a_graph_says_why(untraceable: object, make: Callable[..., Workload]) -> None:
    from tests.conftest import normal

    explorer = qx.explore(make(untraceable, normal(4, 6)))
    explorer.wait()
    explorer.results.open_tab(SOURCES)
    explorer.wait()
    assert "needs its graph" in explorer.error_panel.message
    assert explorer.sources.found is None
