"""The playground: the mapping under it, its figure, and that every control changes what it should and nothing else."""

from __future__ import annotations

import math
import re
from itertools import pairwise

import numpy as np
import pytest
import torch

import qexplore as qx
from qexplore.numerics.affine import qparams
from qexplore.numerics.mapping import AffineMapping
from qexplore.numerics.samples import COUNT, MOST, SAMPLES, sample, values_of
from qexplore.plots.playground import ERROR, STAIRS, TAILS
from qexplore.plots.playground import playground as draw
from qexplore.widgets.playground import STEPS, Playground
from qexplore.widgets.playground_setting import Setting
from qexplore.widgets.playground_tensors import BINS, LAYER, OWN

LINE, STAIRCASE, SATURATED, LEVELS, MARK, WITHIN, BEYOND, RUG, RANGE, SAW, TAIL, ERROR_MARK = range(12)


@pytest.fixture
def playground() -> Playground:
    return qx.playground()


def move(playground: Playground, **values: object) -> None:
    """Move controls as a person does, one after the other."""
    for name, value in values.items():
        playground.by_name[name].value = value


def cards(playground: Playground) -> dict[str, list[str]]:
    """Figure and note of each card by its title."""
    found = re.findall(r'qx-card-title">(.*?)<.*?figure">(.*?)<.*?note">(.*?)<', playground.facts.value)
    return {title: [figure, note] for title, figure, note in found}


# The mapping


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [2, 5, 8])
def test_a_mapping_of_a_range_is_torchs(bits: int, signed: bool, symmetric: bool) -> None:
    values = sample("normal")
    mapping = AffineMapping.of_range(-1.5, 2.5, bits, symmetric, signed)
    scale, zero_point = qparams(
        torch.tensor(-1.5), torch.tensor(2.5), mapping.quant_min, mapping.quant_max, symmetric=symmetric
    )
    assert (mapping.scale, mapping.zero_point) == (float(scale), int(zero_point))
    codes = mapping.quant_min, mapping.quant_max
    theirs = torch.fake_quantize_per_tensor_affine(values, mapping.scale, mapping.zero_point, *codes)
    assert [mapping.value(float(x)) for x in values[:200]] == theirs[:200].tolist()
    parts = mapping.parts(values)
    assert parts.mse == pytest.approx(float((theirs - values).double().square().mean()), rel=1e-6)
    assert mapping.levels[0] == mapping.lo and mapping.levels[-1] == mapping.hi
    assert mapping.levels[mapping.zero_point - mapping.quant_min] == 0


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf, 1e-40])
def test_a_scale_that_cannot_be_is_refused(scale: float) -> None:
    with pytest.raises(qx.QexploreError, match="give a number above 0"):
        AffineMapping.by_hand(scale, 0, 8, signed=True)


def test_a_zero_point_outside_the_codes_is_refused() -> None:
    with pytest.raises(qx.QexploreError, match="give one of 0 to 15"):
        AffineMapping.by_hand(1.0, 16, 4, signed=False)


# The tensors


@pytest.mark.parametrize("kind", SAMPLES)
def test_samples_are_seeded_and_small(kind: str) -> None:
    values = sample(kind)
    assert values.shape == (COUNT,) and values.dtype == torch.float32 and values.isfinite().all()
    assert torch.equal(values, sample(kind)) and not torch.equal(values, sample(kind, seed=1))


def test_samples_are_what_they_are_called() -> None:
    assert float(sample("ReLU-like").min()) == 0 and float((sample("ReLU-like") == 0).float().mean()) > 0.4
    assert int((sample("with outliers").abs() > 9).sum()) == 10
    assert float(sample("Laplace").std()) == pytest.approx(math.sqrt(2), rel=0.05)
    assert float(sample("normal").std()) == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize(
    ("tensor", "sentence"),
    [
        (torch.zeros(0, 3), "is empty"),
        ([], "is empty"),
        ("a text", "no real numbers"),
        ([1, "a"], "no real numbers"),
        ([[1.0], [1.0, 2.0]], "no real numbers"),
        (torch.tensor([1j]), "no real numbers"),
        (torch.tensor([True]), "no real numbers"),
        (torch.empty(3, device="meta"), "no real numbers"),
        (object(), "no real numbers"),
        (torch.tensor([1.0, math.nan]), r"1 of 2"),
        (np.array([1.0, -math.inf]), "NaN, infinite or huge"),
        ([1e38], "NaN, infinite or huge"),
    ],
)
def test_bad_tensors_are_refused_in_one_sentence(tensor: object, sentence: str) -> None:
    with pytest.raises(qx.QexploreError, match=sentence) as error:
        qx.playground(tensor, name="my tensor")
    message = str(error.value)
    assert message.startswith("My tensor ") and message.endswith(".") and "\n" not in message


