"""The error of a range in parts, against quantizing the values."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qexplore.numerics.affine import code_range, fake_quantize, grid_range, qparams, quantize
from qexplore.numerics.parts import ErrorParts, error_parts, range_errors

BITS = pytest.mark.parametrize("bits", range(2, 9), ids=lambda bits: f"{bits}-bits")
SYMMETRIC = pytest.mark.parametrize("symmetric", [False, True], ids=["affine", "symmetric"])
SIGNED = pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
SIZE = pytest.mark.parametrize("size", [1e-3, 1.0, 1e6, 1e30])
VALUES = st.lists(st.one_of(st.floats(-10, 10), st.floats(-1e30, 1e30)), min_size=1, max_size=20)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def mapping(x: torch.Tensor, share: float, codes: tuple[int, int], symmetric: bool) -> tuple[torch.Tensor, ...]:
    """Scale and zero_point for this share of the values' range."""
    return qparams(x.min() * share, x.max() * share, *codes, symmetric)


@BITS
@SYMMETRIC
@SIGNED
@settings(max_examples=25, deadline=None)
@given(values=VALUES, share=st.floats(0.01, 1))
@example(values=[0.0], share=1.0)
@example(values=[1e30, -1.0, 2.0], share=1e-2)
@example(values=[1e-30, 1e-30], share=1.0)
def test_the_parts_add_up_to_the_error_of_quantizing(
    bits: int, symmetric: bool, signed: bool, values: list[float], share: float
) -> None:
    x, codes = torch.tensor(values), code_range(bits, signed)
    scale, zero_point = mapping(x, share, codes, symmetric)
    parts = error_parts(x, None, scale, zero_point, *codes)
    error = (fake_quantize(x, scale, zero_point, *codes).double() - x.double()).square()
    lo, hi = (float(edge) for edge in grid_range(scale, zero_point, *codes))
    beyond = torch.maximum(x.double() - hi, lo - x.double()) / float(scale)  # in steps
    far, near = beyond > 0.502, beyond > 0.5  # at half a step float rounding decides
    assert parts.mse == pytest.approx(float(error.mean()), rel=1e-9)
    assert float((error * far).mean()) <= parts.clipping * (1 + 1e-9) <= float((error * near).mean()) * (1 + 2e-9)
    assert float(far.double().mean()) <= parts.clipped + 1e-12 <= float(near.double().mean()) + 2e-12
    assert parts.signal == pytest.approx(float(x.double().square().mean()), rel=1e-9)
    assert parts.used == len(quantize(x, scale, zero_point, *codes).unique()) / 2**bits


def test_rounding_and_clipping_are_told_apart() -> None:
    x = torch.tensor([0.0, 0.4, 1.0, 3.4, 5.0])  # codes 0 to 3, of which 2 is not used
    parts = error_parts(x, None, torch.tensor(1.0), torch.tensor(0), 0, 3)
    assert parts.rounding == pytest.approx((0.4**2 + 0.4**2) / 5)
    assert parts.clipping == pytest.approx(2**2 / 5)
    assert (parts.clipped, parts.used) == (pytest.approx(0.2), 0.75)
    assert parts.sqnr_db == pytest.approx(10 * math.log10(float(x.square().mean()) / parts.mse))


@SIZE
def test_parts_scale_with_the_values(size: float) -> None:
    x, codes = normal(1000), code_range(6, signed=True)
    one = error_parts(x, None, *mapping(x, 0.5, codes, False), *codes)
    other = error_parts(x * size, None, *mapping(x * size, 0.5, codes, False), *codes)
    assert other.sqnr_db == pytest.approx(one.sqnr_db, abs=1e-3)
    assert other.rounding / size**2 == pytest.approx(one.rounding, rel=1e-3)
    assert other.clipping / size**2 == pytest.approx(one.clipping, rel=1e-3)


