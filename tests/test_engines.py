"""The engines against plain torch.ao calls: same models, same scales, same codes."""

from __future__ import annotations

import copy
import dataclasses
import threading
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.ao.nn.intrinsic.qat import freeze_bn_stats
from torch.ao.quantization import (
    FakeQuantize,
    HistogramObserver,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    PerChannelMinMaxObserver,
    QConfig,
    QConfigMapping,
    default_dynamic_qconfig,
    disable_observer,
    quantize_dynamic,
)
from torch.ao.quantization.backend_config import BackendConfig, get_native_backend_config
from torch.ao.quantization.quantize_fx import convert_fx, convert_to_reference_fx, prepare_fx, prepare_qat_fx

from qexplore import LayerRule, QexploreError, Recipe, TensorSpec, Workload, quantize
from qexplore.engines import ENGINES, resolve_engine, resolve_guard
from qexplore.engines.engine import grouped_saturates
from qexplore.engines.simulate import QuantDequant
from qexplore.exclusive import exclusive
from qexplore.numerics.errors import sqnr_db
from tests.conftest import images, normal

pytestmark = [pytest.mark.usefixtures("quick_timing"), pytest.mark.filterwarnings("ignore")]

SUPPORTED = [name for name in ENGINES if name in torch.backends.quantized.supported_engines]
OBSERVERS = {"histogram": HistogramObserver, "minmax": MinMaxObserver, "moving_average": MovingAverageMinMaxObserver}
AFFINE, SYMMETRIC = TensorSpec(), TensorSpec(symmetric=True)
CHANNELS, AFFINE_CHANNELS = TensorSpec(symmetric=True, per_channel=True), TensorSpec(per_channel=True)
MIN_MAX = TensorSpec("minmax")


@pytest.fixture(autouse=True)
def engine_restored():
    """Tests may set the engine."""
    before = torch.backends.quantized.engine
    yield
    torch.backends.quantized.engine = before


def observers(recipe: Recipe) -> list[tuple[type, dict]]:
    """Class and arguments of the activations' and the weights' observer, by hand."""
    a, w = recipe.activation, recipe.weight
    guard = resolve_guard(recipe, resolve_engine(recipe))
    low, high = (-64, 64) if guard == "weights" else (-(2 ** (w.bits - 1)), 2 ** (w.bits - 1) - 1)
    scheme = f"per_{'channel' if w.per_channel else 'tensor'}_{'symmetric' if w.symmetric else 'affine'}"
    return [
        (
            OBSERVERS[a.observer],
            {
                "dtype": torch.quint8,
                "qscheme": torch.per_tensor_symmetric if a.symmetric else torch.per_tensor_affine,
                "quant_min": 0,
                "quant_max": 127 if guard == "activations" else 2**a.bits - 1,
            },
        ),
        (
            PerChannelMinMaxObserver if w.per_channel else OBSERVERS[w.observer],
            {"dtype": torch.qint8, "qscheme": getattr(torch, scheme), "quant_min": low, "quant_max": high},
        ),
    ]


def backend(fuse: bool) -> BackendConfig:
    native = get_native_backend_config()
    if fuse:
        return native
    plain = [c for c in native.configs if c.fuser_method is None and c.fused_module is None]
    return BackendConfig("plain").set_backend_pattern_configs(plain)


def plain_prepared(workload: Workload, recipe: Recipe) -> nn.Module:
    """Prepared, calibrated and (in QAT) trained as PyTorch's documentation has it, without qexplore."""
    torch.backends.quantized.engine = resolve_engine(recipe).name
    qat = recipe.mode == "qat"
    parts = [FakeQuantize.with_args(observer=o, **a) if qat else o.with_args(**a) for o, a in observers(recipe)]
    batches = list(workload.calibration)
    model = copy.deepcopy(workload.model).train(qat)
    mapping = QConfigMapping().set_global(QConfig(*parts))
    insert = prepare_qat_fx if qat else prepare_fx
    prepared = insert(model, mapping, (batches[0],), backend_config=backend(recipe.fuse)).eval()
    with torch.no_grad():
        for batch in batches:
            prepared(batch)
    if qat:
        for epoch in range(recipe.epochs):
            if epoch == max(1, round(recipe.epochs / 3)):
                prepared.apply(disable_observer).apply(freeze_bn_stats)
            prepared.train()
            workload.train(prepared, 1, lambda message, fraction, **figures: None)
    return prepared.eval()


