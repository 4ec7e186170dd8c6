"""A run: what quantizing a workload with a recipe gave. Goes to a JSON record and back."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from qexplore.analysis.tables import Histogram
from qexplore.errors import QexploreError
from qexplore.recipe import Recipe

FORMAT = "qexplore run 1"


@dataclass(frozen=True)
class Run:
    """The result of `quantize`.

    Attributes:
        workload, metric, higher_is_better: of the workload.
        recipe: as asked for; `engine` and `overflow_guard` are what "auto" came to.
        tensors: a row per quantized tensor (see `tables.tensor_table`).
        layers: a row per layer, indexed by name (see `tables.layer_table`, and `three_way.three_way` for the columns of
            int8 against its simulation on the same inputs, measured on the first calibration batch).
        metrics: "float", "simulated", "int8" (None where only simulated): the workload's metric; "agreement": share
            of decisions that equal float's (None where the output is no choice among classes); "sqnr_db": of
            the model's output; both on the first four calibration batches, as the errors of layers. (The errors of
            tensors are over all calibration batches.)
        size: "float_bytes", "int8_bytes", "ratio" (float / int8), and "estimated", whether int8_bytes is
            computed for packed codes because the recipe is only simulated.
        speed: see `benchmark`; None where only simulated.
        history: QAT's "epoch", "loss" and "metric" after each epoch; empty in other modes.
        histograms: of the float values of each quantized tensor, by "kind:name".
        machine: torch version, CPU capability and threads.
        seconds: what the whole run took.
        model: the converted int8 model; None where only simulated or loaded from a file.
        simulated: its simulation; None where loaded from a file.
        pictures: "input", "float", "int8" of one sample, [C, H, W], where the model maps images to images.
    """

    workload: str
    metric: str
    higher_is_better: bool
    recipe: Recipe
    engine: str
    overflow_guard: str
    tensors: pd.DataFrame
    layers: pd.DataFrame
    metrics: dict[str, float | None]
    size: dict[str, float | int | bool]
    speed: dict[str, Any] | None
    history: pd.DataFrame
    histograms: dict[str, Histogram]
    machine: dict[str, Any]
    seconds: float
    model: nn.Module | None = None
    simulated: nn.Module | None = None
    pictures: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def quantized_metric(self) -> float:
        """The metric of the int8 model or, where there is none, of its simulation."""
        value = self.metrics["int8"] if self.metrics["int8"] is not None else self.metrics["simulated"]
        assert value is not None
        return value

    @property
    def loss(self) -> float:
        """How much worse the quantized metric is than float's; negative where it is better."""
        value = self.metrics["float"]
        assert value is not None
        return (value - self.quantized_metric) * (1 if self.higher_is_better else -1)

    def histogram(self, kind: str, name: str) -> Histogram | None:
        """Counts of the float values of a quantized tensor; None where there are none."""
        return self.histograms.get(f"{kind}:{name}")

    def save(self, path: str | Path) -> Path:
        """Write a JSON record of recipe, tables and figures; the models and pictures are not in it.

        `quantize` with the record's recipe makes them again.
        """
        record: dict[str, Any] = {"format": FORMAT}
        for name in RECORDED:
            value = getattr(self, name)
            if isinstance(value, pd.DataFrame):
                value = value.reset_index().to_dict("list") if name == "layers" else value.to_dict("list")
            elif isinstance(value, Recipe):
                value = value.to_dict()
            elif name == "histograms":
                value = {key: asdict(histogram) for key, histogram in value.items()}
            record[name] = _plain(value)
        path = Path(path)
        path.write_text(json.dumps(record, allow_nan=False))
        return path


RECORDED = [f.name for f in fields(Run) if f.name not in ("model", "simulated", "pictures")]
_ODD = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def load_run(path: str | Path) -> Run:
    """The run that `Run.save` wrote to `path`, without its models.

    Raises:
        QexploreError: the file is missing, or no such record.
    """
    try:
        record = json.loads(Path(path).read_text())
    except OSError as error:
        raise QexploreError(f"Cannot read the run {str(path)!r}: {error.strerror}.") from error
    except ValueError as error:
        raise QexploreError(f"{str(path)!r} is no saved run: it is not valid JSON.") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT or not set(RECORDED) <= set(record):
        raise QexploreError(f"{str(path)!r} is no saved run of this version of qexplore; save it again.")
    try:
        return _rebuilt(record)
    except QexploreError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise QexploreError(f"{str(path)!r} is no saved run: it is damaged ({error}); save it again.") from error


def _rebuilt(record: dict[str, Any]) -> Run:
    values = {name: _restored(record[name]) for name in RECORDED}
    values["recipe"] = Recipe.from_json(json.dumps(record["recipe"]))
    values["tensors"], values["history"] = pd.DataFrame(values["tensors"]), pd.DataFrame(values["history"])
    values["layers"] = pd.DataFrame(values["layers"]).set_index("layer")
    values["histograms"] = {key: Histogram(**entry) for key, entry in record["histograms"].items()}
    return Run(**values)


def _plain(value: Any) -> Any:
    """`value` in JSON's own types; NaN and infinities, which JSON lacks, as {"float": name}."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"}
    return value


def _restored(value: Any) -> Any:
    """The reverse of `_plain`; lists in table cells become tuples again."""
    if isinstance(value, dict):
        if set(value) == {"float"} and value["float"] in _ODD:
            return _ODD[value["float"]]
        return {key: [_cell(cell) for cell in e] if isinstance(e, list) else _restored(e) for key, e in value.items()}
    return [_restored(entry) for entry in value] if isinstance(value, list) else value


def _cell(value: Any) -> Any:
    return tuple(_restored(entry) for entry in value) if isinstance(value, list) else _restored(value)
