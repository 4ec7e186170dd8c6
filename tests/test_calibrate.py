"""Statistics of one pass: exact where they say so, and good enough to predict the error of a range."""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from qexplore import Cancelled, QexploreError, TensorStats, Workload, calibrate
from qexplore.calibrate import collect
from qexplore.calibrate.graph import trace
from qexplore.calibrate.measure import measure
from qexplore.numerics.affine import code_range, fake_quantize, qparams
from qexplore.numerics.errors import sqnr_db
from tests.conftest import ResidualNet, normal, seeded_model

COUNT = 200_000


def values(kind: str, count: int = COUNT) -> torch.Tensor:
    x = torch.randn(count, generator=torch.Generator().manual_seed(0))
    return {
        "normal": x,
        "relu": x.relu(),
        "relu6": (x * 6).clamp(0, 6),
        "outlier": torch.cat([x[:-1], torch.tensor([100.0])]),
    }[kind]


def in_batches(x: torch.Tensor, parts: int) -> TensorStats:
    first, *others = [measure(batch) for batch in x.chunk(parts)]
    for other in others:
        first = first.merge(other)
    return first


def assert_same(one: TensorStats, two: TensorStats) -> None:
    for name in ("count", "nonfinite", "lo", "hi"):
        assert getattr(one, name) == getattr(two, name)
    assert torch.equal(one.buckets, two.buckets)
    assert one.mean == pytest.approx(two.mean, rel=1e-9)
    assert one.variance == pytest.approx(two.variance, rel=1e-9)


@pytest.mark.parametrize("kind", ["normal", "relu", "relu6", "outlier"])
def test_statistics_are_exact(kind: str) -> None:
    x = values(kind)
    stats = in_batches(x, 4)
    assert stats.count == int(stats.buckets.sum()) == x.numel()
    assert (stats.lo, stats.hi) == (x.min().item(), x.max().item())
    assert stats.batch_lo.tolist() == [part.min().item() for part in x.chunk(4)]
    assert stats.batch_hi.tolist() == [part.max().item() for part in x.chunk(4)]
    assert stats.mean == pytest.approx(x.double().mean().item(), rel=1e-9)
    assert stats.variance == pytest.approx(x.double().var(correction=0).item(), rel=1e-9)


def test_batches_add_up_to_one_pass() -> None:
    x = values("outlier")
    assert_same(in_batches(x, 4), measure(x))


