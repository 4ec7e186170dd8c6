"""Sensitivity: gradients against brute force, brute force against a plain loop, and what both say of themselves."""

from __future__ import annotations

import copy
import functools
import threading
from collections.abc import Callable

import pytest
import torch
from torch import nn

import qexplore as qx
from qexplore import QexploreError, Recipe, TensorSpec, Workload
from qexplore.analysis.exact import exact_errors
from qexplore.analysis.sensitivity import linearized, switches_of, whole_error
from qexplore.engines.switched import switched
from qexplore.numerics.affine import fake_quantize
from qexplore.progress import no_report
from tests.conftest import normal, seeded_model
from tests.models import mobilenet_v2, with_statistics

COLLAPSED = 10.0


def at_bits(bits: int, per_channel: bool = True, mode: str = "static") -> Recipe:
    weight = TensorSpec(bits=bits, symmetric=True, per_channel=per_channel)
    return Recipe(mode, TensorSpec("histogram", bits), weight)


def spearman(one: qx.Sensitivity, two: qx.Sensitivity) -> float:
    return float(one.layers.output_mse.corr(two.layers.output_mse, method="spearman"))


def mode_of(name: str) -> str:
    return "dynamic" if name == "pydoc_lstm" else "static"


def compared(calibration: qx.Calibration, recipe: Recipe) -> tuple[float, float, float]:
    """Rank correlation of gradients and brute force, SQNR of the output in dB, and the ratio of their passes."""
    workload = calibration.workload
    quick, exact = (qx.sensitivity(workload, recipe, method, calibration) for method in ("adjoint", "exact"))
    rank, ratio = spearman(quick, exact), exact.passes / quick.passes
    print(
        f"{workload.name}, {recipe.bits} bits, per channel {recipe.weight.per_channel}, {len(exact.layers)} layers: "
        f"Spearman {rank:.3f}, output {exact.sqnr_db:.1f} dB, passes {quick.passes:.1f} against {exact.passes:.1f}, "
        f"seconds {quick.seconds:.1f} against {exact.seconds:.1f}"
    )
    assert list(quick.layers.index) == list(exact.layers.index)
    assert quick.beyond_first_order or exact.sqnr_db >= COLLAPSED
    return rank, exact.sqnr_db, ratio


def many_layers() -> Workload:
    """MobileNet-V2's layers on small images."""
    torch.manual_seed(0)
    batches = [torch.randn(16, 3, 32, 32) for _ in range(2)]
    model = with_statistics(mobilenet_v2(), torch.cat(batches))
    return Workload("mobilenet_v2", model, calibration=batches, evaluate=lambda model: 0.0)


