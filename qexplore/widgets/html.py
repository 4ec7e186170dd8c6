"""Runs as words and tables: headline figures, the table of runs, the table of layers."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence

import pandas as pd

from qexplore.analysis import Prediction, Run
from qexplore.glossary import GLOSSARY
from qexplore.plots.words import decibels, kib, metric_name, number, percent, recipe_words

STEPS = (
    "Choose a mode: <i>dynamic</i> finds the ranges of activations while the model runs, <i>static</i> beforehand from "
    "some data, <i>QAT</i> trains the model while it feels the rounding.",
    "Move any control: the figures show at once what it is predicted to do. Every figure's title says what it shows.",
    "Press <i>Quantize</i>: the model is quantized for real and measured on this machine, float against int8.",
    "Open <i>Error sources</i> to see which layers make the error, why, and what would mend it.",
    "Change a setting, quantize again, and compare in the table of runs; <i>Use its recipe</i> goes back to a run.",
)


def headline(run: Run, number: int) -> str:
    """The four figures a person asks for first, float against quantized, of the run with this number."""
    kind = "int8" if run.metrics["int8"] is not None else "simulated"
    cards = [
        (
            metric_name(run),
            f"{_metric(run.metrics['float'])} → {_metric(run.quantized_metric)}",
            f"float → {kind}; simulated {_metric(run.metrics['simulated'])}",
        ),
        (
            "Size in bits" if run.size["estimated"] else "Size of the file",
            f"{kib(run.size['float_bytes']):,.0f} → {kib(run.size['int8_bytes']):,.0f} KiB",
            f"{1 / run.size['ratio']:.2f} of float" + (", packed, estimated" if run.size["estimated"] else ""),
        ),
        _speed_card(run),
        ("Output against float", f"SQNR {decibels(run.metrics['sqnr_db'])}", _agreement_words(run)),
    ]
    measured = f'<div class="qx-predicted"><b>Measured</b>, run {number}</div>'
    return measured + '<div class="qx-cards">' + "".join(card(*each) for each in cards) + "</div>"


def predicted_line(prediction: Prediction, is_run: bool) -> str:
    """What is predicted for the whole model, in one line.

    Args:
        is_run: whether the figures above it are measured with the same recipe.
    """
    size, before = prediction.size, "before training, " if prediction.recipe.mode == "qat" else ""
    whose = "" if is_run else "for the settings chosen, "
    output = prediction.output_sqnr_db
    steps = f" The effect of {', '.join(prediction.unpredicted)} is not in it." if prediction.unpredicted else ""
    words = "unknown (the model cannot be traced)" if math.isnan(output) else decibels(output)
    return (
        f'<div class="qx-predicted"><b>Predicted</b> {whose}{before}without running the model: '
        f"output SQNR {words}, size {1 / size['ratio']:.2f} of float.{steps}</div>"
    )


def _agreement_words(run: Run) -> str:
    agreement = run.metrics["agreement"]
    words = [] if agreement is None else [f"largest output the same in {percent(agreement)}"]
    return "; ".join(words + (["training moved the weights too"] if run.recipe.mode == "qat" else []))


def _speed_card(run: Run) -> tuple[str, str, str]:
    if run.speed is None:
        return "Speed", "not measured", "below 8 bits there are no kernels"
    speed = run.speed
    word = "as fast" if speed["speedup"] >= 1 else "as fast: slower than float"
    return (
        f"Speed, batch {speed['batch']}, {speed['threads']} threads",
        f"{speed['speedup']:.2f}× {word}",
        f"{speed['float_ms']:.2f} → {speed['int8_ms']:.2f} ms, "
        f"quartiles {speed['speedup_low']:.2f}–{speed['speedup_high']:.2f}×",
    )


def card(title: str, figure: str, note: str) -> str:
    """One headline figure with its title and a note below."""
    parts = (("qx-card-title", title), ("qx-card-figure", figure), ("qx-card-note", note))
    return '<div class="qx-card">' + "".join(f'<div class="{c}">{html.escape(t)}</div>' for c, t in parts) + "</div>"


def runs_table(runs: list[Run]) -> str:
    """A row per run, the newest last."""
    if not runs:
        return "<i>No runs yet: choose settings and press Quantize.</i>"
    rows = [
        (
            number_of,
            "; ".join(recipe_words(run.recipe)),
            _metric(run.quantized_metric),
            _metric(run.loss),
            f"{kib(run.size['int8_bytes']):,.0f}" + (" est." if run.size["estimated"] else ""),
            "simulated" if run.speed is None else f"{run.speed['speedup']:.2f}×",
            decibels(run.metrics["sqnr_db"]),
        )
        for number_of, run in enumerate(runs, 1)
    ]
    titles = ["Run", "Recipe", runs[0].metric, "Loss", "Size (KiB)", "Speedup", "SQNR"]
    return table(pd.DataFrame(rows, columns=titles), "qx-runs")


def layers_table(run: Run, prediction: Prediction | None) -> str:
    """A row per layer with its errors, what was predicted, and its output's affine mapping."""
    layers = run.layers
    predicted = pd.Series(math.nan, layers.index) if prediction is None else prediction.layers.sqnr_db
    ranges = [f"{number(lo)} to {number(hi)}" for lo, hi in zip(layers.lo, layers.hi, strict=True)]
    shown = pd.DataFrame(
        {
            "Layer": layers.index,
            "Operations": layers.kind + layers.quantized.map({True: "", False: " (float)"}),
            "SQNR": layers.sqnr_db.map(decibels),
            "Predicted": predicted.reindex(layers.index).map(decibels),
            "Simulated": layers.simulated_sqnr_db.map(decibels),
            "MSE": layers.mse.map(number),
            "Max error": layers.max_error.map(number),
            "Cosine": layers.cosine.map("{:.5f}".format),
            "Weight SQNR": layers.weight_sqnr_db.map(decibels),
            "Scale": layers.scale.map(number),
            "Zero point": layers.zero_point.map("{:.0f}".format),
            "Range": ranges,
            "Clipped": layers.clipped.map(percent),
        }
    )
    return table(shown.mask(shown.isin(["nan", "nan to nan", "not measured", "unknown"]), "–"))