@pytest.mark.parametrize(
    "tensor",
    [
        3,
        [1, 2, 3],
        np.arange(6).reshape(2, 3),
        torch.arange(6, dtype=torch.int64),
        torch.nn.Parameter(torch.randn(2, 3)),
        torch.randn(3, dtype=torch.float16),
        torch.zeros(4),
        torch.full((3,), -2.0),
        torch.tensor([1e-40, 1e36]),
        torch.eye(3).to_sparse(),
    ],
)
def test_any_numbers_can_be_shown(tensor: object) -> None:
    playground = qx.playground(tensor)
    assert playground.error_panel.message == ""
    assert playground.shown.counts.sum() == playground.shown.values.count
    move(playground, bits=2, symmetric=True)
    assert playground.error_panel.message == ""


def test_a_large_tensor_is_thinned_out_but_keeps_its_ends() -> None:
    tensor = torch.linspace(0, 1, 3 * MOST)
    tensor[1], tensor[2] = -5.0, 7.0
    values = values_of(tensor)
    assert values.every == 3 and values.count == 3 * MOST and len(values.values) == MOST + 2
    assert (values.lo, values.hi) == (-5.0, 7.0) == (float(values.values.min()), float(values.values.max()))
    assert "of 3 in a row" in qx.playground(tensor)._notes["layer"].value


def test_ones_own_tensor_comes_first_beside_the_samples(playground: Playground) -> None:
    assert [label for label, _ in playground.by_name["tensor"].options] == [*SAMPLES, LAYER]
    own = qx.playground(torch.tensor([-1.0, 3.0]), name="mine")
    assert own.by_name["tensor"].options[0] == ("mine", OWN) and own.by_name["tensor"].value == OWN
    assert "mine" in own.figure.shown.layout.title.text
    assert own.setting.range == (-1.0, 3.0)
    move(own, tensor="normal")
    assert "mine" not in own.figure.shown.layout.title.text
    move(own, tensor=OWN)
    assert own.setting.range == (-1.0, 3.0)


def test_layers_are_those_of_the_demo_models(playground: Playground) -> None:
    assert playground.by_name["layer"].layout.display == "none"
    move(playground, tensor=LAYER)
    layers = playground.by_name["layer"].options
    assert playground.by_name["layer"].layout.display is None
    assert "fc (digits)" in layers and "blocks.0.depthwise (digits_mobile)" in layers
    move(playground, layer="fc (digits)")
    weight = qx.workload("digits").model.get_submodule("fc").weight.detach()
    assert playground.setting.range == (float(weight.min()), float(weight.max()))
    assert "fc (digits)" in playground.figure.shown.layout.title.text
    assert playground.shown.values.count == weight.numel()
    move(playground, tensor="normal")
    assert playground.by_name["layer"].layout.display == "none"


# The figure


