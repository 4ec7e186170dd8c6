"""Draws of the calibration data: merged statistics are those of a pass over the same batches, and answers follow."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import qexplore as qx
from qexplore.analysis.draws import calibrated
from qexplore.analysis.draws import merged as merge
from qexplore.analysis.linearize import SAMPLES
from qexplore.analysis.sensitivity import linearized, sensitivity, switches_of, whole_error
from qexplore.analysis.uncertainty import uncertainty
from qexplore.plots.calibration_size import calibration_size
from qexplore.progress import no_report
from tests.conftest import normal

MINMAX = qx.Recipe(activation=qx.TensorSpec(observer="minmax"))


def many(make: Callable[..., qx.Workload], model: nn.Module, *factors: float, same: bool = False) -> qx.Workload:
    """A workload with a batch of 4 images for each factor, which they are multiplied by."""
    return make(model, *(normal(4, 3, 8, 8, seed=0 if same else i) * factor for i, factor in enumerate(factors)))


@pytest.mark.parametrize("observer", ["minmax", "moving_average"])
def test_merged_statistics_of_all_batches_are_those_of_one_pass(conv: qx.Workload, observer: str) -> None:
    recipe = qx.Recipe(activation=qx.TensorSpec(observer=observer))
    batches = list(conv.calibration)
    each = calibrated(conv, batches, no_report, None)
    merged = qx.predict(merge(each, range(len(batches)), {}), recipe)
    whole = qx.predict(qx.calibrate(conv), recipe)
    assert merged.quantized.keys() == whole.quantized.keys()
    for key, t in whole.quantized.items():
        assert torch.equal(t.scale, merged.quantized[key].scale), key
        assert torch.equal(t.zero_point, merged.quantized[key].zero_point), key


@pytest.mark.parametrize("observer", ["minmax", "histogram"])
def test_draws_of_one_batch_are_calibrations_on_it(conv: qx.Workload, observer: str) -> None:
    recipe = qx.Recipe(activation=qx.TensorSpec(observer=observer))
    found = uncertainty(conv, recipe)
    ats = linearized(qx.predict(qx.calibrate(conv), recipe), SAMPLES, no_report, None)
    expected = []
    for batch in conv.calibration:
        alone = qx.predict(qx.calibrate(replace(conv, calibration=[batch])), recipe)
        expected.append(whole_error(switches_of(alone), ats)[1])
    assert len(set(expected)) == 3
    first = found.curve.set_index("batches").loc[1]
    assert first.sqnr_db == pytest.approx(sum(expected) / 3) and first.samples == 8 and first.draws == 3
    assert min(expected) <= first.sqnr_low < first.sqnr_db < first.sqnr_high <= max(expected)


def test_all_batches_give_what_sensitivity_gives(conv: qx.Workload) -> None:
    found, known = uncertainty(conv, MINMAX, metric=True), sensitivity(conv, MINMAX)
    last = found.curve.iloc[-1]
    assert last.sqnr_db == pytest.approx(known.sqnr_db) and last.sqnr_low == last.sqnr_high
    assert found.ranks["rank"].to_dict() == known.layers["rank"].to_dict()
    simulated = qx.quantize(conv, replace(MINMAX, overflow_guard="none")).metrics["simulated"]
    assert last.metric == pytest.approx(simulated, abs=2 / 64)
    assert "metric" not in uncertainty(conv, MINMAX, sizes=[1]).curve


def test_it_follows_from_the_seed(make: Callable[..., qx.Workload], conv_net: nn.Module) -> None:
    workload = many(make, conv_net, *range(1, 7))
    state = torch.random.get_rng_state()
    one, two, other = (uncertainty(workload, replace(MINMAX, seed=s), sizes=[2], draws=2) for s in (0, 0, 1))
    assert torch.equal(state, torch.random.get_rng_state())
    assert one.curve.equals(two.curve) and one.ranks.equals(two.ranks)
    assert not one.curve.equals(other.curve)
    assert one.curve.batches.tolist() == [2, 3, 6] and one.curve.draws.tolist() == [2, 2, 1]


def test_equal_batches_need_no_more_than_one(make: Callable[..., qx.Workload], conv_net: nn.Module) -> None:
    found = uncertainty(many(make, conv_net, *[1.0] * 4, same=True), MINMAX)
    assert found.enough == 4 and found.words.startswith("4 samples are enough")
    assert (found.ranks.stability == 1).all()
    assert (found.ranks.rank_low == found.ranks["rank"]).all() and (found.ranks.rank_high == found.ranks["rank"]).all()


def test_a_batch_unlike_the_others_calls_for_more(make: Callable[..., qx.Workload], conv_net: nn.Module) -> None:
    found = uncertainty(many(make, conv_net, 1, 1, 1, 40), MINMAX)
    assert found.enough is None and found.words.startswith("More than 8 samples are needed")
    half = found.curve.iloc[-2]
    assert half.batches == 2 and half.sqnr_high - half.sqnr_low > 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"draws": 1}, "draws is 1"),
        ({"sizes": [0]}, "sizes is"),
        ({"sizes": [4]}, "from 1 to 3"),
        ({"sizes": 2}, "sizes is 2"),
        ({"recipe": replace(MINMAX, steps=("equalize",))}, "leave the recipe's steps out"),
        ({"recipe": None}, "Recipe"),
    ],
)
def test_bad_arguments_are_refused(conv: qx.Workload, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(qx.QexploreError, match=message):
        uncertainty(**({"workload": conv, "recipe": MINMAX} | settings))


def test_one_batch_cannot_be_drawn_from(conv: qx.Workload) -> None:
    with pytest.raises(qx.QexploreError, match="give smaller batches"):
        uncertainty(replace(conv, calibration=list(conv.calibration)[:1]), MINMAX)


def test_a_model_without_a_graph_is_refused(make: Callable[..., qx.Workload], untraceable: nn.Module) -> None:
    with pytest.raises(qx.QexploreError, match="cannot trace"):
        uncertainty(make(untraceable, normal(4, 6), normal(4, 6)), qx.Recipe(mode="dynamic"))


def test_dynamic_mode_needs_no_calibration(lstm: qx.Workload) -> None:
    found = uncertainty(lstm, qx.Recipe(mode="dynamic"))
    assert found.curve.sqnr_db.nunique() == 1 and found.enough == 4


def test_cancel_stops_it_between_draws_and_progress_rises(conv: qx.Workload) -> None:
    cancel, seen = threading.Event(), list[float]()

    def report(message: str, share: float) -> None:
        seen.append(share)
        if message.startswith("Draw 2"):
            cancel.set()

    with pytest.raises(qx.Cancelled):
        uncertainty(conv, MINMAX, progress=report, cancel=cancel)
    assert seen == sorted(seen) and 0.4 < seen[-1] < 1


def test_the_plot_shows_the_curve_in_its_band(conv: qx.Workload) -> None:
    found = uncertainty(conv, MINMAX)
    shown = calibration_size(found)
    band, line = shown.data
    assert list(line.x) == list(found.curve.samples) and list(line.y) == list(found.curve.sqnr_db)
    assert max(band.y) == found.curve.sqnr_high.max() and min(band.y) == found.curve.sqnr_low.min()
    assert "samples are" in shown.layout.title.text
