"""Exercises: an answer is checked at once, and one that is not right yet is met with a hint."""

from __future__ import annotations

import html
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from qexplore.errors import QexploreError
from qexplore.registry import Registry

Hint = Callable[..., str | None]


@dataclass(frozen=True)
class Exercise:
    """How one exercise is checked.

    Args:
        hint: takes the learner's answer; gives a hint in a sentence, or None where the answer is right.
        start: the hint for somebody who has not begun.
        right: what to say of a right answer, best what it is good for.
    """

    hint: Hint
    start: str
    right: str


EXERCISES: Registry[Exercise] = Registry("exercise")


@dataclass(frozen=True)
class Verdict:
    """What `check` says of an answer; shown as a box in a notebook.

    Attributes:
        passed: whether the answer is right.
        words: a hint, or what a right answer is good for.
    """

    passed: bool
    words: str

    def __repr__(self) -> str:
        return f"{'Right.' if self.passed else 'Not yet.'} {self.words}"

    def _repr_html_(self) -> str:
        sign, color = ("✓ Right.", "success") if self.passed else ("Not yet.", "warn")
        return (
            f'<div role="status" style="border-left: 4px solid var(--jp-{color}-color1); padding: 4px 10px; '
            f'max-width: 720px; background: var(--jp-layout-color2)"><b>{sign}</b> {html.escape(self.words)}</div>'
        )


class NotSolvedError(Exception):
    """The learner's function gives nothing yet."""


def exercise(name: str, start: str, right: str) -> Callable[[Hint], Hint]:
    """Decorator: the function checks the exercise `name`; see `Exercise` for the arguments."""

    def enter(hint: Hint) -> Hint:
        EXERCISES.register(name)(Exercise(hint, start, right))
        return hint

    return enter


def check(name: str, *answer: Any) -> Verdict:
    """Check the learner's answer to an exercise.

    Args:
        answer: what the notebook asks for; `...` stands for what is not filled in yet.

    Raises:
        QexploreError: there is no exercise of this name.
    """
    if not isinstance(name, str):
        raise QexploreError(f"check got {name!r}; give the name of an exercise in quotes.")
    asked = EXERCISES[name]
    if any(value is ... or value is None for value in answer):
        return Verdict(False, asked.start)
    try:
        hint = asked.hint(*answer)
    except NotSolvedError:
        hint = asked.start
    except QexploreError as error:
        hint = str(error)
    except Exception as error:
        hint = f"Your answer stopped with {type(error).__name__}: {error}. {asked.start}"
    return Verdict(hint is None, asked.right if hint is None else hint)


def called(function: Any, *arguments: Any) -> Any:
    """What the learner's function gives for copies of the arguments, so that it cannot change them.

    Tensors with gradients and modules are handed over as they are.

    Raises:
        NotSolvedError: it is no function, or gives nothing, or `...`.
    """
    if not callable(function):
        raise NotSolvedError
    given = function(*map(_copied, arguments))
    if given is None or given is ... or (isinstance(given, tuple) and any(value is ... for value in given)):
        raise NotSolvedError
    return given


def _copied(argument: Any) -> Any:
    if isinstance(argument, list):
        return list(argument)
    if isinstance(argument, torch.Tensor) and not argument.requires_grad:
        return argument.clone()
    return argument


def close(given: Any, right: float, relative: float = 1e-3, absolute: float = 1e-9) -> bool:
    """Whether a number, or anything that float takes, is as good as `right`."""
    return math.isclose(float(given), float(right), rel_tol=relative, abs_tol=absolute)
