"""Exercises of lesson 04: quantization-aware training."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from qexplore.lesson.exercise import NotSolvedError, called, close, exercise
from qexplore.numerics.affine import fake_quantize

SCALE, CODES = 0.1, (-8, 7)
STEP, RATE, TARGET = 0.25, 0.05, 0.2  # one weight that starts at 0


@exercise(
    "straight-through",
    start="Which values should come out, and whose derivative? Begin with x clamped to its range.",
    right="This is all that QAT adds to training: rounded values on the way forward, gradients as if nothing was "
    "rounded on the way back.",
)
def straight_through(function: Any) -> str | None:
    scale = torch.tensor(SCALE)
    inside = torch.arange(*CODES) * SCALE + 0.03
    beyond = torch.tensor([-3.0, -1.2, 1.1, 2.6])
    x = torch.cat([inside, beyond]).requires_grad_()
    given = called(function, x, scale, *CODES)
    if not isinstance(given, torch.Tensor) or given.shape != x.shape:
        return f"For {len(x)} values, give a tensor of {len(x)} values."
    right = fake_quantize(x.detach(), scale, torch.tensor(0), *CODES)
    wrong = (given.detach() - right).abs() > 1e-5
    if torch.allclose(given.detach(), x.detach().clamp(CODES[0] * SCALE, CODES[1] * SCALE)):
        return "The values come out unrounded: a + (b - a).detach() has the value of b, so b is the rounded one."
    if wrong[: len(inside)].any():
        return (
            "Inside the range the values are not those of fake-quantize: round x / scale, then multiply by the scale."
        )
    if wrong.any():
        return "Beyond the range the values must be its ends: clamp to quant_min · scale and quant_max · scale."
    if not given.requires_grad:
        return "The result has lost its connection to x, so no gradient comes back: detach the difference only."
    upstream = torch.arange(1.0, len(x) + 1)  # unlike at every value, so that a constant cannot pass
    (gradient,) = torch.autograd.grad((given * upstream).sum(), x, allow_unused=True)
    ratio = torch.zeros(len(x)) if gradient is None else gradient / upstream
    if not ratio.any():
        return "The values are right, the gradient is 0 everywhere: that is the true derivative. Detach the rounding."
    if not torch.allclose(ratio[: len(inside)], torch.ones(len(inside))):
        return f"Inside the range the gradient must pass unchanged; of yours {float(ratio[0]):.3g} comes through."
    if ratio[len(inside) :].any():
        return (
            "The gradient also passes beyond the range, where it must be 0: clamp x to quant_min · scale and "
            "quant_max · scale first."
        )
    return None


@exercise(
    "steps until the jump",
    start="How far does one step move the weight? How far is it from 0 to the border to the next level?",
    right="Until then the model computes the same in every step: with a small learning rate and a coarse scale, most "
    "steps change nothing that the int8 model would notice.",
)
def steps_until_the_jump(steps: Any) -> str | None:
    moved = RATE * TARGET
    exact = STEP / 2 / moved
    if float(steps) == math.ceil(exact):
        return None
    if close(steps, TARGET / moved):
        return (
            "That is the way to the target without rounding. The jump comes earlier, at the border between two levels."
        )
    if close(steps, STEP / moved):
        return "That is the way to the next level itself. A value rounds to the nearest level: the border is half way."
    if close(steps, exact) or close(steps, math.floor(exact)):
        return "Nearly: after that many steps the weight has not passed the border yet, and steps are whole numbers."
    if close(steps, math.ceil(exact) + 1):
        return "Nearly: that is one update too many; the start, before any update, does not count."
    return f"While the model computes with 0, a step moves the weight by {RATE} · {TARGET}. How many pass {STEP / 2:g}?"


@exercise(
    "fold a BatchNorm",
    start="Compute one factor for each channel, gamma / sqrt(var + eps). The weight is multiplied by it channel by "
    "channel: reshape(-1, 1, 1, 1) lines it up with the weight's first dimension.",
    right="The folded weight is what the int8 kernel gets, and what QAT fake-quantizes.",
)
def fold_a_batchnorm(function: Any) -> str | None:
    weight, bias, norm = _layer()
    given = called(function, weight, bias, copy.deepcopy(norm))
    if not isinstance(given, tuple | list) or len(given) != 2:
        return "Give two tensors: the folded weight and the folded bias."
    if any(value is None or value is ... for value in given):
        raise NotSolvedError
    mine = [torch.as_tensor(value).detach().float() for value in given]
    mean, variance = _known(norm.running_mean), _known(norm.running_var)
    right = fuse_conv_bn_weights(weight, bias, mean, variance, norm.eps, norm.weight, norm.bias)
    for name, value, true in zip(("weight", "bias"), mine, right, strict=True):
        if value.shape != true.shape:
            return f"The folded {name} has the shape {tuple(value.shape)}; it must stay {tuple(true.shape)}."
    if not _same(mine[0], right[0]):
        return _weight_hint(mine[0], weight, norm)
    if not _same(mine[1], right[1]):
        return _bias_hint(mine[1], bias, norm)
    return None


def _layer() -> tuple[torch.Tensor, torch.Tensor, nn.BatchNorm2d]:
    """A convolution's weight [4, 3, 3, 3] and bias [4], and the BatchNorm behind it: one variance is near eps."""
    generator = torch.Generator().manual_seed(0)
    norm = nn.BatchNorm2d(4).eval().requires_grad_(False)
    norm.running_var = torch.tensor([1e-4, 0.04, 1.0, 9.0])
    norm.running_mean = torch.randn(4, generator=generator)
    norm.weight.copy_(torch.tensor([0.5, 1.5, 2.0, -1.0]))
    norm.bias.copy_(torch.randn(4, generator=generator))
    return torch.randn(4, 3, 3, 3, generator=generator), torch.randn(4, generator=generator), norm


