"""The float model to first order: its values and how its output moves with each of them, for all layers at once.

For v of random signs, E[(v . J e)^2] = |J e|^2 whatever the error e of a layer and the Jacobian J from it to the output
(Hutchinson 1990, "A Stochastic Estimator of the Trace of the Influence Matrix"); the gradient of v . y gives v^T J for
every layer in one backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from qexplore.analysis.checks import NO_TENSOR
from qexplore.batches import batch_size, first_tensor, positional
from qexplore.calibrate.graph import FloatGraph
from qexplore.engines.switched import OUTPUT, run_function
from qexplore.errors import QexploreError
from qexplore.progress import Cancel, Report, stop_if
from qexplore.workload import Batch

SAMPLES = 256
ENOUGH = 128  # samples, from which on two draws of v give a rank that holds
DRAWS = (2, 4)  # with so many samples, and with fewer

MIXED = 8  # times the draws where samples mix, for each draw is then but one
DETACHING = ("detach", torch.detach)

RunNode = Callable[[fx.Node, Callable[[fx.Node], Any]], Any]


@dataclass(frozen=True, eq=False)
class Linearized:
    """One batch that ran through the float model.

    Attributes:
        values: what each node of the graph gave, by its name, and the model under OUTPUT.
        gradients: for each draw of v, the gradient of v . y at each node that has one, by its name.
        output: what the model gave (its first tensor), [samples, ...].
        samples: in how many parts the batch's errors can be told apart: its size, 1 where the model mixes it up.
    """

    values: dict[str, Any]
    gradients: list[dict[str, torch.Tensor]]
    output: torch.Tensor
    samples: int

    def moved(self, node: str, error: torch.Tensor) -> torch.Tensor:
        """v . J e for the error of a node's value: float64 [draws, samples]."""
        dots = []
        for gradients in self.gradients:
            if node not in gradients:  # the output does not depend on it
                dots.append(torch.zeros(self.samples, dtype=torch.float64))
                continue
            product = gradients[node] * error
            parts = self.samples if product.dim() and product.shape[0] % self.samples == 0 else 1
            dot = product.reshape(parts, -1).sum(1, dtype=torch.float64)
            dots.append(torch.cat([dot, dot.new_zeros(self.samples - parts)]))
        return torch.stack(dots)


def chosen(batches: Sequence[Batch], samples: int) -> list[Batch]:
    """The first batches that hold so many samples together, at least one."""
    taken: list[Batch] = []
    for batch in batches:
        if taken and sum(map(batch_size, taken)) >= samples:
            break
        taken.append(batch)
    return taken


def linearize(
    graph: FloatGraph, batches: Sequence[Batch], seed: int, progress: Report, cancel: Cancel, draws: int
) -> list[Linearized]:
    """Run the float model forward once and backward `draws` times on each batch."""
    run = _float_node(graph.module, dict(graph.module.named_modules()))
    graph.module.requires_grad_(False)
    apart, found = False, list[Linearized]()
    for position, batch in enumerate(batches):
        stop_if(cancel)
        progress(f"Gradients, batch {position + 1} of {len(batches)}", position / len(batches))
        values, output = _forward(graph.module, run, batch)
        size = batch_size(batch) if output.dim() and output.shape[0] == batch_size(batch) else 1
        if position == 0:
            _check_output(graph.module, output, batch)
            apart = draws == 0 or _are_apart(values, output, size)
        signs = torch.Generator().manual_seed(seed + position)
        found.append(_linearized(values, output, size if apart else 1, signs, draws if apart else draws * MIXED))
    reached = (g for at in found for each in at.gradients for name, g in each.items() if name != OUTPUT)
    if draws and not any(bool(g.any()) for g in reached):
        raise QexploreError(
            "The output of the model has no gradient (argmax, rounding or the like give none), and what layers bring "
            'to it is taken from gradients; let the model return what comes before, or take method="exact".'
        )
    return found


