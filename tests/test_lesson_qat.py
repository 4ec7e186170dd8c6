"""What lesson 04 shows: the straight-through gradient, one weight in training, and training with live curves."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

import qexplore as qx
from qexplore.lesson import check
from qexplore.numerics.one_weight import (
    FORWARDS,
    descend,
    no_rounding,
    slope,
    straight_through,
    true_derivative,
)
from qexplore.plots.live_training import live_training
from qexplore.plots.one_weight import one_weight as draw_weight
from qexplore.plots.one_weight import outcome
from qexplore.plots.straight_through import straight_through as draw_stairs
from qexplore.widgets.one_weight import grid, one_weight
from qexplore.widgets.training import Training, train_live
from qexplore.workload import Progress

LEVELS = grid(3)
QAT = qx.Recipe(mode="qat", activation=qx.TensorSpec("moving_average"), epochs=2)
STEPS = 5
WAIT = 60


# One weight


def test_the_grid_and_its_gradients() -> None:
    assert list(LEVELS.levels) == [-1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5, 0.75]
    x = torch.tensor([-2.0, -1.1, -0.3, 0.0, 0.2, 0.8, 0.9, 2.0])
    assert slope(straight_through, x, LEVELS).tolist() == [0, 1, 1, 1, 1, 1, 0, 0]
    assert not slope(true_derivative, x, LEVELS).any()
    assert slope(no_rounding, x, LEVELS).tolist() == [1] * len(x)
    assert straight_through(x, LEVELS).equal(true_derivative(x, LEVELS))


def test_descent_is_gradient_descent_by_hand() -> None:
    went = descend(LEVELS, start=0.12, target=0.1, rate=0.1, steps=2)
    assert went.weight == pytest.approx([0.12, 0.13, 0.115])  # used: 0, then 0.25, then 0
    assert went.used == pytest.approx([0.0, 0.25, 0.0])
    assert went.gradient == pytest.approx([-0.1, 0.15, -0.1])


@pytest.mark.parametrize(
    ("start", "target", "gradient", "words"),
    [
        (-0.9, 0.6, "straight-through", "It oscillates between 0.500 and 0.750"),
        (-0.9, 0.5, "straight-through", "At rest: the model computes with 0.500"),
        (1.5, 0.0, "straight-through", "Stuck"),
        (-0.9, 0.6, "true derivative", "Stuck"),
        (-0.9, 0.6, "no rounding (float)", "At rest: the model computes with 0.600"),
    ],
)
def test_what_becomes_of_a_weight(start: float, target: float, gradient: str, words: str) -> None:
    went = descend(LEVELS, start, target, 0.1, forward=FORWARDS[gradient])
    assert outcome(went).startswith(words)
    assert words in draw_weight(went).layout.title.text.replace("<br>", " ")


def test_a_slow_weight_is_still_moving() -> None:
    assert outcome(descend(LEVELS, -0.9, 0.6, 0.01)).startswith("Still moving")


def test_an_oscillating_weight_keeps_its_jumps_at_a_smaller_rate() -> None:
    fast, slow = (descend(LEVELS, 0.12, 0.1, rate) for rate in (0.1, 0.01))
    assert np.ptp(slow.weight[slow.late]) < 0.2 * np.ptp(fast.weight[fast.late])
    assert np.ptp(slow.used[slow.late]) == np.ptp(fast.used[fast.late]) == LEVELS.scale
    assert slow.jumps == pytest.approx(fast.jumps, abs=2)


def test_figures_hold_what_was_computed() -> None:
    went = descend(LEVELS, -0.9, 0.6, 0.1)
    weight, used, target, gradient = draw_weight(went).data
    assert (weight.y == went.weight).all() and (used.y == went.used).all() and (gradient.y == went.gradient).all()
    assert list(target.y) == [0.6, 0.6] and list(draw_weight(went).layout.yaxis.tickvals) == list(LEVELS.levels)
    x = np.linspace(-2, 2, 9)
    no_error, stairs, jumps, true, estimated = draw_stairs(LEVELS, x, x + 1, 0 * x, x / x.max()).data
    assert (no_error.y == x).all() and (stairs.y == x + 1).all() and not true.y.any() and estimated.y[-1] == 1
    assert list(jumps.x) == [-0.875, -0.625, -0.375, -0.125, 0.125, 0.375, 0.625]
    for figure in (draw_weight(went), draw_stairs(LEVELS, x, x, x, x)):
        assert all(figure.layout[name].title.text for name in ("xaxis", "yaxis", "yaxis2"))


def test_every_control_trains_anew() -> None:
    widget = one_weight(start=-0.9, target=0.6, rate=0.1)
    for name, value in {"start": 0.3, "target": 0.1, "rate": 0.5, "bits": 4, "gradient": "true derivative"}.items():
        before, figure = widget.descent, widget.figure.figure
        widget.by_name[name].value = value
        assert widget.descent is not before and widget.figure.figure != figure, name
    assert widget.descent.mapping == grid(4) and widget.descent.weight[0] == pytest.approx(0.3)
    assert not widget.descent.gradient.any()


# Live training


def test_live_curves_grow_and_end_with_the_int8_model() -> None:
    empty = live_training([], [], 2, "accuracy")
    assert [len(trace.x) for trace in empty.data] == [0, 0, 0, 0]
    figure = live_training([(0.5, 2.0), (1.0, 1.0)], [(0, 0.1), (1, 0.9)], 1, "accuracy", 0.95, 0.92)
    loss, metric, float_line, int8 = figure.data
    assert list(loss.x) == [0.5, 1.0] and list(metric.y) == [0.1, 0.9]
    assert list(float_line.y) == [0.95, 0.95] and list(int8.y) == [0.92]
    assert figure.layout.yaxis2.title.text == "accuracy" and figure.layout.xaxis.title.text == "epoch"


@pytest.fixture
def made() -> Callable[..., qx.Workload]:
    def workload(pause: float = 0.0, fails: bool = False) -> qx.Workload:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()
        batches = [torch.randn(4, 1, 8, 8) for _ in range(2)]

        def evaluate(candidate: nn.Module) -> float:
            with torch.no_grad():
                return float(candidate(batches[0]).argmax(1).float().mean())

        def train(candidate: nn.Module, epochs: int, progress: Progress) -> None:
            for step in range(STEPS):
                candidate(batches[0])
                time.sleep(pause)
                if fails:
                    raise OSError("the data is gone")
                progress("training", (step + 1) / STEPS, loss=10.0 - step)

        return qx.Workload("tiny", model, batches, evaluate, train=train)

    return workload


def ended(training: Training) -> Training:
    training.task.wait(WAIT)
    assert not training.task.busy
    return training


def test_training_shows_every_step_and_gives_the_run(made: Callable[..., qx.Workload]) -> None:
    training = train_live(made(), QAT)
    run = training.result()
    assert run.model is not None
    assert [at for at, _ in training.losses] == pytest.approx([(i + 1) / STEPS for i in range(2 * STEPS)])
    assert [loss for _, loss in training.losses] == [10.0 - i for i in range(STEPS)] * 2
    assert training.metrics == list(zip(run.history.epoch, run.history.metric, strict=True))
    shown = training.figure.shown
    assert shown is not None and len(shown.data[0].x) == 2 * STEPS and list(shown.data[3].y) == [run.metrics["int8"]]
    assert training.progress.value == 1.0 and "Trained" in training.status.value and training.cancel_button.disabled
    assert training.result() is run


def test_the_result_is_the_one_without_curves(made: Callable[..., qx.Workload]) -> None:
    live, plain = train_live(made(), QAT).result(), qx.quantize(made(), QAT)
    assert live.history.equals(plain.history) and live.metrics == plain.metrics


def test_curves_are_drawn_while_training_goes_on(made: Callable[..., qx.Workload]) -> None:
    training = train_live(made(pause=0.2), QAT)
    drawn = set()
    deadline = time.monotonic() + WAIT
    while training.task.busy and time.monotonic() < deadline:
        shown = training.figure.shown
        drawn.add(len(shown.data[0].x) if shown is not None else 0)
        time.sleep(0.05)
    assert len([steps for steps in drawn if 0 < steps < 2 * STEPS]) >= 2


def test_cancel_stops_it_and_result_says_so(made: Callable[..., qx.Workload]) -> None:
    training = train_live(made(pause=0.3), QAT)
    threading.Timer(0.5, training.cancel_button.click).start()
    with pytest.raises(qx.Cancelled):
        training.result()
    assert training.run is None and "Stopped" in training.status.value and training.error_panel.message == ""
    assert ended(training).cancel_button.disabled


def test_waiting_lets_the_kernel_do_other_things(made: Callable[..., qx.Workload]) -> None:
    training, ticks = train_live(made(pause=0.1), QAT), 0

    async def both() -> qx.Run:
        nonlocal ticks
        waiting = asyncio.ensure_future(training.finished())
        while not waiting.done():
            ticks += 1
            await asyncio.sleep(0.05)
        return waiting.result()

    assert asyncio.run(both()) is training.run and ticks >= 10


def test_an_interrupted_wait_cancels_the_training(made: Callable[..., qx.Workload]) -> None:
    training = train_live(made(pause=0.3), QAT)

    async def interrupted() -> None:
        await asyncio.wait_for(training.finished(), 0.5)

    with pytest.raises(TimeoutError):
        asyncio.run(interrupted())
    assert isinstance(ended(training).error, qx.Cancelled)


def test_an_error_is_shown_and_raised(made: Callable[..., qx.Workload]) -> None:
    training = train_live(made(fails=True), QAT)
    with pytest.raises(qx.QexploreError, match="the data is gone"):
        training.result()
    assert "the data is gone" in training.error_panel.message


def test_only_qat_is_trained(made: Callable[..., qx.Workload]) -> None:
    with pytest.raises(qx.QexploreError, match="mode 'qat'"):
        train_live(made(), qx.Recipe())


# The exercises


@pytest.mark.parametrize(
    ("name", "answer", "hint"),
    [
        ("straight-through", lambda x, scale, lo, hi: x, "round x / scale"),
        ("straight-through", lambda x, scale, lo, hi: straight_through(x, LEVELS), "round x / scale"),
        ("straight-through", lambda x, scale, lo, hi: torch.round(x / scale) * scale, "clamp"),
        (
            "straight-through",
            lambda x, scale, lo, hi: (torch.round(x / scale).clamp(lo, hi) * scale).detach(),
            "lost its connection",
        ),
        ("steps until the jump", 25, "half way"),
        ("steps until the jump", 12, "not passed the border"),
        ("steps until the jump", 3, "How many pass"),
        ("fold a BatchNorm", lambda w, b, n: (w, b), "as it was"),
        ("fold a BatchNorm", lambda w, b, n: w, "Give two tensors"),
        (
            "fold a BatchNorm",
            lambda w, b, n: (w * (n.weight / n.running_var.sqrt()).reshape(-1, 1, 1, 1), b),
            "Add eps",
        ),
        ("fold a BatchNorm", lambda w, b, n: (w * (n.weight / n.running_var).sum(), b), "is not weight"),
    ],
)
def test_hints(name: str, answer: object, hint: str) -> None:
    verdict = check(name, answer)
    assert not verdict.passed and hint in verdict.words


def test_pytorchs_own_and_an_autograd_function_pass() -> None:
    class Through(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, scale, lo, hi):  # type: ignore[no-untyped-def]
            codes = torch.round(x / scale)
            ctx.save_for_backward((codes >= lo) & (codes <= hi))
            return codes.clamp(lo, hi) * scale

        @staticmethod
        def backward(ctx, gradient):  # type: ignore[no-untyped-def]
            (inside,) = ctx.saved_tensors
            return gradient * inside, None, None, None

    assert check("straight-through", Through.apply).passed
    assert check(
        "straight-through", lambda x, s, lo, hi: torch.fake_quantize_per_tensor_affine(x, float(s), 0, lo, hi)
    ).passed
