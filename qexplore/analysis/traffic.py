"""Memory traffic, counted: the bytes of weights and activations that each operation of a model reads and writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from qexplore.analysis.size import tensor_bytes, tensors_of
from qexplore.batches import call_on, copied
from qexplore.exclusive import exclusive
from qexplore.workload import Batch

COLUMNS = (
    "layer",
    "operation",
    "weight_type",
    "input_type",
    "output_type",
    "weight_bytes",
    "input_bytes",
    "output_bytes",
)
RECURRENT = ("RNN", "LSTM", "GRU")


def traffic(model: nn.Module, batch: Batch) -> pd.DataFrame:
    """A row for each operation of one run of the model: `COLUMNS`, types as words, sizes in bytes.

    Every operation reads each of its tensors once and writes its result once; a recurrent layer is one operation, an
    embedding reads the rows it looks up, a view moves nothing. Caches are not counted (they make it less), nor what a
    kernel keeps for itself, such as the codes inside a dynamically quantized layer.

    Args:
        model: float or int8, in eval mode; its hooks are removed afterwards.
    """
    counter, batch = _Counter(model), copied(batch)
    with exclusive(), torch.no_grad(), _hooked(model, counter), counter:
        call_on(model, batch)
    return pd.DataFrame(counter.rows, columns=list(COLUMNS))


def totals(rows: pd.DataFrame) -> dict[str, int]:
    """Bytes of a whole run: "weights", "activations" (read and written), "all"."""
    weights = int(rows.weight_bytes.sum())
    activations = int(rows.input_bytes.sum() + rows.output_bytes.sum())
    return {"weights": weights, "activations": activations, "all": weights + activations}


def stored_bytes(module: nn.Module) -> int:
    """Bytes of the tensors in a module's state, packed weights included, each counted once."""
    return sum(map(tensor_bytes, tensors_of(module.state_dict().values())))


def code_bytes(module: nn.Module) -> int:
    """Bytes of the int8 weights in a module's state, without scales, zero points and what is float."""
    return sum(tensor.numel() for tensor in tensors_of(module.state_dict().values()) if tensor.is_quantized)


class _Counter(TorchDispatchMode):
    """Writes a row for each operation that torch dispatches; inside a recurrent layer for none."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.rows: list[tuple[Any, ...]] = []
        self.layers: list[str] = []
        self.inside = 0
        stored = [*model.parameters(), *model.buffers()]
        self.stored = {tensor.untyped_storage().data_ptr() for tensor in stored if not tensor.is_quantized}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.name().split("::")[1].split(".")[0]
        moves = not func.is_view and not name.endswith("view") and _tensors(args) and _tensors(result)
        if moves and not self.inside:
            self.count(name, (args, kwargs or {}), result)
        return result

    def count(self, operation: str, given: Any, result: Any, weights: Any = ()) -> None:
        """Add a row: what of `given` the model stores is a weight, the rest is read as activations."""
        read = _tensors(given)
        stored = [t for t in read if isinstance(t, torch.ScriptObject) or self._is_stored(t)]
        activations = [t for t in read if not any(t is each for each in stored)]
        held = tensors_of([*stored, *weights])
        written = _tensors(result)
        size = sum(map(tensor_bytes, written)) if operation == "embedding" else sum(map(tensor_bytes, held))
        self.rows.append(
            (
                self.layers[-1] if self.layers else "",
                operation,
                _type(sorted(held, key=tensor_bytes, reverse=True)),
                _type(activations),
                _type(written),
                size,
                sum(map(tensor_bytes, activations)),
                sum(map(tensor_bytes, written)),
            )
        )

    def _is_stored(self, tensor: torch.Tensor) -> bool:
        one = tensor.numel() == 1  # a scale or a zero point
        return not tensor.is_quantized and not one and tensor.untyped_storage().data_ptr() in self.stored


@contextmanager
def _hooked(model: nn.Module, counter: _Counter) -> Iterator[None]:
    """While open, the counter knows which layer runs, and counts a recurrent one as a whole."""
    handles = []
    for name, module in model.named_modules():
        kind = next((each for each in RECURRENT if type(module).__name__ == each), None)
        handles.append(module.register_forward_pre_hook(partial(_enter, counter, name, kind)))
        handles.append(module.register_forward_hook(partial(_leave, counter, kind)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _enter(counter: _Counter, name: str, kind: str | None, module: nn.Module, given: Any) -> None:
    counter.layers.append(name)
    counter.inside += kind is not None


def _leave(counter: _Counter, kind: str | None, module: nn.Module, given: Any, result: Any) -> None:
    if kind is not None:
        counter.count(kind.lower(), given, result, list(module.state_dict().values()))
        counter.inside -= 1
    counter.layers.pop()


def _tensors(value: Any) -> list[Any]:
    """The tensors and packed weights in nested lists, tuples and dicts."""
    if isinstance(value, torch.Tensor | torch.ScriptObject):
        return [value] if isinstance(value, torch.ScriptObject) or value.numel() else []
    entries = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [tensor for entry in entries for tensor in _tensors(entry)]


def _type(tensors: list[torch.Tensor]) -> str:
    """The type of the first tensor in a word; "" where there is none."""
    return str(tensors[0].dtype).removeprefix("torch.") if tensors else ""
