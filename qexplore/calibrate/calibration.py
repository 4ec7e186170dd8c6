"""What one pass over the calibration data kept, in memory and as a file.

A file holds its arrays as safetensors and the rest as JSON in the header; no pickled code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from qexplore.calibrate.graph import float_copy
from qexplore.calibrate.stats import BUCKETS, TensorStats
from qexplore.errors import QexploreError
from qexplore.workload import Workload

FORMAT = "qexplore calibration 2"
SCALARS = ("count", "nonfinite", "total", "squares")
ARRAYS = ("batch_lo", "batch_hi", "tails", "channel_lo", "channel_hi", "channel_power")


@dataclass(frozen=True, repr=False)
class Calibration:
    """What one pass over the calibration data kept.

    Attributes:
        workload: the workload that was run.
        stats: statistics by tensor name, in the order the model computes them.
        inputs: name of the tensor that each Linear, LSTM and GRU reads, by layer name.
        cache: what predictions keep for the next one.
    """

    workload: Workload
    stats: dict[str, TensorStats]
    inputs: dict[str, str]
    cache: dict[Hashable, Any] = field(default_factory=dict, compare=False)

    def __repr__(self) -> str:
        batches = max((len(stats.batch_lo) for stats in self.stats.values()), default=0)
        return f"<Calibration of {self.workload.name!r}: {len(self.stats)} tensors over {batches} batches>"

    def float_model(self) -> nn.Module:
        """The float model in eval mode as it was when it was first asked for."""
        if "float" not in self.cache:
            self.cache["float"] = float_copy(self.workload.model)
        return self.cache["float"]

    def save(self, path: str | Path) -> Path:
        """Write the statistics to a file for `load_calibration`; the workload itself is not in it."""
        arrays: dict[str, torch.Tensor] = {}
        tensors: dict[str, dict[str, Any]] = {}
        for position, (name, stats) in enumerate(self.stats.items()):
            tensors[name] = {key: getattr(stats, key) for key in SCALARS}
            tensors[name]["samples"] = [len(sample) for sample in stats.samples]
            filled = torch.nonzero(stats.buckets).flatten()
            kept = {key: getattr(stats, key) for key in ARRAYS}
            kept |= {"bucket": filled, "bucket_count": stats.buckets[filled], "sample": torch.cat(stats.samples)}
            arrays |= {f"{position}.{key}": value.contiguous() for key, value in kept.items() if value is not None}
        record = {
            "format": FORMAT,
            "workload": self.workload.name,
            "tensors": tensors,
            "inputs": self.inputs,
            "model": _fingerprint(self.float_model()),
        }
        path = Path(path)
        try:
            save_file(arrays, path, {"qexplore": json.dumps(record)})
        except (OSError, SafetensorError) as error:
            raise QexploreError(f"Cannot write the calibration {str(path)!r}: {error}.") from error
        return path

    def require_finite(self, names: list[str]) -> None:
        """Refuse tensors with NaN or infinite values.

        Raises:
            QexploreError: naming the first such tensor in the order the model computes them.
        """
        for name, stats in self.stats.items():
            if name in names and stats.nonfinite:
                raise QexploreError(
                    f"Layer {name!r} gives {stats.nonfinite} NaN or infinite values on the calibration data of "
                    f"{self.workload.name!r}; mend the data or the layer, or keep the layer float with a rule."
                )


def load_calibration(path: str | Path, workload: Workload) -> Calibration:
    """The calibration that `Calibration.save` wrote, for the workload it was made with.

    Raises:
        QexploreError: the file is missing, is none of ours, or belongs to a workload of another name.
    """
    try:
        with safe_open(str(path), "pt") as file:
            record = json.loads((file.metadata() or {}).get("qexplore", "{}"))
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (it is no dict)
    except OSError as error:
        raise QexploreError(f"Cannot read the calibration {str(path)!r}: {error.strerror or error}.") from error
    except (SafetensorError, ValueError) as error:
        raise QexploreError(f"{str(path)!r} is no saved calibration; save it again.") from error
    if record.get("format") != FORMAT:
        raise QexploreError(f"{str(path)!r} is no calibration of this version of qexplore; save it again.")
    if record["workload"] != workload.name:
        raise QexploreError(
            f"The calibration {str(path)!r} belongs to workload {record['workload']!r}, not to {workload.name!r}."
        )
    if record["model"] != _fingerprint(workload.model):
        raise QexploreError(
            f"The calibration {str(path)!r} was made with other weights or layers than {workload.name!r} has now; "
            "make it again with qx.calibrate."
        )
    stats = {name: _stats(arrays, position, kept) for position, (name, kept) in enumerate(record["tensors"].items())}
    return Calibration(workload, stats, record["inputs"])


def _fingerprint(model: nn.Module) -> str:
    """A hash of all weights and their shapes, whatever module is around them."""
    digest = hashlib.sha256()
    for value in model.state_dict().values():
        if isinstance(value, torch.Tensor):
            digest.update(str(tuple(value.shape)).encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _stats(arrays: dict[str, torch.Tensor], position: int, kept: dict[str, Any]) -> TensorStats:
    buckets = torch.zeros(BUCKETS, dtype=torch.int64)
    buckets[arrays[f"{position}.bucket"]] = arrays[f"{position}.bucket_count"]
    return TensorStats(
        **{key: kept[key] for key in SCALARS},
        **{key: arrays.get(f"{position}.{key}") for key in ARRAYS},  # type: ignore[arg-type]  # batch_lo and batch_hi are always there
        buckets=buckets,
        samples=arrays[f"{position}.sample"].split(kept["samples"]),
    )
