"""The demo workloads: trained well, small, deterministic, and with the properties their descriptions promise."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch

from qexplore.errors import Cancelled, QexploreError
from qexplore.workload import WORKLOADS, Workload, workload, workloads
from qexplore.zoo import DEMOS, digits_mobile
from qexplore.zoo.digits_data import digits
from qexplore.zoo.files import LIMIT, load_weights, weights_path
from qexplore.zoo.pydoc_lstm import CharLSTM, write

LEVEL = {"digits": 0.985, "digits_mobile": 0.98, "pydoc_lstm": 2.3, "denoise": 29.0}


@cache
def demo(name: str) -> Workload:
    return workload(name)


@cache
def float_metric(name: str) -> float:
    return demo(name).evaluate(demo(name).model)


def test_every_demo_is_registered_with_a_description() -> None:
    assert set(LEVEL) == set(DEMOS) <= set(workloads())
    for name in DEMOS:
        assert demo(name).name == name
        assert WORKLOADS[name].__doc__.splitlines()[0].endswith(".")


@pytest.mark.parametrize("name", LEVEL)
def test_float_metric_is_at_its_stated_level(name: str) -> None:
    sign = 1 if demo(name).higher_is_better else -1
    assert sign * float_metric(name) >= sign * LEVEL[name]


@pytest.mark.parametrize("name", LEVEL)
def test_weights_file_is_small(name: str) -> None:
    assert weights_path(name).stat().st_size < LIMIT


@pytest.mark.parametrize("name", LEVEL)
def test_calibration_is_eight_batches_the_model_accepts(name: str) -> None:
    batches = list(demo(name).calibration)
    assert len(batches) == 8
    with torch.no_grad():
        assert torch.isfinite(demo(name).model(batches[0])).all()


@pytest.mark.parametrize("name", LEVEL)
def test_evaluate_repeats_itself_and_leaves_no_trace(name: str) -> None:
    model = copy.deepcopy(demo(name).model).train()
    next(model.children()).eval()
    flags = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    assert demo(name).evaluate(model) == float_metric(name)
    assert [module.training for module in model.modules()] == flags
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["digits_mobile", "denoise"])
def test_train_lowers_the_loss_and_leaves_the_global_random_state(name: str) -> None:
    model = copy.deepcopy(demo(name).model)
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index))
            parameter += 0.3 * parameter.abs().mean() * noise
    losses, shares = [], []

    def note(message: str, fraction: float, **figures: float) -> None:
        losses.append(figures["loss"])
        shares.append(fraction)

    state = torch.get_rng_state()
    demo(name).train(model, 1, note)
    assert sum(losses[-10:]) < sum(losses[:10])
    assert shares == sorted(shares) and shares[-1] == 1
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training


@pytest.mark.parametrize("name", ["digits", "digits_mobile", "denoise"])
def test_train_repeats_itself_and_can_be_cancelled(name: str) -> None:
    def first_losses() -> list[float]:
        model, losses = copy.deepcopy(demo(name).model), []

        def stop_after_three(message: str, fraction: float, **figures: float) -> None:
            losses.append(figures["loss"])
            if len(losses) == 3:
                raise Cancelled

        with pytest.raises(Cancelled):
            demo(name).train(model, 1, stop_after_three)
        assert not any(module.training for module in model.modules())
        return losses

    assert first_losses() == pytest.approx(first_losses(), rel=1e-3)


def test_rescaling_keeps_the_function_and_makes_weight_ranges_uneven() -> None:
    even = load_weights(digits_mobile.MobileNet(), "digits_mobile")
    uneven = digits_mobile.rescale(copy.deepcopy(even))
    images = digits()[2]
    with torch.no_grad():
        expected, outputs = even(images), uneven(images)
    assert (outputs - expected).abs().max() <= 1e-5 * expected.abs().max()
    for before, after in zip(even.blocks, uneven.blocks, strict=True):
        assert spread(after.depthwise.weight) > 10 * spread(before.depthwise.weight)


def spread(weight: torch.Tensor) -> float:
    """The largest channel's range over the median channel's."""
    ranges = weight.flatten(1).abs().amax(1)
    return (ranges.max() / ranges.median()).item()


def test_digits_come_as_documented() -> None:
    train_images, train_labels, test_images, test_labels = digits()
    assert train_images.shape == (1350, 1, 32, 32) and test_images.shape == (447, 1, 32, 32)
    assert len(train_labels) == 1350 and len(test_labels) == 447
    assert train_images.mean().abs() < 1e-4 and (train_images.std() - 1).abs() < 1e-4


def test_held_out_text_is_not_trained_on() -> None:
    from qexplore.zoo import pydoc_lstm

    training, held_out = ("".join(pydoc_lstm.VOCABULARY[i] for i in part.tolist()) for part in pydoc_lstm.corpus())
    assert len(held_out) > pydoc_lstm.ROWS // 2 * pydoc_lstm.LENGTH
    long = [paragraph for paragraph in held_out.split("\n\n") if len(paragraph) > 100]
    assert not any(paragraph in training for paragraph in long)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"prompt": ""}, "no character that the model knows"),
        ({"prompt": "äöü"}, "no character that the model knows"),
        ({"prompt": "a", "characters": -3}, "characters is -3"),
        ({"prompt": "a", "temperature": 0}, "temperature is 0"),
    ],
)
def test_writing_refuses_what_it_cannot_do(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(QexploreError, match=words):
        write(CharLSTM(hidden=8), **arguments)
