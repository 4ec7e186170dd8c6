"""Int8 layers against their simulation on identical inputs: what differs, and why."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn
from torch.ao.nn import quantized as nnq

from qexplore import LayerRule, Recipe, TensorSpec, Workload, calibrate, load_run, plots, quantize
from qexplore.analysis import why
from qexplore.analysis.three_way import COLUMNS, three_way, why_words
from qexplore.calibrate.graph import trace
from qexplore.engines import Conversion, resolve_engine
from qexplore.engines.codes import LayerCodes
from qexplore.engines.dynamic import convert_dynamic
from qexplore.engines.engine import saturates, supported_engines, using
from qexplore.engines.fx import convert, prepare
from qexplore.engines.overflow import Sums, count_overflows, kernel_saturates, overflows, spread
from tests.conftest import ResidualNet, images, normal, seeded_model

pytestmark = [pytest.mark.usefixtures("quick_timing"), pytest.mark.filterwarnings("ignore")]

ENGINES = supported_engines()
EXACT = [name for name in ENGINES if not saturates(name)]  # on this CPU
PLAIN = {"activation": TensorSpec("minmax"), "weight": TensorSpec("minmax", symmetric=True)}


def converted(model: nn.Module, *batches: torch.Tensor, guard: str = "weights", **settings) -> Conversion:
    """A static conversion without its measurements: min-max observers, no overflow on any CPU unless told."""
    recipe = Recipe(**PLAIN | settings)
    with using(recipe.engine), torch.no_grad():
        prepared = prepare(model.eval(), trace(model), recipe, resolve_engine(recipe, model), guard, batches[0])
        for batch in batches:
            prepared.module(batch)
        return convert(prepared)


def weights_set(module: nn.Module, factor: float) -> None:
    """Other weights in an int8 layer than its simulation has."""
    weight = module.weight().dequantize() * factor
    scale = float(weight.abs().max()) / 127
    module.set_weight_bias(torch.quantize_per_tensor(weight, scale, 0, torch.qint8), module.bias())


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "unfused"])
@pytest.mark.parametrize("engine", ENGINES)
def test_kernels_follow_their_simulation(conv: Workload, engine: str, fuse: bool) -> None:
    layers = quantize(conv, Recipe(engine=engine, fuse=fuse)).layers
    assert (layers.codes_off == 0).all() and (layers.codes_differ < 0.05).all()
    assert set(layers.why) <= {why.EQUAL, why.FLIPS}
    assert ((layers.why == why.FLIPS) == (layers.codes_differ > 0)).all()


def test_kernels_of_a_trained_model_follow_their_simulation(conv: Workload) -> None:
    layers = quantize(conv, Recipe(mode="qat", activation=TensorSpec("minmax"), epochs=1)).layers
    assert (layers.codes_off == 0).all() and (layers.codes_differ < 0.05).all()


def test_a_wrong_layer_is_found_and_does_not_blame_those_behind_it() -> None:
    conversion = converted(seeded_model(ResidualNet), *images(), engine=ENGINES[0])
    with using(ENGINES[0]):
        weights_set(conversion.int8.stem, 1.5)
    table = three_way(conversion, images()[:1])
    assert table.why["stem"] == why.UNKNOWN and table.codes_off["stem"] > 0.3 and table.largest["stem"] > 10
    assert (table.codes_off.drop("stem") == 0).all()


def test_operations_in_place_do_not_blur_what_was_before_them() -> None:
    model = seeded_model(ResidualNet, True)
    table = three_way(converted(model, *images(), engine=ENGINES[0], fuse=False), images()[:1])
    assert "block.bn1" in table.index and (table.codes_off == 0).all()


def test_batches_add_up() -> None:
    conversion = converted(seeded_model(ResidualNet), *images(), engine=ENGINES[0])
    with using(ENGINES[0]):
        weights_set(conversion.int8.stem, 1.1)
    singles = [three_way(conversion, [batch]).loc["stem"] for batch in images()]
    both = three_way(conversion, images()).loc["stem"]
    assert both.codes_differ == pytest.approx(sum(row.codes_differ for row in singles) / 3)
    assert both.largest == max(row.largest for row in singles)
    assert three_way(conversion, []).codes_differ.isna().all()


class Wide(nn.Module):
    """A Linear with many inputs, all weights equal, and a small one behind it."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.wide, self.out = nn.Linear(inputs, 3, bias=False), nn.Linear(3, 2)
        nn.init.constant_(self.wide.weight, 0.01)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.wide(x))


