"""The affine mapping against torch.ao's own, and the measures of error against their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.ao.quantization import MinMaxObserver, PerChannelMinMaxObserver

from qexplore.numerics.affine import EPS, code_range, fake_quantize, grid_range, qparams, quantize
from qexplore.numerics.errors import ErrorMeter, sqnr_db

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.ao's own

FLOATS = st.floats(-1e30, 1e30)
VALUES = st.lists(st.one_of(FLOATS, st.floats(-10, 10)), min_size=1, max_size=20)
BITS = pytest.mark.parametrize("bits", range(2, 9))
SYMMETRIC = pytest.mark.parametrize("symmetric", [False, True], ids=["affine", "symmetric"])
SIGNED = pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
OUTLIER = [1e4, *[0.01 * i for i in range(19)]]


def observed(observer: type, x: torch.Tensor, bits: int, symmetric: bool, signed: bool) -> tuple[torch.Tensor, ...]:
    """Scale and zero_point of a torch.ao observer that saw `x`."""
    granularity = "channel" if observer is PerChannelMinMaxObserver else "tensor"
    quant_min, quant_max = code_range(bits, signed)
    made = observer(
        dtype=torch.qint8 if signed else torch.quint8,
        qscheme=getattr(torch, f"per_{granularity}_{'symmetric' if symmetric else 'affine'}"),
        quant_min=quant_min,
        quant_max=quant_max,
    )
    made(x)
    return made.calculate_qparams()


def assert_same_mapping(ours: tuple[torch.Tensor, ...], torchs: tuple[torch.Tensor, ...]) -> None:
    for mine, theirs in zip(ours, torchs, strict=True):
        assert torch.equal(mine.reshape(-1).double(), theirs.reshape(-1).double())


@BITS
@SYMMETRIC
@SIGNED
@settings(max_examples=30)
@given(values=VALUES)
@example(values=[0.0])
@example(values=[0.0, 0.0])
@example(values=[-3.0, -1.0])
@example(values=[7.0, 7.0])
@example(values=[1e-30, -1e-30])
@example(values=[1e30, -1e30])
@example(values=OUTLIER)
def test_qparams_are_torchs(bits: int, symmetric: bool, signed: bool, values: list[float]) -> None:
    x = torch.tensor(values)
    ours = qparams(x.min(), x.max(), *code_range(bits, signed), symmetric=symmetric)
    assert_same_mapping(ours, observed(MinMaxObserver, x, bits, symmetric, signed))


@BITS
@SYMMETRIC
@settings(max_examples=30)
@given(rows=st.lists(st.tuples(FLOATS, FLOATS, FLOATS), min_size=1, max_size=4))
@example(rows=[(0.0, 0.0, 0.0), (-1.0, -2.0, -3.0), (1e-30, 0.0, 1e-30), (1e30, 5.0, 0.0)])
def test_qparams_per_channel_are_torchs(bits: int, symmetric: bool, rows: list[tuple[float, ...]]) -> None:
    x = torch.tensor(rows)
    ours = qparams(x.amin(1), x.amax(1), *code_range(bits, signed=True), symmetric=symmetric)
    assert_same_mapping(ours, observed(PerChannelMinMaxObserver, x, bits, symmetric, signed=True))


CASES = st.tuples(
    st.floats(1e-6, 1e6),  # scale
    st.floats(0, 1),  # zero_point, as a share of the codes
    st.lists(st.floats(-600, 600), min_size=1, max_size=30),  # values in steps
)


def case(bits: int, signed: bool, drawn: tuple[float, float, list[float]]) -> tuple[torch.Tensor, ...]:
    lo, hi = code_range(bits, signed)
    scale, share, steps = drawn
    return torch.tensor(steps) * scale, torch.tensor(scale), torch.tensor(lo + round(share * (hi - lo))).int()


@BITS
@SIGNED
@settings(max_examples=30)
@given(drawn=CASES)
@example(drawn=(0.5, 0.5, [0.5, 1.5, 2.5, -0.5, -1.5]))  # ties
def test_fake_quantize_is_torchs_bit_for_bit(bits: int, signed: bool, drawn) -> None:
    x, scale, zero_point = case(bits, signed, drawn)
    theirs = torch.fake_quantize_per_tensor_affine(x, scale, zero_point, *code_range(bits, signed))
    ours = fake_quantize(x, scale, zero_point, *code_range(bits, signed))
    assert torch.equal(ours.view(torch.int32), theirs.view(torch.int32))


@BITS
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_fake_quantize_per_channel_is_torchs_bit_for_bit(bits: int, axis: int) -> None:
    generator = torch.Generator().manual_seed(bits)
    x = torch.randn(4, 4, 4, generator=generator) * 3
    scale = torch.rand(4, generator=generator) + 0.01
    lo, hi = code_range(bits, signed=True)
    zero_point = torch.randint(lo, hi + 1, (4,), generator=generator, dtype=torch.int32)
    theirs = torch.fake_quantize_per_channel_affine(x, scale, zero_point, axis, lo, hi)
    ours = fake_quantize(x, scale, zero_point, lo, hi, axis)
    assert torch.equal(ours.view(torch.int32), theirs.view(torch.int32))


@BITS
@SIGNED
@settings(max_examples=30)
@given(drawn=CASES)
def test_properties_of_the_mapping(bits: int, signed: bool, drawn) -> None:
    x, scale, zero_point = case(bits, signed, drawn)
    codes = code_range(bits, signed)
    once = fake_quantize(x, scale, zero_point, *codes)
    assert torch.equal(fake_quantize(once, scale, zero_point, *codes), once)
    found = quantize(x, scale, zero_point, *codes)
    assert codes[0] <= int(found.min()) and int(found.max()) <= codes[1]
    lo, hi = grid_range(scale, zero_point, *codes)
    inside = (x >= lo) & (x <= hi)
    assert ((once - x).abs()[inside] <= 0.5001 * scale).all()
    assert ((once >= lo) & (once <= hi)).all()


@SYMMETRIC
@settings(max_examples=50)
@given(values=VALUES)
def test_the_grid_holds_zero_and_the_whole_range(symmetric: bool, values: list[float]) -> None:
    x = torch.tensor(values)
    codes = code_range(8, signed=True)
    scale, zero_point = qparams(x.min(), x.max(), *codes, symmetric=symmetric)
    assert fake_quantize(torch.zeros(1), scale, zero_point, *codes).item() == 0
    lo, hi = grid_range(scale, zero_point, *codes)
    step = scale.item() * 1.001
    assert lo.item() <= x.min().item() + step and hi.item() >= x.max().item() - step
    assert scale.item() >= EPS


def pair(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(50 + number, 3, generator=generator)
    return x, x + 0.1 * torch.randn(50 + number, 3, generator=generator)


def test_error_meter_follows_the_formulas() -> None:
    x, y = pair(0)
    meter = ErrorMeter()
    meter.add(x, y)
    x, y = x.double().flatten(), y.double().flatten()
    assert meter.count == x.numel()
    assert meter.mse == pytest.approx(float(((y - x) ** 2).mean()), rel=1e-5)
    assert meter.sqnr_db == pytest.approx(10 * math.log10(float((x**2).sum() / ((y - x) ** 2).sum())), abs=1e-4)
    assert meter.max_error == pytest.approx(float((y - x).abs().max()), rel=1e-5)
    assert meter.cosine == pytest.approx(float(x @ y / x.norm() / y.norm()), rel=1e-5)


def test_error_meter_adds_up_over_batches() -> None:
    pairs = [pair(number) for number in range(4)]
    parts, whole = ErrorMeter(), ErrorMeter()
    for x, y in pairs:
        parts.add(x, y)
    whole.add(torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs]))
    for figure in ("count", "mse", "sqnr_db", "max_error", "cosine"):
        assert getattr(parts, figure) == pytest.approx(getattr(whole, figure), rel=1e-5)


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30], ids=["tiny", "one", "huge"])
def test_sqnr_at_every_magnitude(size: float) -> None:
    x, y = pair(1)
    assert sqnr_db(x * size, x * size) == math.inf
    assert sqnr_db(x * size, y * size) == pytest.approx(sqnr_db(x, y), abs=0.01)
    assert sqnr_db(x * size, torch.zeros_like(x)) == pytest.approx(0, abs=1e-4)


def test_edge_cases_of_the_error_meter() -> None:
    zero, one = torch.zeros(3), torch.ones(3)
    assert sqnr_db(zero, one) == -math.inf
    assert sqnr_db(zero, zero) == math.inf
    assert math.isnan(ErrorMeter().mse)
    for x, y, cosine in ((zero, zero, 1), (zero, one, 0), (one, one * 5, 1), (one, -one, -1)):
        meter = ErrorMeter()
        meter.add(x, y)
        assert meter.cosine == pytest.approx(cosine)


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_uniform_values_give_six_decibels_a_bit(bits: int) -> None:
    x = torch.rand(100_000, generator=torch.Generator().manual_seed(0)) * 2 - 1
    codes = code_range(bits, signed=False)
    y = fake_quantize(x, *qparams(x.min(), x.max(), *codes, symmetric=False), *codes)
    assert sqnr_db(x, y) == pytest.approx(20 * math.log10(2**bits - 1), abs=0.3)
