"""The figures: what they show of a run, and that any run gives the same shape of figure."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from torch import nn

import qexplore as qx
from qexplore import plots
from qexplore.analysis import speed as timing
from qexplore.plots.channel_ranges import levels_used, spans
from qexplore.plots.pictures import amplification, png
from qexplore.plots.speed import comparison
from qexplore.plots.tensor_rows import Grid, grid, tensor_row
from qexplore.plots.words import decibels, number, percent

FOUR = qx.TensorSpec("minmax", bits=4, symmetric=True, per_channel=True)


class Tiny(nn.Module):
    """Images [N, 1, 12, 12] to images of the same size; one channel of `conv` is far wider than the others."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, padding=1)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(12, 12)
        self.out = nn.Conv2d(6, 1, 1)
        with torch.no_grad():
            self.conv.weight[2] *= 50
            self.conv.weight[4] = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.fc(self.relu(self.conv(x))))


def make_workload() -> qx.Workload:
    torch.manual_seed(0)
    data = [torch.rand(4, 1, 12, 12) for _ in range(2)]
    data[0][0, 0, 0, 0] = 8.0  # an outlier for narrow observers to clip

    def train(model: nn.Module, epochs: int, progress: Callable[..., None]) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
        for _ in range(epochs):
            loss = nn.functional.mse_loss(model(data[0]), data[0])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            progress("step", 1.0, loss=loss.item())

    def evaluate(model: nn.Module) -> float:
        with torch.no_grad():
            return float((model(data[1]) - data[1]).abs().mean())

    return qx.Workload("tiny", Tiny(), data, evaluate, metric="absolute error", train=train, higher_is_better=False)


RECIPES = {
    "static": qx.Recipe(activation=qx.TensorSpec("histogram"), weight=qx.TensorSpec("minmax", symmetric=True)),
    "channels": qx.Recipe(),
    "dynamic": qx.Recipe(mode="dynamic"),
    "simulated": qx.Recipe(
        activation=qx.TensorSpec("minmax", bits=4), weight=FOUR, rules=(qx.LayerRule("fc", keep_float=True),)
    ),
    "qat": qx.Recipe(mode="qat", epochs=2),
}


@pytest.fixture(scope="module")
def runs() -> dict[str, qx.Run]:
    workload = make_workload()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "TOTAL_SECONDS", 0.05)
        patch.setattr(timing, "ROUND_SECONDS", 0.001)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        made = {name: qx.quantize(workload, recipe) for name, recipe in RECIPES.items()}
        torch.set_num_threads(threads)
    return made


def tensors(run: qx.Run, kind: str) -> list[str]:
    return list(run.tensors[run.tensors.kind == kind].name)


def drawn(shown: qx.Run | qx.Prediction, names: list[tuple[str, str]]) -> dict[str, go.Figure]:
    """All figures of a run or a prediction, those of tensors for each (kind, name) they can show."""
    other = "prediction" if isinstance(shown, qx.Run) else "run"
    made = {}
    for title in plots.PLOTS:
        plot = plots.PLOTS[title]
        if plot.of == other:
            continue
        if not plot.tensors:
            made[title] = plot(shown)
        for kind, name in names if plot.tensors else ():
            if kind in plot.tensors:
                made[f"{title}/{kind}/{name}"] = plot(shown, *([kind] if len(plot.tensors) > 1 else []), name)
    return made


def every_figure(run: qx.Run) -> dict[str, go.Figure]:
    """All figures of a run, those of tensors for its first and last one and for one it does not have."""
    names = {kind: tensors(run, kind) for kind in ("activation", "weight")}
    return drawn(run, [(k, each) for k, some in names.items() for each in [*some[::100], some[-1], "nowhere"]])


def figures_of(prediction: qx.Prediction) -> dict[str, go.Figure]:
    """All figures of a prediction, those of tensors for each one."""
    return drawn(prediction, list(prediction.quantized))


