"""Many processes connect, detach and free the same nodes and networks: no VLAN is shared, no free node attached."""

from collections import Counter
from pathlib import Path

from tests.contract.store import values
from tests.contract.store.crowd import told_by
from tests.contract.store.release_contender import FABRIC, contend
from tests.contract.store.watcher import Watcher, deadlocks_of

from malleable.domain.nodes import NodeState
from malleable.domain.operations import OperationState
from malleable.domain.switches import SHUT, PortState
from malleable.store import SqlStore

PROCESSES = 4
ACTIONS = 120  #: of each process
NODES = 6
#: Each rests for a minute of its taker's time, and is another's then.
VLANS = range(100, 116)
#: Each is one statement, so it sees one moment. Whatever it finds must never be.
NEVER = {
    "a free node with an attachment": """
        SELECT n.name FROM nodes n JOIN nics c ON c.node_id = n.id JOIN attachments a ON a.nic_id = c.id
        WHERE n.state = 'free'""",
    "a free node with a port that is not proven": """
        SELECT n.name FROM nodes n JOIN nics c ON c.node_id = n.id JOIN switch_ports p ON p.id = c.switch_port_id
        WHERE n.state = 'free' AND p.state <> 'settled'""",
    "two networks on one VLAN": "SELECT vid FROM networks GROUP BY fabric, vid HAVING count(*) > 1",
    "a network on a VLAN that is not its own": """
        SELECT n.name FROM networks n LEFT JOIN vlans v ON v.network_id = n.id WHERE v.vid IS DISTINCT FROM n.vid""",
    "a node on a network of somebody else": """
        SELECT n.name FROM nodes n JOIN nics c ON c.node_id = n.id JOIN attachments a ON a.nic_id = c.id
        JOIN networks w ON w.id = a.network_id WHERE w.project_id IS DISTINCT FROM n.project_id""",
}


def test_no_vlan_is_shared_and_no_node_freed_while_attached(
    postgres_store: SqlStore, postgres_url: str, tmp_path: Path
) -> None:
    projects = [values.project() for _ in range(PROCESSES)]
    switch = values.switch()
    with postgres_store.transaction() as tx:
        for project in projects:
            tx.projects.add(project)
        tx.switches.add(switch)
        for _ in range(NODES):
            node = values.node(bmc_system="")
            port = values.port(switch, wanted=SHUT, observed=SHUT, state=PortState.SETTLED)
            tx.nodes.add(node)
            tx.switch_ports.add(port)
            tx.nics.add(values.nic(node, switch_port_id=port.id))
        for vid in VLANS:
            tx.vlans.add(values.vlan(vid, fabric=FABRIC))
    deadlocks = deadlocks_of(postgres_url)
    each = [(postgres_url, project.id, tmp_path, ACTIONS) for project in projects]
    with Watcher(postgres_url, NEVER) as watcher:
        counts = sum(told_by(contend, each), Counter[str]())
    print(f"{watcher.looks} looks, {dict(counts)}")
    assert watcher.found == []
    assert [end for end in counts if end.startswith("sold twice")] == []
    assert watcher.looks > 100
    assert deadlocks_of(postgres_url) == deadlocks
    for verb in ("take", "make", "drop", "attach", "detach", "free"):
        assert counts[verb] >= 10, counts
    with postgres_store.reading() as tx:
        assert {node.state for node in tx.nodes.list()} == {NodeState.FREE}, "whoever gives back is rid of it"
        assert (tx.attachments.count(), tx.networks.count()) == (0, 0)
        ends = {operation.state for operation in tx.operations.list()}
    assert ends == {OperationState.SUCCEEDED}
