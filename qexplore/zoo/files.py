"""Where the trained weights lie, and how they get into a model."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from torch import nn

WEIGHTS = Path(__file__).parent / "weights"
LIMIT = 3_000_000  # bytes; every weights file stays below

M = TypeVar("M", bound=nn.Module)


def weights_path(name: str) -> Path:
    """The weights file of the demo `name`."""
    return WEIGHTS / f"{name}.safetensors"


def load_weights(model: M, name: str) -> M:
    """`model` with the shipped weights of the demo `name`, in eval mode."""
    from safetensors.torch import load_file

    model.load_state_dict(load_file(weights_path(name)))
    return model.eval()


def save_weights(model: nn.Module, name: str) -> Path:
    """Write the weights of `model` as those of the demo `name`; in half precision where float32 exceeds the limit.

    `load_weights` reads either into the float32 model.
    """
    from safetensors.torch import save_file

    tensors = {key: value.contiguous() for key, value in model.state_dict().items()}
    if sum(value.nbytes for value in tensors.values()) > 0.97 * LIMIT:
        tensors = {key: value.half() if value.is_floating_point() else value for key, value in tensors.items()}
    WEIGHTS.mkdir(exist_ok=True)
    save_file(tensors, weights_path(name))
    weights_path(name).chmod(0o644)  # safetensors makes it readable by its owner alone
    return weights_path(name)
