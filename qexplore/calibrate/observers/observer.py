"""What an observer is: a function from a tensor's statistics to its range, with a name and typed options."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeGuard, TypeVar

import torch

from qexplore.calibrate.measure import measure
from qexplore.calibrate.stats import TensorStats
from qexplore.errors import QexploreError, first_line
from qexplore.recipe import OptionValue, TensorSpec
from qexplore.registry import Registry, unknown

Choose = TypeVar("Choose", bound=Callable[..., Any])
Rows = Callable[..., tuple[torch.Tensor, torch.Tensor]]
LARGEST = torch.finfo(torch.float32).max


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

    def problem(self, value: object) -> str | None:
        """Why `value` does not fit; None where it does."""
        if isinstance(self.default, str):
            return None if value in self.choices else f"choose one of {', '.join(self.choices)}"
        whole = isinstance(self.default, int)
        if _is_number(value) and self.low <= value <= self.high and (not whole or value == int(value)):
            return None
        unit = f" {self.unit}" if self.unit else ""
        return f"give a {'whole ' if whole else ''}number from {self.low:g} to {self.high:g}{unit}"


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


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
        defaults = {name: option.default for name, option in self.options.items()}
        return {name: type(default)(given.get(name, default)) for name, default in defaults.items()}


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
        if not _is_number(option.default) and not (isinstance(option.default, str) and option.choices):
            raise QexploreError(
                f"Option {key!r} of observer {name!r} has the default {option.default!r}; "
                "give a number, or a word and its choices."
            )
        if problem := option.problem(option.default):
            raise QexploreError(f"Default {option.default!r} of option {key!r} of observer {name!r}: {problem}.")

    def enter(choose: Choose) -> Choose:
        if not callable(choose):
            raise QexploreError(f"Observer {name!r} is {choose!r}; decorate a function (stats, spec) -> (lo, hi).")
        _check_arguments(name, choose, options)
        built_in = getattr(choose, "__module__", "").startswith("qexplore.")
        if name in OBSERVERS and OBSERVERS[name].built_in and not built_in:
            raise QexploreError(f"Observer {name!r} comes with qexplore; give yours another name.")
        text = description or ((choose.__doc__ or "").strip().splitlines() or [""])[0]
        OBSERVERS.register(name)(Observer(name, choose, text, options, rows, built_in))
        return choose

    return enter


def _check_arguments(name: str, choose: Callable[..., Any], options: dict[str, Option]) -> None:
    try:
        inspect.signature(choose).bind(None, None, **options)
    except TypeError as error:
        wanted = ", ".join(["stats", "spec", *options])
        raise QexploreError(f"Observer {name!r} has to take ({wanted}): {error}.") from None
    except ValueError:  # a built-in function without a signature
        pass


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
    if not chosen.built_in:
        stats = copy.deepcopy(stats)  # a function of somebody's own may change what it is given
    result = _called(chosen.choose, (stats, spec), spec, tensor)
    try:
        lo, hi = (float(edge + 0.0) for edge in result)  # text and None cannot be added to
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise QexploreError(
            f"Observer {spec.observer!r} gave {_short(result)} for tensor {tensor!r}; return two numbers (lo, hi)."
        ) from None
    _check_range(lo, hi, spec, tensor)
    return lo, hi


def channel_ranges(weight: torch.Tensor, axis: int, spec: TensorSpec, tensor: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The range of each channel of a weight along `axis`: two float32 tensors [channels].

    Raises:
        QexploreError: as `tensor_range`.
    """
    values = weight.detach().float().movedim(axis, 0).flatten(1)
    rows = find(spec.observer).rows
    if rows is None:
        pairs = [tensor_range(measure(row), spec, f"{tensor}, channel {i}") for i, row in enumerate(values)]
        lo, hi = torch.tensor(pairs, dtype=torch.float32).reshape(-1, 2).unbind(1)
        return lo, hi
    result = _called(rows, (values, spec), spec, tensor)
    try:
        lo, hi = (edges.float().expand(len(values)) for edges in result)
    except (TypeError, ValueError, RuntimeError, AttributeError):
        raise QexploreError(
            f"Observer {spec.observer!r} gave {_short(result)} for the {len(values)} channels of tensor {tensor!r}; "
            "return two tensors (lo, hi) from its rows function."
        ) from None
    fine = (lo >= -LARGEST) & (lo <= hi) & (hi <= LARGEST) & (hi - lo <= LARGEST)
    if not fine.all():
        channel = int(fine.int().argmin())
        _check_range(float(lo[channel]), float(hi[channel]), spec, f"{tensor}, channel {channel}")
    return lo, hi


def _called(function: Callable[..., Any], arguments: tuple[object, ...], spec: TensorSpec, tensor: str) -> Any:
    """What an observer's function gives, its mistakes put into one sentence."""
    settings = find(spec.observer).settings(spec)
    try:
        return function(*arguments, **settings)
    except QexploreError:
        raise
    except Exception as error:
        raise QexploreError(
            f"Observer {spec.observer!r} failed on tensor {tensor!r} with {type(error).__name__}: {first_line(error)}; "
            "mend its function."
        ) from error


def _check_range(lo: float, hi: float, spec: TensorSpec, tensor: str) -> None:
    if not (abs(lo) <= LARGEST and abs(hi) <= LARGEST and abs(hi - lo) <= LARGEST):
        raise QexploreError(
            f"Observer {spec.observer!r} gave ({lo:g}, {hi:g}) for tensor {tensor!r}; "
            "return two finite numbers, not too far apart."
        )
    if lo > hi:
        raise QexploreError(
            f"Observer {spec.observer!r} gave lo {lo:g} above hi {hi:g} for tensor {tensor!r}; return (lo, hi)."
        )


def _short(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."
