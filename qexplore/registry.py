"""One registry pattern for workloads, observers, engines and plots: a name, joined by a decorator."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import Generic, TypeVar
from weakref import WeakMethod

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
        self._listeners: list[WeakMethod[Callable[[], object]]] = []

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator: enter the decorated object under `name`, replacing an earlier one of that name."""

        def enter(entry: T) -> T:
            self._entries[name] = entry
            for listener in list(self._listeners):
                if (call := listener()) is not None:
                    call()
            return entry

        return enter

    def listen(self, method: Callable[[], object]) -> None:
        """Call a bound method after every registration, for as long as its object lives."""
        self._listeners = [each for each in self._listeners if each() is not None] + [WeakMethod(method)]

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
