"""Target daemons in memory, one per network, with a simulated initiator and its live sessions."""

import ipaddress
import re
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from malleable.domain.errors import Refused, Unreachable
from malleable.domain.ids import NetworkId
from malleable.domain.ports import DiskHandle, Export, Session
from malleable.domain.secrets import Secret
from malleable.sim.faults import Faults

_PLAIN = re.compile(r"[A-Za-z0-9._:-]+", re.ASCII)


class LoginRefused(Exception):
    """The simulated daemon did not let the initiator in."""


class SessionLost(Exception):
    """The simulated session is no longer alive: I/O on it fails."""


@dataclass(slots=True)
class _Daemon:
    """One network's daemon. It keeps nothing over a stop but its last session number."""

    is_running: bool = True
    is_frozen: bool = False
    last_number: int = 0
    exports: dict[str, Export] = field(default_factory=dict)
    sessions: dict[str, list[Session]] = field(default_factory=dict)


class SimTargets:
    """``Targets`` without a network; every daemon runs at first. Knobs: ``faults``, ``stop``, ``start``, ``freeze``."""

    def __init__(self, *, faults: Faults | None = None) -> None:
        """Start with every network's daemon running and empty."""
        self.faults = faults or Faults()
        self._lock = threading.RLock()
        self._daemons: dict[NetworkId, _Daemon] = {}

    @contextmanager
    def _call(self, method: str, key: str) -> Iterator[None]:
        self.faults.before(method, key)
        with self._lock:
            yield
        self.faults.after(method, key)

    def _daemon(self, network_id: NetworkId) -> _Daemon:
        return self._daemons.setdefault(network_id, _Daemon())

    def _running(self, network_id: NetworkId) -> _Daemon:
        daemon = self._daemon(network_id)
        if not daemon.is_running:
            raise Unreachable(
                f"The target daemon of network {network_id} does not run.",
                code="portal-down",
                fix="Wait for the gateway to start it.",
            )
        if daemon.is_frozen:
            raise Unreachable(
                f"The target daemon of network {network_id} did not answer.", fix="Read the daemon's log."
            )
        return daemon

    def export(self, export: Export) -> None:
        """Do as ``Targets.export``."""
        with self._call("export", export.iqn):
            _refuse_nonsense(export)
            daemon = self._running(export.network_id)
            if daemon.exports.get(export.iqn) != export:
                daemon.sessions.pop(export.iqn, None)
                daemon.exports[export.iqn] = export

    def revoke(self, network_id: NetworkId, iqn: str) -> None:
        """Do as ``Targets.revoke``."""
        with self._call("revoke", iqn):
            daemon = self._daemon(network_id)
            if daemon.is_running:
                self._running(network_id)
            daemon.exports.pop(iqn, None)
            daemon.sessions.pop(iqn, None)

    def sessions(self, network_id: NetworkId, iqn: str) -> Sequence[Session]:
        """Do as ``Targets.sessions``."""
        with self._call("sessions", iqn):
            return tuple(self._running(network_id).sessions.get(iqn, ()))

    def list(self, network_id: NetworkId, daemons: Collection[int] | None = None) -> frozenset[str]:
        """Do as ``Targets.list``."""
        with self._call("list", str(network_id)):
            exports = self._running(network_id).exports.values()
            return frozenset(e.iqn for e in exports if daemons is None or not daemons_of(e).isdisjoint(daemons))

    def stop(self, network_id: NetworkId) -> None:
        """Kill a network's daemon: its targets and sessions are gone."""
        with self._lock:
            daemon = self._daemon(network_id)
            self._daemons[network_id] = _Daemon(is_running=False, last_number=daemon.last_number)

    def start(self, network_id: NetworkId) -> None:
        """Start a network's daemon, without any target."""
        with self._lock:
            self._daemon(network_id).is_running = True

    def freeze(self, network_id: NetworkId, *, is_frozen: bool = True) -> None:
        """Let a network's daemon hang, its targets and sessions kept; or let it go on."""
        with self._lock:
            self._daemon(network_id).is_frozen = is_frozen

    def restart(self, network_id: NetworkId) -> None:
        """Kill and start a network's daemon."""
        with self._lock:
            self.stop(network_id)
            self.start(network_id)

    def login(
        self,
        network_id: NetworkId,
        iqn: str,
        *,
        address: str,
        chap: tuple[str, Secret] | None,
        initiator_iqn: str = "iqn.2026-11.org.malleable:node:simulated",
        alias: str = "",
    ) -> Session:
        """Log in as a node does; another login does not end an earlier one.

        Errors: LoginRefused for no such target, a wrong address, or a wrong or missing account.
        """
        with self._lock:
            daemon = self._daemon(network_id)
            export = daemon.exports.get(iqn)
            if export is None or export.initiator_address != address:
                raise LoginRefused("Target not found.")
            if chap != (export.chap_username, export.chap_password):
                raise LoginRefused("Authentication failure.")
            daemon.last_number += 1
            session = Session(number=daemon.last_number, initiator_iqn=initiator_iqn, address=address, alias=alias)
            daemon.sessions.setdefault(iqn, []).append(session)
            return session

    def logout(self, network_id: NetworkId, iqn: str, session: Session) -> None:
        """End a session as a node does; nothing to do if it is gone."""
        with self._lock:
            sessions = self._daemon(network_id).sessions.get(iqn, [])
            if session in sessions:
                sessions.remove(session)

    def exported(self, network_id: NetworkId) -> tuple[Export, ...]:
        """Return all that a network's daemon was asked to present."""
        with self._lock:
            return tuple(self._daemon(network_id).exports.values())

    def reach(self, network_id: NetworkId, iqn: str, session: Session) -> DiskHandle:
        """Return the disk behind a live session, for I/O. Errors: SessionLost."""
        with self._lock:
            daemon = self._daemon(network_id)
            if session not in daemon.sessions.get(iqn, []):
                raise SessionLost(f"Session {session.number} is not alive.")
            return daemon.exports[iqn].handle


def daemons_of(export: Export) -> set[int]:
    """Name the daemons that know of an export."""
    return {export.daemon} | ({export.redirect.daemon} if export.redirect else set())


def _refuse_nonsense(export: Export) -> None:
    try:
        ipaddress.IPv4Address(export.initiator_address)
    except ValueError as e:
        raise Refused(f"{export.initiator_address!a} is not one IPv4 address.", code="bad-export") from e
    plain = (export.iqn, export.serial, export.chap_username, export.chap_password.reveal())
    if not all(_PLAIN.fullmatch(text) for text in plain) or not export.iqn.startswith("iqn."):
        raise Refused(
            "The export has an empty name or secret, or a character that targets cannot take.", code="bad-export"
        )
    if export.lun < 1 or not export.handle.path.startswith("/"):
        raise Refused("The export has no disk.", code="bad-export")