STATIC = {
    "defaults": Recipe(),
    "no-guard": Recipe(overflow_guard="none"),
    "guarded-activations": Recipe(overflow_guard="activations"),
    "minmax-per-tensor": Recipe(activation=MIN_MAX, weight=SYMMETRIC),
    "unfused": Recipe(activation=MIN_MAX, fuse=False),
    "affine-weights": Recipe(weight=AFFINE, overflow_guard="none"),
    "affine-channels": Recipe(weight=AFFINE_CHANNELS, overflow_guard="none"),
    "moving-average": Recipe(activation=TensorSpec("moving_average"), weight=TensorSpec("histogram", symmetric=True)),
    "symmetric-activations": Recipe(activation=TensorSpec("minmax", symmetric=True)),
} | {f"engine-{name}": Recipe(activation=MIN_MAX, engine=name) for name in SUPPORTED}
QAT = {
    "qat-fused": Recipe(mode="qat", activation=TensorSpec("moving_average"), weight=SYMMETRIC, epochs=3),
    "qat-channels": Recipe(mode="qat", activation=TensorSpec("minmax"), epochs=1),
    "qat-unfused": Recipe(mode="qat", activation=TensorSpec("moving_average"), fuse=False, epochs=1),
}


@pytest.mark.parametrize("recipe", (STATIC | QAT).values(), ids=STATIC | QAT)
def test_the_int8_model_is_plain_torchs(conv: Workload, recipe: Recipe) -> None:
    run = quantize(conv, recipe)
    theirs = convert_fx(plain_prepared(conv, recipe), backend_config=backend(recipe.fuse))
    x = normal(32, 3, 8, 8, seed=9)
    with torch.no_grad():
        assert torch.equal(run.model(x), theirs(x))
        assert sqnr_db(conv.model(x), run.model(x)) > (5 if recipe.mode == "qat" else 25)  # training moves it


EXACT = {name: STATIC[name] for name in ("no-guard", "minmax-per-tensor", "unfused", "affine-channels")}


@pytest.mark.parametrize("recipe", EXACT.values(), ids=EXACT)
def test_the_simulation_is_torchs_reference_model(conv: Workload, recipe: Recipe) -> None:
    recipe = dataclasses.replace(recipe, overflow_guard="none")
    run = quantize(conv, recipe)
    theirs = convert_to_reference_fx(plain_prepared(conv, recipe), backend_config=backend(recipe.fuse))
    x = normal(32, 3, 8, 8, seed=9)
    with torch.no_grad():
        assert torch.equal(run.simulated(x), theirs(x))


DYNAMIC = {
    "per-tensor": Recipe(mode="dynamic", weight=SYMMETRIC),
    "per-channel": Recipe(mode="dynamic", weight=CHANNELS),
    "affine": Recipe(mode="dynamic", weight=AFFINE),
} | {f"engine-{name}": Recipe(mode="dynamic", weight=SYMMETRIC, engine=name) for name in SUPPORTED}


@pytest.mark.parametrize("recipe", DYNAMIC.values(), ids=DYNAMIC)
def test_the_dynamic_model_is_plain_torchs(lstm: Workload, symbols: torch.Tensor, recipe: Recipe) -> None:
    run = quantize(lstm, recipe)
    torch.backends.quantized.engine = resolve_engine(recipe).name
    observer, arguments = observers(recipe)[1]
    qconfig = QConfig(default_dynamic_qconfig.activation, observer.with_args(**arguments))
    theirs = quantize_dynamic(lstm.model, {nn.LSTM: qconfig, nn.Linear: qconfig})
    with torch.no_grad():
        assert torch.equal(run.model(symbols), theirs(symbols))
        assert sqnr_db(lstm.model(symbols), run.model(symbols)) > 25


def test_the_default_dynamic_model_is_torchs_one_liner(lstm: Workload, symbols: torch.Tensor) -> None:
    run = quantize(lstm, Recipe(mode="dynamic", weight=SYMMETRIC))
    torch.backends.quantized.engine = run.engine
    with torch.no_grad():
        assert torch.equal(run.model(symbols), quantize_dynamic(lstm.model, {nn.LSTM, nn.Linear})(symbols))