def test_a_small_rounding_error_beside_a_huge_clipping_error_is_kept() -> None:
    x = torch.tensor([0.25, 1e30])
    parts = error_parts(x, None, torch.tensor(1.0), torch.tensor(0), 0, 255)
    assert parts.rounding == pytest.approx(0.25**2 / 2) and parts.clipping == pytest.approx(1e60 / 2)


@pytest.mark.parametrize("axis", [0, 1, 2])
@SYMMETRIC
def test_the_parts_of_channels_are_the_mean_over_channels(axis: int, symmetric: bool) -> None:
    x, codes = normal(4, 4, 4) * torch.tensor([1.0, 5.0, 0.1, 0.0]), code_range(4, signed=True)
    rows = x.movedim(axis, 0).flatten(1)
    scale, zero_point = qparams(rows.amin(1) * 0.7, rows.amax(1) * 0.7, *codes, symmetric)
    whole = error_parts(x, None, scale, zero_point, *codes, axis)
    each = [error_parts(row, None, s, z, *codes) for row, s, z in zip(rows, scale, zero_point, strict=True)]
    for name in ("signal", "rounding", "clipping", "clipped"):
        assert getattr(whole, name) == pytest.approx(sum(getattr(parts, name) for parts in each) / 4)
    assert whole.used == len(quantize(x, scale, zero_point, *codes, axis).unique()) / 16


def test_weights_stand_for_so_many_values() -> None:
    x, codes = normal(50), code_range(3, signed=False)
    scale, zero_point = mapping(x, 0.6, codes, False)
    times = torch.arange(50) % 4 + 1
    repeated = error_parts(x.repeat_interleave(times), None, scale, zero_point, *codes)
    weighted = error_parts(x, times.double(), scale, zero_point, *codes)
    ones = error_parts(x, torch.ones(50, dtype=torch.float64), scale, zero_point, *codes)
    for name in ("signal", "rounding", "clipping", "clipped", "used"):
        assert getattr(weighted, name) == pytest.approx(getattr(repeated, name), rel=1e-12)
        assert getattr(ones, name) == getattr(error_parts(x, None, scale, zero_point, *codes), name)


def test_without_values_there_are_no_figures() -> None:
    empty = error_parts(torch.empty(0), None, torch.tensor(1.0), torch.tensor(0), 0, 255)
    assert math.isnan(empty.mse) and empty.used == 0
    assert ErrorParts(1.0, 0.0, 0.0, 0.0, 1.0).sqnr_db == math.inf
    assert ErrorParts(0.0, 0.5, 0.0, 0.0, 1.0).sqnr_db == -math.inf


@BITS
@SYMMETRIC
@SIZE
def test_errors_of_ranges_are_those_of_their_parts(bits: int, symmetric: bool, size: float) -> None:
    x, codes = normal(300) * size, code_range(bits, signed=True)
    weights = torch.arange(300).double() % 5
    shares = torch.tensor([1.0, 0.6, 0.3])
    lo, hi = x.min() * shares, x.max() * shares
    for given_weights in (None, weights):
        errors = range_errors(x, given_weights, lo, hi, bits, symmetric)
        assert errors.dtype == torch.float64 and errors.isfinite().all()
        for error, *pair in zip(errors, lo, hi, strict=True):
            parts = error_parts(x, given_weights, *qparams(*pair, *codes, symmetric), *codes)
            assert float(error) == pytest.approx(parts.mse, rel=1e-4)


@SYMMETRIC
def test_errors_of_rows_are_those_of_each_row(symmetric: bool) -> None:
    rows = normal(5, 40) * torch.tensor([1.0, 0.0, 1e30, 1e-30, 7.0])[:, None]
    errors = range_errors(rows, None, rows.amin(1), rows.amax(1), 4, symmetric)
    each = [range_errors(row, None, row.min(), row.max(), 4, symmetric) for row in rows]
    assert errors.tolist() == pytest.approx([float(error) for error in each], rel=1e-12)
    assert errors.shape == (5,)