def _float_node(module: fx.GraphModule, modules: dict[str, Any]) -> RunNode:
    def run(node: fx.Node, value: Callable[[fx.Node], Any]) -> Any:
        args, kwargs = fx.node.map_arg(node.args, value), fx.node.map_arg(node.kwargs, value)
        if node.target in DETACHING:  # noise passes it, though no gradient does
            return args[0]
        if node.op != "call_module":
            return run_function(module, node, args, kwargs)
        part = modules[str(node.target)]
        if getattr(part, "inplace", False) and isinstance(args[0], torch.Tensor):
            args = (args[0].clone(), *args[1:])
        return part(*args, **kwargs)

    return run


def _forward(module: fx.GraphModule, run: RunNode, batch: Batch) -> tuple[dict[str, Any], torch.Tensor]:
    """What every node gives, gradients wanted, and the model's output (its first tensor)."""
    values: dict[str, Any] = {}
    remaining = list(positional(module, batch))
    output: torch.Tensor | None = None
    with torch.enable_grad():
        for node in module.graph.nodes:
            if node.op == "placeholder":
                given = remaining.pop(0) if remaining else next(iter(node.args), None)
                values[node.name] = _leaf(given)
                continue
            value = run(node, lambda source: values[source.name])
            if node.op == "output":
                output = first_tensor(value)
            else:
                values[node.name] = value if node.op == "get_attr" else _leaf(value)
    assert output is not None, NO_TENSOR
    return values, output


def _gradients(values: dict[str, Any], output: torch.Tensor, v: torch.Tensor, again: bool) -> dict[str, torch.Tensor]:
    """The gradient of v . output at each node that has one."""
    tensors = {name: first_tensor(value) for name, value in values.items()}
    wanted = {name: x for name, x in tensors.items() if x is not None and x.requires_grad}
    if not output.requires_grad:
        return {}
    found = torch.autograd.grad(output, list(wanted.values()), v, retain_graph=again, allow_unused=True)
    return {name: g for name, g in zip(wanted, found, strict=True) if g is not None}


def _linearized(
    values: dict[str, Any], output: torch.Tensor, samples: int, generator: torch.Generator, draws: int
) -> Linearized:
    gradients = []
    for draw in range(draws):
        signs = torch.randint(0, 2, output.shape, generator=generator).to(output.dtype) * 2 - 1
        gradients.append(_gradients(values, output, signs, draw + 1 < draws) | {OUTPUT: signs})
    kept = {name: _detached(value) for name, value in values.items()} | {OUTPUT: output.detach()}
    return Linearized(kept, gradients, output.detach(), samples)


def _are_apart(values: dict[str, Any], output: torch.Tensor, samples: int) -> bool:
    """Whether samples do not mix, found by trying: the first one's output moves with its own values only, and these
    come first in every tensor."""
    if samples < 2:
        return False
    first = torch.zeros_like(output)
    first[0] = 1.0
    found = _gradients(values, output, first, again=True).values()
    return not any(bool(g[len(g) // samples :].any()) for g in found if g.dim() and g.shape[0] % samples == 0)


def _check_output(module: fx.GraphModule, output: torch.Tensor, batch: Batch) -> None:
    """Refuse a model whose operations run one by one give something else than the model.

    Raises:
        QexploreError: as happens where an operation in place is seen through another reference.
    """
    with torch.no_grad():
        expected = first_tensor(module(*positional(module, batch)))
    if expected is None or not torch.allclose(output, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max())):
        raise QexploreError(
            "The model computes something else when its operations run one by one: one changes a tensor in place that "
            "another one reads as well, or forward takes *args; use out-of-place operations and named arguments."
        )


def _leaf(value: Any) -> Any:
    """`value`, its gradient wanted where it is a float tensor that does not depend on one."""
    tensor = first_tensor(value)
    if tensor is not None and tensor.is_floating_point() and not tensor.requires_grad:
        tensor.requires_grad_()
    return value


def _detached(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return tuple(_detached(each) for each in value)
    return value.detach() if isinstance(value, torch.Tensor) else value
