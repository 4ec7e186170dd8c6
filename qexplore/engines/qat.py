"""What quantization-aware training needs of torch.ao beside preparing and converting."""

from __future__ import annotations

import copy

from torch import nn
from torch.ao.nn.intrinsic.qat import freeze_bn_stats
from torch.ao.quantization import disable_observer


def freeze(module: nn.Module) -> None:
    """Hold ranges and BatchNorm statistics as they are now, in place; further training only moves weights.

    Source: PyTorch's QAT tutorial, which freezes both for the last epochs; Krishnamoorthi 2018, section 4.
    """
    module.apply(disable_observer)
    module.apply(freeze_bn_stats)


def for_evaluation(module: nn.Module) -> nn.Module:
    """A copy in eval mode whose observers stand still (fake-quantize modules observe in eval mode too)."""
    return copy.deepcopy(module).eval().apply(disable_observer)
