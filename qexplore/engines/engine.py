"""The engines by name, what each can do, and whether this CPU needs an overflow guard with it."""

from __future__ import annotations

import functools
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.ao.nn import quantized as nnq

from qexplore.engines.overflow import kernel_saturates
from qexplore.errors import QexploreError
from qexplore.exclusive import exclusive
from qexplore.numerics.affine import code_range
from qexplore.recipe import Recipe
from qexplore.registry import Registry


@dataclass(frozen=True)
class Engine:
    """A set of int8 kernels.

    Attributes:
        name: as `torch.backends.quantized.engine` has it.
        description: one line for the explorer.
        affine_weights: whether weights may have a zero_point other than 0.
        dynamic_codes: largest activation code of its dynamic kernels (127 where they keep to 7 bits).
    """

    name: str
    description: str
    affine_weights: bool
    dynamic_codes: int

    def run_time_codes(self, bits: int) -> tuple[int, int]:
        """Smallest and largest code of activations that are quantized at run time."""
        return (0, self.dynamic_codes) if bits == 8 else code_range(bits, signed=False)


TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
ENGINES: Registry[Engine] = Registry("engine")

for _engine in (
    Engine("x86", "oneDNN or FBGEMM, whichever is faster for the layer", True, 127),
    Engine("fbgemm", "Meta's kernels for servers", True, 127),
    Engine("onednn", "Intel's kernels; symmetric weights only", False, 127),
    Engine("qnnpack", "kernels for ARM and phones", True, 255),
):
    ENGINES.register(_engine.name)(_engine)


def supported_engines() -> list[str]:
    """Names of the engines this build of PyTorch has."""
    return [name for name in ENGINES if name in torch.backends.quantized.supported_engines]


def resolve_engine(recipe: Recipe, model: nn.Module | None = None) -> Engine:
    """The engine the recipe asks for, or for "auto" the best one on this CPU.

    Args:
        model: what is to be quantized; for "auto", engines known to be wrong on its layers are left out, and one that
            needs no overflow guard for it is taken before one that does.

    Raises:
        QexploreError: no such engine, this PyTorch lacks it, or it cannot do what the recipe asks for.
    """
    here = supported_engines()
    if recipe.engine == "auto":
        arm = platform.machine().lower() in ("arm64", "aarch64")
        preferred = [name for name in (("qnnpack", "onednn") if arm else ("x86", "fbgemm", "onednn")) if name in here]
        if model is not None and any(isinstance(m, TRANSPOSED) for m in model.modules()):
            # oneDNN's and FBGEMM's int8 transposed convolutions give garbage in some shapes (torch 2.13): below 0 dB.
            preferred = ["qnnpack"] if "qnnpack" in here else preferred
        if not preferred:
            raise QexploreError("This PyTorch has no quantized engine for this CPU; install an official build.")
        fitting = [ENGINES[name] for name in preferred if _takes_weights(ENGINES[name], recipe)]
        # A guard costs a bit of every weight: oneDNN without one is as fast as FBGEMM with one, and more exact.
        unguarded = replace(recipe, overflow_guard="auto") if recipe.overflow_guard == "none" else recipe
        free = (engine for engine in fitting if resolve_guard(unguarded, engine, model) == "none")
        return next(free, ENGINES[preferred[0]])
    engine = ENGINES[recipe.engine]
    if engine.name not in here:
        raise QexploreError(f"This PyTorch lacks engine {engine.name!r}: choose one of {', '.join(here)}.")
    if not _takes_weights(engine, recipe):
        raise QexploreError(
            f"Engine {engine.name!r} takes symmetric weights only; set symmetric weights or another engine."
        )
    return engine


def _takes_weights(engine: Engine, recipe: Recipe) -> bool:
    weights = [recipe.weight] + [rule.weight for rule in recipe.rules if rule.weight]
    return engine.affine_weights or recipe.bits < 8 or all(w.symmetric for w in weights)


