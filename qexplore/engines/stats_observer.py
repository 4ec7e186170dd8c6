"""Any of qexplore's observers as an observer module of torch.ao: for static, dynamic (weights), QAT and simulation."""

from __future__ import annotations

from typing import Any

import torch
from torch.ao.quantization import ObserverBase

from qexplore.calibrate.collect import COUNTED
from qexplore.calibrate.measure import measure
from qexplore.calibrate.observers import channel_ranges, tensor_range
from qexplore.calibrate.stats import TensorStats
from qexplore.numerics.affine import qparams
from qexplore.recipe import TensorSpec


class StatsObserver(ObserverBase):
    """Keeps the statistics of the tensors it sees and asks the spec's observer for the range.

    An activation's statistics add up over batches, as in torch's own observers; of a weight only the latest counts.

    Args:
        spec: which observer, with its options; its bits are those left by an overflow guard.
        kind: "activation" or "weight".
        dtype, qscheme, quant_min, quant_max: as torch.ao's observers have them.

    Attributes:
        tensor: name of the tensor, for messages.
    """

    def __init__(
        self,
        spec: TensorSpec,
        kind: str,
        dtype: torch.dtype,
        qscheme: torch.qscheme,
        quant_min: int,
        quant_max: int,
        **_: Any,
    ) -> None:
        super().__init__(dtype=dtype)
        self.spec, self.kind, self.qscheme = spec, kind, qscheme
        self.quant_min, self.quant_max = quant_min, quant_max
        self.ch_axis = 0 if spec.per_channel else -1
        self.tensor = f"the {kind}"
        self._stats: TensorStats | None = None
        self._weight: torch.Tensor | None = None
        self._chosen: tuple[torch.Tensor, torch.Tensor] | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.numel():
            self._chosen = None
            if self.kind == "weight":
                self._weight = x.detach().clone()
            else:
                new = measure(x, COUNTED)
                self._stats = new if self._stats is None else self._stats.merge(new)
        return x

    def calculate_qparams(self, **_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale and zero_point of the range chosen; 1 and 0 where nothing was seen, as in torch's observers."""
        if self._chosen is None:
            lo, hi = self._range()
            self._chosen = qparams(lo, hi, self.quant_min, self.quant_max, self.spec.symmetric)
        return self._chosen

    def _range(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self._weight is not None:
            if self.spec.per_channel:
                return channel_ranges(self._weight, self.ch_axis, self.spec, self.tensor)
            pair = tensor_range(measure(self._weight), self.spec, self.tensor)
        elif self._stats is not None:
            pair = tensor_range(self._stats, self.spec, self.tensor)
        else:
            pair = (0.0, float(self.quant_max - self.quant_min))
        return torch.tensor([pair[0]]), torch.tensor([pair[1]])
