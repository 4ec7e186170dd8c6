"""The words of a lesson, as the glossary has them."""

from __future__ import annotations

from qexplore.errors import QexploreError
from qexplore.glossary import GLOSSARY
from qexplore.registry import unknown
from qexplore.widgets.html import glossary_table
from qexplore.widgets.style import STYLE


class Words:
    """Terms with their meanings, shown as a table in a notebook."""

    def __init__(self, terms: tuple[str, ...]) -> None:
        self.terms = terms

    def __repr__(self) -> str:
        return "\n".join(f"{term}: {GLOSSARY[term]}" for term in self.terms)

    def _repr_html_(self) -> str:
        return STYLE + glossary_table(self.terms)


def words(*terms: str) -> Words:
    """The meanings of some terms of the glossary; of all of them where none is named.

    Raises:
        QexploreError: the glossary has no such term.
    """
    for term in terms:
        if term not in GLOSSARY:
            raise QexploreError(unknown("term", term, list(GLOSSARY)))
    return Words(terms or tuple(sorted(GLOSSARY, key=str.lower)))
