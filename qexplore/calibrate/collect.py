"""One pass of the float model over the calibration data, keeping statistics of every tensor."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from qexplore.batches import call, checked, first_tensor, positional
from qexplore.calibrate.calibration import Calibration
from qexplore.calibrate.derive import Operation, derived, monotone_operations
from qexplore.calibrate.graph import Recorder, UntraceableError, float_copy, trace
from qexplore.calibrate.measure import measure
from qexplore.calibrate.stats import SAMPLES, TensorStats, sample_share
from qexplore.errors import Cancelled, QexploreError, first_line
from qexplore.exclusive import exclusive
from qexplore.isolate import seeded
from qexplore.progress import Cancel, Report, no_report, stop_if
from qexplore.workload import Batch, Workload

COUNTED = 1 << 17
SAMPLED = 1 << 16
Take = Callable[[str, object], None]
READS_INPUT = (nn.Linear, nn.LSTM, nn.GRU)


def calibrate(
    workload: Workload, exact: bool = False, progress: Report = no_report, cancel: Cancel = None
) -> Calibration:
    """Run the float model once over the calibration data and keep statistics of every float tensor.

    Args:
        exact: count every value. Otherwise a tensor of 393216 or more elements a batch is counted on an
            evenly strided subset of at least 131072; minimum and maximum are exact either way.
        progress: `progress(message, fraction)`, called after each batch.
        cancel: a `threading.Event`; once set, the work stops with `Cancelled`.

    Raises:
        QexploreError: the calibration is empty or holds something else than tensors.
    """
    with exclusive(progress, cancel), seeded(0):
        return _calibrate(workload, exact, progress, cancel)


def _calibrate(workload: Workload, exact: bool, progress: Report, cancel: Cancel) -> Calibration:
    model = float_copy(workload.model)
    channels_last = not any(isinstance(module, nn.Conv1d | nn.ConvTranspose1d) for module in model.modules())
    stats: dict[str, TensorStats] = {}
    latest: TensorStats | None = None

    def take(name: str, value: object) -> None:
        nonlocal latest
        before, latest = latest, None
        tensor = first_tensor(value)
        if tensor is None or not tensor.is_floating_point() or not tensor.numel():
            return
        axis = _channel_axis(tensor, channels_last)
        known = None
        if before is not None and name in operations and (axis == 1 or not operations[name].by_channel):
            known = derived(operations[name], before, tensor.dim())
        new = measure(tensor, None if exact else COUNTED, axis, share, known)
        latest = new if _is_dense(tensor) else None
        stats[name] = stats[name].merge(new) if name in stats else new

    run, inputs, operations = _runner(model, take)
    batches = list(workload.calibration)
    share = sample_share(len(batches), SAMPLES if exact else SAMPLED)
    with torch.no_grad():
        for position, batch in enumerate(checked(batches, workload.name)):
            stop_if(cancel)
            try:
                run(batch)
            except (Cancelled, QexploreError):
                raise
            except Exception as error:
                raise QexploreError(
                    f"The model of workload {workload.name!r} fails on calibration batch {position}: "
                    f"{first_line(error)}; give batches that fit it, without labels."
                ) from error
            progress(f"Calibration batch {position + 1} of {len(batches)}", (position + 1) / len(batches))
    return Calibration(workload, stats, inputs)


def _channel_axis(x: torch.Tensor, channels_last: bool) -> int | None:
    """Dimension of the channels: 1, but of [N, T, C] in models without one-dimensional convolutions the last."""
    if x.dim() < 2:
        return None
    return 2 if x.dim() == 3 and channels_last else 1


def _is_dense(x: torch.Tensor) -> bool:
    """Whether `x` is of float32 in a plain layout; with others a kernel may round otherwise."""
    return x.dtype == torch.float32 and (
        x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))
    )


def _runner(model: nn.Module, take: Take) -> tuple[Callable[[Batch], object], dict[str, str], dict[str, Operation]]:
    """A function that runs one batch and hands every tensor to `take`; the tensor each layer reads; and the operations
    whose output's statistics follow from the tensor's before."""
    try:
        graph = trace(model)
    except UntraceableError:
        return *_hooked(model, take), {}
    inputs = {
        graph.names[node.name]: graph.names[source]
        for node in graph.module.graph.nodes
        if node.op == "call_module" and isinstance(model.get_submodule(str(node.target)), READS_INPUT)
        if (source := graph.source(node.all_input_nodes[0]).name) in graph.names
    }
    recorder = Recorder(graph.module, set(graph.names), lambda node, value: take(graph.names[node], value))
    return (lambda batch: recorder.run(*positional(model, batch))), inputs, monotone_operations(graph)


def _hooked(model: nn.Module, take: Take) -> tuple[Callable[[Batch], object], dict[str, str]]:
    """The same by module hooks, for a model that torch.fx cannot trace: leaf modules' outputs, and what
    Linear, LSTM and GRU read, under the name `<layer>.input`."""
    inputs = {}

    def reads(name: str) -> Callable[..., None]:
        return lambda module, args: take(name, args)

    def gives(name: str) -> Callable[..., None]:
        return lambda module, args, output: take(name, output)

    for name, module in model.named_modules():
        if isinstance(module, READS_INPUT):
            inputs[name] = f"{name}.input"
            module.register_forward_pre_hook(reads(inputs[name]))
        if name and not list(module.children()):
            module.register_forward_hook(gives(name))
    return (lambda batch: call(model, batch)), inputs
