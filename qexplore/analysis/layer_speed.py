"""How fast single layers are, float against dynamically quantized, for layers and batches of several sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pandas as pd
import torch
from torch import nn

from qexplore.analysis.speed import benchmark
from qexplore.calibrate import calibrate
from qexplore.engines import resolve_engine
from qexplore.engines.dynamic import convert_dynamic
from qexplore.engines.engine import using
from qexplore.exclusive import exclusive
from qexplore.recipe import Recipe
from qexplore.workload import Workload

LAYERS: dict[str, Callable[[int], nn.Module]] = {
    "Linear": lambda width: nn.Linear(width, width),
    "LSTM": lambda width: nn.LSTM(width, width, batch_first=True),
}


def layer_speeds(
    kind: str, widths: Sequence[int], inputs: int, rounds: int = 9, threads: int = 1, seed: int = 0
) -> pd.DataFrame:
    """A row for each width: time of one call, and how many times as fast as float the int8 layer is.

    Args:
        kind: "Linear" or "LSTM", with as many outputs as inputs.
        inputs: rows of a Linear's batch, or time steps of an LSTM's one sequence.
        rounds: how often each of the two is timed, in alternation.

    Returns:
        `layer`, `width`, `inputs`, `weight_mib` (of the float weights), `float_ms`, `int8_ms` (medians), `speedup`
        (median of float / int8 over the rounds) with its quartiles `low` and `high`, `threads`.
    """
    rows = []
    with exclusive(), _threads(threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for width in widths:
            model = nn.Sequential(LAYERS[kind](width)).eval()
            batch = torch.randn(inputs, width) if kind == "Linear" else torch.randn(1, inputs, width)
            speed = _timed(model, batch, rounds)
            weights = sum(p.numel() for p in model.parameters() if p.dim() > 1) * 4 / 2**20
            rows.append(
                {"layer": kind, "width": width, "inputs": inputs, "weight_mib": weights}
                | {name: speed[name] for name in ("float_ms", "int8_ms", "speedup")}
                | {"low": speed["speedup_low"], "high": speed["speedup_high"], "threads": threads}
            )
    return pd.DataFrame(rows)


def _timed(model: nn.Module, batch: torch.Tensor, rounds: int) -> dict[str, float]:
    recipe = Recipe(mode="dynamic")
    engine = resolve_engine(recipe, model)
    calibration = calibrate(Workload("layer", model, [batch], lambda _: 0.0))
    with using(engine.name):
        int8 = convert_dynamic(model, recipe, engine, calibration).int8
        assert int8 is not None
        return benchmark(model, int8, batch, rounds)


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """That many threads for torch's operations; as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
