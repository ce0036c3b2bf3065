"""Processes permit, deny, attach, detach and free the same nodes: none uses an address that it has no right to."""

from collections import Counter
from pathlib import Path

from tests.contract.store import values
from tests.contract.store.crowd import told_by
from tests.contract.store.permit_contender import contend
from tests.contract.store.watcher import Watcher, deadlocks_of

from malleable.domain.addressing import Addressing
from malleable.domain.ids import GrantId, new_id
from malleable.domain.networks import AddressGuard, Grant, GrantState
from malleable.domain.nodes import NodeState
from malleable.domain.operations import OperationState
from malleable.domain.projects import Project
from malleable.domain.switches import SHUT, PortState
from malleable.store import SqlStore

PROCESSES = 4
NODES = 6
VID = 100
_WHOSE = """
    FROM permits t JOIN reservations r ON r.id = t.reservation_id JOIN networks w ON w.id = r.network_id
    JOIN attachments a ON a.id = t.attachment_id JOIN nics c ON c.id = a.nic_id JOIN nodes n ON n.id = c.node_id"""
#: What a port lets its node use of what is reserved, whether that is wanted or known.
_LETS = """
    switch_ports p, regexp_matches(p.wanted::text || coalesce(p.observed::text, ''), '10[.]0[.]0[.]2[0-9]{2}', 'g') m"""
NEVER = {
    "a permit elsewhere than in its reservation's net": f"SELECT r.name {_WHOSE} WHERE a.network_id <> r.network_id",
    "a permit of a node that nobody holds": f"SELECT n.name {_WHOSE} WHERE n.project_id IS NULL OR n.state = 'free'",
    "a permit for a project that the reservation is not for": f"""
        SELECT n.name || ' ' || r.name {_WHOSE} WHERE n.project_id <> coalesce(r.project_id, w.project_id)
        AND (r.name LIKE 'own%' OR r.project_id IS NOT NULL)""",
    "a port that lets its node use an address that it was not permitted to": f"""
        SELECT p.name || ' ' || m[1] FROM {_LETS} WHERE NOT EXISTS (
            SELECT FROM nics c JOIN attachments a ON a.nic_id = c.id JOIN permits t ON t.attachment_id = a.id
            JOIN reservations r ON r.id = t.reservation_id WHERE c.switch_port_id = p.id AND r.address = m[1])""",
}


def test_no_node_uses_an_address_that_it_has_no_right_to(
    postgres_store: SqlStore, postgres_url: str, tmp_path: Path
) -> None:
    projects = [values.project(name="owner"), values.project(name="guest")]
    _furnish(postgres_store, projects)
    deadlocks = deadlocks_of(postgres_url)
    each = [(postgres_url, projects[seed % 2].id, tmp_path, seed) for seed in range(PROCESSES)]
    with Watcher(postgres_url, NEVER) as watcher:
        counts = sum(told_by(contend, each), Counter[str]())
    print(f"{watcher.looks} looks, {dict(counts)}")
    assert watcher.found == []
    assert watcher.looks > 100
    assert deadlocks_of(postgres_url) == deadlocks
    for verb in ("take", "attach", "detach", "free", "reserve", "unreserve", "permit", "deny", "guard"):
        assert counts[verb] >= 5, counts
    with postgres_store.reading() as tx:
        assert {node.state for node in tx.nodes.list()} == {NodeState.FREE}
        assert (tx.attachments.count(), tx.permits.count()) == (0, 0), "a permit goes with its attachment"
        ends = {operation.state for operation in tx.operations.list()}
    assert ends == {OperationState.SUCCEEDED}


def _furnish(store: SqlStore, projects: list[Project]) -> None:
    """Make a network of the first project that the second may use, and nodes of nobody's."""
    owner, guest = projects
    switch = values.switch()
    network = values.network(
        project_id=owner.id,
        vid=VID,
        addressing=Addressing(ranges=("10.0.0.20-10.0.0.99",)),
        address_guard=AddressGuard.ON,
    )
    grant = Grant(
        id=GrantId(new_id()),
        network_id=network.id,
        project_id=guest.id,
        state=GrantState.ACCEPTED,
        created_at=values.NOW,
    )
    with store.transaction() as tx:
        for project in projects:
            tx.projects.add(project)
        tx.switches.add(switch)
        tx.networks.add(network)
        tx.grants.add(grant)
        tx.vlans.add(values.vlan(VID, network_id=network.id))
        for _ in range(NODES):
            node = values.node(bmc_system="")
            port = values.port(switch, wanted=SHUT, observed=SHUT, state=PortState.SETTLED)
            tx.nodes.add(node)
            tx.switch_ports.add(port)
            tx.nics.add(values.nic(node, switch_port_id=port.id))
