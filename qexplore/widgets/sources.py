"""Where the error comes from: the ledger, the model drawn as a graph, causes, and fixes to click."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import ipywidgets as widgets

from qexplore.analysis import Diagnosis, Run, diagnose
from qexplore.analysis.diagnose import Finding
from qexplore.analysis.fixes import Expected, Fix, expected
from qexplore.calibrate import Calibration
from qexplore.errors import QexploreError
from qexplore.plots.ledger import ledger_bars
from qexplore.plots.model_graph import model_graph
from qexplore.plots.words import decibels, percent
from qexplore.progress import Cancel, Report, part, stop_if
from qexplore.recipe import Recipe
from qexplore.widgets.figure import LiveFigure

VIEWS = {
    "share of the output's error, model order": ("model", "output"),
    "share of the output's error, worst first": ("error", "output"),
    "each layer's own error, model order": ("model", "local"),
    "each layer's own error, worst first": ("error", "local"),
    "the model as a graph": None,
}
EMPTY = '<div class="qx-predicted">Press Find the causes: it takes the model apart layer by layer.</div>'
STALE = '<div class="qx-predicted">What follows is for the settings before; press Find the causes again.</div>'


@dataclass(frozen=True, eq=False)
class Found:
    """A diagnosis, and what each of its fixes is expected to give (a sentence where it is refused)."""

    diagnosis: Diagnosis
    expected: Mapping[Recipe, Expected | str]


def found(calibration: Calibration, recipe: Recipe, run: Run | None, progress: Report, cancel: Cancel) -> Found:
    """Diagnose a recipe and simulate every fix."""
    diagnosis = diagnose(calibration, recipe, run, progress=part(progress, 0.0, 0.6), cancel=cancel)
    fixes = [fix for finding in diagnosis.findings for fix in finding.fixes] + list(diagnosis.fixes)
    recipes = list(dict.fromkeys(fix.recipe for fix in fixes))
    guesses: dict[Recipe, Expected | str] = {}
    for position, each in enumerate(recipes):
        stop_if(cancel)
        progress(f"Simulating fix {position + 1} of {len(recipes)}", 0.6 + 0.4 * position / len(recipes))
        try:
            guesses[each] = expected(calibration, each)
        except QexploreError as error:
            guesses[each] = str(error)
    return Found(diagnosis, guesses)


class Sources(widgets.VBox):
    """The explorer's tab about where the error comes from.

    Args:
        on_find: called to have a diagnosis made.
        on_fix: called with a fix that was clicked.
        on_tensor: called with (kind, layer) to show a histogram.
        on_error: called with an exception that a figure raised.

    Attributes:
        found: what is shown; None before the first diagnosis.
        layer: the chosen layer.
    """

    def __init__(
        self,
        on_find: Callable[[], None],
        on_fix: Callable[[Fix], None],
        on_tensor: Callable[[str, str], None],
        on_error: Callable[[BaseException], object],
    ) -> None:
        self._on_error = on_error
        self.found: Found | None = None
        self._on_fix = on_fix
        self._fix: Fix | None = None
        self.find = widgets.Button(description="Find the causes", tooltip="Which layers make the error, and why")
        self.find.on_click(lambda _: on_find())
        self.view = widgets.Dropdown(description="View", options=list(VIEWS)).add_class("qx-shown")
        self.layer = widgets.Dropdown(description="Layer", options=[])
        self.figure = LiveFigure(self._clicked)
        self._note, self._details = widgets.HTML(EMPTY), widgets.HTML()
        self._histograms = widgets.HBox([self._histogram(kind, on_tensor) for kind in ("activation", "weight")])
        self._causes, self._fixes = widgets.VBox(), widgets.VBox()
        top = widgets.HBox([self.find, self.view])
        top.layout.flex_flow = "row wrap"
        self._body = widgets.VBox([self.figure, self.layer, self._details, self._histograms, self._causes, self._fixes])
        self._body.layout.display = "none"
        super().__init__([top, self._note, self._body])
        self.add_class("qx-sources")
        self.view.observe(lambda _: self._draw(), names="value")
        self.layer.observe(lambda _: self._draw(), names="value")

    def show(self, found: Found) -> None:
        """Show a diagnosis."""
        self.found = found
        layers = list(found.diagnosis.ledger.layers.index)
        findings = found.diagnosis.findings
        worst = findings[0].layer if findings else str(found.diagnosis.ledger.layers.output_mse.idxmax())
        before = self.layer.value
        self.layer.options = [(layer or "(the model)", layer) for layer in layers]
        self.layer.value = before if before in layers and before == worst else worst if worst in layers else layers[0]
        self._causes.children = [
            widgets.HTML("<b>Causes, the costliest first</b>"),
            *(self._finding(number, finding) for number, finding in enumerate(findings, 1)),
        ]
        self._fixes.children = [
            widgets.HTML("<b>For the whole model</b>"),
            *self._buttons(found.diagnosis.fixes),
        ]
        self._body.layout.display = None
        self._note.value = _summary(found.diagnosis)
        self._draw()

    def stale(self, recipe: Recipe) -> None:
        """Say that the controls have moved on, if they have."""
        if self.found is not None and self._fix is None:
            now = self.found.diagnosis.ledger.prediction.recipe
            self._note.value = _summary(self.found.diagnosis) if now == recipe else STALE
        elif self._fix is not None and recipe != self._fix.recipe:
            self._fix = None
            self._note.value = STALE

    def measured(self, run: Run) -> None:
        """Set what a fix was expected to give beside what the run gave."""
        if self._fix is None or self.found is None or run.recipe != self._fix.recipe:
            return
        before, guess = self.found.diagnosis.ledger.sqnr_db, self.found.expected.get(self._fix.recipe)
        expected = f", expected {decibels(guess.sqnr_db)}" if isinstance(guess, Expected) else ""
        self._note.value = _line(
            f"<b>{html.escape(self._fix.title)}</b>: output SQNR "
            f"measured {decibels(run.metrics['sqnr_db'])}{expected}, "
            f"before {decibels(before)}; {html.escape(run.metric)} {run.quantized_metric:.4g} (float "
            f"{run.metrics['float']:.4g}). Press Find the causes to go on from here."
        )
        self._fix = None

    def disable(self, disabled: bool) -> None:
        """Disable or enable the buttons, while work is going on."""
        self.find.disabled = disabled
        for button in self.buttons:
            button.disabled = disabled

    @property
    def buttons(self) -> list[widgets.Button]:
        """The buttons of all fixes."""
        rows = [row for box in self._causes.children[1:] for row in box.children[1:]] + list(self._fixes.children[1:])
        return [row.children[0] for row in rows]

    @property
    def note(self) -> str:
        """The line above the figure."""
        return str(self._note.value)

    def _histogram(self, kind: str, on_tensor: Callable[[str, str], None]) -> widgets.Button:
        what = "what it gives" if kind == "activation" else "its weight"
        button = widgets.Button(description=f"Histogram of {what}", tooltip=f"Open the histogram of {what}")
        button.layout.width = "auto"
        button.on_click(lambda _: on_tensor(kind, self.layer.value))
        return button

    def _clicked(self, customdata: Any) -> None:
        name = customdata[0] if isinstance(customdata, list) and customdata else None
        if self.found is not None and name in self.found.diagnosis.ledger.layers.index:
            self.layer.value = name

    def _draw(self) -> None:
        if self.found is None or self.layer.value is None:
            return
        ledger, view = self.found.diagnosis.ledger, VIEWS[self.view.value]
        try:
            if view is None:
                self.figure.draw(model_graph(ledger, self.layer.value))
            else:
                self.figure.draw(ledger_bars(ledger, *view, selected=self.layer.value))
        except Exception as error:
            self._on_error(error)
        self._details.value = _details(self.found.diagnosis, self.layer.value)

    def _finding(self, number: int, finding: Finding) -> widgets.VBox:
        assert self.found is not None
        text = f"{number}. <b>{html.escape(finding.cause)}</b> in {html.escape(finding.layer)}. "
        return widgets.VBox(
            [widgets.HTML(_line(text + html.escape(finding.evidence))), *self._buttons(finding.fixes)]
        ).add_class("qx-finding")

    def _buttons(self, fixes: Sequence[Fix]) -> list[widgets.HBox]:
        """A row for each fix, those expected to gain most first."""
        assert self.found is not None
        return [self._button(fix) for fix in sorted(fixes, key=partial(_rank, self.found.expected))]

    def _button(self, fix: Fix) -> widgets.HBox:
        assert self.found is not None
        title = fix.title[:1].upper() + fix.title[1:]
        button = widgets.Button(description=title, tooltip=f"Set the controls so: {fix.title}")
        button.layout.width, button.layout.max_width = "auto", "100%"
        button.on_click(lambda _: self._apply(fix))
        now = self.found.diagnosis.ledger.sqnr_db
        row = widgets.HBox([button, widgets.HTML(_expected(self.found.expected.get(fix.recipe), now))])
        row.layout.flex_flow, row.layout.align_items = "row wrap", "center"
        return row.add_class("qx-fix")

    def _apply(self, fix: Fix) -> None:
        self._fix = fix
        self._on_fix(fix)
        self._note.value = _line(f"Set: <b>{html.escape(fix.title)}</b>. Press Quantize to measure what it gains.")


def _rank(guesses: Mapping[Recipe, Expected | str], fix: Fix) -> float:
    guess = guesses.get(fix.recipe)
    return -guess.sqnr_db if isinstance(guess, Expected) and not guess.unpredicted else math.inf


def _line(text: str) -> str:
    return f'<div class="qx-predicted">{text}</div>'


def _summary(diagnosis: Diagnosis) -> str:
    ledger = diagnosis.ledger
    text = f"Output SQNR {decibels(ledger.sqnr_db)}, simulated. "
    if diagnosis.findings:
        first = diagnosis.findings[0]
        text += f"First cause: <b>{html.escape(first.cause)}</b> in {html.escape(first.layer)}."
    else:
        text += "No layer is out of the ordinary."
    return _line(text)


def _expected(guess: Expected | str | None, now: float) -> str:
    if guess is None:
        return ""
    if isinstance(guess, str):
        return f'<span class="qx-note">{html.escape(guess)}</span>'
    if guess.unpredicted:
        return '<span class="qx-note">its gain is known only once it has been run</span>'
    return f'<span class="qx-note">expected {decibels(guess.sqnr_db)} at the output, now {decibels(now)}</span>'


def _details(diagnosis: Diagnosis, layer: str) -> str:
    row = diagnosis.ledger.layers.loc[layer]
    ratios = [
        f"{what} RMSE / scale {value:.3f}"
        for what, value in (("what it reads:", row.activation_ratio), ("weight:", row.weight_ratio))
        if value == value
    ]
    ideal = f" ({'; '.join(ratios)}; rounding alone gives 0.289)" if ratios else ""
    unusual = ", <b>out of the ordinary</b>" if row.unusual else ""
    return _line(
        f"<b>{html.escape(layer)}</b> ({html.escape(str(row.kind))}): own error {decibels(row.local_sqnr_db)}, normal "
        f"for its bits {decibels(row.normal_db)}{unusual}{ideal}. It brings {percent(row.share)} of the error at the "
        f"output; with all layers before it, its output has {decibels(row.accumulated_sqnr_db)}."
    )
