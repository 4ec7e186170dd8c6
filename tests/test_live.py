"""The live explorer, through its state: predictions follow the controls, and figures say whose they are."""

from __future__ import annotations

import threading

import pytest

import qexplore as qx
from qexplore.widgets import explorer as module
from qexplore.widgets.explorer import Explorer
from tests.test_widgets import WAIT, opened, run

pytestmark = pytest.mark.usefixtures("quick_timing", "own_observers")


@pytest.fixture
def live(conv: qx.Workload) -> Explorer:
    return opened(conv)


def shown_title(live: Explorer) -> str:
    figure = live.results.figure.shown
    assert figure is not None
    return figure.layout.title.text


def test_a_prediction_is_there_before_anything_is_quantized(live: Explorer) -> None:
    assert live.prediction is not None and not live.runs
    assert f"{live.prediction.output_sqnr_db:.1f} dB" in live.predicted.value
    assert "Predicted" in shown_title(live)


@pytest.mark.parametrize(
    ("control", "value"),
    [("activation_bits", 4), ("weight_bits", 3), ("activation_observer", "percentile"), ("fuse", False)],
)
def test_moving_a_control_predicts_again(live: Explorer, control: str, value: object) -> None:
    before = live.predicted.value
    live.controls.by_name[control].value = value
    assert live.prediction is not None and live.prediction.recipe == live.recipe
    assert live.predicted.value != before


def test_an_observers_options_are_controls(live: Explorer) -> None:
    live.controls.by_name["activation_observer"].value = "percentile"
    (control,) = live.controls.options["activation_observer"].by_name.values()
    before = live.predicted.value
    control.value = 80.0
    assert dict(live.recipe.activation.options) == {"percentile": 80.0}
    assert live.predicted.value != before
    live.controls.by_name["activation_observer"].value = "minmax"
    assert live.recipe.activation.options == ()


def test_a_run_is_shown_with_its_prediction_and_other_settings_without_it(live: Explorer) -> None:
    run(live)
    assert "Predicted" not in shown_title(live) and not live.results.live
    assert "for the settings chosen" not in live.predicted.value
    live.controls.by_name["activation_bits"].value = 6
    assert "Predicted" in shown_title(live) and "for the settings chosen" in live.predicted.value
    live.controls.by_name["activation_bits"].value = 8
    assert not live.results.live and live.run is live.runs[0]


def test_an_observer_registered_later_is_offered(live: Explorer) -> None:
    @qx.observer("later")
    def later(stats: qx.TensorStats, spec: qx.TensorSpec) -> tuple[float, float]:
        return stats.lo / 2, stats.hi / 2

    for name in ("activation_observer", "weight_observer"):
        assert "later" in live.controls.by_name[name].options
    live.controls.by_name["activation_observer"].value = "later"
    assert live.prediction is not None and "later" in set(live.prediction.tensors.observer)


def test_a_changed_observer_does_not_pass_for_the_one_that_ran(live: Explorer) -> None:
    qx.observer("mine")(lambda stats, spec: (stats.lo, stats.hi))
    live.controls.by_name["activation_observer"].value = "mine"
    run(live)
    qx.observer("mine")(lambda stats, spec: (stats.lo / 9, stats.hi / 9))
    assert live.results.live and "for the settings chosen" in live.predicted.value
    live.controls.by_name["activation_observer"].value = "minmax"
    run(live)
    live.shown.value = 0
    assert live.run is live.runs[0] and live.predicted.value == ""


def test_a_run_whose_observer_fails_now_can_still_be_shown(live: Explorer) -> None:
    qx.observer("mine")(lambda stats, spec: (stats.lo, stats.hi))
    live.controls.by_name["activation_observer"].value = "mine"
    run(live)
    live.controls.by_name["activation_observer"].value = "minmax"
    run(live)
    qx.observer("mine")(lambda stats, spec: None)
    live.shown.value = 0
    assert live.run is live.runs[0]
    assert "run 1" in live.headline.value


def test_where_nothing_can_be_predicted_the_figures_say_whose_they_are(live: Explorer) -> None:
    live.controls.rules.pattern.value = "nowhere"
    live.controls.rules.add.click()
    assert "nowhere" in live.error_panel.message and live.prediction is None
    assert "settings before" in live.predicted.value
    live.controls.rules._remove(0)
    assert live.error_panel.message == "" and live.prediction is not None


def test_the_last_settings_win_over_a_slow_prediction(live: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, original = threading.Event(), module.predict

    def predict(*arguments: object) -> qx.Prediction:
        made = original(*arguments)
        if threading.current_thread() is background:
            slow.wait(5)
        return made

    monkeypatch.setattr(module, "predict", predict)
    background = threading.Thread(target=live._predict)
    background.start()
    threading.Timer(0.2, slow.set).start()
    live.controls.by_name["activation_bits"].value = 3
    background.join(WAIT)
    assert live.prediction is not None and live.prediction.recipe == live.recipe
    assert f"{live.prediction.output_sqnr_db:.1f} dB" in live.predicted.value


def test_using_a_recipe_predicts_once(live: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    run(live)
    live.controls.by_name["activation_bits"].value = 5
    live.controls.by_name["weight_observer"].value = "mse"
    calls = []
    original = module.predict
    monkeypatch.setattr(module, "predict", lambda *given: calls.append(given) or original(*given))
    live.reuse_button.click()
    assert len(calls) == 1 and live.recipe == live.runs[0].recipe
