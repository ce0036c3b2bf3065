"""The last desired state, kept on disk so that a restarted gateway serves at once while the control plane is away."""

from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path
from uuid import UUID

from pydantic import ValidationError

from malleable.domain.errors import Unavailable
from malleable.gateway.private_file import replace_file
from malleable.wire.gateway import DesiredNetwork, DesiredView


class Memory:
    """All networks the control plane told of, and the highest generation it had reached. Used by one thread."""

    def __init__(self, path: Path) -> None:
        """Read what an earlier gateway kept; a missing or unreadable file is an empty memory."""
        self._path = path
        kept = _read(path)
        self.generation = kept.generation
        self.networks = {network.id: network for network in kept.networks}

    def learn(self, told: Collection[DesiredNetwork], *, generation: int, forget: Collection[UUID] = ()) -> None:
        """Take in networks and drop others; it is on disk before this returns.

        Errors: Unavailable when the disk does not take it; nothing is learnt then.
        """
        if not told and not forget and generation == self.generation:
            return
        networks = {key: network for key, network in self.networks.items() if key not in forget}
        networks.update({network.id: network for network in told})
        try:
            self._keep(networks.values(), generation)
        except OSError as e:
            raise Unavailable(
                f"What it wants cannot be kept in {self._path.parent}: {e.strerror}.",
                fix="Make room there, or make it writable.",
            ) from e
        self.networks, self.generation = networks, generation

    def forget(self, network_id: UUID) -> bool:
        """Drop a network of which nothing is left; false if it was not known."""
        known = self.networks.pop(network_id, None)
        if known is not None:
            with suppress(OSError):  # another gateway finds nothing of it, and says so again
                self._keep(self.networks.values(), self.generation)
        return known is not None

    def _keep(self, networks: Iterable[DesiredNetwork], generation: int) -> None:
        # It holds CHAP secrets: for root alone.
        view = DesiredView(generation=generation, networks=tuple(networks))
        replace_file(self._path, view.model_dump_json(), mode=0o600)


def _read(path: Path) -> DesiredView:
    try:
        return DesiredView.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        # The control plane tells everything again; what runs goes on meanwhile.
        return DesiredView(generation=0, networks=())
