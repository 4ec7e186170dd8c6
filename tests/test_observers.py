"""Observers against torch's own and against slow, direct versions of what they follow."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache, reduce

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch.ao.quantization import (
    HistogramObserver,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    PerChannelMinMaxObserver,
)

import qexplore as qx
from qexplore import Option, QexploreError, TensorSpec, TensorStats
from qexplore.calibrate.measure import measure
from qexplore.calibrate.observers import OBSERVERS, channel_ranges, find, tensor_range
from qexplore.calibrate.observers.aciq import gauss_clip, laplace_clip
from qexplore.calibrate.observers.entropy import divergence
from qexplore.numerics.affine import code_range, fake_quantize, qparams
from qexplore.numerics.errors import sqnr_db
from qexplore.numerics.parts import error_parts, range_errors

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.ao's own

BUILT_IN = ["minmax", "moving_average", "histogram", "percentile", "mse", "entropy", "mean_std", "aciq"]
BITS = pytest.mark.parametrize("bits", range(2, 9), ids=lambda bits: f"{bits}-bits")
SYMMETRIC = pytest.mark.parametrize("symmetric", [False, True], ids=["affine", "symmetric"])
SIGNED = pytest.mark.parametrize("signed", [False, True], ids=["uint8", "int8"])
EVERY = pytest.mark.parametrize("name", BUILT_IN)


def drawn(kind: str, count: int, seed: int = 0) -> torch.Tensor:
    """Values of a distribution that activations or weights have, float32 [count]."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, generator=generator)
    u = torch.rand(count, generator=generator)
    wide = x * (3 / torch.randn(3, count, generator=generator).square().sum(0)).sqrt()  # Student's t, 3 degrees
    return {
        "normal": lambda: x,
        "shifted": lambda: x + 2.5,
        "relu": lambda: x.relu(),
        "laplace": lambda: -(u - 0.5).sign() * torch.log1p(-1.999998 * (u - 0.5).abs()),
        "relu6": lambda: (x * 6).clamp(0, 6),
        "hardswish": lambda: torch.nn.functional.hardswish(x * 2),
        "uniform": lambda: u * 2 - 1,
        "negative": lambda: -3 * u - 1,
        "discrete": lambda: (u * 5).floor() * 0.7 - 1,
        "heavy": lambda: wide,
        "lognormal": lambda: x.exp(),
        "outlier": lambda: x.index_fill(0, torch.tensor(count // 2), 100.0),
        "outliers": lambda: torch.where(u > 0.999, x * 30, x),
        "bimodal": lambda: torch.where(u > 0.5, x * 0.3 + 3, x * 0.3 - 2),
        "sparse": lambda: torch.where(u > 0.9, x, 0.0),
        "sigmoid": lambda: torch.sigmoid(3 * x),
        "constant": lambda: torch.full_like(x, 1.7),
    }[kind]()


KINDS = [
    "normal", "shifted", "relu", "laplace", "relu6", "hardswish", "uniform", "negative", "discrete", "heavy",
    "lognormal", "outlier", "outliers", "bimodal", "sparse", "sigmoid", "constant",
]  # fmt: skip
KIND = pytest.mark.parametrize("kind", KINDS)


def seen(batches: list[torch.Tensor]) -> TensorStats:
    """Statistics of the batches."""
    return reduce(TensorStats.merge, [measure(batch) for batch in batches])


def chosen(name: str, stats: TensorStats, bits: int = 8, symmetric: bool = False, **options: float | str) -> tuple:
    return tensor_range(stats, TensorSpec(name, bits, symmetric, options=options), "conv1")


def mapping(pair: tuple[float, float], codes: tuple[int, int], symmetric: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and zero_point of a range."""
    return qparams(torch.tensor([pair[0]]), torch.tensor([pair[1]]), *codes, symmetric)


def quantization_mse(x: torch.Tensor, pair: tuple[float, float], bits: int, symmetric: bool) -> float:
    """Mean squared error of quantizing x to the range, with unsigned codes."""
    codes = code_range(bits, signed=False)
    return float((fake_quantize(x, *mapping(pair, codes, symmetric), *codes).double() - x.double()).square().mean())


# --- equal to torch's


def torchs(observer: type, batches: list[torch.Tensor], codes: tuple[int, int], symmetric: bool, **more: float):
    """Scale and zero_point of a torch.ao observer that saw the batches."""
    granularity = "channel" if "PerChannel" in observer.__name__ else "tensor"
    made = observer(
        dtype=torch.qint8 if codes[0] < 0 else torch.quint8,
        qscheme=getattr(torch, f"per_{granularity}_{'symmetric' if symmetric else 'affine'}"),
        quant_min=codes[0],
        quant_max=codes[1],
        **more,
    )
    for batch in batches:
        made(batch)
    assume((made.min_val <= made.max_val).all())  # rounding may turn a moving average, which torch refuses
    return made.calculate_qparams()


def assert_same_mapping(ours: tuple[torch.Tensor, ...], theirs: tuple[torch.Tensor, ...]) -> None:
    for mine, torch_own in zip(ours, theirs, strict=True):
        assert torch.equal(mine.reshape(-1).double(), torch_own.reshape(-1).double())


NUMBERS = st.one_of(st.floats(-1e30, 1e30), st.floats(-10, 10))
BATCHES = st.lists(st.lists(NUMBERS, min_size=1, max_size=12), min_size=1, max_size=4)
DTYPES = st.sampled_from([torch.float32, torch.float16, torch.bfloat16])


@SYMMETRIC
@SIGNED
@settings(max_examples=40, deadline=None)
@given(values=BATCHES, dtype=DTYPES, constant=st.sampled_from([0.01, 0.1, 1.0]), bits=st.integers(2, 8))
@example(values=[[0.0, 0.0]], dtype=torch.float32, constant=0.01, bits=8)
@example(values=[[7.0, 7.0], [7.0]], dtype=torch.bfloat16, constant=0.01, bits=8)
@example(values=[[-3.0, -1.0], [-9.0]], dtype=torch.float16, constant=0.01, bits=8)
@example(values=[[1e-30], [-1e-30]], dtype=torch.float32, constant=0.01, bits=8)
@example(values=[[1e30], [-1e30, 5.0]], dtype=torch.float32, constant=0.01, bits=8)
@example(values=[[0.1, -0.2, 1e6], [0.3]], dtype=torch.float32, constant=0.1, bits=4)
def test_minmax_and_moving_average_are_torchs(
    symmetric: bool, signed: bool, values: list[list[float]], dtype: torch.dtype, constant: float, bits: int
) -> None:
    batches = [torch.tensor(batch).to(dtype) for batch in values]
    assume(all(batch.isfinite().all() for batch in batches))
    stats, codes = seen(batches), code_range(bits, signed)
    ours = mapping(chosen("minmax", stats, bits, symmetric), codes, symmetric)
    assert_same_mapping(ours, torchs(MinMaxObserver, batches, codes, symmetric))
    ours = mapping(chosen("moving_average", stats, bits, symmetric, averaging_constant=constant), codes, symmetric)
    theirs = torchs(MovingAverageMinMaxObserver, batches, codes, symmetric, averaging_constant=constant)
    assert_same_mapping(ours, theirs)


@SYMMETRIC
@pytest.mark.parametrize("axis", [0, 1])
@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=5), dtype=DTYPES)
@example(rows=[(0.0, 0.0, 0.0), (-1.0, -2.0, -3.0), (1e-30, 0.0, 1e-30), (1e30, 5.0, 0.0)], dtype=torch.float32)
def test_minmax_and_moving_average_per_channel_are_torchs(
    symmetric: bool, axis: int, rows: list[tuple[float, ...]], dtype: torch.dtype
) -> None:
    weight = torch.tensor(rows).to(dtype)
    assume(weight.isfinite().all())
    codes = code_range(8, signed=True)
    for name, observer in (
        ("minmax", PerChannelMinMaxObserver),
        ("moving_average", MovingAveragePerChannelMinMaxObserver),
    ):
        spec = TensorSpec(name, symmetric=symmetric, per_channel=True)
        ours = qparams(*channel_ranges(weight, axis, spec, "fc"), *codes, symmetric)
        assert_same_mapping(ours, torchs(observer, [weight], codes, symmetric, ch_axis=axis))


@cache
def histogram_cases(kind: str, count: int, parts: int, growing: bool) -> tuple[torch.Tensor, TensorStats, tuple]:
    """Values in batches, their statistics, and the range of torch's own HistogramObserver."""
    batches = list(drawn(kind, count).chunk(parts))
    if growing:
        batches = [batch * (1 + number / 2) for number, batch in enumerate(batches)]
    observer = HistogramObserver()
    for batch in batches:
        observer(batch)
    lo, hi = observer._non_linear_param_search()
    return torch.cat(batches), seen(batches), (float(lo), float(hi))


@pytest.mark.parametrize(
    ("count", "parts", "growing"),
    [(1, 1, False), (12, 1, False), (20_000, 1, False), (6_000, 3, True), (150_528, 3, False), (150_528, 3, True)],
    ids=["one-value", "12", "20000", "6000-in-3-growing-batches", "150528-in-3-batches", "150528-in-3-growing-batches"],
)
@KIND
def test_histogram_is_never_more_than_two_percent_worse_than_torchs(
    kind: str, count: int, parts: int, growing: bool
) -> None:
    x, stats, theirs = histogram_cases(kind, count, parts, growing)
    rounding = 1e-12 * float(x.double().square().mean())
    for bits in range(2, 9):
        for symmetric in (False, True):
            ours = chosen("histogram", stats, bits, symmetric)
            worst = 1.02 * quantization_mse(x, theirs, bits, symmetric) + rounding
            assert quantization_mse(x, ours, bits, symmetric) <= worst, (bits, symmetric, ours, theirs)


@KIND
def test_histogram_is_torchs_where_all_values_of_one_batch_are_kept(kind: str) -> None:
    _, stats, theirs = histogram_cases(kind, 20_000, 1, False)
    assert chosen("histogram", stats) == pytest.approx(theirs, rel=1e-5, abs=1e-6)


@KIND
def test_histogram_at_eight_bits_is_close_to_torchs(kind: str) -> None:
    _, stats, theirs = histogram_cases(kind, 150_528, 3, False)
    ours, codes = chosen("histogram", stats), (0, 255)
    scales = [float(mapping(pair, codes, False)[0]) for pair in (ours, theirs)]
    assert scales[0] == pytest.approx(scales[1], rel=0.05)


# --- each against a slow version of its source


@pytest.mark.parametrize("percent", [60.0, 90.0, 99.0, 99.99, 100.0])
@KIND
def test_percentile_lies_between_the_neighbours_that_torch_interpolates(kind: str, percent: float) -> None:
    x = drawn(kind, 500)
    lo, hi = chosen("percentile", measure(x), percentile=percent)
    for edge, values in ((hi, x), (-lo, -x)):
        least, most = (torch.quantile(values, percent / 100, interpolation=way) for way in ("lower", "higher"))
        assert least <= edge <= most
    lo, hi = chosen("percentile", measure(x), symmetric=True, percentile=percent)
    assert torch.quantile(x.abs(), percent / 100, interpolation="lower") <= max(-lo, hi) <= x.abs().max()


@pytest.mark.parametrize("percent", [90.0, 99.0, 99.9])
@pytest.mark.parametrize("kind", ["normal", "relu", "laplace", "heavy", "outliers", "lognormal"])
def test_percentile_of_many_values_leaves_out_that_share(kind: str, percent: float) -> None:
    x = drawn(kind, 300_000)
    _, hi = chosen("percentile", seen(list(x.chunk(5))), percentile=percent)
    assert float((x > hi).double().mean()) == pytest.approx(1 - percent / 100, rel=0.1)


def best_mse(x: torch.Tensor, bits: int, symmetric: bool) -> float:
    """Least mean squared error over a fine grid of ranges, and finer ones around the best."""
    lowest, highest = x.min().clamp(max=0), x.max().clamp(min=0)
    shares = torch.from_numpy(np.geomspace(0.02, 1, 30)).float()
    lo, hi, least = lowest, highest, math.inf
    for span in (None, 0.2, 0.05, 0.01):
        steps = shares if span is None else torch.linspace(1 - span, 1 + span, 17)
        one = symmetric or lowest == 0 or highest == 0
        pairs = torch.stack([steps, steps], 1) if one else torch.cartesian_prod(steps, steps)
        from_lo, from_hi = (lowest, highest) if span is None else (lo, hi)
        tried = (from_lo * pairs[:, 0]).clamp(min=lowest), (from_hi * pairs[:, 1]).clamp(max=highest)
        if symmetric and span is None:  # one clip value for both ends
            tops = steps * torch.maximum(-lowest, highest)
            tried = torch.maximum(lowest, -tops), torch.minimum(highest, tops)
        errors = torch.cat(
            [
                range_errors(x, None, *each, bits, symmetric)
                for each in zip(*(edge.split(64) for edge in tried), strict=True)
            ]
        )
        place = int(errors.argmin())
        if errors[place] < least:
            lo, hi, least = tried[0][place], tried[1][place], float(errors[place])
    return least


@SYMMETRIC
@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8], ids=lambda bits: f"{bits}-bits")
@KIND
def test_mse_is_within_five_percent_of_the_best_of_a_fine_grid(kind: str, bits: int, symmetric: bool) -> None:
    x = drawn(kind, 1_500)
    lo, hi = chosen("mse", measure(x), bits, symmetric)
    ours = float(range_errors(x, None, torch.tensor(lo), torch.tensor(hi), bits, symmetric))
    assert ours <= 1.05 * best_mse(x, bits, symmetric) + 1e-5 * float(x.square().mean())


def slow_divergence(counts: np.ndarray, end: int, levels: int) -> float:
    """KL(p, q) of TensorRT's calibrator, bin by bin."""
    level = [min(int(place * levels / end), levels - 1) for place in range(end)]
    p, q = list(counts[:end]), [0.0] * end
    p[-1] += sum(counts[end:])
    for place in range(end):
        if counts[place]:
            same = [i for i in range(end) if level[i] == level[place] and counts[i]]
            q[place] = sum(counts[i] for i in same) / len(same)
    total_p, total_q = sum(p), sum(q)
    if any(a and not b for a, b in zip(p, q, strict=True)):
        return math.inf
    return sum(a / total_p * math.log(a / total_p / (b / total_q)) for a, b in zip(p, q, strict=True) if a)


@pytest.mark.parametrize("levels", [2, 8, 32])
@pytest.mark.parametrize("kind", ["normal", "laplace", "relu6", "discrete", "outliers"])
def test_entropy_measures_the_divergence_of_the_direct_loop(kind: str, levels: int) -> None:
    x = drawn(kind, 3_000).abs()
    counts = torch.histc(x, 128).double()
    counts[0] = counts[1]
    ends = torch.tensor([end for end in (32, 47, 64, 101, 128) if counts[:end].sum() > 0])
    expected = [slow_divergence(counts.numpy(), int(end), levels) for end in ends]
    assert divergence(counts, ends, levels).tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("kind", ["normal", "relu", "laplace", "heavy", "outliers", "relu6"])
def test_entropy_finds_about_the_least_divergence_of_all_ends(kind: str) -> None:
    x = drawn(kind, 20_000)
    bins, levels = 2048, 128 if kind not in ("relu", "relu6") else 256
    lo, hi = chosen("entropy", measure(x))
    top = x.abs().max().item()
    counts = torch.histc(x.abs(), bins, 0, top).double()
    counts[0] = counts[1]
    every = divergence(counts, torch.arange(levels, bins + 1), levels)
    ours = divergence(counts, torch.tensor([round(max(-lo, hi) / top * bins)]), levels)
    assert float(ours) <= 1.1 * float(every.min()) + 1e-3


def test_entropy_keeps_values_far_from_zero() -> None:
    x = drawn("uniform", 5_000) * 2.5 + 7.5  # from 5 to 10, where the first bin alone has no divergence
    assert chosen("entropy", measure(x))[1] > 9.5


LAPLACE = {2: 2.83, 3: 3.89, 4: 5.03, 5: 6.20, 6: 7.41, 7: 8.64, 8: 9.89}  # clip over mean magnitude, Banner 2019
GAUSS = {2: 1.71, 3: 2.15, 4: 2.55, 5: 2.93, 6: 3.28, 7: 3.61, 8: 3.92}  # clip over standard deviation


@BITS
def test_aciq_has_the_published_clip_values(bits: int) -> None:
    assert laplace_clip(bits) == pytest.approx(LAPLACE[bits], abs=0.01)
    assert gauss_clip(bits) == pytest.approx(GAUSS[bits], abs=0.01)


@SYMMETRIC
@pytest.mark.parametrize(
    ("kind", "table", "width"), [("normal", GAUSS, 1.0), ("laplace", LAPLACE, 1.0)], ids=["gauss", "laplace"]
)
@pytest.mark.parametrize("bits", [2, 4], ids=lambda bits: f"{bits}-bits")
def test_aciq_recognises_the_distribution(
    kind: str, table: dict[int, float], width: float, bits: int, symmetric: bool
) -> None:
    x = drawn(kind, 50_000)
    expected = pytest.approx(width * table[bits], rel=0.02)
    lo, hi = chosen("aciq", measure(x), bits, symmetric)
    assert -lo == expected and hi == expected
    lo, hi = chosen("aciq", measure(x + 0.3), bits)
    assert hi - lo == pytest.approx(2 * width * table[bits], rel=0.02)
    # Of one side, half the values are zeros; affine codes then have one bit more for it.
    one_side = table[bits] if symmetric else table[bits + 1]
    assert chosen("aciq", measure(x.relu()), bits, symmetric) == (0, pytest.approx(width * one_side, rel=0.02))
    assert chosen("aciq", measure(-x.relu()), bits, symmetric) == (pytest.approx(-width * one_side, rel=0.02), 0)


def test_aciq_takes_the_distribution_it_is_told() -> None:
    stats = measure(drawn("normal", 50_000))
    assert chosen("aciq", stats, 4, distribution="gauss") == chosen("aciq", stats, 4)
    told = chosen("aciq", stats, 2, distribution="laplace")[1]
    assert told == pytest.approx(LAPLACE[2] * math.sqrt(2 / math.pi), rel=0.02)


def test_mean_std_reaches_so_many_deviations_within_the_values() -> None:
    x = drawn("normal", 50_000) * 2 + 1
    lo, hi = chosen("mean_std", measure(x), sigmas=2.5)
    mean, deviation = float(x.mean()), float(x.std())
    assert (lo, hi) == pytest.approx((mean - 2.5 * deviation, mean + 2.5 * deviation), rel=1e-4)
    assert chosen("mean_std", measure(x), sigmas=20.0) == (x.min().item(), x.max().item())


# --- every one of them

EDGES = {
    "zeros": torch.zeros(100),
    "one": torch.tensor([3.5]),
    "one-negative": torch.tensor([-2.0]),
    "constant": torch.full((3_000,), 0.1),
    "negative": -drawn("lognormal", 2_000),
    "far-from-zero": drawn("uniform", 2_000) * 2.5 + 7.5,
    "tiny": torch.full((10,), 1e-30),
    "tiny-normal": drawn("normal", 1_000) * 1e-30,
    "huge": torch.full((5,), 1e30),
    "huge-normal": drawn("normal", 1_000) * 1e29,
    "outlier": drawn("normal", 3_000).index_fill(0, torch.tensor(7), 1e6),
    "few-values": torch.tensor([0.0, 1.0, 2.0] * 50),
    "half": drawn("normal", 1_000).half(),
    "brain": drawn("normal", 1_000).bfloat16(),
    "nothing-finite": torch.full((4,), math.nan),
}


@pytest.mark.parametrize("kind", EDGES)
@EVERY
def test_every_range_is_finite_and_within_the_values(name: str, kind: str) -> None:
    stats = measure(EDGES[kind])
    for bits in (2, 4, 8):
        for symmetric in (False, True):
            lo, hi = chosen(name, stats, bits, symmetric)
            reach = max(-stats.lo, stats.hi) if symmetric else 0.0
            assert min(stats.lo, 0.0, -reach) <= lo <= hi <= max(stats.hi, 0.0, reach)


@SYMMETRIC
@KIND
def test_no_observer_beats_mse(kind: str, symmetric: bool) -> None:
    x = drawn(kind, 3_000)
    stats = measure(x)
    for bits in (3, 4, 8):
        pairs = torch.tensor([chosen(name, stats, bits, symmetric) for name in BUILT_IN])
        errors = range_errors(x, None, *pairs.unbind(1), bits, symmetric)
        ours = errors[BUILT_IN.index("mse")]
        assert ours <= 1.03 * errors.min() + 1e-5 * x.square().mean(), (bits, BUILT_IN[int(errors.argmin())])


SCALES = torch.tensor([1.0, 1e-3, 50.0, 0.0, 1e-30, 1e29])[:, None]
WEIGHT = torch.cat(
    [drawn("normal", 6 * 72).reshape(6, 72) * SCALES, torch.stack([drawn(kind, 72) for kind in KINDS])]
)  # a channel of each kind


@SYMMETRIC
@pytest.mark.parametrize("name", [name for name in BUILT_IN if find(name).rows and name != "mse"])
def test_rows_equal_the_range_of_each_row(name: str, symmetric: bool) -> None:
    spec = TensorSpec(name, 5, symmetric, per_channel=True)
    lo, hi = channel_ranges(WEIGHT, 0, spec, "conv1")
    assert lo.dtype == hi.dtype == torch.float32
    each = torch.tensor([tensor_range(measure(row), spec, "conv1") for row in WEIGHT])
    assert torch.allclose(torch.stack([lo, hi], 1), each, rtol=1e-5, atol=0)


@SYMMETRIC
@pytest.mark.parametrize("bits", [3, 8], ids=lambda bits: f"{bits}-bits")
def test_rows_of_mse_are_as_good_as_the_range_of_each_row(bits: int, symmetric: bool) -> None:
    spec = TensorSpec("mse", bits, symmetric, per_channel=True)
    lo, hi = channel_ranges(WEIGHT, 0, spec, "conv1")
    each = torch.tensor([tensor_range(measure(row), spec, "conv1") for row in WEIGHT])
    ours = range_errors(WEIGHT, None, lo, hi, bits, symmetric)
    best = range_errors(WEIGHT, None, *each.unbind(1), bits, symmetric)
    assert (ours <= 1.1 * best + 2e-3 * WEIGHT.double().square().mean(1)).all()


def test_a_moving_average_that_rounding_turns_is_a_range() -> None:
    stats = seen([torch.tensor([0.0, 16777219.0]), torch.tensor([1.0])])
    assert chosen("moving_average", stats, averaging_constant=1.0) == (0.0, 1.0)


@EVERY
def test_channels_lie_along_the_axis_asked_for(name: str) -> None:
    weight = drawn("normal", 3 * 4 * 5).reshape(3, 4, 5)
    spec = TensorSpec(name, symmetric=True, per_channel=True)
    lo, hi = channel_ranges(weight, 1, spec, "conv1")
    turned = channel_ranges(weight.transpose(0, 1).contiguous(), 0, spec, "conv1")
    assert torch.equal(lo, turned[0]) and torch.equal(hi, turned[1]) and lo.shape == (4,)


PREDICTED = [kind for kind in KINDS if kind != "constant"]


@pytest.mark.parametrize("kind", PREDICTED)
def test_the_error_predicted_for_every_range_is_the_real_one(kind: str) -> None:
    x = drawn(kind, 150_000)
    stats = seen(list(x.chunk(5)))
    for bits in (3, 4, 6, 8):
        codes = code_range(bits, signed=False)
        ranges = {name: chosen(name, stats, bits) for name in BUILT_IN}
        ranges |= {"clipped": (0.7 * stats.lo, 0.7 * stats.hi), "half": (0.5 * stats.lo, 0.5 * stats.hi)}
        for name, pair in ranges.items():
            scale, zero_point = mapping(pair, codes, False)
            predicted = error_parts(*stats.sample, scale, zero_point, *codes)
            real = sqnr_db(x, fake_quantize(x, scale, zero_point, *codes))
            assert predicted.sqnr_db == pytest.approx(real, abs=0.3), (name, bits)


# --- observers of one's own


@pytest.fixture(autouse=True)
def only_for_this_test() -> Iterator[None]:
    before = dict(OBSERVERS._entries)
    yield
    OBSERVERS._entries = before


STATS = measure(drawn("normal", 100))


def test_an_observer_gets_its_options() -> None:
    @qx.observer("mine", share=Option(0.5, 0.0, 1.0), steps=Option(3, 1, 9), way=Option("up", choices=("up", "down")))
    def mine(stats: TensorStats, spec: TensorSpec, share: float, steps: int, way: str) -> tuple[float, float]:
        """Only for this test.

        More of it.
        """
        got.append((share, steps, way))
        assert [type(value) for value in got[-1]] == [float, int, str]
        return -share, share

    got: list[tuple] = []
    assert find("mine").description == "Only for this test."
    assert chosen("mine", STATS) == (-0.5, 0.5)
    assert chosen("mine", STATS, share=1, steps=4.0, way="down") == (-1, 1)
    assert got == [(0.5, 3, "up"), (1.0, 4, "down")]


OPTIONS = {
    "unknown": ("percentile", {"percentil": 99.0}, "'percentil'", "did you mean 'percentile'"),
    "too-low": ("percentile", {"percentile": 0.1}, "'percentile'", "number from 60 to 100 %"),
    "too-high": ("mean_std", {"sigmas": 1e9}, "'sigmas'", "number from 0.5 to 20 standard deviations"),
    "text": ("mean_std", {"sigmas": "4"}, "'sigmas'", "give a number"),
    "no-whole-number": ("entropy", {"bins": 1000.5}, "'bins'", "whole number from 512 to 8192"),
    "no-choice": ("aciq", {"distribution": "normal"}, "'distribution'", "auto, laplace, gauss"),
    "number-for-a-choice": ("aciq", {"distribution": 1}, "'distribution'", "auto, laplace, gauss"),
    "none-there": ("minmax", {"share": 1.0}, "'share'", "has no options"),
}


@pytest.mark.parametrize(("name", "options", "named", "remedy"), OPTIONS.values(), ids=OPTIONS)
def test_an_option_that_does_not_fit_is_refused(name: str, options: dict, named: str, remedy: str) -> None:
    spec = TensorSpec(name, per_channel=True, options=options)
    for use in (lambda: tensor_range(STATS, spec, "conv1"), lambda: channel_ranges(WEIGHT, 0, spec, "conv1")):
        with pytest.raises(QexploreError) as error:
            use()
        assert_plain(str(error.value), repr(name), named, remedy)


def assert_plain(message: str, *parts: str) -> None:
    """The message is one sentence with these parts."""
    assert all(part in message for part in parts), message
    assert message.endswith((".", "?")) and "\n" not in message and len(message) < 300


@pytest.mark.parametrize("value", [True, None, [1.0], math.nan, math.inf])
def test_what_is_no_option_value_is_refused(value: object) -> None:
    with pytest.raises(QexploreError, match="options is"):
        TensorSpec("percentile", options={"percentile": value})


def fine(stats: TensorStats, spec: TensorSpec, **options: object) -> tuple[float, float]:
    return -1.0, 1.0


REGISTERED = {
    "built-in": (lambda: qx.observer("minmax")(fine), "'minmax'", "give yours another name"),
    "no-name": (lambda: qx.observer("")(fine), "''", "give a word"),
    "no-brackets": (lambda: qx.observer(fine), "name is", "give a word"),
    "no-function": (lambda: qx.observer("mine")(3), "'mine'", "decorate a function"),
    "one-argument": (lambda: qx.observer("mine")(lambda stats: (0, 1)), "'mine'", "(stats, spec)"),
    "option-missing": (lambda: qx.observer("mine", a=Option(1))(lambda stats, spec: (0, 1)), "'mine'", "spec, a)"),
    "option-number": (lambda: qx.observer("mine", a=5)(fine), "'a'", "qx.Option"),
    "option-bool": (lambda: qx.observer("mine", a=Option(True))(fine), "'a'", "give a number"),
    "option-none": (lambda: qx.observer("mine", a=Option(None))(fine), "'a'", "give a number"),
    "option-nan": (lambda: qx.observer("mine", a=Option(math.nan))(fine), "'a'", "give a number"),
    "option-word": (lambda: qx.observer("mine", a=Option("x"))(fine), "'a'", "choices"),
    "option-other-word": (lambda: qx.observer("mine", a=Option("x", choices=("y", "z")))(fine), "'a'", "y, z"),
    "option-outside": (lambda: qx.observer("mine", a=Option(5.0, 6.0, 7.0))(fine), "'a'", "from 6 to 7"),
}


@pytest.mark.parametrize(("register", "named", "remedy"), REGISTERED.values(), ids=REGISTERED)
def test_a_wrong_registration_is_refused(register: Callable[[], object], named: str, remedy: str) -> None:
    with pytest.raises(QexploreError) as error:
        register()
    assert_plain(str(error.value), named, remedy)
    assert "mine" not in OBSERVERS


def test_registering_again_replaces() -> None:
    for reach in (1.0, 2.0):
        qx.observer("mine", f"reaches {reach}")(lambda stats, spec, reach=reach: (-reach, reach))
        assert chosen("mine", STATS) == (-reach, reach)
    assert list(OBSERVERS).count("mine") == 1 and find("mine").description == "reaches 2.0"


def test_an_observer_nobody_registered_is_named() -> None:
    with pytest.raises(QexploreError, match=r"no observer named 'minmx'.*did you mean 'minmax'.*@qx.observer"):
        chosen("minmx", STATS)


GOOD = {
    "ints": (0, 1),
    "list": [-1.0, 1.0],
    "tensor": torch.tensor([-1.0, 1.0]),
    "array": np.array([-1.0, 1.0], np.float32),
    "tensors": (torch.tensor(-1.0), torch.tensor([1.0])),
    "parameters": (torch.nn.Parameter(torch.tensor(-1.0)), np.float64(1)),
    "point": (2.0, 2.0),
}


@pytest.mark.parametrize("result", GOOD.values(), ids=GOOD)
def test_two_numbers_of_any_type_are_a_range(result: object) -> None:
    qx.observer("mine")(lambda stats, spec: result)
    lo, hi = chosen("mine", STATS)
    assert isinstance(lo, float) and isinstance(hi, float) and lo <= hi
    lows, highs = channel_ranges(torch.ones(3, 2), 0, TensorSpec("mine", per_channel=True), "fc")
    assert lows.tolist() == [lo] * 3 and highs.tolist() == [hi] * 3


def raising(kind: type[Exception], *arguments: object) -> Callable[[], object]:
    def fail() -> object:
        raise kind(*arguments)

    return fail


MISTAKES = {
    "none": (lambda: None, "return two numbers"),
    "number": (lambda: 3.0, "return two numbers"),
    "three": (lambda: (1, 2, 3), "return two numbers"),
    "empty": (lambda: (), "return two numbers"),
    "text": (lambda: "12", "return two numbers"),
    "texts": (lambda: ("1", "2"), "return two numbers"),
    "nones": (lambda: (None, 1.0), "return two numbers"),
    "complex": (lambda: (1j, 2.0), "return two numbers"),
    "matrix": (lambda: torch.zeros(2, 40), "return two numbers"),
    "whole-tensors": (lambda: (torch.zeros(30), torch.ones(30)), "return two numbers"),
    "beyond-floats": (lambda: (0, 10**400), "return two numbers"),
    "beyond-float32": (lambda: (0, 1e39), "two finite numbers"),
    "nan": (lambda: (math.nan, 1.0), "two finite numbers"),
    "inf": (lambda: (0.0, torch.tensor(math.inf)), "two finite numbers"),
    "turned": (lambda: (2.0, 1.0), "return (lo, hi)"),
    "raises": (raising(ZeroDivisionError, "division by zero"), "ZeroDivisionError: division by zero"),
    "raises-without-words": (raising(KeyError), "KeyError"),
    "raises-lines": (raising(RuntimeError, "first\nsecond"), "RuntimeError: first;"),
}


@pytest.mark.parametrize(("give", "remedy"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_sentence_that_names_the_observer_and_the_tensor(
    give: Callable[[], object], remedy: str
) -> None:
    qx.observer("mine")(lambda stats, spec: give())
    with pytest.raises(QexploreError) as error:
        chosen("mine", STATS)
    assert_plain(str(error.value), "'mine'", "'conv1'", remedy)
    with pytest.raises(QexploreError) as error:
        channel_ranges(WEIGHT, 0, TensorSpec("mine", per_channel=True), "conv1")
    assert_plain(str(error.value), "'mine'", "'conv1, channel 0'", remedy)


ROWS = {
    "none": (lambda values: None, "two tensors (lo, hi)"),
    "one": (lambda values: values.amin(1), "two tensors (lo, hi)"),
    "numbers": (lambda values: (0.0, 1.0), "two tensors (lo, hi)"),
    "wrong-shape": (lambda values: (values, values), "two tensors (lo, hi)"),
    "wrong-count": (lambda values: (torch.zeros(2), torch.ones(2)), "two tensors (lo, hi)"),
    "turned": (lambda values: (torch.tensor([0.0, 0.0, 2.0]), torch.ones(3)), "channel 2"),
    "nan": (lambda values: (torch.zeros(3), torch.tensor([1.0, math.nan, 1.0])), "channel 1"),
    "raises": (lambda values: values @ values, "RuntimeError"),
}


@pytest.mark.parametrize(("rows", "named"), ROWS.values(), ids=ROWS)
def test_a_mistake_in_rows_is_told_as_well(rows: Callable[[torch.Tensor], object], named: str) -> None:
    qx.observer("mine", rows=lambda values, spec: rows(values))(fine)
    with pytest.raises(QexploreError) as error:
        channel_ranges(torch.ones(3, 2), 0, TensorSpec("mine", per_channel=True), "fc")
    assert_plain(str(error.value), "'mine'", "'fc", named)


def test_rows_of_ones_own_are_used() -> None:
    qx.observer("mine", rows=lambda values, spec: (values.amin(1), values.amax(1) * 2))(fine)
    lo, hi = channel_ranges(torch.ones(3, 2), 0, TensorSpec("mine", per_channel=True), "fc")
    assert lo.tolist() == [1, 1, 1] and hi.tolist() == [2, 2, 2]