@pytest.fixture(scope="module")
def predictions() -> dict[str, qx.Prediction]:
    calibration = qx.calibrate(make_workload())
    return {name: qx.predict(calibration, recipe) for name, recipe in RECIPES.items()}


def text(figure: go.Figure) -> str:
    """Title and sentence of a figure."""
    shown = [figure.layout.title.text, *(note.text for note in figure.layout.annotations if note.visible)]
    return " ".join(shown).replace("<br>", " ")


def axes(figure: go.Figure) -> dict[str, dict]:
    return {key: value for key, value in figure.to_plotly_json()["layout"].items() if key[1:5] == "axis"}


def test_tabs_are_the_figures_of_one_run() -> None:
    assert list(plots.PLOTS) == [
        "Error by layer", "Three-way", "Activations", "Weights", "Channels", "Codes", "Observers", "Clip range",
        "Size", "Speed", "Training", "Pictures",
    ]  # fmt: skip
    assert plots.PLOTS["Weights"].tensors == ("weight",)
    assert plots.PLOTS["Codes"].tensors == ("activation", "weight")


def test_every_run_gives_the_same_shape_of_figure(runs: dict[str, qx.Run]) -> None:
    shapes: dict[str, set] = {}
    for run in runs.values():
        for title, figure in every_figure(run).items():
            layout = figure.to_plotly_json()["layout"]
            shape = (
                tuple((trace.type, trace.xaxis, trace.yaxis) for trace in figure.data),
                len(layout["annotations"]),
                len(layout.get("shapes", ())),
                tuple(sorted(axes(figure))),
            )
            shapes.setdefault(title.partition("/")[0], set()).add(shape)
    assert len(shapes) == 9
    assert all(len(found) == 1 for found in shapes.values()), shapes
    overviews = [plots.runs_overview(some) for some in ([], [runs["static"]], list(runs.values()))]
    assert len({tuple(trace.type for trace in figure.data) for figure in overviews}) == 1


def test_every_figure_has_height_title_and_labelled_axes(runs: dict[str, qx.Run]) -> None:
    figures = [*every_figure(runs["static"]).values(), *every_figure(runs["qat"]).values()]
    figures.append(plots.runs_overview(list(runs.values())))
    for figure in figures:
        assert 250 <= figure.layout.height <= 900
        assert figure.layout.title.text
        assert figure.layout.paper_bgcolor == figure.layout.plot_bgcolor == "rgba(0,0,0,0)"
        for key, settings in axes(figure).items():
            if settings["visible"] and settings.get("showticklabels", True):
                assert settings["title"]["text"], f"{key} of {figure.layout.title.text}"
    units = {"Speed": "ms", "Size": "KiB", "Error by layer": "dB"}
    for title, unit in units.items():
        assert unit in plots.PLOTS[title](runs["static"]).layout.xaxis.title.text
    assert "KiB" in plots.runs_overview([]).layout.xaxis.title.text


def test_every_figure_of_a_prediction_says_so_and_has_labelled_axes(predictions: dict[str, qx.Prediction]) -> None:
    for prediction in predictions.values():
        for title, figure in figures_of(prediction).items():
            assert 250 <= figure.layout.height <= 900 and figure.layout.title.text
            if not title.startswith(("Channels", "Observers", "Clip range")):
                assert "Predicted" in text(figure), title
            for key, settings in axes(figure).items():
                if settings["visible"] and settings.get("showticklabels", True):
                    assert settings["title"]["text"], f"{key} of {title}"


def test_predicted_stands_beside_measured(runs: dict[str, qx.Run], predictions: dict[str, qx.Prediction]) -> None:
    figure = plots.layer_error(runs["static"], predictions["static"])
    by_name = {trace.name: trace for trace in figure.data}
    layers = predictions["static"].layers.sqnr_db
    assert list(by_name["predicted"].x) == list(layers[np.isfinite(layers)])
    assert list(by_name["measured (int8)"].x) == list(runs["static"].layers.sqnr_db)
    alone = plots.layer_error(predictions["static"])
    assert "predicted" in {trace.name for trace in alone.data if trace.showlegend}
    assert "Predicted" in text(alone) and "Predicted" not in text(figure)