def _weight_hint(given: torch.Tensor, weight: torch.Tensor, norm: nn.BatchNorm2d) -> str:
    variance, gamma = _known(norm.running_var), norm.weight
    wrong = {
        "This is the weight as it was: multiply it by the factor.": torch.ones(4),
        "The factor divides by the square root of var + eps.": gamma / (variance + norm.eps),
        "Add eps to the variance before you take the root: here one variance is so small that it counts.": gamma
        / variance.sqrt(),
        "eps belongs under the root, beside the variance.": gamma / (variance.sqrt() + norm.eps),
        "The factor lacks gamma, which is norm.weight.": 1 / (variance + norm.eps).sqrt(),
    }
    for words, factor in wrong.items():
        if _same(given, weight * factor.reshape(-1, 1, 1, 1)):
            return words
    return "The folded weight is not weight · gamma / sqrt(var + eps), one factor for each output channel."


def _bias_hint(given: torch.Tensor, bias: torch.Tensor, norm: nn.BatchNorm2d) -> str:
    mean, beta = _known(norm.running_mean), norm.bias
    factor = norm.weight / (_known(norm.running_var) + norm.eps).sqrt()
    wrong = {
        "The weight is right. The convolution's own bias is missing from the folded bias.": beta - mean * factor,
        "The weight is right. The bias goes through the factor too: (bias - mean) · factor + beta.": bias - mean + beta,
        "The weight is right. The bias lacks beta, which is norm.bias.": (bias - mean) * factor,
        "The weight is right. The mean is taken off before the factor: (bias - mean) · factor + beta.": bias * factor
        - mean
        + beta,
    }
    for words, value in wrong.items():
        if _same(given, value):
            return words
    return "The weight is right; the folded bias is not (bias - mean) · factor + beta."


def _known(buffer: torch.Tensor | None) -> torch.Tensor:
    assert buffer is not None
    return buffer


def _same(given: torch.Tensor, right: torch.Tensor) -> bool:
    return torch.allclose(given, right, rtol=1e-4, atol=1e-5)