def resolve_guard(recipe: Recipe, engine: Engine, model: nn.Module | None = None) -> str:
    """The overflow guard in force: the recipe's, or for "auto" the one this CPU needs.

    Dynamic kernels keep activations to 7 bits where it matters, and simulated arithmetic does not overflow.

    Args:
        model: what is to be quantized; its grouped convolutions have kernels of their own, which are tried as well.
    """
    if recipe.mode == "dynamic" or recipe.bits < 8:
        return "none"
    if recipe.overflow_guard != "auto":
        return recipe.overflow_guard
    return "weights" if saturates(engine.name) or _convolution_saturates(recipe, engine.name, model) else "none"


@functools.cache
def saturates(engine: str) -> bool:
    """Whether 8-bit products overflow 16-bit sums in this engine's kernels on this CPU, found by trying.

    CPUs without VNNI add pairs of products in 16 bits (`vpmaddubsw`): 2 * 255 * 127 does not fit.
    """
    with exclusive(), using(engine):
        x = torch.quantize_per_tensor(torch.full((4, 64), 255.0), 1.0, 0, torch.quint8)
        weight = torch.quantize_per_tensor(torch.full((16, 64), 127.0), 1.0, 0, torch.qint8)
        packed = torch.ops.quantized.linear_prepack(weight, None)
        result = torch.ops.quantized.linear(x, packed, 64 * 255 * 127 / 200, 0)
    return bool((result.int_repr() < 199).any())


def _convolution_saturates(recipe: Recipe, engine: str, model: nn.Module | None) -> bool:
    """Whether the kernel of a grouped convolution that the recipe quantizes saturates."""
    for name, module in () if model is None else model.named_modules():
        if not isinstance(module, CONVOLUTIONS) or module.groups == 1:
            continue
        specs = recipe.specs_for(name)
        sizes = (module.in_channels, module.out_channels, module.kernel_size, module.stride)
        shape = (*sizes, module.padding, module.dilation, module.groups)
        kind = f"Conv{len(module.kernel_size)}d"
        if specs is not None and grouped_saturates(engine, kind, shape, specs[1].symmetric):
            return True
    return False


@functools.cache
def grouped_saturates(engine: str, kind: str, shape: tuple[Any, ...], symmetric: bool) -> bool:
    """Whether 16-bit sums overflow in this engine's kernel for a convolution of this shape, found by trying.

    FBGEMM's depthwise kernels do so on CPUs with VNNI as well; engine "x86" takes them from 101 groups on, and for
    affine weights (torch 2.13).

    Args:
        shape: the arguments of the convolution, up to its groups.
    """
    padding, dilation = shape[4], shape[5]
    if isinstance(padding, str):
        padding = tuple(d * (k - 1) // 2 if padding == "same" else 0 for d, k in zip(dilation, shape[2], strict=True))
    size = [d * (k - 1) + s + 1 for k, s, d in zip(shape[2], shape[3], dilation, strict=True)]
    with exclusive(), using(engine):
        try:
            module = getattr(nnq, kind)(*shape[:4], padding, *shape[5:])
            weight = torch.quantize_per_tensor(torch.zeros(module.weight().shape), 1.0, int(not symmetric), torch.qint8)
            module.set_weight_bias(weight, None)
            return kernel_saturates(module, torch.zeros(1, shape[0], *size))
        except RuntimeError:  # an engine without such a kernel; converting the model says so
            return False


@contextmanager
def using(engine: str) -> Iterator[None]:
    """Make `engine` the current one, silence torch.ao's deprecation and reduce_range warnings, and undo both."""
    before = torch.backends.quantized.engine
    with warnings.catch_warnings():
        for message in (".*deprecated.*", ".*reduce_range.*", ".*must run observer.*", ".*TypedStorage.*"):
            warnings.filterwarnings("ignore", message=message)
        torch.backends.quantized.engine = engine
        try:
            yield
        finally:
            torch.backends.quantized.engine = before
