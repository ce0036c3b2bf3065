"""No project gets more than its quota: real processes ask for everything at once, on both databases."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.contract.store import values
from tests.contract.store.crowd import told_by
from tests.contract.store.quota_contender import ASKS, IMAGE, NETWORK, PROJECT, SOURCE, contend, meet

from malleable.domain.nodes import NodeState
from malleable.domain.projects import Holdings, Quota
from malleable.store import SqlStore

PROCESSES = 4
TRIES = 8  #: of each process, for each thing
MEETINGS = 60  #: of all processes, for one last disk
#: So many that askers at once seldom want the same.
NODES = 60


def test_many_processes_take_as_much_as_the_quota_and_no_more(store: SqlStore, store_url: str, tmp_path: Path) -> None:
    _furnish(store, Quota(nodes=5, networks=9, snapshots=7, images=8))
    results = _contended(store_url, tmp_path)
    has = _holdings(store)
    assert (has.nodes, has.networks, has.snapshots, has.images) == (5, 9, 7, 8)
    # A refused provision leaves no disk, no boot intent and no held node.
    assert has.disks == 1 + PROCESSES * TRIES + has.nodes
    with store.reading() as tx:
        assert tx.boots.count() == NODES - tx.nodes.count(state=NodeState.FREE) == has.nodes
    ends = {f"{ask} {end}" for ask in ASKS for end in ("done", "quota-exceeded")}
    assert set(results) == ends - {"disk quota-exceeded"}, "nobody was busy"


def test_what_several_verbs_take_has_one_limit(store: SqlStore, store_url: str, tmp_path: Path) -> None:
    _furnish(store, Quota(disk_bytes=20_500))
    results = _contended(store_url, tmp_path)
    has = _holdings(store)
    assert has.disk_bytes == 20 * 1024, "everything has 1024 bytes"
    assert has.disks == 1 + results["disk done"] + results["provision done"]
    assert (has.nodes, has.snapshots) == (results["provision done"], results["snapshot done"])
    assert results["image done"] == results["network done"] == PROCESSES * TRIES, "what has no limit is not refused"
    assert {end.split()[1] for end in results} == {"done", "quota-exceeded"}, "nobody was busy"


def test_of_processes_that_ask_at_the_same_moment_one_gets_the_last_disk(
    store: SqlStore, store_url: str, tmp_path: Path
) -> None:
    projects, image = [values.project(quota=Quota(disks=1)) for _ in range(MEETINGS)], values.image(name=IMAGE)
    with store.transaction() as tx:
        tx.images.add(image)
        for project in projects:
            tx.projects.add(project)
    results = _run(meet, store_url, tmp_path, [project.name for project in projects])
    with store.reading() as tx:
        assert [tx.disks.count(project_id=project.id) for project in projects] == [1] * MEETINGS
    assert results == {"done": MEETINGS, "quota-exceeded": MEETINGS * (PROCESSES - 1)}


def _furnish(store: SqlStore, quota: Quota) -> None:
    """Make a project with a network and a disk, and a room with more of everything than it may have."""
    project, image, switch = values.project(name=PROJECT, quota=quota), values.image(size_bytes=1024), values.switch()
    with store.transaction() as tx:
        tx.projects.add(project)
        tx.images.add(image)
        tx.images.change(image.id, name=IMAGE)
        tx.switches.add(switch)
        for number in range(NODES):
            node, port = values.node(firmware=None), values.port(switch, name=f"p{number}")
            tx.nodes.add(node)
            tx.switch_ports.add(port)
            tx.nics.add(values.nic(node, switch_port_id=port.id))
        network = values.network(name=NETWORK, project_id=project.id, vid=1)
        tx.networks.add(network)
        tx.vlans.add(values.vlan(1, network_id=network.id))
        for vid in range(2, 2 + PROCESSES * TRIES):
            tx.vlans.add(values.vlan(vid))
        tx.disks.add(values.disk(project, image, name=SOURCE, size_bytes=1024))


def _holdings(store: SqlStore) -> Holdings:
    with store.reading() as tx:
        project = tx.projects.find(name=PROJECT)
        assert project is not None
        return tx.projects.holdings(project.id)


def _contended(url: str, spool: Path) -> Counter[str]:
    return _run(contend, url, spool, TRIES)


def _run(what: Callable[..., None], url: str, spool: Path, how: object) -> Counter[str]:
    """Run it in several processes at once; add up what came of it."""
    return sum(told_by(what, [(url, spool, how)] * PROCESSES), Counter[str]())