@pytest.mark.parametrize("engine", EXACT)
def test_a_sum_beyond_32_bits_is_reported(engine: str) -> None:
    x = torch.ones(4, 70_000)  # 70,000 * 255 * 127 is above 2^31
    table = three_way(converted(Wide(70_000), x, engine=engine, guard="none"), [x])
    assert table.why["wide"] == why.OVERFLOW_32 and table.codes_differ["wide"] == 1 and table.largest["wide"] > 200
    assert "'wide'" in why_words(table.loc["wide"]) and "32 bits" in why_words(table.loc["wide"])


@pytest.mark.parametrize("engine", EXACT)
def test_a_sum_just_within_32_bits_is_not(engine: str) -> None:
    x = torch.ones(4, 66_000)
    table = three_way(converted(Wide(66_000), x, engine=engine, guard="none"), [x])
    assert table.why["wide"] in (why.EQUAL, why.FLIPS)
    assert table.saturated["wide"] == 1


@pytest.mark.parametrize("engine", EXACT)
def test_an_ignored_quant_max_is_reported(engine: str) -> None:
    conversion = converted(seeded_model(ResidualNet), *images(), engine=engine, guard="activations")
    within, beyond = (three_way(conversion, [scale * images()[0]]) for scale in (1, 3))
    assert not (within.why == why.IGNORED).any()
    assert beyond.why["stem"] == why.IGNORED and beyond.codes_off["stem"] > 0.01 and beyond.largest["stem"] > 20