class Chain(nn.Module):
    """Two linear layers and a ReLU, for a loop by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.second, self.third = nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 7), nn.Linear(7, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.third(self.second(self.act(self.first(x))))


@pytest.fixture
def chain(make: Callable[..., Workload]) -> Workload:
    return make(seeded_model(Chain), *[normal(16, 6, seed=seed) for seed in range(3)])


@pytest.mark.parametrize("bits", [8, 4])
def test_exact_equals_a_plain_loop(chain: Workload, bits: int) -> None:
    calibration, recipe = qx.calibrate(chain), at_bits(bits)
    found = qx.sensitivity(chain, recipe, "exact", calibration).layers
    tensors = qx.predict(calibration, recipe).quantized
    reads = {"first": "input", "second": "act", "third": "second"}
    batches = list(chain.calibration)

    def errors(quantized: list[str]) -> float:
        model = copy.deepcopy(chain.model)
        for name in quantized:
            layer, weight = model.get_submodule(name), tensors["weight", name]
            layer.weight = nn.Parameter(weight.fake_quantize(layer.weight.detach()))
            read = tensors["activation", reads[name]]
            layer.register_forward_pre_hook(lambda m, args, t=read: (_quantized(t, args[0]),))
        if "third" in quantized:
            given = tensors["activation", "third"]
            model.third.register_forward_hook(lambda m, args, out: _quantized(given, out))
        with torch.no_grad():
            differences = [(model(x) - chain.model(x)).double().square().mean() for x in batches]
        return float(torch.stack(differences).mean())

    for name in reads:
        assert found.output_mse[name] == pytest.approx(errors([name]), rel=1e-4)
        assert found.without_mse[name] == pytest.approx(errors([n for n in reads if n != name]), rel=1e-4)


def _quantized(t: object, x: torch.Tensor) -> torch.Tensor:
    return fake_quantize(x, t.scale, t.zero_point, t.quant_min, t.quant_max)  # type: ignore[attr-defined]


def test_exact_takes_at_most_65_percent_of_a_plain_loop_s_passes() -> None:
    workload = qx.workload("digits")
    found = qx.sensitivity(workload, Recipe(), "exact", samples=32)
    plain = 2 * len(found.layers) + 1  # each layer alone, and all but it
    assert found.passes <= 0.65 * plain


def test_passes_are_the_layers_that_really_ran(chain: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    calibration, recipe = qx.calibrate(chain), at_bits(8)
    prediction = qx.predict(calibration, recipe)
    switches = switches_of(prediction)
    ats = linearized(prediction, 1, no_report, None, gradients=False)
    ran = []
    for name, make in dict(switches.modules).items():
        switches.modules[name] = lambda *a, make=make: ran.append(1) or make(*a)  # type: ignore[index]
    found = exact_errors(calibration, recipe, switches, ats, None, no_report, None)
    assert len(ran) / len(switches.modules) == pytest.approx(found.passes, abs=1.01)


CASES = [
    *(("digits", bits, True) for bits in (8, 6, 4)),
    *(("digits_mobile", bits, per_channel) for bits in (8, 4) for per_channel in (True, False)),
    *(("pydoc_lstm", bits, False) for bits in (8, 4)),
    *(("denoise", bits, True) for bits in (8, 4)),
]


@pytest.fixture(scope="module")
def calibrated() -> Callable[[str], qx.Calibration]:
    return functools.cache(lambda name: qx.calibrate(qx.workload(name)))


@pytest.mark.parametrize(("name", "bits", "per_channel"), CASES)
def test_gradients_rank_layers_as_brute_force_does(
    calibrated: Callable[[str], qx.Calibration], name: str, bits: int, per_channel: bool
) -> None:
    rank, sqnr_db, _ = compared(calibrated(name), at_bits(bits, per_channel, mode_of(name)))
    assert rank >= (0.85 if sqnr_db < COLLAPSED else 0.95)


@pytest.mark.parametrize("bits", [8, 4])
def test_gradients_rank_many_layers(bits: int) -> None:
    rank, _, ratio = compared(qx.calibrate(many_layers()), at_bits(bits))
    assert rank >= 0.95
    assert ratio >= 5


def test_another_recipe_needs_no_new_backward(conv: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    calibration = qx.calibrate(conv)
    qx.sensitivity(conv, Recipe(), calibration=calibration)

    def refuse(*args: object, **settings: object) -> None:
        raise AssertionError("a backward pass was run")

    monkeypatch.setattr(torch.autograd, "grad", refuse)
    other = Recipe(activation=TensorSpec("mse", 5), fuse=False, rules=[qx.LayerRule("stem", keep_float=True)])
    assert len(qx.sensitivity(conv, other, calibration=calibration).layers) > 3


def test_intervals_hold_the_value_and_ranks_count_from_the_worst(conv: Workload) -> None:
    layers = qx.sensitivity(conv, at_bits(4)).layers
    assert ((layers.low <= layers.output_mse) & (layers.output_mse <= layers.high)).all()
    assert layers.output_mse.idxmax() == layers["rank"].idxmin()
    assert sorted(layers["rank"]) == list(range(1, len(layers) + 1))
    assert ((layers.rank_low <= layers["rank"]) & (layers["rank"] <= layers.rank_high)).all()
    assert layers.stability.between(0, 1).all()


def test_all_switches_on_are_the_simulation(conv: Workload, quick_timing: None) -> None:
    for fuse in (True, False):
        recipe = Recipe(activation=TensorSpec("minmax"), fuse=fuse)
        calibration = qx.calibrate(conv)
        prediction, run = qx.predict(calibration, recipe), qx.quantize(conv, recipe, calibration)
        ats = linearized(prediction, 24, no_report, None)
        measured = switched(prediction.graph, prediction.plan, prediction.quantized)
        mse = whole_error(measured, ats)[0]
        real = torch.cat([(run.simulated(x) - conv.model(x)).double().square() for x in conv.calibration]).mean()
        assert mse == pytest.approx(float(real), rel=0.02)  # predicted scales differ by 2e-6, which flips a few codes


def test_no_switch_on_is_the_float_model(conv: Workload) -> None:
    calibration = qx.calibrate(conv)
    prediction = qx.predict(calibration, Recipe())
    switches = switches_of(prediction)
    for at in linearized(prediction, 24, no_report, None):
        values = {name: at.values[name] for name, node in switches.nodes.items() if node.op == "placeholder"}
        torch.testing.assert_close(switches.run(values, ()), at.output, rtol=1e-4, atol=1e-5)


def test_the_model_keeps_its_weights_and_gradients(conv: Workload) -> None:
    before = {name: p.detach().clone() for name, p in conv.model.named_parameters()}
    qx.sensitivity(conv, Recipe())
    for name, p in conv.model.named_parameters():
        assert torch.equal(p, before[name])
        assert p.requires_grad and p.grad is None


def test_models_that_work_in_place(make: Callable[..., Workload]) -> None:
    from tests.conftest import ResidualNet, images

    plain, in_place = (make(seeded_model(ResidualNet, flag), *images()) for flag in (False, True))
    one, two = (qx.sensitivity(w, Recipe()).layers for w in (plain, in_place))
    assert one.output_mse.tolist() == pytest.approx(two.output_mse.tolist())


def test_the_metric_is_measured_too(conv: Workload) -> None:
    layers = qx.sensitivity(conv, at_bits(2), "exact", metric=True).layers
    assert layers.metric_loss.abs().max() > 0


def test_a_cancelled_search_goes_on_where_it_stopped(conv: Workload) -> None:
    calibration, cancel, messages = qx.calibrate(conv), threading.Event(), list[str]()

    def report(message: str, fraction: float) -> None:
        messages.append(message)
        if "step 9" in message:
            cancel.set()

    with pytest.raises(qx.Cancelled):
        qx.sensitivity(conv, Recipe(), "exact", calibration, progress=report, cancel=cancel)
    done = len(calibration.cache["exact", Recipe(), 3])
    assert done > 0
    whole = qx.sensitivity(conv, Recipe(), "exact", calibration)
    fresh = qx.sensitivity(conv, Recipe(), "exact")
    assert whole.layers.equals(fresh.layers)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"method": "hessian"}, 'give "adjoint" or "exact"'),
        ({"samples": 0}, "samples is 0"),
        ({"metric": True}, 'needs method="exact"'),
        ({"recipe": "static"}, "give a qx.Recipe"),
    ],
)
def test_what_does_not_fit_is_refused(conv: Workload, settings: dict, sentence: str) -> None:
    with pytest.raises(QexploreError, match=sentence):
        qx.sensitivity(conv, **({"recipe": Recipe()} | settings))


def test_a_model_without_a_graph_is_refused(untraceable: nn.Module, make: Callable[..., Workload]) -> None:
    with pytest.raises(QexploreError, match="needs its graph"):
        qx.sensitivity(make(untraceable, normal(4, 6)), Recipe("dynamic"))


class TimeFirst(nn.Module):
    """Steps [T, N, 8] to [T, N, 4], each the sum of those before."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.relu(self.a(x)).cumsum(0))


