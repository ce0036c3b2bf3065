"""Drivers that cost a start something, made when they are first asked for."""

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

T = TypeVar("T")


class MadeOnDemand(Mapping[str, T]):
    """A mapping whose values are made once, at the first look at each (sushy takes a twentieth of a start)."""

    def __init__(self, makers: Mapping[str, Callable[[], T]]) -> None:
        """Know the names, and how to make each value."""
        self._makers = makers
        self._made: dict[str, T] = {}
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> T:
        """Return the value, made if need be. Errors: KeyError."""
        with self._lock:
            if name not in self._made:
                self._made[name] = self._makers[name]()
            return self._made[name]

    def __contains__(self, name: object) -> bool:
        """Say whether there is such a value, without making it."""
        return name in self._makers

    def __iter__(self) -> Iterator[str]:
        """Give the names."""
        return iter(self._makers)

    def __len__(self) -> int:
        """Count the names."""
        return len(self._makers)
