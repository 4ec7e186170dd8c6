"""Dynamic quantization through torch.ao's eager mode: int8 weights, activations quantized at run time."""

from __future__ import annotations

import copy
from collections.abc import Collection

import torch
from torch import nn
from torch.ao.quantization import QConfig, default_dynamic_qconfig, quantize_dynamic

from qexplore.calibrate.collect import READS_INPUT, Calibration
from qexplore.engines.conversion import Conversion, Layer, Probe, QuantizedTensor
from qexplore.engines.dynamic_simulated import stand_in
from qexplore.engines.engine import Engine, using
from qexplore.engines.observers import torch_observer
from qexplore.errors import QexploreError
from qexplore.numerics.affine import qparams
from qexplore.recipe import Recipe, TensorSpec

Places = dict[str, tuple[str, ...]]


NOTHING_DYNAMIC = (
    "Dynamic mode quantizes Linear, LSTM and GRU layers and this model has none; use mode 'static' or 'qat'."
)


def eligible(model: nn.Module) -> list[str]:
    """Names of the layers that dynamic mode can quantize."""
    return [name for name, module in model.named_modules() if type(module) in READS_INPUT]


def dynamic_layers(model: nn.Module, recipe: Recipe) -> dict[str, TensorSpec]:
    """Weight spec of each layer that dynamic mode quantizes, by layer name.

    Raises:
        QexploreError: the model has no Linear, LSTM or GRU, or the rules keep all of them float.
    """
    layers = eligible(model)
    if not layers:
        raise QexploreError(NOTHING_DYNAMIC)
    specs = {name: specs[1] for name in layers if (specs := recipe.specs_for(name))}
    if not specs:
        raise QexploreError("The rules keep every Linear, LSTM and GRU float, so nothing is left to quantize.")
    for name in specs:
        module = model.get_submodule(name)
        if isinstance(module, nn.RNNBase) and (not module.bias or module.proj_size):
            lack = "without bias" if not module.bias else "with proj_size"
            raise QexploreError(
                f"Layer {name!r} is a {type(module).__name__} {lack}, which torch.ao has no int8 kernels for; "
                "keep it float with a rule."
            )
    return specs


def layers_of(model: nn.Module, quantized: Collection[str]) -> list[Layer]:
    """A row for each layer that dynamic mode can quantize, and whether it does."""
    return [Layer(name, type(model.get_submodule(name)).__name__, name, name in quantized) for name in eligible(model)]


def convert_dynamic(model: nn.Module, recipe: Recipe, engine: Engine, calibration: Calibration) -> Conversion:
    """The dynamically quantized model and its simulation.

    Args:
        model: the float model in eval mode; not modified.
        calibration: only for the activation ranges in the tables; the model reads its own at run time.
    """
    specs = dynamic_layers(model, recipe)
    _, quant_max = engine.run_time_codes(recipe.activation.bits)
    simulated = copy.deepcopy(model)
    tensors: list[QuantizedTensor] = []
    for name, spec in specs.items():
        if calibration.inputs.get(name) not in [t.name for t in tensors if t.kind == "activation"]:
            tensors += _activation(name, recipe, quant_max, calibration)
        module = simulated.get_submodule(name)
        original = model.get_submodule(name)
        weights = _quantized_weights(name, original, spec)
        tensors += weights
        for tensor, (parameter, value) in zip(weights, _parameters(original).items(), strict=True):
            # A parameter of its own: a tied one must not change elsewhere.
            setattr(module, parameter, nn.Parameter(tensor.fake_quantize(value.detach())))
        simulated = _replaced(simulated, name, stand_in(module, quant_max))
    int8 = None
    if recipe.bits == 8:
        with using(engine.name):
            int8 = quantize_dynamic(model, {name: _qconfig(spec) for name, spec in specs.items()})
    layers = layers_of(model, specs)
    for converted in (simulated, int8):
        _leave_fast_path(converted)
    models = {"float": model, "simulated": simulated} | ({"int8": int8} if int8 is not None else {})
    outputs: Places = {layer.name: (layer.name,) for layer in layers}
    reads: Places = {t.layer: (f"tensor:{t.name}",) for t in tensors if t.kind == "activation"}
    probes = {kind: Probe(m, outputs, False, reads if kind == "float" else {}) for kind, m in models.items()}
    return Conversion(int8, simulated, tuple(tensors), tuple(layers), probes, engine.name)


def _qconfig(spec: TensorSpec) -> QConfig:
    observer, arguments = torch_observer(spec, "weight", "none")
    return QConfig(default_dynamic_qconfig.activation, observer.with_args(**arguments))


def _parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """The quantized weights of a layer by parameter name."""
    return {name: p for name, p in module.named_parameters(recurse=False) if name.startswith("weight")}


def layer_weights(layer: str, module: nn.Module) -> dict[str, nn.Parameter]:
    """The quantized weights of a layer by tensor name: the layer's own where it has one weight."""
    return {layer if name == "weight" else f"{layer}.{name}": p for name, p in _parameters(module).items()}


def _quantized_weights(layer: str, module: nn.Module, spec: TensorSpec) -> list[QuantizedTensor]:
    rows = []
    for name, parameter in layer_weights(layer, module).items():
        observer, arguments = torch_observer(spec, "weight", "none")
        observed = observer(**arguments)
        observed.tensor = name
        observed(parameter.detach())
        scale, zero_point = observed.calculate_qparams()
        rows.append(
            QuantizedTensor(
                name=name,
                kind="weight",
                layer=layer,
                scale=scale.reshape(-1),
                zero_point=zero_point.reshape(-1),
                quant_min=arguments["quant_min"],
                quant_max=arguments["quant_max"],
                bits=spec.bits,
                axis=0 if spec.per_channel else None,
                observer=spec.observer,
                weight=parameter.detach().clone(),
            )
        )
    return rows


def _activation(layer: str, recipe: Recipe, quant_max: int, calibration: Calibration) -> list[QuantizedTensor]:
    """The range of what the layer reads, as seen over the calibration; empty where it was not reached."""
    name = calibration.inputs.get(layer)
    if name is None or name not in calibration.stats:
        return []
    stats = calibration.stats[name]
    scale, zero_point = qparams(torch.tensor([stats.lo]), torch.tensor([stats.hi]), 0, quant_max, symmetric=False)
    return [
        QuantizedTensor(
            name=name,
            kind="activation",
            layer=layer,
            scale=scale,
            zero_point=zero_point,
            quant_min=0,
            quant_max=quant_max,
            bits=recipe.activation.bits,
            axis=None,
            observer="run time",
            at_run_time=True,
        )
    ]


def _leave_fast_path(model: nn.Module | None) -> None:
    """Keep TransformerEncoderLayers off their fused float kernel, which reads weights that are int8 now.

    They leave it where a hook is attached (torch.nn.TransformerEncoderLayer.forward).
    """
    for layer in model.modules() if model is not None else ():
        if isinstance(layer, nn.TransformerEncoderLayer):
            layer.dropout.register_forward_pre_hook(_nothing)


def _nothing(module: nn.Module, args: object) -> None:
    """A hook that does nothing."""


def _replaced(model: nn.Module, name: str, module: nn.Module) -> nn.Module:
    """`model` with the module at `name` replaced; a model that is itself that layer is replaced whole."""
    if not name:
        return module
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
    return model
