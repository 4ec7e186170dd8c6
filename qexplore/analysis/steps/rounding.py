"""The optimization within AdaRound: which weights of one layer to round up.

Source: Nagel et al. 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization", equations 21 to 25.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from qexplore.progress import Cancel, stop_if

ZETA, GAMMA = 1.1, -0.1  # the soft rounding is stretched beyond 0 and 1, so that it reaches both
BETA = (20.0, 2.0)
WARM = 0.2
ITERATIONS = 500
ROWS_A_STEP = 128
RATE = 3e-2
WEIGHT = 1.0  # of the regularizer's mean, against an error of 1 for rounding to nearest


@dataclass(frozen=True)
class Task:
    """One layer's weights in steps of its grid, and the outputs they are to give.

    Attributes:
        steps: the weights over their scale, [groups, outputs / groups, inputs].
        scale: of each output channel, [groups, outputs / groups, 1], or one.
        low, high: the least and the largest step there is a code for, shaped as `scale`.
        nearest: `steps` rounded as the engine does.
        free: where the choice is free; elsewhere it is `nearest`.
        rows: what the layer reads, [rows, groups, inputs].
        wanted: the float layer's outputs, [rows, groups, outputs / groups], behind the ReLU if there is one.
        bias: shaped as [groups, 1, outputs / groups].
        relu: whether the outputs go through a ReLU.
    """

    steps: torch.Tensor
    scale: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor
    nearest: torch.Tensor
    free: torch.Tensor
    rows: torch.Tensor
    wanted: torch.Tensor
    bias: torch.Tensor
    relu: bool

    def error(self, rounded: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """Mean square error of the outputs, summed over channels, with weights `rounded` (in steps)."""
        y = outputs(self.rows[chosen], rounded * self.scale, self.bias, self.relu)
        return (y - self.wanted[chosen]).square().sum((1, 2)).mean()


def outputs(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, relu: bool) -> torch.Tensor:
    """[rows, groups, outputs / groups] of [rows, groups, inputs] and a weight [groups, outputs / groups, inputs]."""
    y = torch.baddbmm(bias, rows.transpose(0, 1), weight.transpose(1, 2)).transpose(0, 1)
    return y.relu() if relu else y


def rounded_steps(task: Task, generator: torch.Generator, cancel: Cancel) -> torch.Tensor:
    """The weights in whole steps, each rounded up or down; `task.nearest` where that gives the smaller error."""
    every = torch.arange(len(task.rows))
    before = task.error(task.nearest, every)
    if not before > 0 or not task.free.any():
        return task.nearest
    with torch.enable_grad():
        v = _optimized(task, before, generator, cancel)
    found = _placed(task, task.steps.floor() + (_soft(v) >= 0.5).float())
    return found if task.error(found, every) < before else task.nearest


def _optimized(task: Task, before: torch.Tensor, generator: torch.Generator, cancel: Cancel) -> torch.Tensor:
    """What decides about each weight, V of equation 23; `before` is the error of rounding to nearest."""
    floor, free = task.steps.floor(), task.free / task.free.sum()
    v = (-torch.log((ZETA - GAMMA) / (task.steps - floor - GAMMA) - 1)).requires_grad_()
    adam = torch.optim.Adam([v], lr=RATE, fused=True)
    for iteration in range(ITERATIONS):
        stop_if(cancel)
        chosen = torch.randint(len(task.rows), (ROWS_A_STEP,), generator=generator)
        soft = _soft(v)
        loss = task.error(_placed(task, floor + soft), chosen) / before
        done = (iteration / ITERATIONS - WARM) / (1 - WARM)
        if done > 0:
            beta = BETA[1] + (BETA[0] - BETA[1]) * (1 - done)
            loss = loss + WEIGHT * ((1 - (2 * soft - 1).abs().pow(beta)) * free).sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
    return v.detach()


def _soft(v: torch.Tensor) -> torch.Tensor:
    return (torch.sigmoid(v) * (ZETA - GAMMA) + GAMMA).clamp(0.0, 1.0)


def _placed(task: Task, steps: torch.Tensor) -> torch.Tensor:
    return torch.where(task.free, torch.minimum(torch.maximum(steps, task.low), task.high), task.nearest)