class Depthwise(nn.Module):
    """Positive images through a depthwise convolution with large positive weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(normal(16, 1, 3, 3).abs().clamp(max=1.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


@pytest.mark.skipif("fbgemm" not in ENGINES, reason="FBGEMM is for x86 CPUs")
def test_a_kernel_that_saturates_is_reported() -> None:
    # FBGEMM's depthwise kernels add pairs of products in 16 bits on every CPU, with VNNI as well.
    x = normal(4, 16, 12, 12).abs().clamp(max=2)
    table = three_way(converted(Depthwise(), x, engine="fbgemm", guard="none"), [x])
    assert table.why["conv"] == why.OVERFLOW_16 and table.codes_off["conv"] > 0.001
    assert table.saturated["conv"] > 0.001 and table.saturated["conv"] == pytest.approx(
        table.codes_off["conv"], abs=0.1
    )
    guarded = three_way(converted(Depthwise(), x, engine="fbgemm"), [x])
    assert guarded.codes_off["conv"] == 0 and guarded.saturated["conv"] == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_a_saturating_kernel_is_told_by_trying(engine: str) -> None:
    x = normal(2, 64)
    for model in (nn.Sequential(nn.Linear(64, 16)), nn.Sequential(nn.Linear(64, 16), nn.ReLU())):
        module = getattr(converted(model, x, engine=engine).int8, "0")
        before = module.weight().int_repr()
        with using(engine):
            assert kernel_saturates(module, torch.quantize_per_tensor(x, 0.1, 0, torch.quint8)) == saturates(engine)
        assert torch.equal(module.weight().int_repr(), before)


def brute_force(x: torch.Tensor, w: torch.Tensor) -> bool:
    """Whether one sum of products saturates in pairs."""
    products = [int(a) * int(b) for a, b in zip(x, w, strict=True)] + [0] * (len(x) % 2)
    pairs = [products[i] + products[i + 1] for i in range(0, len(products), 2)]
    return any(not -32768 <= p <= 32767 for p in pairs)


@pytest.mark.parametrize("length", [1, 2, 7, 8])
def test_the_estimate_is_the_loop_over_pairs(length: int) -> None:
    generator = torch.Generator().manual_seed(length)
    x = torch.randint(0, 256, (200, length), generator=generator, dtype=torch.int32)
    w = torch.randint(-128, 128, (200, length), generator=generator, dtype=torch.int32)
    expected = sum(brute_force(a, b) for a, b in zip(x, w, strict=True))
    assert count_overflows(x, w, 9, 0) == Sums(200, expected, 0)
    assert (expected > 0) == (length > 1)
    assert count_overflows(x, w.clamp(-64, 64), 9, 0).saturating == 0


@pytest.mark.parametrize(("second", "over"), [((128, 127), 0), ((128, 128), 1), ((-128, -128), 0), ((-128, -129), 1)])
def test_pairs_at_the_edge_of_16_bits(second: tuple[int, int], over: int) -> None:
    assert count_overflows(torch.tensor([[255, 1]]), torch.tensor([second]), 0, 0).saturating == over


@pytest.mark.parametrize(("inputs", "zero", "wraps"), [(66_311, 0, 0), (66_312, 0, 1), (70_000, 128, 0)])
def test_sums_at_the_edge_of_32_bits(inputs: int, zero: int, wraps: int) -> None:
    x, w = (torch.full((1, inputs), code, dtype=torch.int32) for code in (255, 127))
    assert ((255 - zero) * 127 * inputs > 2**31 - 1) == wraps
    assert count_overflows(x, w, zero, 0).wrapping == wraps
    assert count_overflows(torch.zeros_like(x), -w, 255 - zero, 0).wrapping == wraps


def test_the_estimate_reads_the_codes_of_a_convolution() -> None:
    torch.manual_seed(0)
    module = nnq.Conv2d(6, 4, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2)
    weight = torch.quantize_per_channel(
        torch.randn(4, 3, 3, 2) * 150, torch.ones(4), torch.zeros(4, dtype=torch.long), 0, torch.qint8
    )
    module.set_weight_bias(weight, None)
    x = torch.quantize_per_tensor(torch.rand(2, 6, 7, 5) * 300, 1.0, 40, torch.quint8)
    y = module(x)
    padded = torch.full((2, 6, 7 + 2, 5 + 4), 40)
    padded[:, :, 1:-1, 2:-2] = x.int_repr()
    found = 0
    for n, o, i, j in torch.ones(y.shape).nonzero().tolist():
        group = o // 2 * 3
        taps = padded[n, group : group + 3, 2 * i : 2 * i + 3, j : j + 3 : 2]  # [channels, 3, 2]
        found += brute_force(taps.movedim(0, -1).flatten(), weight.int_repr()[o].movedim(0, -1).flatten())
    assert 0.2 < found / y.numel() < 0.8
    assert overflows(module, x, y, torch.arange(y.numel())) == Sums(y.numel(), found, 0)


def test_sampled_outputs_are_spread_over_channels_and_few() -> None:
    assert spread(5, 10).tolist() == [0, 1, 2, 3, 4]
    positions = spread(64 * 1000, 100)
    assert len(positions) == 512 and positions.max() < 64_000
    assert len(set((positions % 64).tolist())) == 64
    assert len(spread(10**9, 10**7)) == 8


FLIPPED = {"count": 100, "differ": 5, "largest": 1}
FAR = {"count": 100, "differ": 5, "off": 3, "largest": 9, "unexplained": 3}


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        (LayerCodes(count=100, sums=Sums(10, 10, 10), saturates=True), why.EQUAL),
        (LayerCodes(**FLIPPED, saturates=True), why.FLIPS),
        (LayerCodes(**FLIPPED, beyond=1), why.IGNORED),
        (LayerCodes(**FAR | {"unexplained": 0}, beyond=3), why.IGNORED),
        (LayerCodes(**FAR, beyond=3), why.UNKNOWN),
        (LayerCodes(**FAR, sums=Sums(10, 10, 10), saturates=True), why.UNKNOWN),
        (LayerCodes(**FAR, unexplained_sums=Sums(3, 3, 2)), why.OVERFLOW_32),
        (LayerCodes(**FAR, unexplained_sums=Sums(3, 3, 3), saturates=True), why.OVERFLOW_16),
        (LayerCodes(**FAR, unexplained_sums=Sums(3, 2, 1), saturates=True), why.OVERFLOW_16),
        (LayerCodes(**FAR, unexplained_sums=Sums(3, 3, 0), saturates=False), why.UNKNOWN),
        (LayerCodes(**FAR, unexplained_sums=Sums(3, 1, 1), saturates=True), why.UNKNOWN),
    ],
)
def test_reasons(codes: LayerCodes, expected: str) -> None:
    assert why.reason(codes) == expected


@pytest.mark.parametrize("reason", [why.EQUAL, why.FLIPS, why.OVERFLOW_32, why.OVERFLOW_16, why.IGNORED, why.UNKNOWN])
def test_every_reason_is_one_sentence_with_its_figures(reason: str) -> None:
    row = pd.Series(
        dict.fromkeys(COLUMNS, math.nan) | {"codes_differ": 0.125, "largest": 7.0, "why": reason}, name="fc"
    )
    words = why_words(row)
    assert words.startswith("Layer 'fc' ") and words.endswith(".") and words.count(". ") == 0
    assert ("12.5 %" in words) == (reason != why.EQUAL)
    assert ("by up to 7" in words) == (reason not in (why.EQUAL, why.FLIPS))


class Doubled(nn.Module):
    """torch.ao's `x * 2` on codes doubles the scale, whatever the observer saw."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.elu = nn.Conv2d(3, 4, 1), nn.ELU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.elu(torch.sigmoid(self.conv(x)) * 2)


