"""The quantized model in float arithmetic, in which layers are measured and mended one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from qexplore.analysis.predict import predict
from qexplore.analysis.steps.layers import WeightedLayer, weighted_layers
from qexplore.analysis.steps.walk import Place, walk
from qexplore.calibrate import Calibration
from qexplore.engines.simulate import weighted
from qexplore.engines.switched import MakeModule, Switched, switched
from qexplore.errors import QexploreError
from qexplore.progress import Cancel
from qexplore.recipe import Recipe
from qexplore.workload import Batch


@dataclass(frozen=True)
class Simulation:
    """A float model as the recipe quantizes it, in float arithmetic.

    Attributes:
        switched: the model; what is changed in it stays here.
        layers: its quantized Conv and Linear layers by name, in the model's order.
        modules: those of `switched`, where they can be replaced.
    """

    switched: Switched
    layers: dict[str, WeightedLayer]
    modules: dict[str, MakeModule]

    @classmethod
    def of(cls, step: str, calibration: Calibration, recipe: Recipe) -> Simulation:
        """The simulation of the model that was calibrated.

        Raises:
            QexploreError: a dynamic recipe, or one that quantizes no Conv or Linear.
        """
        if recipe.mode == "dynamic":
            raise QexploreError(
                f"Step {step!r} works on activations that are quantized beforehand; "
                "leave it out, or use mode 'static' or 'qat'."
            )
        prediction = predict(calibration, replace(recipe, steps=()))
        assert prediction.graph is not None
        made = switched(prediction.graph, prediction.plan, prediction.quantized)
        layers = [
            layer
            for layer in weighted_layers(prediction.graph, recipe)
            if ("weight", layer.name) in prediction.quantized and layer.node.name in made.modules
        ]
        if not layers:
            raise QexploreError(f"Step {step!r} finds no quantized Conv or Linear layer; leave the step out.")
        modules = dict(made.modules)
        return cls(replace(made, modules=modules), {layer.name: layer for layer in layers}, modules)

    def inner(self, name: str) -> Any:
        """The Conv or Linear itself of a layer, out of what may be fused around it."""
        return weighted(self.switched.graph.get_submodule(name))

    def walk(self, batches: Sequence[Batch], cancel: Cancel) -> Iterator[Place]:
        """Each operation in turn, as `walk.walk` gives them."""
        return walk(self.switched.graph, self.switched.run_node, batches, cancel)


class Moments:
    """Mean and variance of each channel of a tensor, over samples and places.

    Args:
        axis: the channels' dimension.
    """

    def __init__(self, axis: int) -> None:
        self.axis, self.count = axis, 0
        self.total, self.squares = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)

    def add(self, x: torch.Tensor) -> None:
        """Count a batch."""
        values = x.detach().double().movedim(self.axis, 0).flatten(1)
        self.count += values.shape[1]
        self.total = self.total + values.sum(1)
        self.squares = self.squares + values.square().sum(1)

    @property
    def mean(self) -> torch.Tensor:
        """[channels], float64."""
        return self.total / self.count

    @property
    def variance(self) -> torch.Tensor:
        """[channels], float64; of the population."""
        return (self.squares / self.count - self.mean.square()).clamp(min=0.0)


@contextmanager
def measuring(module: nn.Module, moments: Moments, reads: bool = False) -> Iterator[None]:
    """Add what `module` gives (or what it reads) to `moments` whenever it is called within the block."""
    take = module.register_forward_pre_hook if reads else module.register_forward_hook
    handle = take(lambda module, args, *output: moments.add(output[0] if output else args[0]))
    try:
        yield
    finally:
        handle.remove()
