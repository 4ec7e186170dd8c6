"""The recipe's controls, and the recipe they add up to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from qexplore.analysis.checks import Inspection
from qexplore.analysis.steps.step import STEPS, in_order
from qexplore.calibrate.observers import OBSERVERS, find
from qexplore.engines import ENGINES
from qexplore.engines.engine import supported_engines
from qexplore.recipe import OVERFLOW_GUARDS, Recipe, TensorSpec
from qexplore.registry import Registry
from qexplore.widgets.availability import step_control, unavailable
from qexplore.widgets.options import Options
from qexplore.widgets.rules import Rules

MODES = {"Dynamic": "dynamic", "Static (post-training)": "static", "QAT (trained)": "qat"}
SCHEMES = {"affine": False, "symmetric": True}
GRANULARITIES = {"per tensor": False, "per channel": True}
OBSERVER_CONTROLS = ("activation_observer", "weight_observer")
GROUPS = {
    "": ("mode",),
    "Activations": ("activation_observer", "activation_bits", "activation_scheme"),
    "Weights": ("weight_observer", "weight_bits", "weight_scheme", "weight_granularity"),
    "Model": ("fuse", "engine", "overflow_guard", "epochs", "seed"),
    "Preparation": tuple(step_control(name) for name in in_order(STEPS)),
}


class Controls(widgets.VBox):
    """All controls of a recipe; those that do not apply are disabled and say why.

    Args:
        on_change: called after any control has moved.

    Attributes:
        by_name: the controls.
        inspection: what can be done with the workload; None until `know`.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self.inspection: Inspection | None = None
        self._busy = self._touched = self._quiet = False
        self._on_change = on_change
        self.by_name = _make()
        self.options = {name: Options(self._option_changed) for name in OBSERVER_CONTROLS}
        self.rules = Rules(on_change)
        self._notes = {name: widgets.HTML().add_class("qx-note") for name in self.by_name}
        children: list[widgets.Widget] = []
        for title, names in GROUPS.items():
            if title:
                children.append(widgets.HTML(f"<b>{title}</b>"))
            for name in names:
                children += [self.by_name[name], self._notes[name]]
                children += [self.options[name]] if name in self.options else []
        super().__init__([*children, widgets.HTML("<b>Single layers</b>"), self.rules])
        self.add_class("qx-controls")
        for name, options in self.options.items():
            options.show(self.by_name[name].value)
        for control in self.by_name.values():
            control.observe(self._changed, names="value")
        OBSERVERS.listen(self.new_observers)
        self.refresh()

    def know(self, inspection: Inspection) -> None:
        """Take in what can be done with the workload: layers for rules, modes that work, the mode to begin with."""
        self.inspection = inspection
        self.rules.pattern.options = inspection.layers
        if not self._touched:
            self.by_name["mode"].value = inspection.mode
        self._changed(None)

    @property
    def values(self) -> dict[str, Any]:
        """Each control's value by name."""
        return {name: control.value for name, control in self.by_name.items()}

    @property
    def mode_problem(self) -> str | None:
        """Why the chosen mode cannot be used with this workload; None where it can."""
        return self.inspection.problems.get(self.by_name["mode"].value) if self.inspection else None

    def recipe(self) -> Recipe:
        """The recipe that the controls show; a control that does not apply counts as its default.

        Raises:
            QexploreError: a rule that makes no sense.
        """
        values = self.values
        off = unavailable(values)
        activation = TensorSpec(
            observer=values["activation_observer"],
            options=self.options["activation_observer"].values() if "activation_observer" not in off else {},
            bits=values["activation_bits"],
            symmetric=values["activation_scheme"] and "activation_scheme" not in off,
        )
        weight = TensorSpec(
            observer=values["weight_observer"],
            options=self.options["weight_observer"].values(),
            bits=values["weight_bits"],
            symmetric=values["weight_scheme"] or "weight_scheme" in off,
            per_channel=values["weight_granularity"] and "weight_granularity" not in off,
        )
        return Recipe(
            mode=values["mode"],
            activation=activation,
            weight=weight,
            fuse=values["fuse"],
            engine="auto" if "engine" in off else values["engine"],
            overflow_guard="auto" if "overflow_guard" in off else values["overflow_guard"],
            rules=tuple(self.rules.rules(weight, activation)),
            seed=values["seed"],
            epochs=values["epochs"],
            steps=tuple(
                name for name in in_order(STEPS) if values[step_control(name)] and step_control(name) not in off
            ),
        )

    def show(self, recipe: Recipe) -> None:
        """Set the controls to a recipe, its rules included.

        Raises:
            QexploreError: the recipe names an observer that nobody has registered.
        """
        for spec in (recipe.activation, recipe.weight):
            find(spec.observer)
        settings = {
            "mode": recipe.mode,
            "activation_observer": recipe.activation.observer,
            "activation_bits": recipe.activation.bits,
            "activation_scheme": recipe.activation.symmetric,
            "weight_observer": recipe.weight.observer,
            "weight_bits": recipe.weight.bits,
            "weight_scheme": recipe.weight.symmetric,
            "weight_granularity": recipe.weight.per_channel,
            "fuse": recipe.fuse,
            "engine": recipe.engine,
            "overflow_guard": recipe.overflow_guard,
            "epochs": recipe.epochs,
            "seed": recipe.seed,
            **{step_control(name): name in recipe.steps for name in STEPS},
        }
        self._quiet = True
        for name, value in settings.items():
            self.by_name[name].value = value
        for name, spec in zip(OBSERVER_CONTROLS, (recipe.activation, recipe.weight), strict=True):
            self.options[name].show(spec.observer, OBSERVERS[spec.observer].settings(spec))
        self.rules.show(recipe.rules)
        self._quiet = False
        self._changed({})

    def new_observers(self) -> None:
        """Offer the observers there are now; called when one is registered."""
        self._quiet = True
        for name in OBSERVER_CONTROLS:
            control = self.by_name[name]
            chosen, control.options = control.value, list(OBSERVERS)
            control.value = chosen if chosen in OBSERVERS else control.options[0]
            control.tooltip = _explained(OBSERVERS)
        self._quiet = False
        self._changed(None)

    def busy(self, busy: bool) -> None:
        """Disable everything while work is going on."""
        self._busy = busy
        self.refresh()

    def refresh(self) -> None:
        """Disable what does not apply and show why."""
        reasons = unavailable(self.values)
        mode = self.by_name["mode"].value
        if self.inspection and (note := self.mode_problem or self.inspection.hints.get(mode)):
            reasons["mode"] = note
        for name, control in self.by_name.items():
            control.disabled = self._busy or (name in reasons and name != "mode")
            if name in self.options:
                self.options[name].disable(control.disabled)
            self._notes[name].value = reasons.get(name, "")
            self._notes[name].layout.display = "block" if name in reasons else "none"
        self.rules.disable(self._busy)

    def _changed(self, change: Any) -> None:
        if self._quiet:
            return
        self._touched = self._touched or change is not None
        self._quiet = True
        for name, options in self.options.items():
            options.show(self.by_name[name].value)
        self._quiet = False
        self.refresh()
        self._on_change()

    def _option_changed(self) -> None:
        if not self._quiet:
            self._on_change()


