"""One registry pattern for workloads, observers, engines and plots: a name, joined by a decorator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import Generic, TypeVar

from qexplore.errors import QexploreError

T = TypeVar("T")


class Registry(Generic[T]):
    """Things of one kind by name, in the order they were registered.

    Args:
        kind: what the entries are, in the singular, for messages ("observer").
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator: enter the decorated object under `name`, replacing an earlier one of that name."""

        def enter(entry: T) -> T:
            self._entries[name] = entry
            return entry

        return enter

    def __getitem__(self, name: str) -> T:
        if name in self._entries:
            return self._entries[name]
        raise QexploreError(unknown(self.kind, name, list(self._entries)))

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)


def unknown(kind: str, name: object, known: list[str]) -> str:
    """The sentence for a name that does not exist, with the ones that do."""
    close = get_close_matches(str(name), known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    return f"There is no {kind} named {name!r}: choose one of {', '.join(known)}{hint}"
