"""How to quantize: frozen, validated settings that go to JSON and back."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from fnmatch import fnmatchcase
from typing import Any

from qexplore.errors import QexploreError
from qexplore.registry import unknown

MODES = ("dynamic", "static", "qat")
OVERFLOW_GUARDS = ("auto", "none", "activations", "weights")
OptionValue = float | str
LARGEST_OPTION = sys.float_info.max


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise QexploreError(unknown(name, value, list(choices)))


def _check_bool(settings: object, *names: str) -> None:
    for name in names:
        if not isinstance(getattr(settings, name), bool):
            raise QexploreError(f"{name} is {getattr(settings, name)!r}; give True or False.")


def _check_specs(settings: object, may_lack: bool) -> None:
    for name in ("activation", "weight"):
        value = getattr(settings, name)
        if not isinstance(value, TensorSpec) and not (may_lack and value is None):
            raise QexploreError(f"{name} is {value!r}; give a TensorSpec.")


def _checked_options(options: object) -> tuple[tuple[str, OptionValue], ...]:
    pairs = list(options.items() if isinstance(options, Mapping) else options if isinstance(options, tuple) else [None])
    if not all(isinstance(pair, tuple) and len(pair) == 2 and _fits_option(*pair) for pair in pairs):
        raise QexploreError(f'options is {options!r}; give numbers or words by name, such as {{"percentile": 99.9}}.')
    return tuple(sorted(dict(pairs).items()))


def _fits_option(name: object, value: object) -> bool:
    if isinstance(value, bool) or not isinstance(name, str):
        return False
    return isinstance(value, str) or (isinstance(value, int | float) and abs(value) <= LARGEST_OPTION)


@dataclass(frozen=True)
class TensorSpec:
    """How one kind of tensor is quantized.

    Args:
        observer: name of the observer that chooses the range.
        bits: 2 to 8; below 8 is simulated, since int8 kernels have 8-bit codes only.
        symmetric: range centred on zero (weights then have zero_point 0); affine otherwise.
        per_channel: one scale per output channel; weights only.
        options: the observer's own settings by name, such as {"percentile": 99.9}; what is left out has the
            observer's default. Kept as sorted (name, value) pairs, so that specs can be compared and hashed.
    """

    observer: str = "minmax"
    bits: int = 8
    symmetric: bool = False
    per_channel: bool = False
    options: Mapping[str, OptionValue] | tuple[tuple[str, OptionValue], ...] = ()

    def __post_init__(self) -> None:
        _check_bool(self, "symmetric", "per_channel")
        object.__setattr__(self, "options", _checked_options(self.options))
        if not isinstance(self.observer, str):
            raise QexploreError(f"observer is {self.observer!r}; give the name of an observer.")
        if isinstance(self.bits, bool) or not isinstance(self.bits, int) or not 2 <= self.bits <= 8:
            raise QexploreError(f"bits is {self.bits!r}; give a whole number from 2 to 8.")


@dataclass(frozen=True)
class LayerRule:
    """Other settings for the layers whose name matches a pattern; the last matching rule wins.

    Args:
        pattern: layer name with shell wildcards, such as `blocks.0.conv1` or `blocks.*`.
        keep_float: leave these layers in float.
        activation, weight: specs that replace the recipe's own for these layers; the activation's is for what
            the layer gives, and for what it reads where that comes from outside or from a float layer.
    """

    pattern: str
    keep_float: bool = False
    activation: TensorSpec | None = None
    weight: TensorSpec | None = None

    def __post_init__(self) -> None:
        _check_bool(self, "keep_float")
        if not isinstance(self.pattern, str) or not self.pattern:
            raise QexploreError(f"pattern of a rule is {self.pattern!r}; give a layer name, wildcards allowed.")
        if self.keep_float and (self.activation or self.weight):
            raise QexploreError(f"Rule {self.pattern!r} both keeps its layers float and gives specs; choose one.")
        if not self.keep_float and self.activation is None and self.weight is None:
            raise QexploreError(f"Rule {self.pattern!r} changes nothing; set keep_float, activation or weight.")
        _check_specs(self, may_lack=True)

    def matches(self, layer: str) -> bool:
        """Whether `layer` or a module that contains it has a name the pattern describes."""
        parts = layer.split(".")
        return any(fnmatchcase(".".join(parts[:end]), self.pattern) for end in range(1, len(parts) + 1))


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a model is quantized.

    Args:
        mode: "dynamic", "static" (post-training, calibrated) or "qat" (quantization-aware training).
        activation, weight: specs of the two kinds of tensors. Dynamic mode reads activation ranges at run
            time, so of `activation` only `bits` matters there.
        fuse: whether Conv, BatchNorm and ReLU become one int8 operation.
        engine: "auto" or the name of an engine.
        rules: `LayerRule`s, applied in order.
        seed: seeds every random choice made while quantizing.
        overflow_guard: keeps 8-bit products from saturating on CPUs without VNNI: "activations" (7-bit codes),
            "weights" (codes within +-64), "none", or "auto" (weights where this CPU needs it).
        epochs: epochs of fine-tuning in QAT mode.
        steps: names of the preparation steps that change the float model before it is quantized, in their order
            (`qexplore.analysis.steps`), such as "equalize" or "bias_correction".
    """

    mode: str = "static"
    activation: TensorSpec = TensorSpec(observer="histogram")
    weight: TensorSpec = TensorSpec(observer="minmax", symmetric=True, per_channel=True)
    fuse: bool = True
    engine: str = "auto"
    rules: tuple[LayerRule, ...] = field(default=())
    seed: int = 0
    overflow_guard: str = "auto"
    epochs: int = 3
    steps: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.rules, list | tuple):
            raise QexploreError(f"rules is {self.rules!r}; give a list of LayerRule(pattern, ...) entries.")
        object.__setattr__(self, "rules", tuple(self.rules))
        _check_bool(self, "fuse")
        _check_choice("mode", self.mode, MODES)
        _check_choice("overflow_guard", self.overflow_guard, OVERFLOW_GUARDS)
        _check_specs(self, may_lack=False)
        if not isinstance(self.engine, str):
            raise QexploreError(f'engine is {self.engine!r}; give "auto" or the name of an engine.')
        for name, least in (("seed", 0), ("epochs", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**63:
                raise QexploreError(f"{name} is {value!r}; give a whole number from {least} up, below 2**63.")
        if not isinstance(self.steps, list | tuple) or not all(isinstance(step, str) for step in self.steps):
            raise QexploreError(f'steps is {self.steps!r}; give a list of names, such as ("equalize",).')
        object.__setattr__(self, "steps", tuple(self.steps))
        if len(set(self.steps)) < len(self.steps):
            raise QexploreError(f"steps is {self.steps!r}; name each step once.")
        for rule in self.rules:
            if not isinstance(rule, LayerRule):
                raise QexploreError(f"rules holds {rule!r}; give LayerRule(pattern, ...) entries.")
        if self.activation.per_channel or any(r.activation and r.activation.per_channel for r in self.rules):
            raise QexploreError("per_channel applies to weights only; int8 kernels read activations per tensor.")

    def rule_index(self, layer: str) -> int | None:
        """Position in `rules` of the last rule that matches the layer, or None."""
        return next((i for i in reversed(range(len(self.rules))) if self.rules[i].matches(layer)), None)

    def specs_at(self, index: int | None) -> tuple[TensorSpec, TensorSpec] | None:
        """The (activation, weight) specs where the rule at `index` applies, the recipe's own for None; None where
        that rule keeps layers float."""
        if index is None:
            return self.activation, self.weight
        rule = self.rules[index]
        return None if rule.keep_float else (rule.activation or self.activation, rule.weight or self.weight)

    def specs_for(self, layer: str) -> tuple[TensorSpec, TensorSpec] | None:
        """The (activation, weight) specs of a layer, or None where a rule keeps it float."""
        return self.specs_at(self.rule_index(layer))

    @property
    def bits(self) -> int:
        """The fewest bits any tensor of this recipe may have."""
        return min(spec.bits for spec in self.specs())

    def specs(self) -> list[TensorSpec]:
        """Every TensorSpec in the recipe, those of its rules included."""
        specs = [self.activation, self.weight]
        return specs + [spec for rule in self.rules for spec in (rule.activation, rule.weight) if spec]

    def to_dict(self) -> dict[str, Any]:
        """The recipe in JSON's own types."""
        return asdict(self, dict_factory=_plain)

    def to_json(self) -> str:
        """The recipe as JSON text that `from_json` reads."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """The recipe written in `text`.

        Raises:
            QexploreError: not JSON, an unknown setting, or a value out of range.
        """
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise QexploreError(f"The recipe is not valid JSON: {error}.") from error
        return _build(cls, data, "recipe")


def _plain(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: dict(value) if name == "options" else value for name, value in items}


_NESTED: dict[str, type] = {"activation": TensorSpec, "weight": TensorSpec}


def _build(cls: type, data: Any, where: str) -> Any:
    """A settings dataclass from plain data, refusing unknown settings by name."""
    if not isinstance(data, dict):
        raise QexploreError(f"The {where} is {data!r}; give an object with its settings.")
    names = [f.name for f in fields(cls)]
    for key in data:
        if key not in names:
            raise QexploreError(unknown(f"setting in the {where}", key, names))
    values = dict(data)
    for key, kind in _NESTED.items():
        if values.get(key) is not None:
            values[key] = _build(kind, values[key], f"{key} of the {where}")
    if "rules" in values:
        if not isinstance(values["rules"], list | tuple):
            raise QexploreError(f"rules of the {where} is {values['rules']!r}; give a list.")
        values["rules"] = tuple(_build(LayerRule, rule, "rule") for rule in values["rules"])
    try:
        return cls(**values)
    except TypeError as error:
        raise QexploreError(f"The {where} lacks a setting: {error}.") from error
