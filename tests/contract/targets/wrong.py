"""Target drivers that are wrong, each in one thing: the rule that it breaks must find it out."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from tests.contract.targets import suite
from tests.contract.targets.conftest import Bench

from malleable.domain.errors import Refused
from malleable.domain.ids import NetworkId, new_id
from malleable.domain.ports import DiskHandle, Export, Session
from malleable.domain.secrets import Secret
from malleable.sim.targets import SimTargets, _Daemon


class Idle(SimTargets):
    """Presents nothing."""

    def export(self, export: Export) -> None:
        self._daemon(export.network_id)


class Crossed(SimTargets):
    """Presents the first disk for every other."""

    def export(self, export: Export) -> None:
        first = next(iter(self._daemon(export.network_id).exports.values()), export)
        super().export(replace(export, handle=first.handle))


class Open(SimTargets):
    """Asks for no account."""

    def login(
        self,
        network_id: NetworkId,
        iqn: str,
        *,
        address: str,
        chap: tuple[str, Secret] | None,
        initiator_iqn: str = "iqn.2026-11.org.malleable:node:any",
        alias: str = "",
    ) -> Session:
        export = self._daemon(network_id).exports[iqn]
        chap = (export.chap_username, export.chap_password)
        return super().login(network_id, iqn, address=address, chap=chap, initiator_iqn=initiator_iqn, alias=alias)


class Common(SimTargets):
    """Has one daemon for all networks."""

    ALL: ClassVar = NetworkId(new_id())

    def _daemon(self, network_id: NetworkId) -> _Daemon:
        return super()._daemon(self.ALL)


class Restless(SimTargets):
    """Makes a target anew at every call."""

    def export(self, export: Export) -> None:
        super().export(export)
        self._daemon(export.network_id).sessions.pop(export.iqn, None)


class Stubborn(SimTargets):
    """Keeps the first secret."""

    def export(self, export: Export) -> None:
        known = self._daemon(export.network_id).exports.get(export.iqn)
        super().export(replace(export, chap_password=known.chap_password) if known else export)


class Settled(SimTargets):
    """Keeps the first address."""

    def export(self, export: Export) -> None:
        known = self._daemon(export.network_id).exports.get(export.iqn)
        super().export(replace(export, initiator_address=known.initiator_address) if known else export)


class Lenient(SimTargets):
    """Closes a target on revoke, and forgets its sessions."""

    def revoke(self, network_id: NetworkId, iqn: str) -> None:
        export = self._daemon(network_id).exports.get(iqn)
        if export is not None:
            self._daemon(network_id).exports[iqn] = replace(export, initiator_address="")

    def list(self, network_id: NetworkId, daemons: Collection[int] | None = None) -> frozenset[str]:
        return frozenset(iqn for iqn, e in self._daemon(network_id).exports.items() if e.initiator_address)


class Sweeping(SimTargets):
    """Ends every session on revoke."""

    def revoke(self, network_id: NetworkId, iqn: str) -> None:
        super().revoke(network_id, iqn)
        self._daemon(network_id).sessions.clear()


class Strict(SimTargets):
    """Refuses to revoke what is not there."""

    def revoke(self, network_id: NetworkId, iqn: str) -> None:
        if iqn not in self._daemon(network_id).exports:
            raise Refused(f"There is no target {iqn}.")
        super().revoke(network_id, iqn)


class Apart(SimTargets):
    """Gives every target a layer of its own over the disk."""

    def reach(self, network_id: NetworkId, iqn: str, session: Session) -> DiskHandle:
        return DiskHandle(path=super().reach(network_id, iqn, session).path + iqn)


class Backwards(SimTargets):
    """Tells the last login first."""

    def sessions(self, network_id: NetworkId, iqn: str) -> Sequence[Session]:
        return tuple(reversed(super().sessions(network_id, iqn)))


class Terse(SimTargets):
    """Lists two targets at most."""

    def list(self, network_id: NetworkId, daemons: Collection[int] | None = None) -> frozenset[str]:
        return frozenset(sorted(super().list(network_id))[:2])


class Hasty(SimTargets):
    """Takes a daemon that does not answer for an empty one."""

    def sessions(self, network_id: NetworkId, iqn: str) -> tuple[()]:
        return ()


class Trusting(SimTargets):
    """Remembers what it presented, and asks no daemon."""

    def __init__(self) -> None:
        super().__init__()
        self._made: list[Export] = []

    def export(self, export: Export) -> None:
        if export not in self._made:
            super().export(export)
            self._made.append(export)


class Forgetful(SimTargets):
    """Keeps what is written in memory, and acknowledges flushes all the same."""

    life = 0

    def stop(self, network_id: NetworkId) -> None:
        super().stop(network_id)
        self.life += 1

    def reach(self, network_id: NetworkId, iqn: str, session: Session) -> DiskHandle:
        return DiskHandle(path=f"{super().reach(network_id, iqn, session).path}#{self.life}")


class Narrow(SimTargets):
    """Drops its oldest target for the 1,000th."""

    def export(self, export: Export) -> None:
        super().export(export)
        exports = self._daemon(export.network_id).exports
        if len(exports) == 1000:
            del exports[next(iter(exports))]


class Polite(SimTargets):
    """Does nothing about an export that makes no sense."""

    def export(self, export: Export) -> None:
        try:
            super().export(export)
        except Refused:
            return


WRONG: Mapping[Callable[[Bench], None], type[SimTargets]] = {
    suite.the_right_node_reads_and_writes: Idle,
    suite.every_byte_is_the_disks_own: Crossed,
    suite.nobody_else_gets_in: Open,
    suite.the_right_secret_opens_nothing_in_another_tenants_network: Common,
    suite.exporting_again_disturbs_nobody: Restless,
    suite.a_new_secret_shuts_out_the_old_one: Stubborn,
    suite.a_new_address_shuts_out_the_old_one: Settled,
    suite.revoking_ends_live_sessions_at_once: Lenient,
    suite.revoking_ends_io_under_way: Lenient,
    suite.revoking_spares_the_others: Sweeping,
    suite.revoking_is_done_once_or_many_times: Strict,
    suite.a_disk_moves_to_another_target_with_its_bytes: Apart,
    suite.sessions_are_told_apart_by_growing_numbers: Backwards,
    suite.all_targets_are_listed: Terse,
    suite.a_daemon_that_does_not_run_holds_nothing: Hasty,
    suite.a_daemon_that_lost_everything_is_filled_again: Trusting,
    suite.what_was_flushed_outlives_the_daemon: Forgetful,
    suite.many_disks_are_presented_at_once: Narrow,
    suite.an_export_to_everybody_is_refused: Polite,
}
