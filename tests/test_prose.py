"""The notebooks' text states no measured figure of its own: such figures are computed, or stand beside their source."""

from __future__ import annotations

import re

import nbformat
import pytest

from tests.test_notebooks import each_notebook

# Formulas, definitions and given values are written as math or code, which is left out.
NOT_PROSE = re.compile(r"```.*?```|\$\$.*?\$\$|\$[^$]*\$|`[^`]*`", re.DOTALL)
SOURCE = re.compile(r"\]\(https?://")
WORDS = "two|three|four|five|six|seven|eight|nine|ten|twenty|fifty|hundred|a thousand"
FIGURE = re.compile(
    r"[−-]?\d+(?:,\d{3})*(?:\.\d+)?\s*(?:%|percent\b|dB\b|×|x\b|times\b|m?s\b|milliseconds|seconds|[KMG]i?B\b|bytes\b)"
    rf"|\b(?:{WORDS}|twice|half)(?: to (?:{WORDS}))? (?:times|percent|as (?:fast|small|large|accurate))\b"
    r"|(?<![\d.])(?!0\.0\b)\d+\.\d+(?!\.?\d)",
    re.IGNORECASE,
)


def unsourced(text: str) -> list[str]:
    """The figures in the prose of a Markdown text whose paragraph or list item links to no source."""
    text = NOT_PROSE.sub("·", text)
    parts = re.split(r"\n\s*\n|\n(?=\s*(?:[-*|]|\d+\.) )", text)
    return [found[0] for part in parts if not SOURCE.search(part) for found in FIGURE.finditer(part)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("int8 is 3.9 times as fast", ["3.9 times"]),
        ("the file is four times smaller", ["four times"]),
        ("two to four times faster", ["two to four times"]),
        ("it loses 82 % here", ["82 %"]),
        ("accuracy falls to 0.17.\n\nKrishnamoorthi found 0.1 % ([paper](https://a.b)).", ["0.17"]),
        ("it gains 12 dB, or 1.94x", ["12 dB", "1.94x"]),
        ("8-bit codes 0 to 255, $6.02$ dB, `0.17`, 2-bit, 0.0 has a code, lesson 03, torch 2", []),
    ],
)
def test_figures_are_found(text: str, found: list[str]) -> None:
    assert unsourced(text) == found


@each_notebook
def test_prose_states_no_figure_without_a_source(path) -> None:
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    found = {cell.id: figures for cell in cells if (figures := unsourced(cell.source))}
    assert not found, "Compute these figures in a cell, give their source, or write what is given or defined as math."