class Reader(nn.Module):
    """A recurrent layer between two Linears."""

    def __init__(self, kind: type[nn.RNNBase], **settings) -> None:
        super().__init__()
        self.before = nn.Linear(6, 8)
        self.rnn = kind(8, 12, **settings)
        self.after = nn.Linear(24 if settings.get("bidirectional") else 12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(self.rnn(self.before(x))[0])


RECURRENT = {
    f"{kind.__name__}{''.join('-' + key for key in settings)}": (kind, settings)
    for kind in (nn.LSTM, nn.GRU)
    for settings in ({}, {"bidirectional": True, "num_layers": 2}, {"batch_first": True})
}


@pytest.mark.parametrize("weight", [SYMMETRIC, AFFINE], ids=["symmetric", "affine"])
@pytest.mark.parametrize(("kind", "settings"), RECURRENT.values(), ids=RECURRENT)
def test_the_dynamic_simulation_follows_the_kernels(make: Callable[..., Workload], kind, settings, weight) -> None:
    torch.manual_seed(0)
    x = normal(7, 5, 6)
    run = quantize(make(Reader(kind, **settings), x), Recipe(mode="dynamic", weight=weight))
    with torch.no_grad():
        assert sqnr_db(run.model(x), run.simulated(x)) > 60


@pytest.mark.parametrize("settings", [{"bias": False}, {"proj_size": 4}], ids=["no-bias", "projection"])
def test_an_lstm_without_kernels_is_refused(make: Callable[..., Workload], settings: dict) -> None:
    model = Reader(nn.LSTM, **settings)
    model.after = nn.Linear(settings.get("proj_size", 12), 4)
    workload = make(model, normal(7, 5, 6))
    with pytest.raises(QexploreError, match=r"'rnn'.*\.$"):
        quantize(workload, Recipe(mode="dynamic"))
    run = quantize(workload, Recipe(mode="dynamic", rules=[LayerRule("rnn", keep_float=True)]))
    assert run.layers.quantized.to_dict() == {"before": True, "rnn": False, "after": True}


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("engine", SUPPORTED)
def test_the_dynamic_simulation_of_a_linear(make: Callable[..., Workload], engine: str, bias: bool) -> None:
    torch.manual_seed(0)
    x = normal(16, 10)
    model = nn.Sequential(nn.Linear(10, 20, bias=bias), nn.ReLU(), nn.Linear(20, 4, bias=bias))
    run = quantize(make(model, x), Recipe(mode="dynamic", engine=engine))
    with torch.no_grad():
        assert sqnr_db(run.model(x), run.simulated(x)) > 60


@pytest.mark.parametrize("bits", [2, 4, 7])
@pytest.mark.parametrize("weight", [SYMMETRIC, CHANNELS, AFFINE_CHANNELS], ids=["tensor", "channels", "affine"])
def test_below_eight_bits_tensors_keep_to_their_codes(conv: Workload, bits: int, weight: TensorSpec) -> None:
    weight = TensorSpec(bits=bits, symmetric=weight.symmetric, per_channel=weight.per_channel)
    run = quantize(conv, Recipe(activation=TensorSpec("minmax", bits=bits), weight=weight))
    assert set(run.tensors.bits) == {bits}
    seen = {}
    for name, module in run.simulated.named_modules():
        if isinstance(module, QuantDequant):
            module.register_forward_hook(lambda m, args, out, name=name: seen.update({name: out}))
    with torch.no_grad():
        run.simulated(normal(32, 3, 8, 8, seed=9) * 3)
    assert seen
    for output in seen.values():
        assert len(output.unique()) <= 2**bits
    lows, highs = (run.tensors[run.tensors.kind == "activation"][edge] for edge in ("lo", "hi"))
    assert min(out.min().item() for out in seen.values()) >= min(lows) - 1e-6
    assert max(out.max().item() for out in seen.values()) <= max(highs) + 1e-6
    weights = run.tensors[run.tensors.kind == "weight"].set_index("name")
    assert set(weights.index) == {"stem", "block.conv1", "block.conv2", "fc"}
    for name, row in weights.iterrows():
        module = run.simulated.get_submodule(name)
        values = next(m for m in module.modules() if isinstance(m, nn.Conv2d | nn.Linear)).weight
        for channel in values if weight.per_channel else [values]:
            assert len(channel.unique()) <= 2**bits
        low, high = torch.as_tensor(row.lo).min(), torch.as_tensor(row.hi).max()
        assert low - 1e-6 <= values.min() and values.max() <= high + 1e-6


def test_below_eight_bits_the_dynamic_simulation_keeps_to_its_codes(lstm: Workload) -> None:
    four = TensorSpec(bits=4, symmetric=True)
    run = quantize(lstm, Recipe(mode="dynamic", activation=TensorSpec(bits=4), weight=four))
    parameters = [p for name, p in run.simulated.named_parameters() if ".weight" in name and "embedding" not in name]
    assert len(parameters) == 3
    for parameter in parameters:
        assert len(parameter.unique()) <= 16
    read = []
    run.simulated.out.linear.register_forward_pre_hook(lambda m, args: read.append(args[0]))
    with torch.no_grad():
        run.simulated(next(iter(lstm.calibration)))
    assert len(read[0].unique()) <= 16


def test_fewer_bits_are_worse(conv: Workload) -> None:
    def error(bits: int) -> float:
        recipe = Recipe(activation=TensorSpec(bits=bits), weight=TensorSpec(bits=bits, symmetric=True))
        return quantize(conv, recipe).metrics["sqnr_db"]

    assert error(8) > error(6) + 6 > error(4) + 12


def names_of_types(model: nn.Module) -> dict[str, str]:
    return {
        name: type(module).__name__ for name, module in model.named_modules() if name and not list(module.children())
    }


def test_fusion_joins_and_unfused_keeps_apart(conv: Workload) -> None:
    fused = names_of_types(quantize(conv, Recipe()).model)
    assert fused["block.conv1"] == "ConvReLU2d" and "block.bn1" not in fused
    apart = quantize(conv, Recipe(fuse=False)).model
    types = names_of_types(apart)
    assert types["block.conv1"] == "Conv2d" and types["block.bn1"] == "BatchNorm2d" and types["block.relu"] == "ReLU"
    assert "quantized" in type(apart.block.conv1).__module__ and "quantized" in type(apart.block.bn1).__module__


def test_fused_and_unfused_layers_in_the_table(conv: Workload) -> None:
    fused = quantize(conv, Recipe()).layers
    assert fused.loc["block.conv1", "kind"] == "Conv2d + BatchNorm2d + ReLU"
    assert fused.loc["block.conv1", "output"] == "block.relu"
    apart = quantize(conv, Recipe(fuse=False)).layers
    assert apart.loc["block.conv1", "kind"] == "Conv2d"
    assert {"block.bn1", "block.bn2"} <= set(apart.index)


def codes(model: nn.Module) -> list[torch.Tensor]:
    return [m.weight().int_repr() for m in model.modules() if callable(getattr(m, "weight", None))]


@pytest.mark.parametrize("weight", [SYMMETRIC, CHANNELS, AFFINE], ids=["tensor", "channels", "affine"])
def test_guarded_weights_stay_within_64(conv: Workload, weight: TensorSpec) -> None:
    run = quantize(conv, Recipe(weight=weight, overflow_guard="weights"))
    found = torch.cat([c.flatten() for c in codes(run.model)])
    assert found.abs().max() <= 64 and found.abs().max() >= 62
    assert set(run.tensors[run.tensors.kind == "activation"].quant_max) == {255}


def test_guarded_activations_have_seven_bits(conv: Workload) -> None:
    run = quantize(conv, Recipe(overflow_guard="activations"))
    activations = run.tensors[run.tensors.kind == "activation"]
    assert set(activations.quant_max) == {127} and set(activations.bits) == {8}
    assert torch.cat([c.flatten() for c in codes(run.model)]).abs().max() > 100
    free = quantize(conv, Recipe(overflow_guard="none")).tensors.set_index("name").scale["input"]
    assert activations.set_index("name").scale["input"] == pytest.approx(free * 255 / 127, rel=0.1)


@pytest.mark.parametrize("guard", ["weights", "activations"])
def test_a_guard_makes_int8_equal_its_simulation(conv: Workload, guard: str) -> None:
    run = quantize(conv, Recipe(activation=MIN_MAX, overflow_guard=guard))
    x = images()[0]
    with torch.no_grad():
        assert sqnr_db(run.simulated(x), run.model(x)) > 35


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "unfused"])
def test_a_layer_kept_float(conv: Workload, fuse: bool) -> None:
    run = quantize(conv, Recipe(fuse=fuse, rules=[LayerRule("fc", keep_float=True)]))
    assert type(run.model.fc) is nn.Linear
    assert torch.equal(run.model.fc.weight, conv.model.fc.weight)
    assert run.layers.quantized.to_dict()["fc"] is False
    assert run.layers.quantized.drop("fc").all()
    assert "fc" not in set(run.tensors.name)


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "unfused"])
def test_a_container_kept_float(conv: Workload, fuse: bool) -> None:
    run = quantize(conv, Recipe(fuse=fuse, rules=[LayerRule("block", keep_float=True)]))
    assert not any("quantized" in type(m).__module__ for m in run.model.block.modules())
    assert not int8_adds(run.model)
    weights = run.tensors[run.tensors.kind == "weight"]
    assert set(weights.name) == {"stem", "fc"}
    named = run.layers.quantized
    assert named["stem"] and named["fc"]
    assert not named[["block.conv1", "block.conv2"]].any()
    assert not named[named.index.str.startswith("block")].any()


