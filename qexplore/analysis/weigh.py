"""What a layer's error would be without each cause that its tensors suggest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from qexplore.analysis.causes import Cause, causes, shared_range, uneven_channels
from qexplore.analysis.checks import PER_TENSOR_ONLY
from qexplore.analysis.linearize import Linearized
from qexplore.analysis.local_errors import local_errors
from qexplore.analysis.predict_tensor import predicted_tensor
from qexplore.analysis.prediction import Prediction
from qexplore.calibrate.graph import FloatGraph
from qexplore.engines import ENGINES, QuantizedTensor
from qexplore.engines.engine import CONVOLUTIONS
from qexplore.engines.observers import quant_range
from qexplore.engines.plan import PlannedTensor
from qexplore.engines.switched import Switched, switched
from qexplore.numerics.affine import qparams
from qexplore.progress import Cancel, no_report

MATTERS = 0.3  # share of a layer's error that a cause takes away

Weighed = list[tuple[float, Cause]]


def weigh(
    prediction: Prediction, switches: Switched, layer: str, ats: list[Linearized], cancel: Cancel
) -> Iterator[tuple[PlannedTensor, Weighed]]:
    """The tensors of a layer with the causes that make much of its error, and how much of the error at the output
    goes with each, the largest first."""
    before = _brought(switches, layer, ats, cancel)
    for planned, given in _tensors(prediction, switches, layer):
        weighed: Weighed = []
        for cause in _proposed(prediction, planned, given, layer):
            if not _allowed(prediction, planned, cause):
                continue
            tensor = _tensor_without(prediction, planned, cause)
            tensors = prediction.quantized | {(planned.kind, planned.name): tensor}
            changed = switched(_graph(prediction), prediction.plan, tensors)
            counted = ~_beyond(tensor, switches, ats) if cause.lone else torch.ones(len(before), dtype=torch.bool)
            now, after = before[counted].sum(), _brought(changed, layer, ats, cancel)[counted].sum()
            if 2 * int(counted.sum()) > len(before) and now - after > MATTERS * now:
                weighed.append((float(now - after) / len(before), cause))
        if weighed:
            yield planned, sorted(weighed, key=lambda option: -option[0])


def _proposed(prediction: Prediction, planned: PlannedTensor, given: str, layer: str) -> Iterator[Cause]:
    """The causes that a tensor's statistics suggest.

    Args:
        given: name of the tensor that is read in its place; `layer`: that reads it.
    """
    key = planned.kind, planned.name
    specs = prediction.recipe.specs_at(planned.rule)
    if specs is None:
        return
    row = prediction.tensors.set_index(["kind", "name"]).loc[key]
    share = float(row.clipping_mse / row.mse) if row.mse else 0.0
    tensor, spec = prediction.quantized[key], specs[planned.kind == "weight"]
    yield from causes(tensor, spec, prediction.stats(*key), share, float(row.codes_used))
    stats = prediction.calibration.stats
    if given in planned.seen and not planned.fixed:
        yield from shared_range(tensor, spec, stats[given], given)
    from_layer = planned.layer in prediction.layers.index  # nothing before the model's input could even it out
    if given == planned.name and from_layer and not planned.fixed and _is_convolution(prediction, layer):
        yield from uneven_channels(tensor, spec, stats[given], axis=1)


def _is_convolution(prediction: Prediction, layer: str) -> bool:
    return isinstance(dict(_graph(prediction).module.named_modules()).get(layer), CONVOLUTIONS)


def _brought(switches: Switched, layer: str, ats: list[Linearized], cancel: Cancel) -> torch.Tensor:
    """The error that a layer brings to the output, by sample."""
    return local_errors(switches, ats, False, no_report, cancel, only={layer}).output_mse()[0]


def _beyond(tensor: QuantizedTensor, switches: Switched, ats: list[Linearized]) -> torch.Tensor:
    """For each sample, whether it has values of a tensor that its range leaves out."""
    sources = {source for (_, source), t in switches.reads.items() if t.name == tensor.name}
    found = []
    for at in ats:
        beyond = torch.zeros(at.samples, dtype=torch.bool)
        for source in sources:
            x = at.values[switches.float_node(source)]
            parts = at.samples if x.dim() and x.shape[0] % at.samples == 0 else 1
            beyond |= tensor.outside(x).reshape(parts, -1).any(1)
        found.append(beyond)
    return torch.cat(found)


def _tensors(prediction: Prediction, switches: Switched, layer: str) -> list[tuple[PlannedTensor, str]]:
    """What a layer reads quantized, with the name of the tensor that gives it, and its weights."""
    graph, read = _graph(prediction), dict[str, str]()
    for (reader, source), t in switches.reads.items():
        if switches.layer_of[reader] == layer:
            read[t.name] = graph.names.get(switches.float_nodes.get(source, source), "")
    return [
        (planned, read.get(planned.name, ""))
        for planned in prediction.plan.tensors
        if (planned.layer == layer if planned.kind == "weight" else planned.name in read)
    ]


def _allowed(prediction: Prediction, planned: PlannedTensor, cause: Cause) -> bool:
    """Whether the engine can do what a cause's remedy asks for."""
    if planned.kind == "activation":
        return True
    if not cause.spec.symmetric and not ENGINES[prediction.engine].affine_weights:
        return False
    model = prediction.graph.module if prediction.graph is not None else prediction.calibration.float_model()
    return not (cause.spec.per_channel and isinstance(model.get_submodule(planned.layer), PER_TENSOR_ONLY))


def _tensor_without(prediction: Prediction, planned: PlannedTensor, cause: Cause) -> QuantizedTensor:
    """A tensor quantized without a cause."""
    guard = prediction.overflow_guard
    codes = quant_range(cause.spec, planned.kind, guard)
    own = replace(planned, name=cause.seen, seen=(cause.seen,)) if cause.seen else planned
    tensor, _ = predicted_tensor(prediction.calibration, own, cause.spec, codes, guard)
    if cause.axis is not None:
        stats = prediction.calibration.stats[planned.name]
        assert stats.channel_lo is not None and stats.channel_hi is not None
        scale, zero_point = qparams(stats.channel_lo, stats.channel_hi, *codes, cause.spec.symmetric)
        tensor = replace(tensor, scale=scale, zero_point=zero_point, axis=cause.axis)
    return replace(tensor, name=planned.name)


def _graph(prediction: Prediction) -> FloatGraph:
    assert prediction.graph is not None  # a ledger needs it
    return prediction.graph