def _make() -> dict[str, widgets.Widget]:
    """The controls by name, with the default recipe's values."""
    default = Recipe()
    bits = {"min": 2, "max": 8}
    observers = list(OBSERVERS)
    guards = {"auto": "auto", "none": "none", "7-bit activations": "activations", "weights in ±64": "weights"}
    assert set(guards.values()) == set(OVERFLOW_GUARDS)
    return {
        "mode": widgets.Dropdown(options=MODES, value=default.mode, description="Mode"),
        "activation_observer": _dropdown("Activation observer", observers, default.activation.observer, OBSERVERS),
        "activation_bits": widgets.IntSlider(value=default.activation.bits, description="Activation bits", **bits),
        "activation_scheme": _dropdown("Activation scheme", SCHEMES, default.activation.symmetric),
        "weight_observer": _dropdown("Weight observer", observers, default.weight.observer, OBSERVERS),
        "weight_bits": widgets.IntSlider(value=default.weight.bits, description="Weight bits", **bits),
        "weight_scheme": _dropdown("Weight scheme", SCHEMES, default.weight.symmetric),
        "weight_granularity": _dropdown("Weight scales", GRANULARITIES, default.weight.per_channel),
        "fuse": widgets.Checkbox(value=default.fuse, description="Fuse Conv, BatchNorm, ReLU", indent=False),
        "engine": _dropdown("Engine", ["auto", *supported_engines()], default.engine, ENGINES),
        "overflow_guard": _dropdown("Overflow guard", guards, default.overflow_guard),
        "epochs": widgets.BoundedIntText(value=default.epochs, min=1, max=100, description="QAT epochs"),
        "seed": widgets.BoundedIntText(value=default.seed, min=0, max=2**31 - 1, description="Seed"),
        **{
            step_control(name): widgets.Checkbox(
                value=False,
                description=name.replace("_", " ").capitalize(),
                indent=False,
                tooltip=STEPS[name].description,
            )
            for name in in_order(STEPS)
        },
    }


def _dropdown(description: str, options: Any, value: Any, registry: Registry[Any] | None = None) -> widgets.Dropdown:
    """A drop-down; over a registry its tooltip says what each entry is."""
    tooltip = _explained(registry) if registry else None
    return widgets.Dropdown(description=description, options=options, value=value, tooltip=tooltip)


def _explained(registry: Registry[Any]) -> str:
    return "; ".join(f"{name}: {registry[name].description}" for name in registry)