def test_codes_hold_every_value(predictions: dict[str, qx.Prediction]) -> None:
    prediction = predictions["simulated"]
    for kind, name in prediction.quantized:
        inside, ends = plots.codes(prediction, kind, name).data
        assert inside.y.sum() + ends.y.sum() == pytest.approx(prediction.stats(kind, name).count)
        codes = sorted([*inside.x, *ends.x])
        quantized = prediction.quantized[kind, name]
        assert codes == list(range(quantized.quant_min, quantized.quant_max + 1))


def test_all_observers_are_in_one_picture(predictions: dict[str, qx.Prediction]) -> None:
    from qexplore.calibrate.observers import OBSERVERS

    figure = plots.observers(predictions["static"], "activation", "input")
    assert sorted(figure.layout.yaxis.ticktext) == sorted(OBSERVERS)
    bars = {trace.name: trace for trace in figure.data}
    chosen = bars["chosen: histogram"]
    assert len(chosen.y) == 1 and len(bars["other observers"].y) == len(list(OBSERVERS)) - 1
    curve, _ = predictions["static"].curve("activation", "input")
    assert chosen.base[0] == curve.choices.lo["histogram"]
    assert chosen.base[0] + chosen.x[0] == pytest.approx(curve.choices.hi["histogram"])


def test_error_curve_is_rounding_and_clipping(predictions: dict[str, qx.Prediction]) -> None:
    figure = plots.clip_range(predictions["static"], "weight", "conv")
    lines = {trace.name: trace for trace in figure.data}
    assert len(lines["both"].x) == len(lines["rounding error"].x)
    clipping = dict(zip(lines["clipping error"].x, lines["clipping error"].y, strict=True))
    for x, rounding, both in zip(lines["both"].x, lines["rounding error"].y, lines["both"].y, strict=True):
        assert both == pytest.approx(rounding + clipping.get(x, 0.0))
    marks = [*lines["observers"].text, *lines["chosen: minmax"].text]
    named = [text.split(" and ") for text in marks if text.strip()]
    assert sum(1 + (int(more[0].split()[0]) if more else 0) for _, *more in named) == 8


def test_a_figure_without_data_says_why(runs: dict[str, qx.Run]) -> None:
    static = runs["static"]
    empty = [
        (plots.activation_histogram(static, "nowhere"), "'nowhere' is not quantized"),
        (plots.channel_ranges(static, "nowhere"), "'nowhere' is not quantized"),
        (plots.speed(runs["simulated"]), "below 8 bits"),
        (plots.training(static), "No training"),
        (plots.pictures(replace(static, pictures={})), "No pictures"),
        (plots.runs_overview([]), "No runs yet"),
        (plots.activation_histogram(replace(static, histograms={}), "input"), "not seen during calibration"),
    ]
    for figure, sentence in empty:
        assert sentence in text(figure)
        assert not any(settings["visible"] for settings in axes(figure).values())
        for trace in figure.data:
            assert trace.visible is False or trace.x is None or len(trace.x) == 0
    assert text(plots.speed(static)).count("No speed") == 0


def test_histogram_counts_are_split_at_the_range(runs: dict[str, qx.Run]) -> None:
    run = runs["static"]
    for kind, draw in (("activation", plots.activation_histogram), ("weight", plots.weight_histogram)):
        for name in tensors(run, kind):
            within, clipped = draw(run, name).data[:2]
            counts = run.histograms[f"{kind}:{name}"].counts
            assert within.y.sum() + clipped.y.sum() == pytest.approx(sum(counts))
            row = tensor_row(run, kind, name)
            assert row is not None
            half = row["scale"] / 2
            assert np.all((within.x >= row["lo"] - half) & (within.x <= row["hi"] + half))
            assert np.all((clipped.x < row["lo"] - half) | (clipped.x > row["hi"] + half))


