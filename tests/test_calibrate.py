"""Statistics of one pass: exact where they say so, and good enough to predict the error of a range."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from qexplore import Cancelled, QexploreError, TensorStats, Workload, calibrate
from qexplore.calibrate.graph import trace
from qexplore.calibrate.stats import measure
from qexplore.numerics.affine import code_range, fake_quantize, qparams
from qexplore.numerics.errors import sqnr_db

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


@pytest.mark.parametrize("parts", [1, 3, 40], ids=lambda n: f"{n}-batches")
def test_samples_stay_few(parts: int) -> None:
    stats = in_batches(values("normal"), parts)
    assert len(stats.samples) == parts
    assert sum(sample.numel() for sample in stats.samples) <= 32768


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


def test_calibration_counts_all_when_asked(make: Callable[..., Workload]) -> None:
    workload = make(nn.Sequential(nn.Flatten()), torch.zeros(1, 1 << 17), torch.ones(1, 1 << 17))
    assert calibrate(workload, exact=True).stats["input"].count == 2 << 17
    assert calibrate(workload).stats["input"].count < 2 << 17


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
