"""Double-selling is impossible: real processes fight for nodes and VLANs on PostgreSQL."""

from pathlib import Path

from tests.contract.store import values
from tests.contract.store.contender import Account, contend
from tests.contract.store.crowd import told_by

from malleable.domain.nodes import NodeState
from malleable.store import SqlStore

PROCESSES = 8
ACTIONS = 400  #: of each process
THINGS = 20  #: nodes, and VLANs


def test_nothing_is_sold_twice_under_contention(postgres_store: SqlStore, postgres_url: str, tmp_path: Path) -> None:
    projects = [values.project() for _ in range(PROCESSES)]
    with postgres_store.transaction() as tx:
        for project in projects:
            tx.projects.add(project)
        for number in range(THINGS):
            tx.nodes.add(values.node())
            tx.vlans.add(values.vlan(100 + number))
    each = [(postgres_url, project.id, tmp_path, ACTIONS) for project in projects]
    results: list[Account] = told_by(contend, each)
    assert [name for account in results for name in account.sold_twice] == []
    totals = {name: sum(getattr(account, name) for account in results) for name in ("attempts", "won", "refused")}
    print(totals)
    assert totals["attempts"] > 2000
    assert totals["won"] > 200
    assert totals["refused"] > 200
    assert sum(account.told_who for account in results) == totals["refused"], "every loser is told who holds it"
    assert sum(account.busy for account in results) == 0, "and nobody waited in a circle"
    with postgres_store.reading() as tx:
        for account in results:
            assert {node.id for node in tx.nodes.list(project_id=account.project_id)} == set(account.nodes)
            networks = tx.networks.list(project_id=account.project_id)
            assert {network.id: network.vid for network in networks} == account.networks
        assert tx.nodes.count(state=NodeState.FREE) == THINGS - sum(len(account.nodes) for account in results)
        assert tx.vlans.count(network_id=None) == THINGS - sum(len(account.networks) for account in results)