def _metric(value: float | None) -> str:
    """Four digits, and a true minus."""
    return "–" if value is None else number(value, 4)


def table(frame: pd.DataFrame, kind: str = "qx-layers", index: bool = False) -> str:
    """A data frame as a table that scrolls sideways where it is too wide.

    Args:
        kind: its class in the style sheet.
        index: whether the frame's index is a column too.
    """
    made = frame.to_html(index=index, border=0, classes=["qx-table", kind], escape=True)
    return f'<div class="qx-scroll">{made}</div>'


def help_text() -> str:
    """How to use the explorer, and the glossary; both folded away until they are asked for."""
    steps = "".join(f"<li>{step}</li>" for step in STEPS)
    return (
        f"<details><summary>Help: how to use the explorer</summary><ol>{steps}</ol></details>"
        f"<details><summary>Glossary: what the words mean</summary>{glossary_table(tuple(GLOSSARY))}</details>"
    )


def texts_table(texts: Mapping[str, str]) -> str:
    """Texts in columns, with their spaces and line ends, each below its title."""
    titles = "".join(f"<th>{html.escape(title)}</th>" for title in texts)
    cells = "".join(f"<td>{html.escape(text)}</td>" for text in texts.values())
    return f'<table class="qx-table qx-texts"><tr>{titles}</tr><tr>{cells}</tr></table>'


def glossary_table(terms: Sequence[str]) -> str:
    """The meanings of some of the glossary's terms."""
    frame = pd.DataFrame({"Term": terms, "Meaning": [GLOSSARY[term] for term in terms]})
    with pd.option_context("display.max_colwidth", None):
        return table(frame, "qx-glossary")