def test_clipped_bins_are_those_beyond_the_range(runs: dict[str, qx.Run]) -> None:
    run = runs["static"]
    table = run.tensors.copy()
    chosen = (table.kind == "activation") & (table.name == "input")
    lo, hi, scale = 0.0, 2.55, 0.01
    for column, value in {"lo": lo, "hi": hi, "scale": scale, "clipped": 0.25}.items():
        table.loc[chosen, column] = value
    figure = plots.activation_histogram(replace(run, tensors=table), "input")
    within, clipped = figure.data[:2]
    histogram = run.histograms["activation:input"]
    edges = np.linspace(histogram.lo, histogram.hi, len(histogram.counts) + 1)
    outside = (edges[1:] + edges[:-1]) / 2 > hi + scale / 2
    assert 0 < outside.sum() < len(outside)
    np.testing.assert_allclose(clipped.y, np.asarray(histogram.counts)[outside])
    np.testing.assert_allclose(within.y, np.asarray(histogram.counts)[~outside])
    assert clipped.marker.pattern.shape  # not by colour alone
    assert "clipped 25.0 %" in text(figure)


def test_levels_shown() -> None:
    def one(levels: int) -> Grid:
        return Grid(np.array([-1.0]), np.array([-1.0 + 0.5 * (levels - 1)]), np.array([0.5]), levels)

    values, every = one(16).shown_levels()
    assert (len(values), every, values[0], values[-1]) == (16, 1, -1.0, 6.5)
    for levels in (65, 128, 129, 255, 256):
        values, every = one(levels).shown_levels()
        assert every > 1
        assert len(values) <= 33
        np.testing.assert_allclose(np.diff(values), 0.5 * every)


def test_dynamic_ranges_are_named_as_those_of_the_calibration(runs: dict[str, qx.Run]) -> None:
    dynamic = runs["dynamic"]
    assert "each batch uses its own" in text(plots.activation_histogram(dynamic, tensors(dynamic, "activation")[0]))
    assert "each batch" not in text(plots.activation_histogram(runs["static"], "input"))


def test_channels_against_their_ranges(runs: dict[str, qx.Run]) -> None:
    figure = plots.channel_ranges(runs["static"], "conv")
    low, high, bars = figure.data
    assert len(bars.x) == 6
    assert len(set(low.y)) == len(set(high.y)) == 1  # per tensor: one band
    weight = Tiny().conv.weight  # another draw: only zeros and shape are compared
    assert weight.shape[0] == len(bars.y)
    assert bars.y[4] == 0 and bars.y[2] == max(bars.y)
    assert "1 of 6 channels are all zero" in text(figure)
    separate = plots.channel_ranges(runs["channels"], "conv")
    assert len(set(separate.data[1].y)) > 2
    assert separate.data[2].customdata[:, 2].mean() > bars.customdata[:, 2].mean()  # levels used


def test_spans_and_levels_hold_zero() -> None:
    lo, hi = np.array([0.5, -1.0, 0.0]), np.array([1.0, -0.5, 0.0])
    np.testing.assert_allclose(spans(lo, hi), [1.0, 1.0, 0.0])
    g = Grid(np.array([-1.0]), np.array([1.0]), np.array([0.25]), 9)
    np.testing.assert_allclose(levels_used(lo, hi, g), [5, 5, 1])


def test_all_zero_weight_and_many_channels(runs: dict[str, qx.Run]) -> None:
    run = runs["static"]
    table = run.tensors.copy()
    chosen = table.index[(table.kind == "weight") & (table.name == "conv")][0]
    for values in ([0.0] * 6, list(np.linspace(3, 1, 5000))):
        for column, sign in (("observed_min", -1), ("observed_max", 1)):
            table.at[chosen, column] = tuple(sign * value for value in values)
        figure = plots.channel_ranges(replace(run, tensors=table), "conv")
        assert len(figure.data[2].x) == len(values)
    assert "3.0x" in text(figure)
    assert list(figure.data[2].customdata[:2, 3]) == [4999, 4998]  # sorted, narrowest first


