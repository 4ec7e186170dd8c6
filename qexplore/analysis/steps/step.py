"""What a preparation step is: a function from a float model to another one, with a name, joined by a decorator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import nn

from qexplore.calibrate import Calibration
from qexplore.errors import QexploreError
from qexplore.progress import Cancel, Report
from qexplore.recipe import Recipe
from qexplore.registry import Registry, unknown
from qexplore.workload import Batch


class Apply(Protocol):
    """The work of a step."""

    def __call__(
        self,
        model: nn.Module,
        reference: nn.Module,
        recipe: Recipe,
        calibration: Calibration,
        batches: Sequence[Batch],
        report: Report,
        cancel: Cancel,
    ) -> nn.Module:
        """A new float model in eval mode, its modules and their names as in `model`.

        Args:
            model: the float model as the steps before left it; not modified.
            reference: the float model whose function is wanted; not modified.
            calibration: of `model`.
            batches: the calibration batches.

        Raises:
            QexploreError: the step finds nothing to do in this model.
        """


@dataclass(frozen=True)
class Step:
    """A registered preparation step.

    Attributes:
        name: in recipes and drop-downs.
        place: in the order of steps: one undoes or misses what a later one does.
        description: one line.
        keeps_function: whether the new model computes what the old one did, to float rounding. Such a step may look
            at no more of a recipe than `engines.plan.structure` does: predictions keep its result by that.
        apply: the work.
    """

    name: str
    place: int
    description: str
    keeps_function: bool
    apply: Apply


STEPS: Registry[Step] = Registry("step")


def step(name: str, place: int, description: str, keeps_function: bool = False) -> Callable[[Apply], Apply]:
    """Decorator: make a function the preparation step `name`."""

    def enter(apply: Apply) -> Apply:
        STEPS.register(name)(Step(name, place, description, keeps_function, apply))
        return apply

    return enter


def split(recipe: Recipe) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of a recipe's steps that keep the model's function, and of the others.

    Raises:
        QexploreError: an unknown step, or one that keeps the function behind one that does not.
    """
    for name in recipe.steps:
        if name not in STEPS:
            raise QexploreError(unknown("step", name, list(STEPS)))
    keeping = tuple(name for name in recipe.steps if STEPS[name].keeps_function)
    others = tuple(name for name in recipe.steps if name not in keeping)
    if recipe.steps != keeping + others:
        late = next(kept for kept, there in zip(keeping, recipe.steps, strict=False) if kept != there)
        raise QexploreError(
            f"Step {late!r} leaves what the model computes as it is, so it has to come before {others[0]!r}; "
            f"give steps=({', '.join(map(repr, keeping + others))})."
        )
    if others != in_order(others):
        raise QexploreError(f"steps is {recipe.steps!r}; give them in the order {keeping + in_order(others)!r}.")
    return keeping, others


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Steps in the order in which they have to be taken."""
    return tuple(sorted(names, key=lambda name: (not STEPS[name].keeps_function, STEPS[name].place, name)))