def int8_adds(model: nn.Module) -> list[str]:
    return [n.name for n in model.graph.nodes if n.op == "call_function" and "add" in n.name and "relu" in n.name]


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "unfused"])
def test_a_functional_add_kept_float(conv: Workload, fuse: bool) -> None:
    assert int8_adds(quantize(conv, Recipe(fuse=fuse)).model) == ["add_relu"]
    run = quantize(conv, Recipe(fuse=fuse, rules=[LayerRule("block.add", keep_float=True)]))
    assert not int8_adds(run.model)
    assert run.layers.quantized[["block.conv1", "block.conv2", "fc"]].all()
    adds = run.layers[run.layers.kind.str.contains("add")]
    assert len(adds) == 1 and not adds.quantized.any()


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "unfused"])
def test_every_layer_of_the_table_can_be_kept_float(conv: Workload, fuse: bool) -> None:
    for name in quantize(conv, Recipe(fuse=fuse)).layers.index:
        layers = quantize(conv, Recipe(fuse=fuse, rules=[LayerRule(name, keep_float=True)])).layers
        assert not layers.quantized.get(name, default=False), name


def test_the_add_of_the_table_is_the_one_a_rule_keeps_float(conv: Workload) -> None:
    layers = quantize(conv, Recipe()).layers
    (name,) = layers.index[layers.kind == "add + ReLU"]
    assert not int8_adds(quantize(conv, Recipe(rules=[LayerRule(name, keep_float=True)])).model)