def test_layer_errors_in_model_order(runs: dict[str, qx.Run]) -> None:
    run = runs["simulated"]
    figure = plots.layer_error(run)
    measured, kept, simulated, _, _ = figure.data
    assert len(measured.x) + len(kept.x) == len(run.layers)
    assert simulated.visible is False  # the bars are the simulation
    assert [label for label in figure.layout.yaxis.ticktext if "(float)" in label] == ["fc (float)"]
    assert kept.marker.pattern.shape
    first = run.layers.iloc[int(measured.y[0])]
    assert measured.x[0] == first.sqnr_db
    low, high = figure.layout.yaxis.range
    assert low > high  # the first layer on top


def test_layer_errors_without_a_number(runs: dict[str, qx.Run]) -> None:
    run = runs["static"]
    layers = run.layers.copy()
    layers["sqnr_db"] = [math.inf, math.nan, *layers.sqnr_db[2:]]
    layers["simulated_sqnr_db"] = math.inf
    bars, _, simulated, _, words = plots.layer_error(replace(run, layers=layers)).data
    assert list(words.text) == ["exact", "not measured"]
    assert list(words.y) == [0, 1]
    assert len(bars.x) == len(layers) - 2
    assert len(simulated.x) == 0
    layers["sqnr_db"] = math.inf
    assert len(plots.layer_error(replace(run, layers=layers)).data[4].text) == len(layers)


def test_many_layers_stay_within_a_screen(runs: dict[str, qx.Run]) -> None:
    run = runs["static"]
    layers = run.layers.iloc[[0] * 300]
    layers.index = [f"stages.{place}.with.a.very.long.name.indeed.conv" for place in range(300)]
    figure = plots.layer_error(replace(run, layers=layers))
    assert figure.layout.height == 900
    labels = figure.layout.yaxis.ticktext
    assert 0 < len(labels) < 60
    assert max(map(len, labels)) <= 30
    assert plots.size(replace(run, layers=layers)).layout.height == 900


def test_speed_shows_every_round_and_says_slower(runs: dict[str, qx.Run]) -> None:
    run = runs["static"]
    assert run.speed is not None
    boxes = {box.name: box for box in plots.speed(run).data}
    np.testing.assert_allclose(boxes["float"].x, run.speed["float_times"])
    np.testing.assert_allclose(boxes["int8"].x, run.speed["int8_times"])
    assert f"batch {run.speed['batch']}" in text(plots.speed(run))
    assert comparison(2.43) == "2.4x as fast as float"
    assert comparison(0.5) == "0.5x as fast as float (slower)"
    assert comparison(1.0) == "as fast as float"
    assert "slower" in text(plots.speed(replace(run, speed=run.speed | {"speedup": 0.7})))


def test_sizes_by_layer(runs: dict[str, qx.Run]) -> None:
    run = runs["static"]
    before, after = plots.size(run).data
    assert before.x.sum() * 1024 == pytest.approx(run.layers.float_bytes.sum())
    assert after.x.sum() * 1024 == pytest.approx(run.layers.int8_bytes.sum())
    assert "estimate" not in text(plots.size(run))
    simulated = plots.size(runs["simulated"])
    assert "packed estimate" in text(simulated)
    assert "No quantized size by layer" in text(simulated)
    assert len(simulated.data[1].x) == 0


