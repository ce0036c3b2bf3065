"""Switches, and the places where they are."""

from malleable.domain.switches import Switch
from malleable.store.rows import TableRows


class SwitchTable(TableRows[Switch]):
    """``domain.store.SwitchRows``."""

    __slots__ = ()

    def hold(self, place: str) -> None:
        """Keep everybody else who holds a place waiting until this transaction ends."""
        self._session.queue_on("place", place)