def test_a_layer_kept_float_in_dynamic_mode(lstm: Workload) -> None:
    run = quantize(lstm, Recipe(mode="dynamic", rules=[LayerRule("lstm", keep_float=True)]))
    assert type(run.model.lstm) is nn.LSTM and type(run.model.out) is not nn.Linear
    assert run.layers.quantized.to_dict() == {"lstm": False, "out": True}
    assert set(run.tensors.layer) == {"out"}


def test_a_layer_kept_float_helps(conv: Workload) -> None:
    crude = TensorSpec(bits=3, symmetric=True)
    all_layers = quantize(conv, Recipe(weight=crude)).metrics["sqnr_db"]
    spared = Recipe(weight=crude, rules=[LayerRule("fc", keep_float=True)])
    assert quantize(conv, spared).metrics["sqnr_db"] > all_layers + 1


def test_four_bits_for_one_layer(conv: Workload) -> None:
    four = TensorSpec(bits=4, symmetric=True, per_channel=True)
    run = quantize(conv, Recipe(rules=[LayerRule("block.conv2", weight=four)]))
    weights = run.tensors[run.tensors.kind == "weight"].set_index("name")
    assert weights.bits.to_dict() == {"stem": 8, "block.conv1": 8, "block.conv2": 4, "fc": 8}
    assert weights.sqnr_db["block.conv2"] < min(weights.sqnr_db.drop("block.conv2")) - 15
    module = run.simulated.get_submodule("block.conv2")
    values = next(m for m in module.modules() if isinstance(m, nn.Conv2d)).weight
    assert max(len(channel.unique()) for channel in values) <= 16
    assert set(run.tensors[run.tensors.kind == "activation"].bits) == {8}
    assert run.model is None


def test_another_activation_spec_for_one_layer(conv: Workload) -> None:
    def activations(*rules: LayerRule):
        tensors = quantize(conv, Recipe(activation=MIN_MAX, rules=rules)).tensors
        return tensors[tensors.kind == "activation"].set_index("name")

    before, after = (
        activations(),
        activations(LayerRule("block.conv2", activation=TensorSpec("minmax", symmetric=True))),
    )
    assert list(before.index[before.scale != after.scale]) == ["block.bn2"]
    assert after.zero_point["block.bn2"] == 127


@pytest.mark.parametrize("mode", ["static", "qat", "dynamic"])
@pytest.mark.parametrize("by_rule", [False, True], ids=["recipe", "rule"])
def test_onednn_refuses_affine_weights(mode: str, by_rule: bool) -> None:
    rules = [LayerRule("fc", weight=AFFINE)] if by_rule else []
    recipe = Recipe(mode=mode, weight=CHANNELS if by_rule else AFFINE, engine="onednn", rules=rules)
    with pytest.raises(QexploreError, match=r"Engine 'onednn' takes symmetric weights only; set symmetric weights"):
        resolve_engine(recipe)


