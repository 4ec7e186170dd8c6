"""Questions to answer before the figures are shown: the learner commits to an answer, then sees what is true."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ipywidgets as widgets
import pandas as pd
import plotly.graph_objects as go

from qexplore.errors import QexploreError
from qexplore.plots.words import number
from qexplore.widgets.errors import ErrorPanel
from qexplore.widgets.figure import shown
from qexplore.widgets.html import table
from qexplore.widgets.style import STYLE


@dataclass(frozen=True)
class Answer:
    """What is true.

    Args:
        right: the option that holds, or the number asked for; computed, never written down.
        words: why it is so.
        show: what to look at: a plotly figure, a data frame or a widget; None for the words alone.
    """

    right: str | float
    words: str
    show: go.Figure | pd.DataFrame | widgets.Widget | None = None


def ask(question: str, reveal: Callable[[], Answer], options: Sequence[str] = (), unit: str = "") -> Question:
    """A question to display in a notebook.

    Args:
        reveal: computes the answer; called once the learner has committed to one.
        options: what to choose from; without them a number is asked for.
        unit: of that number.
    """
    return Question(question, reveal, options, unit)


class Question(widgets.VBox):
    """A question with its answer behind a button, which needs an answer first.

    Attributes:
        given: where the learner answers.
        commit: the button.
        answer: what is true; None before the learner has committed.
    """

    def __init__(self, question: str, reveal: Callable[[], Answer], options: Sequence[str], unit: str) -> None:
        self._reveal, self._options, self._unit = reveal, tuple(options), unit
        self.answer: Answer | None = None
        self._revealing = False
        self.given = (
            widgets.RadioButtons(options=self._options, value=None, description="Your answer")
            if self._options
            else widgets.Text(placeholder=f"a number{f' in {unit}' if unit else ''}", description="Your answer")
        )
        self.commit = widgets.Button(description="Commit and see", button_style="primary", disabled=True)
        self.commit.on_click(lambda _: self._committed())
        self.given.observe(self._typed, names="value")
        self.error_panel = ErrorPanel()
        self._verdict, self._place = widgets.HTML(), widgets.VBox()
        heading = widgets.HTML(f"<b>Before you look:</b> {html.escape(question)}").add_class("qx-question-text")
        super().__init__(
            [widgets.HTML(STYLE), heading, self.given, self.commit, self.error_panel, self._verdict, self._place]
        )
        self.add_class("qx-explorer").add_class("qx-question")

    @property
    def verdict(self) -> str:
        """The HTML that compares the learner's answer with the right one; empty before."""
        return str(self._verdict.value)

    @property
    def _ready(self) -> bool:
        return self.answer is None and not self._revealing and self.given.value not in (None, "")

    def _typed(self, _: Any) -> None:
        self.commit.disabled = not self._ready

    def _committed(self) -> None:
        if not self._ready:
            return
        self.error_panel.clear()
        self.commit.disabled = True
        try:
            given = self.given.value if self._options else _number(self.given.value, self._unit)
            self.commit.description, self._revealing = "Computing …", True
            answer = self._reveal()
            if self._options and answer.right not in self._options:
                raise QexploreError(f"The right answer {answer.right!r} is not among the options.")
            self._place.children = [] if answer.show is None else [_widget(answer.show)]
            self._verdict.value = self._words(given, answer)
            self.answer, self.given.disabled = answer, True
            self.commit.layout.display = "none"
        except Exception as error:
            self.error_panel.show(error, False)
            self.commit.disabled = False
        finally:
            self.commit.description, self._revealing = "Commit and see", False

    def _words(self, given: Any, answer: Answer) -> str:
        if self._options:
            first = "You were right:" if given == answer.right else f"You chose “{html.escape(given)}”. It is"
            first = f"{first} <b>{html.escape(str(answer.right))}</b>."
        else:
            unit = f" {self._unit}" if self._unit else ""
            right = f"{answer.right:,}" if isinstance(answer.right, int) else number(float(answer.right), 4)
            first = f"You said {given:g}{unit}. It is <b>{right}{unit}</b>."
        return f'<div role="status" class="qx-verdict">{first} {html.escape(answer.words)}</div>'


def _number(text: str, unit: str) -> float:
    """A number that somebody typed, with or without its unit.

    Raises:
        QexploreError: it is none.
    """
    try:
        digits = text.strip().removesuffix(unit).rstrip("% x×").replace("−", "-")
        thousands = re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?", digits)
        typed = float(digits.replace(",", "" if thousands else "."))
    except ValueError:
        typed = math.nan
    if not math.isfinite(typed):
        raise QexploreError(f"{text!r} is not a number: type digits, such as 12.5.")
    return typed


def _widget(show: Any) -> widgets.Widget:
    if isinstance(show, go.Figure):
        return shown(show)
    if isinstance(show, pd.DataFrame):
        return widgets.HTML(table(show.astype(object).where(show.notna(), "–"), "qx-answer", index=True))
    if not isinstance(show, widgets.Widget):
        raise QexploreError(f"show is a {type(show).__name__}; give a plotly figure, a data frame or a widget.")
    return show
