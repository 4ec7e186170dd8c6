"""One sample of a model that maps images to images: what goes in, what comes out, and where int8 differs."""

from __future__ import annotations

import base64
import math
import struct
import zlib
from typing import Any

import numpy as np
import plotly.graph_objects as go

from qexplore.analysis import Run
from qexplore.plots.axes import axis
from qexplore.plots.tabs import tab
from qexplore.plots.theme import figure
from qexplore.plots.words import number, quantized_name

NO_PICTURES = (
    "No pictures: they are shown for models that turn an image into an image of the same size, and are not kept in "
    "saved runs."
)
WIDTH, HEIGHT, GAP = 0.485, 0.44, 0.06  # of one picture, in shares of the plot
PLACES = [(0.0, 1.0), (1 - WIDTH, 1.0), (0.0, HEIGHT), (1 - WIDTH, HEIGHT)]  # left and top edge


@tab("Pictures")
def pictures(run: Run) -> go.Figure:
    """Input, float output, quantized output, and their difference amplified (mid-grey: none); black 0, white 1."""
    shown = {key: np.clip(np.nan_to_num(_array(run, key)), 0, 1) for key in ("input", "float", "int8")}
    facts = []
    factor = 1
    if run.pictures:
        difference = shown["int8"] - shown["float"]
        factor, largest = amplification(difference), float(np.abs(difference).max())
        facts = [f"Largest difference {number(largest)}, where black is 0 and white is 1."]
    shown["difference"] = 0.5 + factor * (shown["int8"] - shown["float"])
    name = quantized_name(run)
    titles = ["input", "float model", f"{name} model", f"difference ×{factor} (grey: none)"]
    layout: dict[str, Any] = {}
    for place, (left, top) in enumerate(PLACES):
        suffix = str(place + 1) if place else ""
        common = {"visible": False, "constrain": "domain"}  # towards the middle: side by side at every width
        across = {
            "domain": [left, left + WIDTH],
            "anchor": f"y{suffix}",
            "constraintoward": "left" if left else "right",
        }
        down = {"domain": [top - HEIGHT, top], "anchor": f"x{suffix}", "constraintoward": "top"}
        down["scaleanchor"] = f"x{suffix}"
        layout[f"xaxis{suffix}"] = axis("pixel column") | common | across
        layout[f"yaxis{suffix}"] = axis("pixel row") | common | down | {"autorange": "reversed"}
    return figure(
        [_image(array, place, bool(run.pictures)) for place, array in enumerate(shown.values())],
        f"One sample in float and {name}",
        facts,
        640 if run.pictures else 340,
        above=14,
        sentence=None if run.pictures else NO_PICTURES,
        annotations=[_title(text, place, shown["input"].shape[1]) for place, text in enumerate(titles)],
        showlegend=False,
        **layout,
    )


def amplification(difference: np.ndarray) -> int:
    """The largest power of two, at least 1, that keeps the amplified difference within -0.5 to 0.5."""
    largest = float(np.abs(difference).max())
    return 1 if largest <= 0 else max(1, 2 ** math.floor(math.log2(0.5 / largest)))


def png(image: np.ndarray) -> bytes:
    """An 8-bit RGB image, uint8 [H, W, 3], as a PNG file."""
    height, width, _ = image.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), image.reshape(height, -1)], axis=1)  # 0: no filter

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows.tobytes(), 6)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _array(run: Run, key: str) -> np.ndarray:
    """A picture as [H, W, 3]; one grey pixel where there is none."""
    if key not in run.pictures:
        return np.full((1, 1, 3), 0.5)
    image = run.pictures[key].detach().float().permute(1, 2, 0).numpy()
    return np.broadcast_to(image, (*image.shape[:2], 3))


def _image(array: np.ndarray, place: int, visible: bool) -> go.Image:
    data = np.ascontiguousarray(np.clip(np.rint(array * 255), 0, 255).astype(np.uint8))
    suffix = str(place + 1) if place else ""
    source = "data:image/png;base64," + base64.b64encode(png(data)).decode()
    return go.Image(source=source, xaxis=f"x{suffix}", yaxis=f"y{suffix}", hoverinfo="skip", visible=visible)


def _title(text: str, place: int, width: int) -> dict[str, Any]:
    """A line above a picture `width` pixels wide, which it follows wherever the layout puts it."""
    suffix = str(place + 1) if place else ""
    where = {"xref": f"x{suffix}", "yref": f"y{suffix}", "x": width / 2 - 0.5, "y": -0.5, "yanchor": "bottom"}
    return {"text": text, "showarrow": False, "visible": True} | where