def test_difference_is_amplified_and_grey_where_there_is_none(runs: dict[str, qx.Run]) -> None:
    from PIL import Image

    picture = torch.full((3, 4, 5), 0.5)
    other = picture.clone()
    other[0, 1, 2] += 0.03
    run = replace(runs["static"], pictures={"input": picture * 3, "float": picture, "int8": other})
    figure = plots.pictures(run)
    images = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(trace.source.partition(",")[2])))) for trace in figure.data
    ]
    assert all(image.shape == (4, 5, 3) for image in images)
    assert images[0].max() == 255  # values beyond white are white
    difference = images[3].astype(int)
    assert difference[1, 2, 0] == round(255 * (0.5 + 16 * 0.03))
    assert np.all(difference[0] == 128)
    assert "×16" in text(figure)


@pytest.mark.parametrize(("largest", "factor"), [(0.0, 1), (0.6, 1), (0.5, 1), (0.25, 2), (0.03, 16), (1 / 255, 64)])
def test_amplification_is_a_power_of_two_that_fits(largest: float, factor: int) -> None:
    assert amplification(np.array([-largest, 0.0])) == factor


def test_png_of_one_pixel() -> None:
    assert png(np.zeros((1, 1, 3), np.uint8)).startswith(b"\x89PNG")


def test_training_by_epoch(runs: dict[str, qx.Run]) -> None:
    run = runs["qat"]
    loss, metric, before, after = plots.training(run).data
    assert list(loss.x) == list(metric.x) == [0, 1, 2]
    assert math.isnan(loss.y[0])
    assert set(before.y) == {run.metrics["float"]} and before.line.dash == "dash"
    assert after.y[0] == run.metrics["int8"]
    silent = replace(run, history=run.history.assign(loss=math.nan))
    assert "reported no loss" in text(plots.training(silent))


def test_runs_overview_numbers_the_runs(runs: dict[str, qx.Run]) -> None:
    figure = plots.runs_overview(list(runs.values()))
    assert "(lower is better)" in figure.layout.yaxis.title.text
    numbers = ", ".join(label for trace in figure.data if trace.text is not None for label in trace.text if label)
    assert sorted(numbers.split(", ")) == ["1", "2", "3", "4", "5"]
    by_mode = {trace.name: trace for trace in figure.data}
    assert len(by_mode["static"].x) == 3
    assert list(by_mode["static"].marker.symbol) == ["square", "square", "square-open"]
    assert "kept float: fc" in by_mode["static"].customdata[2]
    assert by_mode["QAT"].y[0] == runs["qat"].quantized_metric
    assert len(by_mode["float"].x) == 1


def test_a_saved_run_gives_the_same_figures(runs: dict[str, qx.Run], tmp_path: Path) -> None:
    for name in ("channels", "simulated"):
        run = runs[name]
        loaded = qx.load_run(run.save(tmp_path / f"{name}.json"))
        again = every_figure(loaded)
        for title, figure in every_figure(replace(run, pictures={})).items():
            assert figure.to_json() == again[title].to_json(), f"{title} of {name}"


def test_a_grid_has_an_entry_per_channel(runs: dict[str, qx.Run]) -> None:
    row = tensor_row(runs["channels"], "weight", "conv")
    assert row is not None
    g = grid(row)
    assert len(g.lo) == len(g.hi) == len(g.scale) == 6
    assert g.widest == 2
    assert tensor_row(runs["channels"], "weight", "relu") is None


def test_words_for_numbers() -> None:
    assert [number(v) for v in (1234.5, 350.4, 0.01234, -2.5, 0.0, 1e-9)] == [
        "1,230", "350", "0.0123", "−2.50", "0", "1e−09",
    ]  # fmt: skip
    assert [decibels(v) for v in (math.inf, math.nan, None, 12.34, -0.01)] == [
        "exact", "not measured", "not measured", "12.3 dB", "0.0 dB",
    ]  # fmt: skip
    assert [percent(v) for v in (0.5, 0.00031, 0.0, math.nan)] == ["50.0 %", "0.031 %", "0 %", "unknown"]
    assert [percent(v) for v in (0.9977, 0.99999, 1.0)] == ["99.8 %", "99.9 %", "100 %"]
