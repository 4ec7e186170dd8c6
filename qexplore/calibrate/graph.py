"""The float model as a graph, with one name for each tensor: the module path that produces it."""

from __future__ import annotations

import copy
import operator
import traceback
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from qexplore.errors import QexploreError, first_line


@dataclass(frozen=True)
class FloatGraph:
    """A traced model and the names of its tensors.

    Attributes:
        module: the traced model; it shares its parameters with the model it was traced from.
        names: tensor name by graph node name. A module's output has the module's path (`layer1.0.conv1`, from
            the second use on `layer1.0.relu_1`), a function's the path of the module that calls it and the
            function's name (`layer1.0.add`); inputs are `input`, `input_1`, ...
    """

    module: fx.GraphModule
    names: dict[str, str]

    def source(self, node: fx.Node) -> fx.Node:
        """The node that `node`'s tensor comes from, looking through `output[0]` and attribute reads."""
        while node.name not in self.names and node.all_input_nodes:
            node = node.all_input_nodes[0]
        return node


ONE_LAYER = (nn.Linear, nn.RNNBase, nn.modules.conv._ConvNd)
GIVES_TUPLE = (nn.RNNBase, nn.MultiheadAttention)


class UntraceableError(QexploreError):
    """torch.fx cannot trace the model."""


class _Tracer(fx.Tracer):
    """Remembers which module it is in, so that a failure can be placed."""

    inside = ""

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        outer, self.inside = self.inside, self.path_of_module(m)
        result = super().call_module(m, forward, args, kwargs)
        self.inside = outer
        return result


def float_copy(model: nn.Module) -> nn.Module:
    """A copy of `model` in eval mode; a model that is itself one layer comes in a Sequential, to have a name ("0")."""
    try:
        copied = copy.deepcopy(model).eval()
    except Exception as error:
        raise QexploreError(
            f"The model cannot be copied ({first_line(error)}); remove what hinders it, such as weight_norm."
        ) from error
    return nn.Sequential(copied).eval() if isinstance(copied, ONE_LAYER) else copied


def trace(model: nn.Module) -> FloatGraph:
    """Trace `model` with torch.fx, with the same leaf modules as torch.ao's FX graph mode.

    Raises:
        UntraceableError: the forward pass depends on values; the message names the module and the line.
    """
    tracer = _Tracer()
    try:
        graph = tracer.trace(model)
        traced = fx.GraphModule(model, graph)
    except Exception as error:
        raise UntraceableError(_place(error, model, tracer.inside)) from error
    tuples = {name for name, module in model.named_modules() if isinstance(module, GIVES_TUPLE)}
    return FloatGraph(traced, _names(graph, tuples))


def _names(graph: fx.Graph, tuples: set[str]) -> dict[str, str]:
    names: dict[str, str] = {}
    used: set[str] = set()
    modules = {str(node.target) for node in graph.nodes if node.op == "call_module"}
    for node in graph.nodes:
        if node.op in ("output", "get_attr"):
            continue
        if node.target is operator.getitem and node.args[0].target in tuples and node.args[1] == 0:
            continue  # `lstm(x)[0]` is the tensor `lstm`
        if node.op == "placeholder":
            wanted = "input"
        elif node.op == "call_module":
            wanted = str(node.target)
        else:
            wanted = ".".join(part for part in (scope(node), _function_name(node)) if part)
        name, number = wanted, 0
        while name in used or (node.op != "call_module" and name in modules):
            number += 1
            name = f"{wanted}_{number}"
        used.add(name)
        names[node.name] = name
    return names


def scope(node: fx.Node) -> str:
    """Path of the module whose forward calls this function node ("" for the model itself)."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [entry[0] for entry in stack.values()]
    return paths[-1] if paths else ""


def _function_name(node: fx.Node) -> str:
    return str(node.target if isinstance(node.target, str) else getattr(node.target, "__name__", node.name))


def _place(error: Exception, model: nn.Module, inside: str) -> str:
    """Where in the user's code tracing failed, as one sentence with a way out."""
    own = [f for f in traceback.extract_tb(error.__traceback__) if "/torch/" not in f.filename.replace("\\", "/")]
    own = [f for f in own if not f.filename.replace("\\", "/").endswith("qexplore/calibrate/graph.py")]
    where = f"module {inside!r}" if inside else f"the forward of {type(model).__name__}"
    line = f", line {own[-1].lineno}: `{own[-1].line}`" if own else ""
    dynamic = any(isinstance(module, nn.Linear | nn.LSTM | nn.GRU) for module in model.modules())
    remedy = "use mode 'dynamic', which needs no tracing, or " if dynamic else ""
    return (
        f"torch.fx cannot trace {where}{line} ({first_line(error)}); {remedy}make this step independent of the data "
        "(of a scripted or compiled model, give the original nn.Module)."
    )


def output_name(graph: FloatGraph) -> str:
    """Name of the first tensor that the model returns; "" where it returns none of its own."""
    output = next(node for node in graph.module.graph.nodes if node.op == "output")
    return graph.names.get(graph.source(output.all_input_nodes[0]).name, "") if output.all_input_nodes else ""


def layer_names(model: nn.Module, graph: FloatGraph | None) -> list[str]:
    """Every name a rule's pattern may match: all modules and, where traced, all function calls."""
    names = [name for name, _ in model.named_modules() if name]
    return names + [name for name in (graph.names.values() if graph else ()) if name not in names]


class Recorder(fx.Interpreter):
    """Runs a graph and hands the output of chosen nodes to `take(node name, output)` as it goes.

    Args:
        module: the graph to run.
        wanted: names of the nodes whose output is taken.
        take: called during the run, so that no output has to be kept.
    """

    def __init__(self, module: fx.GraphModule, wanted: set[str], take: Any) -> None:
        super().__init__(module)
        self.wanted, self.take = wanted, take

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self.wanted:
            self.take(n.name, value)
        return value