def test_layers_whose_inputs_differ_are_not_compared() -> None:
    table = three_way(converted(seeded_model(Doubled), images()[0], engine=ENGINES[0]), images()[:1])
    assert table.codes_off["conv"] == 0 and math.isnan(table.codes_differ["elu"]) and table.why["elu"] == why.EQUAL
    assert "no int8 codes" in why_words(table.loc["elu"])


@pytest.mark.parametrize("engine", ENGINES)
def test_dynamic_layers_follow_their_simulation(lstm: Workload, engine: str) -> None:
    layers = quantize(lstm, Recipe(mode="dynamic", engine=engine, rules=[LayerRule("out", keep_float=True)])).layers
    assert layers.relative_difference["lstm"] < 1e-5 and layers.why["lstm"] == why.EQUAL
    assert math.isnan(layers.relative_difference["out"])
    assert layers[["codes_differ", "codes_off", "largest", "saturated"]].isna().all(axis=None)


def test_a_wrong_dynamic_layer_is_found_and_does_not_blame_those_behind_it(
    lstm: Workload, symbols: torch.Tensor
) -> None:
    recipe = Recipe(mode="dynamic", engine=ENGINES[0])
    conversion = convert_dynamic(lstm.model, recipe, resolve_engine(recipe), calibrate(lstm))
    with using(ENGINES[0]):
        weights_set(conversion.int8.out, 1.5)
    table = three_way(conversion, [symbols])
    assert table.relative_difference["out"] > 0.1
    assert table.why["out"] == why.UNKNOWN and "rounding" in why_words(table.loc["out"])
    assert table.relative_difference["lstm"] < 1e-5


def test_nothing_is_claimed_where_only_simulated(conv: Workload) -> None:
    run = quantize(conv, Recipe(activation=TensorSpec("minmax", bits=6)))
    assert run.layers[list(COLUMNS)].isna().all(axis=None) and (run.layers.why == "").all()
    figure = plots.three_way(run)
    assert "only simulated" in " ".join(note.text.replace("<br>", " ") for note in figure.layout.annotations)


def test_a_layer_kept_float_has_no_codes(conv: Workload) -> None:
    layers = quantize(conv, Recipe(rules=[LayerRule("fc", keep_float=True)])).layers
    assert math.isnan(layers.codes_differ["fc"]) and layers.why["fc"] == ""
    assert layers.codes_differ.drop("fc").notna().all()


def test_saved_runs_keep_the_columns(conv: Workload, tmp_path: Path) -> None:
    run = quantize(conv, Recipe(rules=[LayerRule("fc", keep_float=True)]))
    again = load_run(run.save(tmp_path / "run.json"))
    pd.testing.assert_frame_equal(again.layers[[*COLUMNS, "why"]], run.layers[[*COLUMNS, "why"]])
    assert [why_words(row) for _, row in again.layers.iterrows()] == [
        why_words(row) for _, row in run.layers.iterrows()
    ]


def test_the_figure_shows_both_errors_and_the_codes_that_differ(conv: Workload) -> None:
    run = quantize(conv, Recipe(engine=ENGINES[-1]))
    run.layers.loc["stem", ["codes_differ", "codes_off", "largest", "why"]] = [0.25, 0.125, 9.0, why.OVERFLOW_16]
    figure = plots.three_way(run)
    int8, simulated, differ, off, text = figure.data
    assert list(int8.x) == list(run.layers.sqnr_db) and list(simulated.x) == list(run.layers.simulated_sqnr_db)
    assert differ.x[0] == 25 and off.x[0] == 12.5 and differ.xaxis == off.xaxis == text.xaxis == "x2"
    assert text.text[0] == "25.0 %" and text.text[list(run.layers.why).index("")] == "equal"
    assert "differs from its simulation in 25 % of its codes" in differ.customdata[0].replace("<br>", " ")
    assert f"1 {why.OVERFLOW_16}" in " ".join(re.sub("<[^>]*>", " ", figure.layout.title.text).split())