class Transposed(TimeFirst):
    """The same from [N, T, 8] to means over time."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.relu(self.a(x.transpose(0, 1))).mean(0))


@pytest.mark.parametrize("kind", [TimeFirst, Transposed])
def test_samples_that_are_not_the_first_dimension_are_noticed(
    make: Callable[..., Workload], kind: type[nn.Module]
) -> None:
    workload = make(seeded_model(kind), *[normal(16, 8, 8, seed=seed) for seed in range(8)])
    calibration, recipe = qx.calibrate(workload), at_bits(5)
    quick, exact = (qx.sensitivity(workload, recipe, method, calibration).layers for method in ("adjoint", "exact"))
    assert (quick.output_mse / exact.output_mse).between(0.5, 2.0).all()


class InPlace(nn.Module):
    """A pre-activation residual whose ReLU changes what the sum reads."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.second = nn.Linear(8, 8), nn.ReLU(inplace=True), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        return self.second(self.act(y)) + y


class Choice(Chain):
    """The largest of three outputs, which has no gradient."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).argmax(-1)


@pytest.mark.parametrize(
    ("kind", "inputs", "sentence"), [(InPlace, 8, "in place that another"), (Choice, 6, "has no gradient")]
)
def test_what_would_give_wrong_figures_is_refused(
    make: Callable[..., Workload], kind: type[nn.Module], inputs: int, sentence: str
) -> None:
    workload = make(seeded_model(kind), normal(16, inputs))
    with pytest.raises(QexploreError, match=sentence):
        qx.sensitivity(workload, Recipe())


def test_detach_lets_noise_through(make: Callable[..., Workload]) -> None:
    class Detached(Chain):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.third(self.second(self.act(self.first(x)).detach()))

    one, two = (
        qx.sensitivity(make(seeded_model(kind), normal(64, 6)), at_bits(5)).layers for kind in (Chain, Detached)
    )
    assert one.output_mse.tolist() == pytest.approx(
        two.output_mse.tolist(), rel=0.3
    )  # without detach torch.ao fuses more


def test_few_samples_claim_no_interval(make: Callable[..., Workload]) -> None:
    layers = qx.sensitivity(make(seeded_model(Chain), normal(4, 6)), Recipe()).layers
    assert layers[["low", "high", "stability"]].isna().all(axis=None)


def test_a_calibration_of_another_workload_is_refused(chain: Workload, conv: Workload) -> None:
    with pytest.raises(QexploreError, match="belongs to another workload"):
        qx.sensitivity(chain, Recipe(), calibration=qx.calibrate(conv))


def test_an_evaluate_that_fails_is_named(make: Callable[..., Workload]) -> None:
    workload = make(seeded_model(Chain), normal(16, 6), evaluate=lambda model: 1 / 0)
    with pytest.raises(QexploreError, match="evaluate of workload 'tiny' failed"):
        qx.sensitivity(workload, Recipe(), "exact", metric=True)


def test_a_recurrent_model_is_predicted_in_static_mode(lstm: Workload) -> None:
    assert len(qx.sensitivity(lstm, Recipe()).layers)
    assert len(qx.predict(qx.calibrate(lstm), Recipe()).layers)
