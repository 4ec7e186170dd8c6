"""Runs as words and tables: headline figures, the table of runs, the table of layers."""

from __future__ import annotations

import html
import math

import pandas as pd

from qexplore.analysis import Run
from qexplore.recipe import Recipe, TensorSpec


def headline(run: Run) -> str:
    """The four figures a person asks for first, float against quantized."""
    better = "higher is better" if run.higher_is_better else "lower is better"
    kind = "int8" if run.metrics["int8"] is not None else "simulated"
    cards = [
        (
            f"{run.metric} ({better})",
            f"{_figure(run.metrics['float'])} → {_figure(run.quantized_metric)}",
            f"float → {kind}; simulated {_figure(run.metrics['simulated'])}",
        ),
        (
            "Size of the file",
            f"{run.size['float_bytes'] / 1024:,.0f} → {run.size['int8_bytes'] / 1024:,.0f} KiB",
            f"{1 / run.size['ratio']:.2f} of float" + (", packed, estimated" if run.size["estimated"] else ""),
        ),
        _speed_card(run),
        (
            "Output against float",
            f"{run.metrics['sqnr_db']:.1f} dB SQNR",
            _agreement_words(run),
        ),
    ]
    return '<div class="qx-cards">' + "".join(_card(*card) for card in cards) + "</div>"


def _agreement_words(run: Run) -> str:
    agreement = run.metrics["agreement"]
    words = [] if agreement is None else [f"{agreement:.1%} of decisions agree"]
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


def _card(title: str, figure: str, note: str) -> str:
    parts = (("qx-card-title", title), ("qx-card-figure", figure), ("qx-card-note", note))
    return '<div class="qx-card">' + "".join(f'<div class="{c}">{html.escape(t)}</div>' for c, t in parts) + "</div>"


def recipe_words(recipe: Recipe) -> str:
    """A recipe in short: "static, activations histogram 8 bits, weights minmax 8 bits per channel"."""
    words = [recipe.mode]
    if recipe.mode == "dynamic":
        words.append(f"activations {recipe.activation.bits} bits at run time")
    else:
        words.append(f"activations {_spec_words(recipe.activation)}")
    words.append(f"weights {_spec_words(recipe.weight)} per {'channel' if recipe.weight.per_channel else 'tensor'}")
    if not recipe.fuse and recipe.mode != "dynamic":
        words.append("not fused")
    if recipe.mode == "qat":
        words.append(f"{recipe.epochs} epochs")
    if recipe.rules:
        words.append(f"{len(recipe.rules)} rule{'s' if len(recipe.rules) > 1 else ''}")
    return ", ".join(words)


def _spec_words(spec: TensorSpec) -> str:
    return f"{spec.observer} {spec.bits} bits{' symmetric' if spec.symmetric else ''}"


def runs_table(runs: list[Run]) -> str:
    """A row per run, the newest last."""
    if not runs:
        return "<i>No runs yet: choose settings and press Quantize.</i>"
    rows = [
        {
            "Run": number,
            "Recipe": recipe_words(run.recipe),
            run.metric: _figure(run.quantized_metric),
            "Loss": f"{run.loss:+.3g}",
            "Size (KiB)": f"{run.size['int8_bytes'] / 1024:,.0f}" + (" est." if run.size["estimated"] else ""),
            "Speedup": "simulated" if run.speed is None else f"{run.speed['speedup']:.2f}×",
            "SQNR (dB)": f"{run.metrics['sqnr_db']:.1f}",
        }
        for number, run in enumerate(runs, 1)
    ]
    return _table(pd.DataFrame(rows), "qx-runs")


def layers_table(run: Run) -> str:
    """A row per layer with its errors and its output's affine mapping."""
    layers = run.layers
    shown = pd.DataFrame(
        {
            "Layer": layers.index,
            "Operations": layers.kind + layers.quantized.map({True: "", False: " (float)"}),
            "SQNR (dB)": layers.sqnr_db.map(lambda v: _figure(v, ".1f")),
            "Simulated (dB)": layers.simulated_sqnr_db.map(lambda v: _figure(v, ".1f")),
            "MSE": layers.mse.map(lambda v: _figure(v, ".2g")),
            "Max error": layers.max_error.map(lambda v: _figure(v, ".3g")),
            "Cosine": layers.cosine.map(lambda v: _figure(v, ".5f")),
            "Weight SQNR (dB)": layers.weight_sqnr_db.map(lambda v: _figure(v, ".1f")),
            "Scale": layers.scale.map(lambda v: _figure(v, ".4g")),
            "Zero point": layers.zero_point.map(lambda v: _figure(v, ".0f")),
            "Range": [
                f"{_figure(lo, '.3g')} to {_figure(hi, '.3g')}" for lo, hi in zip(layers.lo, layers.hi, strict=True)
            ],
            "Clipped": layers.clipped.map(lambda v: _figure(v, ".2%")),
        }
    )
    return _table(shown.replace("– to –", "–"))


def _figure(value: float | None, form: str = ".4g") -> str:
    if value is None or math.isnan(value):
        return "–"
    return "exact" if math.isinf(value) and value > 0 else format(value, form)


def _table(frame: pd.DataFrame, kind: str = "qx-layers") -> str:
    table = frame.to_html(index=False, border=0, classes=["qx-table", kind], escape=True)
    return f'<div class="qx-scroll">{table}</div>'
