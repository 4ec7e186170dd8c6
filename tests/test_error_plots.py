"""The figures of a ledger and of a sensitivity: they hold what the tables say."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import qexplore as qx
from qexplore.analysis.ledger import Ledger
from qexplore.plots import ledger_bars, model_graph, sensitivity_ranks
from qexplore.plots.ledger import noise_to_signal
from qexplore.plots.model_lanes import Node, lanes, layer_graph
from qexplore.plots.words import decibels


class Residual(nn.Module):
    """One residual block, a branch with a layer of its own, and a float join at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.relu, self.relu2 = nn.BatchNorm2d(4), nn.ReLU(), nn.ReLU()
        self.second, self.side = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.last = nn.Conv2d(4, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stem = self.relu(self.stem(x))
        inner = self.second(self.relu2(self.norm(self.first(stem))))
        return x - self.last(inner + self.side(stem))


def ledger_of(model: nn.Module, example: torch.Tensor, recipe: qx.Recipe) -> Ledger:
    workload = qx.Workload("m", model, [example], lambda m: float(m(example).mean()), metric="mean")
    return qx.error_ledger(qx.calibrate(workload), recipe)


@pytest.fixture(scope="module")
def ledger() -> Ledger:
    torch.manual_seed(0)
    return ledger_of(Residual().eval(), torch.randn(4, 1, 8, 8), qx.Recipe())


def bars(figure: Any) -> np.ndarray:
    return np.sum([trace.x for trace in figure.data if trace.type == "bar"], axis=0)


def test_bars_add_up_to_the_output_error(ledger: Ledger) -> None:
    figure = ledger_bars(ledger)
    table = ledger.layers
    assert bars(figure) == pytest.approx(100 * table.output_mse.to_numpy() / table.output_mse.sum())
    first = [trace.x for trace in figure.data if trace.type == "bar"]
    parts = ["activation_rounding", "activation_clipping", "weight_rounding", "weight_clipping"]
    expected = table[[f"output_{part}" for part in parts]].to_numpy()
    assert np.array(first).T / bars(figure)[:, None] == pytest.approx(expected / expected.sum(1, keepdims=True))
    assert [trace.name for trace in figure.data][:4] == [part.replace("_", " ") for part in parts]
    assert figure.layout.xaxis.title.text.endswith("%")


def test_bars_are_in_the_order_asked_for(ledger: Ledger) -> None:
    names = list(ledger.layers.index)
    assert list(ledger_bars(ledger).data[0].customdata[:, 0]) == names
    worst_first = ledger_bars(ledger, "error")
    assert list(worst_first.data[0].customdata[:, 0]) == list(
        ledger.layers.sort_values("output_mse", ascending=False, kind="stable").index
    )
    assert (np.diff(bars(worst_first)) <= 1e-9).all()
    assert worst_first.layout.yaxis.range[0] > worst_first.layout.yaxis.range[1]  # the first is on top
    with pytest.raises(qx.QexploreError, match="order is one of"):
        ledger_bars(ledger, "size")


def test_local_bars_show_what_is_normal(ledger: Ledger) -> None:
    figure = ledger_bars(ledger, what="local")
    signal = ledger.layers.local_mse * 10 ** (ledger.layers.local_sqnr_db / 10)
    assert bars(figure) == pytest.approx(100 * np.sqrt(ledger.layers.local_mse / signal).to_numpy())
    normal = figure.data[-1]
    assert normal.visible and normal.x == pytest.approx(noise_to_signal(ledger.layers.normal_db.to_numpy()))
    assert not ledger_bars(ledger).data[-1].visible
    assert list(noise_to_signal(np.array([20.0, np.inf, -np.inf, np.nan]))) == [10.0, 0.0, 0.0, 0.0]


def test_bars_flag_and_frame_layers(ledger: Ledger) -> None:
    odd = replace(ledger, layers=ledger.layers.assign(unusual=ledger.layers.index == "second"))
    figure = ledger_bars(odd, selected="second")
    place = list(odd.layers.index).index("second")
    labels = list(figure.layout.yaxis.ticktext)
    assert [label for label in labels if "⚠" in label] == ["second ⚠"] and labels[place] == "second ⚠"
    assert "⚠ unusual" in figure.layout.title.text
    (frame,) = figure.layout.shapes
    assert frame.visible and frame.y0 < place < frame.y1
    assert not ledger_bars(odd, selected="nothing").layout.shapes[0].visible


def test_hover_and_facts_tell_the_figures(ledger: Ledger) -> None:
    worst = str(ledger.layers.output_mse.idxmax())
    title = ledger_bars(ledger).layout.title.text
    assert f"Most of the error from {worst}" in title.replace("<br>", " ") and "to first order" in title
    for name, hover in ledger_bars(ledger).data[0].customdata:
        assert hover.startswith(f"{name} ({ledger.layers.kind[name]})")
        assert f"{ledger.layers.local_sqnr_db[name]:.1f} dB" in hover and "0.2887" in hover
        assert decibels(ledger.layers.accumulated_sqnr_db[name]) in hover and "nan" not in hover


def test_a_ledger_without_error_draws_no_bar(ledger: Ledger) -> None:
    exact = ledger.layers.assign(local_sqnr_db=np.inf, share=0.0)
    exact[[name for name in exact if str(name).endswith(("mse", "clipping", "rounding", "cross"))]] = 0.0
    for what in ("output", "local"):
        assert (bars(ledger_bars(replace(ledger, layers=exact), what=what)) == 0).all()
    assert np.isfinite(model_graph(replace(ledger, layers=exact)).data[2].marker.color).all()


def named(ledger: Ledger) -> set[tuple[str, str]]:
    return {(start.name, end.name) for start, end in layer_graph(ledger).edges}


def test_edges_are_those_of_the_model(ledger: Ledger) -> None:
    graph = layer_graph(ledger)
    assert named(ledger) == {
        ("input", "stem"),
        ("stem", "first"),
        ("first", "second"),
        ("stem", "side"),
        ("second", "add"),
        ("side", "add"),
        ("add", "last"),
        ("input", "sub"),
        ("last", "sub"),
        ("sub", "output"),
    }
    assert (Node("layer", "last"), Node("join", "sub")) in graph.edges
    assert (Node("join", "sub"), Node("output", "output")) in graph.edges


def test_edges_of_the_residual_net() -> None:
    """The structure alone matters: calibrated on one batch, with one sample for the gradients."""
    ledger = qx.error_ledger(qx.calibrate(qx.workload("digits")), qx.Recipe(), samples=1)
    expected = {("input", "stem.0"), ("layer2.1.add", "flatten"), ("flatten", "fc"), ("fc", "output")}
    for before, block in (
        ("stem.0", "layer1.0"),
        ("layer1.0.add", "layer1.1"),
        ("layer1.1.add", "layer2.0"),
        ("layer2.0.add", "layer2.1"),
    ):
        expected |= {(before, f"{block}.conv1"), (f"{block}.conv1", f"{block}.conv2")}
        expected |= {(f"{block}.conv2", f"{block}.add"), (before, f"{block}.add")}
    expected.remove(("layer1.1.add", "layer2.0.add"))
    expected |= {("layer1.1.add", "layer2.0.shortcut.0"), ("layer2.0.shortcut.0", "layer2.0.add")}
    assert named(ledger) == expected
    places, edge_lanes = lanes(layer_graph(ledger))
    beside = {node.name for node, (_, lane) in places.items() if lane}
    assert beside == {"layer2.0.shortcut.0"}
    assert max(edge_lanes.values()) == 1  # the shortcuts follow one another: one lane is enough


def test_dynamic_mode_passes_float_operations_through() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.GELU(), nn.Linear(4, 2)).eval()
    torch.manual_seed(0)
    assert named(ledger_of(model, torch.randn(8, 4), qx.Recipe(mode="dynamic"))) == {
        ("input", "0"),
        ("0", "3"),
        ("3", "output"),
    }