def figure_of(mapping: AffineMapping, values: torch.Tensor | None = None, x: float = 0.7):
    values = sample("normal") if values is None else values
    counts, edges = np.histogram(values.numpy().astype(float), bins=BINS)
    return draw(mapping, "thing", counts.astype(float), edges, x)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_staircase_is_the_mapping(bits: int) -> None:
    mapping = AffineMapping.of_range(-1.0, 2.0, bits, False, False)
    traces = figure_of(mapping).data
    steps, saw = traces[STAIRCASE], traces[SAW]
    assert len(steps.x) == 2 * 2**bits + 2
    treads = (steps.x[1:-1:2] + steps.x[2:-1:2]) / 2 + 0.1 * mapping.scale
    np.testing.assert_allclose(steps.y[1:-1:2], [mapping.value(x) for x in treads], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(steps.y[1:-1:2], steps.y[2:-1:2])
    np.testing.assert_allclose(saw.y, steps.y - steps.x, atol=1e-12)
    assert np.abs(saw.y[1:-1]).max() == pytest.approx(mapping.scale / 2)


def test_saturation_is_drawn_at_both_ends() -> None:
    mapping = AffineMapping.of_range(-1.0, 2.0, 4, False, False)
    values, traces = sample("normal"), figure_of(mapping).data
    tails = traces[SATURATED]
    assert tails.x[0] < float(values.min()) and tails.x[-1] > float(values.max())
    assert list(tails.y[[0, 1, -2, -1]]) == [mapping.lo, mapping.lo, mapping.hi, mapping.hi]
    assert tails.x[1] == pytest.approx(mapping.lo - mapping.scale / 2)
    np.testing.assert_allclose(traces[TAIL].y[[0, -1]], (tails.y - tails.x)[[0, -1]])


def test_the_histogram_counts_all_values_and_splits_them_at_the_range() -> None:
    mapping = AffineMapping.of_range(-1.0, 2.0, 4, False, False)
    traces = figure_of(mapping).data
    within, beyond = traces[WITHIN], traces[BEYOND]
    assert within.y.sum() + beyond.y.sum() == COUNT
    assert np.all((beyond.x < mapping.lo - mapping.scale / 2) | (beyond.x > mapping.hi + mapping.scale / 2))
    assert beyond.marker.pattern.shape  # not by colour alone
    np.testing.assert_allclose(traces[RUG].x, mapping.levels)
    assert {float(x) for x in traces[RANGE].x if not np.isnan(x)} == {mapping.lo, mapping.hi}


def test_the_figure_marks_x_and_shows_the_levels_that_can_be_told_apart() -> None:
    for bits, opacity in ((4, 1), (8, 0)):
        mapping = AffineMapping.of_range(-1.0, 2.0, bits, False, False)
        traces = figure_of(mapping, x=0.7).data
        assert (traces[MARK].x[0], traces[MARK].y[0]) == (0.7, mapping.value(0.7))
        assert traces[ERROR_MARK].y[0] == mapping.value(0.7) - 0.7
        assert len(traces[LEVELS].x) == 2**bits and traces[LEVELS].marker.opacity == opacity


def test_axes_have_titles_with_units_and_panels_do_not_overlap() -> None:
    figure = figure_of(AffineMapping.of_range(-1.0, 2.0, 4, False, False))
    layout = figure.to_plotly_json()["layout"]
    axes = {key: value for key, value in layout.items() if key[1:5] == "axis"}
    for name, settings in axes.items():
        assert settings["title"]["text"] or not settings["showticklabels"], name
    assert "unit" in axes["xaxis"]["title"]["text"] and "count" in axes["yaxis2"]["title"]["text"]
    domains = sorted(value["domain"] for key, value in axes.items() if key[0] == "y")
    assert all(low[1] <= high[0] for low, high in pairwise(domains))
    assert {trace.yaxis for trace in figure.data} == {STAIRS, "y2", "y3", ERROR}
    assert 250 <= layout["height"] <= 900
    assert axes["yaxis4"]["range"][1] == pytest.approx(TAILS * 3 / 15)


def test_ends_of_the_axis_stay_for_ranges_among_the_values_and_follow_wider_ones() -> None:
    ends = [
        figure_of(AffineMapping.of_range(lo, hi, 8, False, False)).layout.xaxis.range
        for lo, hi in ((-1.0, 2.0), (-4.3, 4.1), (-9.0, 4.1))
    ]
    assert ends[0] == ends[1]  # else plotly.js forgets a zoom
    assert ends[2][0] < -9 and ends[2][1] == ends[0][1]


def test_every_setting_gives_the_same_shape_of_figure() -> None:
    shapes = set()
    for values in (sample("normal"), torch.zeros(3), torch.tensor([5.0]), sample("ReLU-like")):
        for bits in (2, 8):
            figure = figure_of(AffineMapping.of_range(float(values.min()), 1.0, bits, True, True), values)
            shapes.add((tuple((t.type, t.yaxis) for t in figure.data), len(figure.layout.shapes)))
    assert len(shapes) == 1


# The controls


def test_it_begins_with_the_whole_range_at_8_bits(playground: Playground) -> None:
    values = sample("normal")
    assert playground.setting.range == (float(values.min()), float(values.max()))
    assert cards(playground)["Clipped"][0] == "0 %"
    assert cards(playground)["RMSE / scale"] == ["0.2896", "ideal: 1/√12 = 0.2887"]
    assert cards(playground)["Scale"][1] == f"zero point {playground.setting.mapping.zero_point}"


@pytest.mark.parametrize(
    "change",
    [
        {"tensor": "Laplace"},
        {"bits": 4},
        {"symmetric": True},
        {"signed": True},
        {"low": -1.0},
        {"low_slider": -50},
        {"high": 2.0},
        {"high_slider": 50},
        {"scale": 0.1},
        {"zero_point": 3},
    ],
    ids=str,
)
def test_every_control_changes_figure_and_facts(playground: Playground, change: dict) -> None:
    before = playground.figure.figure, playground.facts.value
    move(playground, **change)
    assert playground.error_panel.message == ""
    assert playground.facts.value != before[1] and playground.figure.figure != before[0]
    mapping = playground.setting.mapping
    assert playground.by_name["zero_point"].value == mapping.zero_point
    assert playground.by_name["scale"].value == pytest.approx(mapping.scale, rel=1e-5)
    assert playground.by_name["low"].value == pytest.approx(playground.setting.range[0], rel=1e-5)
    assert playground.by_name["high"].value == pytest.approx(playground.setting.range[1], rel=1e-5)


def test_x_is_worked_through(playground: Playground) -> None:
    move(playground, scale=0.5, zero_point=100, x=1.7)
    text = playground.worked.value
    for part in (
        "round(1.7 / 0.5) + 100",
        "round(3.4) + 100",
        "clamp(103)",
        "(103 − 100) × 0.5",
        "= 1.5",
        "−0.4 steps",
    ):
        assert part in text, text
    assert "clipped" not in text
    move(playground, x=1000.0)
    assert "clamp(2100)" in playground.worked.value and "255, clipped to 0 … 255" in playground.worked.value
    assert playground.figure.shown.data[MARK].x[0] == 1000.0
    move(playground, x=1e38)
    assert "give a number below" in playground.error_panel.message and playground.by_name["x"].value == 1000.0


def test_a_range_set_by_hand_gives_scale_and_zero_point_and_the_other_way_round(playground: Playground) -> None:
    move(playground, low=-1.0, high=2.0)
    scale, zero_point = qparams(torch.tensor(-1.0), torch.tensor(2.0), 0, 255, symmetric=False)
    assert playground.by_name["scale"].value == pytest.approx(float(scale), rel=1e-5)
    assert playground.by_name["zero_point"].value == int(zero_point)
    move(playground, scale=0.25)
    assert playground.setting.mapping == AffineMapping(0.25, int(zero_point), 0, 255)
    assert playground.setting.range == (-0.25 * int(zero_point), 0.25 * (255 - int(zero_point)))
    move(playground, zero_point=0)
    assert playground.setting.range == (0.0, 63.75) and playground.setting.mapping.scale == 0.25
    assert playground.by_name["high"].value == 63.75 and playground.by_name["high_slider"].value == STEPS


def test_a_range_typed_by_scale_stays_when_bits_change(playground: Playground) -> None:
    move(playground, scale=0.25, zero_point=128, bits=4)
    assert playground.setting.range == (-32.0, 31.75)
    assert playground.setting.mapping.scale == pytest.approx(63.75 / 15)
    move(playground, bits=8)
    assert playground.setting.mapping == AffineMapping(0.25, 128, 0, 255)


@pytest.mark.parametrize("signed", [False, True])
def test_a_symmetric_range_follows_either_end_and_fixes_the_zero_point(playground: Playground, signed: bool) -> None:
    move(playground, symmetric=True, signed=signed, low=-2.0)
    assert playground.setting.range == (-2.0, 2.0) and playground.by_name["high"].value == 2.0
    assert playground.by_name["zero_point"].disabled and playground._notes["zero_point"].layout.display is None
    assert playground.setting.mapping.zero_point == (0 if signed else 127)
    move(playground, scale=0.5, bits=4, high=3.0)
    move(playground, bits=8, scale=0.5)
    assert playground.setting.mapping.scale == 0.5
    move(playground, bits=7)
    move(playground, bits=8)
    assert playground.setting.mapping.scale == 0.5
    move(playground, symmetric=False)
    assert not playground.by_name["zero_point"].disabled


def test_going_to_symmetric_and_back_keeps_the_range(playground: Playground) -> None:
    move(playground, low=-1.0, high=3.0)
    before = playground.setting
    move(playground, symmetric=True)
    assert playground.setting.range == (-3.0, 3.0)
    move(playground, symmetric=False)
    assert playground.setting == before


def test_whole_range_takes_all_values_again(playground: Playground) -> None:
    whole = playground.setting
    move(playground, low=-1.0, scale=3.0)
    playground.by_name["whole"].click()
    assert playground.setting == whole and cards(playground)["Clipped"][0] == "0 %"


def test_sliders_and_fields_of_the_range_agree(playground: Playground) -> None:
    move(playground, high_slider=STEPS // 5)
    largest = float(sample("normal").abs().max())
    assert playground.setting.range[1] == pytest.approx(1.25 * largest / 5)
    assert playground.by_name["high"].value == pytest.approx(playground.setting.range[1], rel=1e-5)
    move(playground, low=-largest)
    assert playground.by_name["low_slider"].value == -STEPS * 0.8
    assert playground.setting.range[0] == -largest  # as typed, not as the slider's nearest position


def test_showing_a_setting_asks_for_nothing(playground: Playground) -> None:
    drawn = []
    playground.figure.observe(drawn.append, names="figure")
    for change in ({"bits": 3}, {"high": 1.23456789}, {"scale": 1 / 3}, {"tensor": "with outliers"}):
        drawn.clear()
        move(playground, **change)
        assert len(drawn) == 1
    assert playground.setting.range == tuple(float(end) for end in torch.aminmax(sample("with outliers")))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"scale": 0.0}, "above 0"),
        ({"scale": -2.0}, "above 0"),
        ({"zero_point": 300}, "one of 0 to 255"),
        ({"low": 1.0}, "zero must lie in it"),
        ({"high": -1.0}, "zero must lie in it"),
        ({"high": 1e38}, "cannot end at"),
    ],
    ids=str,
)
def test_what_cannot_be_is_said_and_changes_nothing(playground: Playground, change: dict, sentence: str) -> None:
    before = playground.setting, playground.facts.value, playground.figure.figure
    values = {name: getattr(control, "value", None) for name, control in playground.by_name.items()}
    move(playground, **change)
    assert sentence in playground.error_panel.message and playground.error_panel.layout.display == "flex"
    assert (playground.setting, playground.facts.value, playground.figure.figure) == before
    assert {name: getattr(control, "value", None) for name, control in playground.by_name.items()} == values
    move(playground, bits=7)
    assert playground.error_panel.message == ""


