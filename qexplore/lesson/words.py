"""Tables of words: the terms of a lesson as the glossary has them, sentences, and texts side by side."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from qexplore.errors import QexploreError
from qexplore.glossary import GLOSSARY
from qexplore.registry import unknown
from qexplore.widgets.html import glossary_table, table, texts_table
from qexplore.widgets.style import STYLE


class Words:
    """A table to show in a notebook.

    Args:
        texts: by title.
        made: the table as HTML.
    """

    def __init__(self, texts: Mapping[str, str], made: str) -> None:
        self.texts, self._made = dict(texts), made

    def __repr__(self) -> str:
        return "\n".join(f"{title}: {text}" for title, text in self.texts.items())

    def _repr_html_(self) -> str:
        return STYLE + self._made


def words(*terms: str) -> Words:
    """The meanings of some terms of the glossary; of all of them where none is named.

    Raises:
        QexploreError: the glossary has no such term.
    """
    for term in terms:
        if not isinstance(term, str) or term not in GLOSSARY:
            raise QexploreError(unknown("term", term, list(GLOSSARY)))
    chosen = terms or tuple(GLOSSARY)
    return Words({term: GLOSSARY[term] for term in chosen}, glossary_table(chosen))


def sentences(frame: pd.DataFrame) -> Words:
    """A data frame that holds sentences: whole, to the left, in lines that fit the page."""
    shown = frame.astype(str)
    with pd.option_context("display.max_colwidth", None):
        return Words(
            {str(row[0]): " ".join(row[1:]) for row in shown.itertuples()}, table(shown, "qx-words", index=True)
        )


def beside(texts: Mapping[str, str]) -> Words:
    """Texts in columns, each below its title."""
    return Words(texts, texts_table(texts))
