"""What an observer is: a function from a tensor's statistics to its range, with a name and typed options."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from qexplore.calibrate.stats import TensorStats, measure
from qexplore.errors import QexploreError, first_line
from qexplore.recipe import OptionValue, TensorSpec
from qexplore.registry import Registry, unknown

Choose = TypeVar("Choose", bound=Callable[..., Any])
Rows = Callable[..., tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Option:
    """A setting of an observer, from which a control can be made.

    Attributes:
        default: the value where none is given; an int takes whole numbers only, a str one of `choices`.
        low, high: smallest and largest number allowed.
        unit: of the number, "" for none.
        text: what it does, in one sentence.
        choices: the words allowed; empty for a number.
    """

    default: OptionValue
    low: float = -math.inf
    high: float = math.inf
    unit: str = ""
    text: str = ""
    choices: tuple[str, ...] = ()

    def problem(self, value: OptionValue) -> str | None:
        """Why `value` does not fit; None where it does."""
        if isinstance(self.default, str):
            return None if value in self.choices else f"choose one of {', '.join(self.choices)}"
        whole = isinstance(self.default, int)
        if isinstance(value, str) or (whole and value != int(value)) or not self.low <= value <= self.high:
            unit = f" {self.unit}" if self.unit else ""
            return f"give a {'whole ' if whole else ''}number from {self.low:g} to {self.high:g}{unit}"
        return None


@dataclass(frozen=True)
class Observer:
    """A registered observer.

    Attributes:
        name: in recipes and drop-downs.
        choose: `choose(stats, spec, **options) -> (lo, hi)`.
        description: one line.
        options: its settings by name.
        rows: the same for all channels of a weight at once, `rows(values [channels, n], spec, **options)` giving
            two tensors [channels]; None: `choose` is called for each channel.
        built_in: whether it comes with qexplore.
    """

    name: str
    choose: Callable[..., Any]
    description: str
    options: dict[str, Option]
    rows: Rows | None
    built_in: bool

    def settings(self, spec: TensorSpec) -> dict[str, OptionValue]:
        """Every option's value under `spec`.

        Raises:
            QexploreError: an option that does not exist, or a value out of its range.
        """
        given = dict(spec.options)
        for name, value in given.items():
            if name not in self.options:
                if not self.options:
                    raise QexploreError(
                        f"Observer {self.name!r} has no options, so {name!r} cannot be set; leave it out."
                    )
                raise QexploreError(unknown(f"option of observer {self.name!r}", name, list(self.options)))
            problem = self.options[name].problem(value)
            if problem:
                raise QexploreError(f"Option {name!r} of observer {self.name!r} is {value!r}; {problem}.")
        return {name: option.default for name, option in self.options.items()} | given


OBSERVERS: Registry[Observer] = Registry("observer")


def observer(
    name: str, description: str = "", rows: Rows | None = None, **options: Option
) -> Callable[[Choose], Choose]:
    """Decorator: make `choose(stats, spec, **options) -> (lo, hi)` the observer `name`.

    It is at once in every drop-down, in `predict`, in static, dynamic (weights) and QAT runs and their simulation.
    Registering a name again replaces the observer.

    Args:
        description: one line for the explorer; by default the first line of the function's docstring.
        rows: see `Observer`; for speed only.
        options: settings by name, which the function gets by keyword.

    Raises:
        QexploreError: no name, one of qexplore's own, or an option whose default does not fit.
    """
    if not isinstance(name, str) or not name:
        raise QexploreError(f"The observer's name is {name!r}; give a word: @qx.observer('my_observer').")
    for key, option in options.items():
        if not isinstance(option, Option):
            raise QexploreError(f"Option {key!r} of observer {name!r} is {option!r}; give a qx.Option(default, ...).")
        if problem := option.problem(option.default):
            raise QexploreError(f"Default {option.default!r} of option {key!r} of observer {name!r}: {problem}.")

    def enter(choose: Choose) -> Choose:
        if not callable(choose):
            raise QexploreError(f"Observer {name!r} is {choose!r}; decorate a function (stats, spec) -> (lo, hi).")
        built_in = getattr(choose, "__module__", "").startswith("qexplore.")
        if name in OBSERVERS and OBSERVERS[name].built_in and not built_in:
            raise QexploreError(f"Observer {name!r} comes with qexplore; give yours another name.")
        text = description or ((choose.__doc__ or "").strip().splitlines() or [""])[0]
        OBSERVERS.register(name)(Observer(name, choose, text, options, rows, built_in))
        return choose

    return enter


def find(name: str) -> Observer:
    """The observer `name`.

    Raises:
        QexploreError: nobody has registered it.
    """
    if name not in OBSERVERS:
        raise QexploreError(
            unknown("observer", name, list(OBSERVERS)) + f" If it is your own, run its @qx.observer({name!r}) first."
        )
    return OBSERVERS[name]


def tensor_range(stats: TensorStats, spec: TensorSpec, tensor: str) -> tuple[float, float]:
    """The range (lo, hi) that the observer of `spec` chooses.

    Args:
        tensor: name of the tensor, for messages.

    Raises:
        QexploreError: the observer failed or gave no range.
    """
    chosen = find(spec.observer)
    settings = chosen.settings(spec)
    try:
        result = chosen.choose(stats, spec, **settings)
    except QexploreError:
        raise
    except Exception as error:
        kind = type(error).__name__
        raise QexploreError(
            f"Observer {spec.observer!r} failed on tensor {tensor!r} with {kind}: {first_line(error)}; mend its function."
        ) from error
    try:
        lo, hi = (float(edge) for edge in result)
    except (TypeError, ValueError, RuntimeError):
        raise QexploreError(
            f"Observer {spec.observer!r} gave {_short(result)} for tensor {tensor!r}; return two numbers (lo, hi)."
        ) from None
    if not (math.isfinite(lo) and math.isfinite(hi)):
        raise QexploreError(
            f"Observer {spec.observer!r} gave ({lo:g}, {hi:g}) for tensor {tensor!r}; return two finite numbers."
        )
    if lo > hi:
        raise QexploreError(
            f"Observer {spec.observer!r} gave lo {lo:g} above hi {hi:g} for tensor {tensor!r}; return (lo, hi)."
        )
    return lo, hi


def channel_ranges(weight: torch.Tensor, axis: int, spec: TensorSpec, tensor: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The range of each channel of a weight along `axis`: two float32 tensors [channels].

    Raises:
        QexploreError: as `tensor_range`.
    """
    rows = weight.detach().float().movedim(axis, 0).flatten(1)
    chosen = find(spec.observer)
    if chosen.rows is not None:
        return chosen.rows(rows, spec, **chosen.settings(spec))
    pairs = [tensor_range(measure(row), spec, f"{tensor}, channel {i}") for i, row in enumerate(rows)]
    lo, hi = torch.tensor(pairs, dtype=torch.float32).unbind(1)
    return lo, hi


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
