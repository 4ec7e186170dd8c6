"""What quantization-aware training needs of torch.ao beside preparing and converting."""

from __future__ import annotations

import copy

from torch import nn
from torch.ao.nn.intrinsic.qat import freeze_bn_stats
from torch.ao.quantization import disable_observer
from torch.utils.hooks import RemovableHandle


def freeze(module: nn.Module) -> list[RemovableHandle]:
    """Hold ranges and BatchNorm statistics as they are now, in place; further training only moves weights.

    Returns:
        the hooks that hold unfused BatchNorms in eval mode, to be removed after training.

    Source: PyTorch's QAT tutorial, which freezes both for the last epochs; Krishnamoorthi 2018, section 4.
    """
    module.apply(disable_observer)
    module.apply(freeze_bn_stats)
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    return [norm.register_forward_pre_hook(_hold) for norm in norms]


def _hold(norm: nn.Module, args: object) -> None:
    norm.training = False


def for_evaluation(module: nn.Module) -> nn.Module:
    """A copy in eval mode whose observers stand still (fake-quantize modules observe in eval mode too)."""
    return copy.deepcopy(module).eval().apply(disable_observer)
