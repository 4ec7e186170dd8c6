"""The tensors of the playground: samples, the weights of demo models, and one's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from qexplore.numerics.samples import SAMPLES, Values, sample, values_of
from qexplore.workload import workload

MODELS = ("digits", "digits_mobile")
LAYER, OWN = "a layer's weights", "own"
BINS = 160


@dataclass(frozen=True)
class Shown:
    """A tensor to look at: its name in titles, its values, and their histogram ([bins] and [bins + 1])."""

    name: str
    values: Values
    counts: np.ndarray
    edges: np.ndarray


class Tensors:
    """All tensors to choose from; those of models are loaded when first asked for.

    Args:
        tensor: one's own; None for none.
        name: what to call it.

    Raises:
        QexploreError: one's own tensor cannot be used.
    """

    def __init__(self, tensor: Any, name: str) -> None:
        self._name = str(name)
        self._own = None if tensor is None else values_of(tensor, self._name)
        self._layers: dict[str, torch.Tensor] = {}

    @property
    def kinds(self) -> list[tuple[str, str]]:
        """Label and key of each kind, the one to begin with first."""
        own = [] if self._own is None else [(self._name, OWN)]
        return own + [(kind, kind) for kind in (*SAMPLES, LAYER)]

    def layers(self) -> list[str]:
        """Name, with its model, of each layer with weights."""
        if not self._layers:
            self._layers = {
                f"{name} ({model})": module.weight.detach()
                for model in MODELS
                for name, module in workload(model).model.named_modules()
                if getattr(getattr(module, "weight", None), "ndim", 0) > 1
            }
        return list(self._layers)

    def get(self, kind: str, layer: str | None) -> Shown:
        """The tensor of this kind; of `layer` where it is a layer's."""
        if kind == OWN and self._own is not None:
            return _binned(self._name, self._own)
        if kind == LAYER and layer is not None:
            return _binned(layer, values_of(self._layers[layer], layer))
        return _binned(kind, values_of(sample(kind), kind))


def _binned(name: str, values: Values) -> Shown:
    counts, edges = np.histogram(values.values.numpy().astype(np.float64), bins=BINS)
    return Shown(name, values, counts * float(values.every), edges)