def test_merging_halves_equals_merging_one_by_one() -> None:
    parts = [measure(part) for part in values("normal").chunk(8)]
    one_by_one = in_batches(values("normal"), 8)
    halves = [a.merge(b) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    tree = halves[0].merge(halves[1]).merge(halves[2].merge(halves[3]))
    assert_same(one_by_one, tree)
    assert torch.equal(one_by_one.batch_lo, tree.batch_lo)
    for a, b in zip(one_by_one.samples, tree.samples, strict=True):
        assert torch.equal(a, b)


@given(st.lists(st.floats(-4, 4, width=32), max_size=300), st.integers(0, 120), st.integers(1, 5))
def test_tails_are_the_outermost_values_however_they_are_split(few: list[float], zeros: int, parts: int) -> None:
    x = torch.cat([torch.tensor(few, dtype=torch.float32), torch.zeros(zeros), -torch.zeros(zeros // 2), torch.ones(1)])
    x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
    stats, tails = in_batches(x, parts), measure(x).tails
    assert torch.equal(stats.tails, tails)
    ordered = x.sort().values
    low = int((ordered.unsqueeze(1) == tails).any(1).int().cumprod(0).sum())
    high = int((ordered.unsqueeze(1) == tails).any(1).flip(0).int().cumprod(0).sum())
    assert low + high >= len(x) or (low + high == len(tails) and max(low, high) <= 96)
    assert stats.sample[1].sum() == pytest.approx(len(x))


@pytest.mark.parametrize("size", [1e2, 1e4, 1e6])
@pytest.mark.parametrize("parts", [1, 5], ids=lambda n: f"{n}-batches")
def test_a_lone_outlier_that_is_not_sampled_counts_as_itself(parts: int, size: float) -> None:
    x = torch.cat([normal(COUNT, seed=1), torch.tensor([size])])
    samples = 1 << 12
    first, *others = [measure(batch, samples=samples) for batch in x.chunk(parts)]
    values, weights = functools.reduce(TensorStats.merge, others, first).sample
    codes = code_range(8, signed=False)
    mapping = qparams(x.min(), x.max(), *codes, symmetric=False)
    rounded = fake_quantize(values, *mapping, *codes)
    noise = (weights @ (values - rounded).double() ** 2) / weights.sum()
    assert noise == pytest.approx(float((x - fake_quantize(x, *mapping, *codes)).double().square().mean()), rel=0.05)


@pytest.mark.parametrize("parts", [1, 3, 40], ids=lambda n: f"{n}-batches")
def test_samples_stay_few(parts: int) -> None:
    stats = in_batches(values("normal"), parts)
    assert len(stats.samples) == parts
    assert sum(sample.numel() for sample in stats.samples) <= 262144


@pytest.mark.parametrize("parts", [1, 5], ids=lambda n: f"{n}-batches")
@pytest.mark.parametrize("kind", ["normal", "relu", "relu6", "outlier"])
def test_weights_of_the_sample_add_up_to_the_count(kind: str, parts: int) -> None:
    stats = in_batches(values(kind), parts)
    sample, weights = stats.sample
    assert weights.sum() == pytest.approx(stats.count)
    assert (weights > 0).all()
    assert sample.min() >= stats.lo and sample.max() <= stats.hi


@pytest.mark.parametrize("share", [1.0, 0.7], ids=["whole-range", "clipped"])
@pytest.mark.parametrize("bits", [3, 4, 6, 8])
@pytest.mark.parametrize("kind", ["normal", "relu", "relu6", "outlier"])
def test_the_sample_predicts_the_error_of_a_range(kind: str, bits: int, share: float) -> None:
    x = values(kind)
    codes = code_range(bits, signed=False)
    mapping = qparams(x.min() * share, x.max() * share, *codes, symmetric=False)
    sample, weights = in_batches(x, 5).sample
    rounded = fake_quantize(sample, *mapping, *codes)
    predicted = 10 * math.log10((weights @ sample.double() ** 2) / (weights @ (sample - rounded).double() ** 2))
    assert predicted == pytest.approx(sqnr_db(x, fake_quantize(x, *mapping, *codes)), abs=0.3)


def test_one_outlier_is_not_lost() -> None:
    sample, weights = in_batches(values("outlier"), 5).sample
    assert weights[sample > 50].sum() == pytest.approx(1)


def test_nonfinite_values_are_counted_and_left_out() -> None:
    x = torch.tensor([1.0, math.nan, 3.0, math.inf, -math.inf, -2.0])
    stats = measure(x)
    assert (stats.count, stats.nonfinite) == (3, 3)
    assert (stats.lo, stats.hi) == (-2.0, 3.0)
    assert stats.mean == pytest.approx(2 / 3)
    assert stats.sample[0].isfinite().all()


def test_a_tensor_of_nan_has_no_values() -> None:
    stats = measure(torch.full((5,), math.nan)).merge(measure(torch.tensor([2.0, 4.0])))
    assert (stats.count, stats.nonfinite) == (2, 5)
    assert stats.mean == pytest.approx(3)


def test_a_limit_keeps_extremes_and_nonfinite_exact() -> None:
    x = values("outlier")
    x[1] = math.nan
    stats = measure(x, limit=1000)
    assert stats.nonfinite == 1
    assert (stats.lo, stats.hi) == (x[x.isfinite()].min().item(), 100.0)
    assert 500 <= stats.count <= 2000  # "about so many"
    assert stats.sample[1].sum() == pytest.approx(stats.count)


def assert_channels(stats: TensorStats, x: torch.Tensor, axis: int, exact: bool = True) -> None:
    """The channels' statistics are those of `x` over its other dimensions; the power only where all is counted."""
    rows = x.movedim(axis, 0).reshape(x.shape[axis], -1)
    assert stats.channel_lo is not None and stats.channel_hi is not None and stats.channel_power is not None
    assert torch.equal(stats.channel_lo, rows.amin(1)) and torch.equal(stats.channel_hi, rows.amax(1))
    if exact:
        torch.testing.assert_close(stats.channel_power, rows.double().square().mean(1), rtol=1e-5, atol=0)
    assert stats.lo == x.min() and stats.hi == x.max()


LAYOUTS = {
    "contiguous": lambda x: x,
    "channels-last": lambda x: x.movedim(1, -1).contiguous().movedim(-1, 1),
    "transposed": lambda x: x.transpose(0, -1).contiguous().transpose(0, -1),
    "part-of-another": lambda x: torch.cat([x, x - 100], -1).chunk(2, -1)[0],
    "expanded": lambda x: x[:1].expand(x.shape),
}


@settings(deadline=None)
@given(data=st.data(), layout=st.sampled_from(list(LAYOUTS)), limit=st.sampled_from([None, 50]))
def test_channel_extremes_are_exact(data: st.DataObject, layout: str, limit: int | None) -> None:
    shape = data.draw(st.lists(st.integers(1, 16), min_size=2, max_size=4))
    axis = data.draw(st.integers(0, len(shape) - 1))
    x = LAYOUTS[layout](normal(*shape))
    assert_channels(measure(x, limit, axis), x, axis, exact=limit is None)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels-last"])
@pytest.mark.parametrize("shape", [(16, 5, 64, 64), (300, 6, 7, 7), (2000, 40, 1, 1)], ids=str)
def test_power_of_a_strided_subset_is_close(shape: tuple[int, ...], memory: torch.memory_format) -> None:
    x = (normal(*shape) + torch.arange(shape[1])[:, None, None]).contiguous(memory_format=memory)
    power = measure(x, 40_000, 1).channel_power
    assert power is not None
    torch.testing.assert_close(power, x.double().square().mean((0, 2, 3)), rtol=0.2, atol=0)


@settings(deadline=None)
@given(shapes=st.lists(st.integers(1, 5), min_size=2, max_size=5), inner=st.sampled_from([1, 7, 200]))
def test_channels_of_batches_merge_in_any_order(shapes: list[int], inner: int) -> None:
    batches = [normal(samples, 3, inner, seed=seed) for seed, samples in enumerate(shapes)]
    one, *others = [measure(batch, axis=1) for batch in batches]
    stats = one.merge(functools.reduce(TensorStats.merge, others))
    assert_channels(stats, torch.cat(batches), 1)


def test_a_changing_number_of_channels_leaves_none() -> None:
    three, four = measure(normal(2, 3), axis=1), measure(normal(2, 4), axis=1)
    for stats in (three.merge(four), four.merge(three), three.merge(four).merge(four), three.merge(measure(normal(5)))):
        assert stats.channel_lo is stats.channel_hi is stats.channel_power is None


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_tensor_with_nonfinite_values_has_no_channels(bad: float) -> None:
    x = normal(4, 3, 50)
    x[1, 2, 3] = bad
    stats = measure(x, axis=1)
    assert stats.channel_lo is stats.channel_hi is stats.channel_power is None
    assert (stats.count, stats.nonfinite) == (599, 1)
    assert (stats.lo, stats.hi) == (x[x.isfinite()].min(), x[x.isfinite()].max())


def test_the_power_of_large_values_does_not_overflow() -> None:
    stats = measure(torch.tensor([[1e30, 1.0], [-3e38, 1.0]]), axis=1)
    assert stats.channel_power is not None
    assert stats.channel_power.tolist() == pytest.approx([4.5e76, 1.0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_are_measured_as_float32(dtype: torch.dtype) -> None:
    x = normal(4, 3, 50).to(dtype)
    stats = measure(x, axis=1)
    assert_channels(stats, x.float(), 1)
    assert_same(stats, measure(x.float()))
    assert stats.batch_lo.dtype == stats.samples[0].dtype == torch.float32


@pytest.mark.parametrize("axis", [None, 1])
def test_an_empty_tensor_has_no_values(axis: int | None) -> None:
    empty = measure(torch.empty(0, 3), 10, axis)
    assert (empty.count, empty.nonfinite, int(empty.buckets.sum())) == (0, 0, 0)
    assert empty.channel_lo is None and empty.mean == empty.variance == 0
    assert empty.merge(measure(torch.tensor([2.0, 4.0]))).mean == 3


def test_a_scalar_is_one_value() -> None:
    stats = measure(torch.tensor(3.0))
    assert (stats.count, stats.lo, stats.hi, stats.mean) == (1, 3, 3, 3)


def test_thinned_samples_hold_no_more_memory_than_they_show() -> None:
    stats = in_batches(values("normal"), 40)
    assert all(s.untyped_storage().nbytes() == 4 * s.numel() for s in stats.samples)


def test_sequences_have_their_channels_last_unless_a_convolution_reads_them(make: Callable[..., Workload]) -> None:
    x = normal(2, 6, 6)
    stats = calibrate(make(nn.Sequential(nn.Linear(6, 4)), x)).stats
    assert_channels(stats["input"], x, 2)
    stats = calibrate(make(nn.Sequential(nn.Conv1d(6, 4, 3), nn.ReLU()), x)).stats
    assert_channels(stats["input"], x, 1)
    assert stats["1"].channel_lo is not None and len(stats["1"].channel_lo) == 4


def test_channels_of_a_model_are_exact_over_its_batches(conv: Workload) -> None:
    stats = calibrate(conv).stats
    with torch.no_grad():
        stem = torch.cat([conv.model.stem(batch) for batch in conv.calibration])
    assert stats["stem"].channel_lo is not None and stats["stem"].channel_hi is not None
    torch.testing.assert_close(stats["stem"].channel_lo, stem.amin((0, 2, 3)))
    torch.testing.assert_close(stats["stem"].channel_hi, stem.amax((0, 2, 3)))
    assert stats["fc"].channel_lo is not None and len(stats["fc"].channel_lo) == 5


def test_a_tensor_of_one_dimension_has_no_channels(make: Callable[..., Workload]) -> None:
    stats = calibrate(make(nn.Flatten(0), normal(3, 4))).stats
    assert stats["input"].channel_lo is not None and stats["flatten"].channel_lo is None


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "strided"])
def test_operations_in_place_do_not_change_what_was_seen_before_them(
    make: Callable[..., Workload], exact: bool
) -> None:
    apart, in_place = (nn.Sequential(seeded_model(ResidualNet, inplace).block) for inplace in (False, True))
    batches = [normal(2, 8, 96, 96, seed=seed) for seed in range(2)]  # large enough for a subset
    expected = calibrate(make(apart, *batches), exact).stats
    stats = calibrate(make(in_place, *batches), exact).stats
    assert list(stats) == list(expected)
    assert stats["0.bn1"].lo < 0 and stats["0.relu"].lo == 0 and stats["0.add"].lo < 0
    for name, one in stats.items():
        assert_same(one, expected[name])
        for key in ("batch_lo", "batch_hi", "channel_lo", "channel_hi", "channel_power"):
            assert torch.equal(getattr(one, key), getattr(expected[name], key))
        assert all(torch.equal(a, b) for a, b in zip(one.samples, expected[name].samples, strict=True))


def random_norm(norm: nn.Module, seed: int) -> nn.Module:
    """A BatchNorm with factors of either sign, some of them 0."""
    for position, name in enumerate(("weight", "bias", "running_mean", "running_var")):
        values = normal(norm.num_features, seed=4 * seed + position)
        getattr(norm, name).data = values.abs() if name == "running_var" else values
    norm.weight.data[::5] = 0
    return norm


class ByFunctions(nn.Module):
    """ReLUs as functions and methods, some in place, some of whose input is changed before another operation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(random_norm(nn.BatchNorm2d(channels), seed) for seed in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.norms[0](x))
        z = y - 1
        F.relu(z, inplace=True)
        y = self.norms[1](z) + F.hardtanh(F.relu6(input=y), -0.3, max_val=0.7)
        return self.norms[2](y).relu_() + y.relu()


FOLLOWING: dict[str, Callable[[int], nn.Module]] = {
    "norm": lambda c: random_norm(nn.BatchNorm2d(c), 0),
    "norm-relu": lambda c: nn.Sequential(random_norm(nn.BatchNorm2d(c), 1), nn.ReLU(), nn.Dropout()),
    "in-place": lambda c: nn.Sequential(nn.ReLU6(inplace=True), random_norm(nn.BatchNorm2d(c), 2), nn.ReLU(True)),
    "no-statistics": lambda c: nn.Sequential(nn.BatchNorm2d(c, track_running_stats=False), nn.Hardtanh(-0.1, 0.4)),
    "overflow": lambda c: nn.Sequential(random_norm(nn.BatchNorm2d(c), 3), nn.Identity(), nn.ReLU()),
    "functions": ByFunctions,
}


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "strided"])
@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("kind", list(FOLLOWING))
def test_extremes_that_follow_are_those_of_the_tensor(
    make: Callable[..., Workload], kind: str, layout: str, exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = [(1, 1, 3, 3), (3, 7, 5, 9), (2, 13, 40, 40), (5, 33, 8, 1)]
    monkeypatch.setattr(collect, "COUNTED", 1000)
    for shape in shapes:
        model = nn.Sequential(FOLLOWING[kind](shape[1]))
        if kind == "overflow":
            model[0][0].weight.data[0], model[0][0].running_var[0] = 3e38, 1e-10
        batches = [LAYOUTS[layout](normal(*shape, seed=seed) * 3) for seed in range(2)]
        derived = calibrate(make(model, *batches), exact).stats
        with monkeypatch.context() as patch:
            patch.setattr(collect, "monotone_operations", lambda graph: {})
            read = calibrate(make(model, *batches), exact).stats
        assert list(derived) == list(read)
        for name, stats in derived.items():
            assert_same(stats, read[name])
            for key in ("batch_lo", "batch_hi", "channel_lo", "channel_hi", "channel_power"):
                one, two = getattr(stats, key), getattr(read[name], key)
                assert one is two is None or torch.equal(one, two), (shape, name, key)


def test_batch_norm_of_sequences_is_read_by_its_own_channels(make: Callable[..., Workload]) -> None:
    x = normal(2, 6, 4)
    model = nn.Sequential(random_norm(nn.BatchNorm1d(6), 0), nn.ReLU()).eval()
    stats = calibrate(make(model, x)).stats
    assert_channels(stats["0"], model[0](x).detach(), 2)
    assert_channels(stats["1"], model(x).detach(), 2)


def test_what_follows_is_not_read(make: Callable[..., Workload], monkeypatch: pytest.MonkeyPatch) -> None:
    known = []
    real = collect.measure
    monkeypatch.setattr(collect, "measure", lambda *args: known.append(args[4] is not None) or real(*args))
    names = list(calibrate(make(seeded_model(ResidualNet, True), normal(2, 3, 8, 8))).stats)
    assert [name for name, given in zip(names, known, strict=True) if given] == [
        "block.bn1", "block.relu", "block.bn2", "block.relu_1",
    ]  # fmt: skip


BATCHES = {"tensor": lambda x: x, "tuple": lambda x: (x,), "dict": lambda x: {"input": x}}


@pytest.mark.parametrize("form", BATCHES.values(), ids=BATCHES)
def test_a_first_layer_in_place_leaves_the_batches_alone(make: Callable[..., Workload], form: Callable) -> None:
    x = normal(2, 4)
    workload = make(nn.Sequential(nn.ReLU(inplace=True)), form(x))
    for _ in range(2):
        assert calibrate(workload).stats["input"].lo == normal(2, 4).min()
    assert torch.equal(x, normal(2, 4))


def test_calibration_counts_all_when_asked(make: Callable[..., Workload]) -> None:
    workload = make(nn.Sequential(nn.Flatten()), torch.zeros(1, 1 << 20), torch.ones(1, 1 << 20))
    assert calibrate(workload, exact=True).stats["input"].count == 2 << 20
    assert calibrate(workload).stats["input"].count < 2 << 20


def test_names_of_a_traced_model(conv: Workload) -> None:
    calibration = calibrate(conv)
    assert list(calibration.stats) == [
        "input", "stem", "block.conv1", "block.bn1", "block.relu", "block.conv2", "block.bn2", "block.add",
        "block.relu_1", "pool", "flatten", "fc",
    ]  # fmt: skip
    assert calibration.inputs == {"fc": "flatten"}


def test_statistics_are_those_of_the_tensors_named(conv: Workload) -> None:
    stats = calibrate(conv, exact=True).stats
    model = conv.model
    with torch.no_grad():
        stems = [model.stem(batch) for batch in conv.calibration]
        ends = [model.block(stem) for stem in stems]
    for name, tensors in {"stem": stems, "block.relu_1": ends, "input": list(conv.calibration)}.items():
        assert stats[name].batch_lo.tolist() == pytest.approx([t.min().item() for t in tensors], abs=1e-6)
        assert stats[name].batch_hi.tolist() == pytest.approx([t.max().item() for t in tensors], abs=1e-6)
        assert stats[name].count == sum(t.numel() for t in tensors)


class TwoInputs(nn.Module):
    """Adds two projections, and gives a pair."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(5, 4)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        total = self.a(left) + self.b(right)
        return total, torch.relu(total)


LEFT, RIGHT = torch.ones(2, 3), -torch.ones(2, 5)
PAIRS = {
    "tuple": (LEFT, RIGHT),
    "list": [LEFT, RIGHT],
    "dict": {"left": LEFT, "right": RIGHT},
    "dict-other-order": {"right": RIGHT, "left": LEFT},
}


@pytest.mark.parametrize("batch", PAIRS.values(), ids=PAIRS)
def test_two_inputs_in_every_form(make: Callable[..., Workload], batch) -> None:
    calibration = calibrate(make(TwoInputs(), batch))
    assert list(calibration.stats) == ["input", "input_1", "a", "b", "add", "relu"]
    assert calibration.stats["input"].hi == 1 and calibration.stats["input_1"].hi == -1
    assert calibration.inputs == {"a": "input", "b": "input_1"}


def test_layers_read_through_the_output_of_an_lstm(lstm: Workload) -> None:
    calibration = calibrate(lstm)
    assert calibration.inputs == {"lstm": "embedding", "out": "lstm"}
    assert list(calibration.stats) == ["embedding", "lstm", "out"]  # the input is of whole numbers


def test_an_untraceable_model_is_read_by_its_modules(make: Callable[..., Workload], untraceable: nn.Module) -> None:
    x = torch.arange(12.0).reshape(2, 6)
    calibration = calibrate(make(untraceable, x))
    assert calibration.inputs == {"first": "first.input", "last": "last.input"}
    assert set(calibration.stats) == {"first.input", "first", "gate", "last.input", "last"}
    assert (calibration.stats["first.input"].lo, calibration.stats["first.input"].hi) == (0, 11)
    assert calibration.stats["last.input"].lo >= 0


def test_the_untraceable_message_places_the_failure(untraceable: nn.Module) -> None:
    with pytest.raises(QexploreError) as error:
        trace(untraceable)
    message = str(error.value)
    assert "module 'gate'" in message and "if x.sum() > 1e6" in message and "mode 'dynamic'" in message
    assert "\n" not in message and message.endswith(".")


def test_calibration_leaves_the_model_alone(conv: Workload) -> None:
    model = conv.model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    calibrate(conv)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


NOT_BATCHES = {
    "number": (3.0, "batch 1", "float"),
    "text": ("abc", "batch 1", "str"),
    "none": (None, "batch 1", "NoneType"),
    "array": (np.zeros(3), "batch 1", "ndarray"),
    "tuple": ((torch.zeros(1, 2), 3), "batch 1", "int"),
    "dict": ({"x": [1, 2]}, "batch 1", "list"),
    "no-samples": (torch.zeros(0, 2), "batch 1", "empty"),
    "empty-tuple": ((), "batch 1", "empty"),
}


@pytest.mark.parametrize(("batch", "place", "found"), NOT_BATCHES.values(), ids=NOT_BATCHES)
def test_what_is_no_batch_is_refused(make: Callable[..., Workload], batch, place: str, found: str) -> None:
    with pytest.raises(QexploreError, match=place) as error:
        calibrate(make(nn.Sequential(nn.Linear(2, 2)), torch.zeros(1, 2), batch))
    assert "'tiny'" in str(error.value) and found in str(error.value)


def test_an_empty_calibration_is_refused(conv_net: nn.Module, make: Callable[..., Workload]) -> None:
    with pytest.raises(QexploreError, match="Calibration of workload 'tiny' has no batches; give at least one"):
        calibrate(make(conv_net, calibration=[]))


ONCE_ONLY = {"iterator": iter([LEFT]), "generator": (x for x in [LEFT]), "none": None, "number": 5}


@pytest.mark.parametrize("calibration", ONCE_ONLY.values(), ids=ONCE_ONLY)
def test_a_calibration_has_to_be_readable_again(make: Callable[..., Workload], calibration) -> None:
    with pytest.raises(QexploreError, match=r"calibration of workload 'tiny' .* give a list"):
        make(nn.Linear(3, 3), calibration=calibration)


def test_a_loader_is_a_calibration(make: Callable[..., Workload]) -> None:
    data = torch.utils.data.TensorDataset(torch.arange(12.0).reshape(6, 2))
    loader = torch.utils.data.DataLoader(data, batch_size=4)
    stats = calibrate(make(nn.Sequential(nn.Linear(2, 1)), calibration=loader)).stats["input"]
    assert (stats.lo, stats.hi, stats.count) == (0, 11, 12)


def test_progress_and_cancel(conv: Workload) -> None:
    cancel, seen = threading.Event(), []

    def progress(message: str, fraction: float) -> None:
        seen.append(fraction)
        if len(seen) == 2:
            cancel.set()

    with pytest.raises(Cancelled):
        calibrate(conv, progress=progress, cancel=cancel)
    assert seen == [pytest.approx(1 / 3), pytest.approx(2 / 3)]