class Branches(nn.Module):
    """`blocks` times two branches and a shortcut, and a layer that is used twice."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.left = nn.ModuleList(nn.Linear(4, 4) for _ in range(blocks))
        self.right = nn.ModuleList(nn.Linear(4, 4) for _ in range(blocks))
        self.twice = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.twice(x)
        for left, right in zip(self.left, self.right, strict=True):
            x = x + left(x) + right(x)
        return self.twice(x)


def test_no_edge_runs_through_a_node_and_deep_models_are_quick() -> None:
    torch.manual_seed(0)
    ledger = ledger_of(Branches(20).eval(), torch.randn(8, 4), qx.Recipe(mode="dynamic"))
    places, edge_lanes = lanes(layer_graph(ledger))
    assert len(set(places.values())) == len(places)
    taken = {(lane, row): node for node, (row, lane) in places.items()}
    for (start, end), lane in edge_lanes.items():
        top, bottom = sorted((places[start][0], places[end][0]))
        assert not [taken[lane, row] for row in range(top + 1, bottom) if (lane, row) in taken]
    model_graph(ledger)
    start_s = time.perf_counter()
    figure = model_graph(ledger)
    assert time.perf_counter() - start_s < 1.0  # 0.1 s on an idle machine
    assert len(figure.layout.yaxis.ticktext) == len(places)  # every node has its label


def test_graph_nodes_hold_the_layers(ledger: Ledger) -> None:
    figure = model_graph(ledger, selected="side")
    _, others, layers, texts = figure.data
    assert set(layers.customdata[:, 0]) == set(ledger.layers.index)
    share = ledger.layers.share[list(layers.customdata[:, 0])].to_numpy()
    assert layers.marker.color == pytest.approx(np.log10(np.maximum(100 * share, 1e-3)))
    assert np.isfinite([layers.x, layers.y]).all() and np.isfinite([others.x, others.y]).all()
    assert "%" in layers.marker.colorbar.title.text and all("%" in text for text in texts.text)
    assert not any(others.customdata[:, 0])  # a click on them chooses no layer
    (frame,) = figure.layout.shapes
    row = layers.y[list(layers.customdata[:, 0]).index("side")]
    assert frame.visible and frame.y0 < row < frame.y1
    labels = dict(zip(figure.layout.yaxis.tickvals, figure.layout.yaxis.ticktext, strict=True))
    assert labels[row] == "side"
    assert not model_graph(ledger).layout.shapes[0].visible


def a_sensitivity(values: list[float]) -> qx.Sensitivity:
    count = len(values)
    table = pd.DataFrame(
        {"kind": "Linear", "output_mse": values, "low": np.array(values) / 2, "high": np.array(values) * 2}
        | {"rank": range(1, count + 1), "rank_low": 1, "rank_high": count, "stability": 0.5},
        index=pd.Index([f"l{i}" for i in range(count)], name="layer"),
    )
    return qx.Sensitivity("m", qx.Recipe(), "exact", table, 1.0, 30.0, float("nan"), 1.0, 4, 0.1)


def test_ranks_are_sorted_with_intervals() -> None:
    given = a_sensitivity([1e-4, 0.0, 1e-2])
    figure = sensitivity_ranks(given)
    points, none = figure.data
    assert list(points.customdata[:, 0]) == ["l2", "l0"] and list(points.y) == [0, 1]
    assert list(figure.layout.yaxis.ticktext) == ["l2", "l0", "l1"] and figure.layout.xaxis.type == "log"
    assert points.x + points.error_x.array == pytest.approx([2e-2, 2e-4])
    assert points.x - points.error_x.arrayminus == pytest.approx([5e-3, 5e-5])
    assert list(none.text) == ["no error"] and none.customdata[0, 0] == "l1"
    assert "rank 3, 90 % from 1 to 3" in points.customdata[0, 1] and "50.0 %" in points.customdata[0, 1]
    assert given.words in figure.layout.title.text
    assert "no quantized layers" in sensitivity_ranks(a_sensitivity([])).layout.annotations[0].text
