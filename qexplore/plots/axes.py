"""Axes that name their quantity and unit, and the one that lists layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from textwrap import wrap
from typing import Any

import numpy as np

GRID = "rgba(128, 128, 128, 0.25)"
NEUTRAL = "#888888"
LABEL = 26  # characters of a layer's name on an axis
ROW = 14  # pixels a label needs


def axis(title: str, length: int = 46, **settings: Any) -> dict[str, Any]:
    """Settings of an axis.

    Args:
        title: the quantity and its unit, broken into lines of at most `length` characters.
    """
    common = {
        "title": {"text": "<br>".join(wrap(title, length)), "standoff": 8},
        "automargin": True,
        "gridcolor": GRID,
        "zeroline": False,
        "linecolor": NEUTRAL,
        "showline": True,
        "visible": True,
    }
    return common | settings


def layer_axis(names: Sequence[str], pixels: int) -> dict[str, Any]:
    """A vertical axis with layers at 0, 1, ... from the top, labelled as closely as can be read in `pixels`."""
    every = max(1, math.ceil(ROW * len(names) / pixels))
    labels = [shortened(name) for name in names[::every]]
    places = np.arange(0, len(names), every)
    return axis("layer", tickvals=places, ticktext=labels, range=[len(names) - 0.4, -0.6], showgrid=False)


def shortened(name: str) -> str:
    """A layer's name with its middle left out where it is too long for an axis."""
    return name if len(name) <= LABEL else f"{name[: LABEL // 2 - 1]}…{name[-LABEL // 2 :]}"


def layers_height(layers: int, row: int = 20) -> int:
    """Height in pixels of a figure with a row per layer."""
    return min(max(FRAME + row * layers, 260), 900)


FRAME = 180  # pixels of such a figure around the rows
