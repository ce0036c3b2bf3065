"""The suite on every driver, and on drivers that are wrong."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.contract.targets import suite
from tests.contract.targets.conftest import Bench, sim_bench

from malleable.domain.errors import Busy, DriverError, Malformed, Refused, Unreachable
from malleable.domain.ids import NetworkId
from malleable.domain.ports import Export, Session
from malleable.domain.secrets import Secret
from malleable.sim.faults import FaultKind
from malleable.sim.targets import SimTargets

Rule = Callable[[Bench], None]


@pytest.mark.parametrize("rule", suite.RULES, ids=lambda rule: rule.__name__)
def test_driver_keeps_the_rule(rule: Rule, bench: Bench) -> None:
    rule(bench)


class Lenient(SimTargets):
    """Unbinds a target on revoke, and forgets its sessions."""

    def revoke(self, network_id: NetworkId, iqn: str) -> None:
        export = self._daemon(network_id).exports.get(iqn)
        if export is not None:
            self._daemon(network_id).exports[iqn] = replace(export, initiator_address="")

    def list(self, network_id: NetworkId) -> frozenset[str]:
        return frozenset(iqn for iqn, e in self._daemon(network_id).exports.items() if e.initiator_address)


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


class Hasty(SimTargets):
    """Takes a daemon that does not answer for an empty one."""

    def sessions(self, network_id: NetworkId, iqn: str) -> tuple[()]:
        return ()


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        (Lenient, suite.revoking_ends_live_sessions_at_once),
        (Open, suite.nobody_else_gets_in),
        (Restless, suite.exporting_again_disturbs_nobody),
        (Stubborn, suite.a_new_secret_shuts_out_the_old_one),
        (Hasty, suite.a_daemon_that_does_not_run_holds_nothing),
    ],
)
def test_wrong_driver_breaks_the_rule(wrong: type[SimTargets], rule: Rule) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        rule(sim_bench(wrong()))


@pytest.mark.parametrize(
    ("kind", "error", "is_made"),
    [
        (FaultKind.LOST_REQUEST, Unreachable, False),
        (FaultKind.LOST_REPLY, Unreachable, True),
        (FaultKind.BUSY, Busy, False),
        (FaultKind.REFUSED, Refused, False),
        (FaultKind.MALFORMED, Malformed, False),
    ],
)
def test_sim_fails_as_ordered(kind: FaultKind, error: type[DriverError], is_made: bool) -> None:
    targets = SimTargets()
    bench = sim_bench(targets)
    targets.faults.add("export", kind)
    with pytest.raises(error):
        bench.export()
    assert bool(targets.list(bench.network_id)) is is_made
    bench.login(bench.export())