def test_an_unforeseen_error_is_shown(playground: Playground, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[str]:
        raise OSError("the file is gone")

    monkeypatch.setattr(playground._tensors, "layers", broken)
    move(playground, tensor=LAYER)
    assert "the file is gone" in playground.error_panel.message
    assert playground.by_name["tensor"].value == "normal" and "Loading" not in playground._notes["layer"].value


def test_clipping_and_rounding_add_up(playground: Playground) -> None:
    move(playground, bits=4, low=-1.0, high=1.0)
    parts = playground.setting.mapping.parts(playground.shown.values.values)
    assert parts.clipping > 10 * parts.rounding > 0
    assert cards(playground)["Mean squared error"][1].startswith("rounding 0.00")
    assert float(cards(playground)["Clipped"][0].removesuffix(" %")) == pytest.approx(100 * parts.clipped, rel=0.01)


def test_outliers_leave_most_levels_unused(playground: Playground) -> None:
    move(playground, tensor="with outliers", bits=4)
    used, of = cards(playground)["Levels used"][0].split(" of ")
    assert int(used) < int(of) == 16
    narrow = Setting(-4.0, 4.0, bits=4).mapping
    whole = playground.setting.mapping
    values = playground.shown.values.values
    assert narrow.parts(values[values.abs() < 4]).sqnr_db > whole.parts(values[values.abs() < 4]).sqnr_db
