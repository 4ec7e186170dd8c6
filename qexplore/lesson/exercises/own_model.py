"""Exercises of lesson 06: a model of one's own."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from qexplore.analysis.predict import predict
from qexplore.calibrate import Calibration
from qexplore.lesson.exercise import called, close, exercise
from qexplore.recipe import Recipe

Data = tuple[torch.Tensor, torch.Tensor]
FLOAT_LAYER, BATCH, LEAST = "head", 16, 128


class Watched(nn.Module):
    """A copy of a model that notes what it is run on, and in which mode."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        self.inputs: list[torch.Tensor] = []
        self.in_training = self.with_gradients = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.inputs.append(x.detach())
        self.in_training |= self.training
        self.with_gradients |= torch.is_grad_enabled()
        return self.model(x)


@exercise(
    "write evaluate",
    start="Take the evaluate above as a pattern; of the answers count the wrong ones, and divide by their number.",
    right="It measures the same for every model, and leaves no trace.",
)
def write_evaluate(function: Any, model: nn.Module, training: Data, held_out: Data) -> str | None:
    for mode in (True, False):
        watched = Watched(model).train(mode)
        before = copy.deepcopy(watched.model.state_dict())
        with torch.enable_grad():  # puts back what the function may switch
            given = called(function, watched)
            switched = not torch.is_grad_enabled()
        hint = _value(given) or _data(watched, training[0], held_out[0]) or _manners(watched, mode)
        if hint is None and switched:
            hint = "It switches gradients off for good: use `with torch.no_grad():`, which ends with the block."
        if hint is None and any(
            not torch.equal(value, before[key]) for key, value in watched.model.state_dict().items()
        ):
            hint = "It changes the model's tensors; measure, and change nothing."
        if hint:
            return hint
        with torch.no_grad():
            right = (watched.model.eval()(held_out[0]).argmax(1) != held_out[1]).double().mean().item()
        if close(given, 1 - right) and not close(right, 0.5):
            return "This is the share of right answers; the error rate is the share of wrong ones."
        if close(given, 100 * right):
            return "This is in percent; give a share from 0 to 1."
        if not close(given, right, absolute=1e-6):
            return f"It gives {float(given):.4f}, but the share of wrong answers is another: wrong ones by all of them."
    return None


def _value(given: Any) -> str | None:
    if isinstance(given, torch.Tensor):
        return "It returns a tensor; .item() makes a Python number of it."
    if isinstance(given, bool) or not isinstance(given, int | float):
        return f"It returns a {type(given).__name__}; return a Python number."
    return None


def _data(watched: Watched, training: torch.Tensor, held_out: torch.Tensor) -> str | None:
    if not watched.inputs:
        return "It does not run the model that it is given: call model(...) with the argument's name."
    seen = torch.cat(watched.inputs)
    if seen.shape[1:] == held_out.shape[1:] and _rows(seen) & (_rows(training) - _rows(held_out)):
        return "It measures on training images, which the model has learnt; use the held-out ones."
    if len(seen) < len(held_out):
        return f"It runs {len(seen)} of the {len(held_out)} held-out images; measure on all of them."
    return None


def _rows(values: torch.Tensor) -> set[bytes]:
    return {row.contiguous().numpy().tobytes() for row in values.detach()}


def _manners(watched: Watched, came_in_training: bool) -> str | None:
    if watched.in_training:
        return "In train mode BatchNorm takes its statistics from the batch: call model.eval() before you run it."
    if watched.with_gradients:
        return "It keeps what gradients need, which costs time and memory: run the model inside torch.no_grad()."
    if any(module.training != came_in_training for module in watched.modules()):
        came, left = ("train", "eval") if came_in_training else ("eval", "train")
        return f"The model came in {came} mode and is left in {left} mode: note model.training, put it back at last."
    return None


@exercise(
    "calibration batches",
    start="Cut some of the training images into pieces, and put the pieces into a list.",
    right="A list of input batches from the training data is what a workload takes.",
)
def calibration_batches(batches: Any, training: torch.Tensor, held_out: torch.Tensor) -> str | None:
    if isinstance(batches, Iterator):
        return "An iterator can be read only once, and qexplore reads the batches several times: make a list of it."
    if isinstance(batches, torch.Tensor):
        return "This is one tensor; cut it into batches and put them into a list."
    batches = list(batches)
    for batch in batches:
        if isinstance(batch, list | tuple):
            return "A batch is a tuple: its entries would be arguments of the model. Leave the labels out."
        if not isinstance(batch, torch.Tensor):
            return f"A batch is a {type(batch).__name__}; give tensors."
        if batch.shape[1:] != training.shape[1:]:
            return f"A batch has the shape {tuple(batch.shape)}; it needs {[BATCH, *training.shape[1:]]}."
    if not batches:
        return "The list is empty."
    if _rows(torch.cat(batches)) & (_rows(held_out) - _rows(training)):
        return "These are held-out images: the measure would no longer be honest. Take training images."
    if any(batch.dtype != training.dtype for batch in batches):
        return f"A batch is {batches[0].dtype}; the model takes {training.dtype}."
    rows = _rows(torch.cat(batches))
    if rows - _rows(training):
        return "Some of these are no training images; cut train_x as it is."
    odd = next(((at, len(batch)) for at, batch in enumerate(batches) if len(batch) != BATCH), None)
    if odd is not None:
        return f"Batch {odd[0]} has {odd[1]} images; make every batch {BATCH} images, and leave out what is left over."
    total = len(rows)
    return f"These are {total} different images; give {LEAST} or more." if total < LEAST else None


@exercise(
    "keep one layer float",
    start="A recipe has settings for all layers and rules for single ones: which rule leaves a layer float?",
    right="All layers follow the recipe, and one rule makes the exception.",
)
def keep_one_layer_float(recipe: Any, calibration: Calibration) -> str | None:
    if not isinstance(recipe, Recipe):
        return f"This is a {type(recipe).__name__}; write qx.Recipe(...)."
    if recipe.mode != "static":
        return f"The mode is {recipe.mode!r}; the recipe is to be static."
    prediction = predict(calibration, recipe)  # says so where a rule matches no layer
    kept = [layer for layer in _weighted(calibration) if recipe.specs_for(layer) is None]
    if FLOAT_LAYER not in kept:
        return f"The layer {FLOAT_LAYER!r} is still quantized: give a rule for it with keep_float=True."
    if len(kept) > 1:
        return f"The layers {', '.join(kept)} are all float; only {FLOAT_LAYER!r} is to be."
    for layer in (name for name in _weighted(calibration) if name not in kept):
        activation, weight = recipe.specs_for(layer) or (recipe.activation, recipe.weight)
        if not weight.per_channel:
            return f"The weight of {layer!r} has one scale for all channels; say per_channel=True."
        if not weight.symmetric:
            return f"The weight of {layer!r} is affine; say symmetric=True."
        if (weight.bits, activation.bits) != (8, 8):
            return f"In {layer!r} weights have {weight.bits} bits and activations {activation.bits}; give 8 to both."
        if activation.observer != "minmax":
            return f"The observer of the activations is {activation.observer!r}; the exercise asks for 'minmax'."
    assert len(prediction.layers)
    return None


def _weighted(calibration: Calibration) -> list[str]:
    """Names of the layers that have a weight to quantize."""
    return [
        name
        for name, module in calibration.workload.model.named_modules()
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd)
    ]