def test_engines_this_build_lacks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qexplore.engines.engine.supported_engines", lambda: ["fbgemm"])
    with pytest.raises(QexploreError, match=r"lacks engine 'qnnpack': choose one of fbgemm\."):
        resolve_engine(Recipe(engine="qnnpack"))
    assert resolve_engine(Recipe()).name == "fbgemm"
    with pytest.raises(QexploreError, match=r"no engine named 'x68'.*did you mean 'x86'"):
        resolve_engine(Recipe(engine="x68"))


@pytest.mark.parametrize(
    ("recipe", "saturating", "expected"),
    [
        (Recipe(), True, "weights"),
        (Recipe(), False, "none"),
        (Recipe(overflow_guard="activations"), False, "activations"),
        (Recipe(overflow_guard="none"), True, "none"),
        (Recipe(mode="dynamic"), True, "none"),
        (Recipe(activation=TensorSpec(bits=6)), True, "none"),
    ],
    ids=["auto-old-cpu", "auto-vnni", "asked-for", "declined", "dynamic", "simulated"],
)
def test_the_guard_in_force(monkeypatch: pytest.MonkeyPatch, recipe: Recipe, saturating: bool, expected: str) -> None:
    monkeypatch.setattr("qexplore.engines.engine.saturates", lambda engine: saturating)
    assert resolve_guard(recipe, ENGINES["x86"]) == expected


@pytest.mark.parametrize("fails", [False, True], ids=["done", "failed"])
def test_the_context_is_as_it_was(conv: Workload, fails: bool) -> None:
    other = next(name for name in SUPPORTED if name != resolve_engine(Recipe()).name)
    torch.backends.quantized.engine = other
    filters = list(warnings.filters)
    if fails:
        with pytest.raises(QexploreError):
            quantize(conv, Recipe(rules=[LayerRule("nothing", keep_float=True)]))
    else:
        quantize(conv, Recipe())
    assert torch.backends.quantized.engine == other
    assert list(warnings.filters) == filters


def test_quantizing_warns_of_nothing(conv: Workload) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quantize(conv, Recipe())
    assert [str(warning.message) for warning in caught] == []


@pytest.mark.parametrize("fuse", [True, False])
def test_a_linear_with_batchnorm_and_relu_is_compared_behind_its_relu(fuse: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3)).eval()
    run = quantize(Workload("rows", model, [torch.randn(64, 8)], lambda candidate: 0.0), Recipe(fuse=fuse))
    assert run.layers.sqnr_db.notna().all()
    assert (run.layers.sqnr_db > 30).all()
    assert (run.layers.sqnr_db - run.layers.simulated_sqnr_db).abs().max() < 3
    if fuse:
        assert list(run.layers.kind) == ["Linear + BatchNorm1d + ReLU", "Linear"]


class Twins(nn.Module):
    """Rows [N, 16] to [N, 8]: two layers read one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(16, 8), nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(x) + self.b(x)


@pytest.mark.parametrize("layer", ["a", "b"])
def test_a_tensor_read_with_unlike_bits_is_simulated_with_each(layer: str) -> None:
    """A helper found the other layer at -6.5 dB: one quantizer had taken the other's place."""
    torch.manual_seed(0)
    workload = Workload("twins", Twins().eval(), [torch.randn(32, 16) for _ in range(3)], lambda model: 0.0)
    rule = LayerRule(layer, activation=TensorSpec(bits=4))
    simulated = quantize(workload, Recipe(rules=(rule,))).layers.sqnr_db
    other = "b" if layer == "a" else "a"
    assert 10 < simulated[layer] < 20
    assert simulated[other] > 30
    assert 10 < simulated["add"] < 22


def test_engines_are_tried_only_while_no_other_torch_work_goes_on() -> None:
    """While torch.fx traces in another thread, every module's call is patched: Quantize failed right after opening."""
    shape = (137, 137, (3, 3), (1, 1), (1, 1), (1, 1), 137)
    trying = threading.Thread(target=grouped_saturates, args=(resolve_engine(Recipe()).name, "Conv2d", shape, True))
    with exclusive():
        trying.start()
        trying.join(0.5)
        assert trying.is_alive()
    trying.join(30)
    assert not trying.is_alive()
