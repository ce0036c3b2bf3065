"""What the database itself makes impossible, and how it says so."""
# ruff: noqa: E501 (a table of cases reads best with one line each)

from collections.abc import Callable
from typing import Any

import pytest
from tests.contract.store import values
from tests.contract.store.values import Site

from malleable.domain.disks import DiskUse
from malleable.domain.errors import Conflict
from malleable.domain.ids import ProjectId, new_id
from malleable.domain.images import ImageState
from malleable.domain.networks import Channel
from malleable.domain.nodes import NodeState
from malleable.domain.operations import ACTIVE_STATES, OperationState
from malleable.domain.projects import Role
from malleable.domain.store import Transaction
from malleable.store import SqlStore


@pytest.fixture
def site(store: SqlStore) -> Site:
    with store.transaction() as tx:
        return Site(tx)


def refused(store: SqlStore, act: Callable[[Transaction], object]) -> Conflict:
    """Do it in a transaction of its own, which must be refused and leave nothing."""
    with pytest.raises(Conflict) as e, store.transaction() as tx:
        act(tx)
    return e.value


#: Each would break one rule: table, the value made from the site, and what the message says.
Case = tuple[str, Callable[[Site], Any], str]
DUPLICATES: dict[str, Case] = {
    "project name": ("projects", lambda s: values.project(name=s.project.name), "There is a project named {s.project.name} already."),
    "user name": ("users", lambda s: values.user(name=s.user.name), "There is a user named {s.user.name} already."),
    "node name": ("nodes", lambda s: values.node(name=s.node.name), "There is a node named {s.node.name} already."),
    "switch name": ("switches", lambda s: values.switch(name=s.switch.name), "There is a switch named {s.switch.name} already."),
    "port name": ("switch_ports", lambda s: values.port(s.switch, name=s.port.name), "There is a switch port named {s.port.name} already."),
    "membership": ("memberships", lambda s: values.membership(s.user, s.project), "There is a membership with this user and project already."),
    "token hash": ("tokens", lambda s: values.token(s.user, secret_sha256=s.token.secret_sha256), "There is a token with this secret_sha256 already."),
    "MAC": ("nics", lambda s: values.nic(s.node, mac=s.nic.mac), "The MAC address {s.nic.mac} belongs to {s.nic.name} of node {s.node.name}."),
    "NIC name": ("nics", lambda s: values.nic(s.node, name=s.nic.name), "Node {s.node.name} has a NIC named {s.nic.name} already."),
    "two NICs on one port": ("nics", lambda s: values.nic(s.node, switch_port_id=s.port.id), "Switch port {s.port.name} is wired to {s.nic.name} of node {s.node.name}."),
    "provider's network name": ("networks", lambda s: values.network(name=s.network.name), "There is a network named {s.network.name} already."),
    "network's VLAN": ("networks", lambda s: values.network(vid=s.network.vid), "VLAN {s.network.vid} of fabric main is taken by another network."),
    "VLAN": ("vlans", lambda s: values.vlan(s.vlan.vid), "There is a VLAN with this fabric and vid already."),
    "two VLANs of one network": ("vlans", lambda s: values.vlan(s.vlan.vid % 4094 + 1, network_id=s.network.id), "The network has VLAN {s.vlan.vid} of fabric main already."),
    "NIC twice on one network": ("attachments", lambda s: values.attachment(s.nic, s.network, channel=Channel.TAGGED), "The NIC is on this network already, native."),
    "reserved address": ("reservations", lambda s: values.reservation(s.network, address6="", mac="", hostname=""), "The address {s.reservation.address} is reserved for {s.reservation.name} in this network."),
    "reserved IPv6 address": ("reservations", lambda s: values.reservation(s.network, address="", mac="", hostname=""), "The address {s.reservation.address6} is reserved for {s.reservation.name} in this network."),
    "reserved MAC": ("reservations", lambda s: values.reservation(s.network, address="", address6="", hostname=""), "The MAC address {s.reservation.mac} is reserved for {s.reservation.name} in this network."),
    "reserved host name": ("reservations", lambda s: values.reservation(s.network, address="", address6="", mac=""), "The host name {s.reservation.hostname} is reserved for {s.reservation.name} in this network."),
    "permit": ("permits", lambda s: values.permit(s.reservation, s.attachment), "The node is permitted to use reservation {s.reservation.name} there already."),
    "reservation name": ("reservations", lambda s: values.reservation(s.network, name=s.reservation.name, address="", address6="", mac="", hostname=""), "There is a reservation named {s.reservation.name} already."),
    "golden image name": ("images", lambda s: values.image(name=s.image.name), "There is a image named {s.image.name} already."),
    "disk name": ("disks", lambda s: values.disk(s.project, s.image, name=s.disk.name), "There is a disk named {s.disk.name} already."),
    "two exports of one disk": ("targets", lambda s: values.target(s.disk, s.node, s.network, use=DiskUse.DATA), "The disk is in use on node {s.node.name}."),
    "seed of one node": ("seeds", lambda s: values.seed(s.node), "There is a seed with this node already."),
    "boot of one node": ("boots", lambda s: values.boot(s.attachment, s.target), "There is a boot intent with this node already."),
    "active operation": ("operations", lambda s: values.operation(node_id=s.node.id), "Node {s.node.name} is busy: provision is pending."),
}  # fmt: skip


@pytest.mark.parametrize(("table", "make", "says"), DUPLICATES.values(), ids=DUPLICATES.keys())
def test_nothing_is_taken_twice(
    store: SqlStore, site: Site, table: str, make: Callable[[Site], Any], says: str
) -> None:
    e = refused(store, lambda tx: getattr(tx, table).add(make(site)))
    assert e.message == says.format(s=site).replace("a image", "an image")
    with store.reading() as tx:
        assert getattr(tx, table).count() == 1


@pytest.mark.parametrize("name", ["rack1.n1", "rack1_n1", "rack1-n1"])
def test_no_two_nodes_are_called_the_same_in_dns(store: SqlStore, name: str) -> None:
    with store.transaction() as tx:
        tx.nodes.add(values.node(name="rack1.n1"))
        tx.nodes.add(values.node(name="rack1.n11"))
    e = refused(store, lambda tx: tx.nodes.add(values.node(name=name)))
    same, alike = "There is a node named rack1.n1 already.", f"{name} is called like node rack1.n1."
    assert (same if name == "rack1.n1" else alike) in e.message
    assert e.fix == "Choose another name."


def test_the_holder_is_told_in_details(store: SqlStore, site: Site) -> None:
    e = refused(store, lambda tx: tx.nics.add(values.nic(values.node(), mac=site.nic.mac)))
    assert e.details["node"] == site.node.name
    assert e.details["node_id"] == str(site.node.id)
    assert e.details["nic"] == site.nic.name
    e = refused(store, lambda tx: tx.operations.add(values.operation(node_id=site.node.id)))
    assert e.details["operation_id"] == str(site.operation.id)
    assert e.details["operation"] == site.operation.kind
    assert e.fix
    e = refused(store, lambda tx: tx.nodes.add(values.node(name=site.node.name)))
    assert e.details["node_id"] == str(site.node.id)
    e = refused(store, lambda tx: tx.targets.add(values.target(site.disk, site.node, site.network, use=DiskUse.DATA)))
    assert e.details["node"] == site.node.name


def test_a_change_breaks_no_rule_either(store: SqlStore, site: Site) -> None:
    other, loose = values.node(), values.nic(site.node)
    with store.transaction() as tx:
        tx.nodes.add(other)
        tx.nics.add(loose)
    e = refused(store, lambda tx: tx.nodes.change(other.id, name=site.node.name))
    assert e.details["node_id"] == str(site.node.id)
    e = refused(store, lambda tx: tx.nics.change(loose.id, switch_port_id=site.port.id))
    assert (e.details["nic"], e.details["switch_port"]) == (site.nic.name, site.port.name)
    e = refused(store, lambda tx: tx.nics.change(loose.id, name=site.nic.name))
    assert e.message == f"Node {site.node.name} has a NIC named {site.nic.name} already."


def test_one_native_network_per_nic_and_any_number_tagged(store: SqlStore, site: Site) -> None:
    second, third = values.network(), values.network()
    with store.transaction() as tx:
        tx.networks.add(second)
        tx.networks.add(third)
        tx.attachments.add(values.attachment(site.nic, second, channel=Channel.TAGGED))
        tx.attachments.add(values.attachment(site.nic, third, channel=Channel.TAGGED))
    fourth = values.network()
    with store.transaction() as tx:
        tx.networks.add(fourth)
    e = refused(store, lambda tx: tx.attachments.add(values.attachment(site.nic, fourth)))
    assert e.message == f"The NIC carries network {site.network.name} natively."
    assert e.details["network_id"] == str(site.network.id)


def test_one_address_per_network(store: SqlStore, site: Site) -> None:
    address = site.attachment.address
    other, network = values.nic(site.node), values.network()
    with store.transaction() as tx:
        tx.nics.add(other)
        tx.networks.add(network)
        tx.attachments.add(values.attachment(other, network, address=address))
    e = refused(
        store,
        lambda tx: tx.attachments.add(values.attachment(other, site.network, address=address, channel=Channel.TAGGED)),
    )
    assert e.message == (f"The address {address} belongs to {site.nic.name} of node {site.node.name} in this network.")


def test_names_are_unique_per_project_only(store: SqlStore, site: Site) -> None:
    other = values.project()
    with store.transaction() as tx:
        tx.projects.add(other)
        for owner in (site.project.id, other.id):
            tx.networks.add(values.network(name=site.network.name, project_id=owner))
            tx.images.add(values.image(name=site.image.name, project_id=owner, state=ImageState.FAILED))
        tx.disks.add(values.disk(other, site.image, name=site.disk.name))
    e = refused(store, lambda tx: tx.images.add(values.image(name=site.image.name, project_id=other.id)))
    assert e.message == f"There is an image named {site.image.name} already."
    e = refused(store, lambda tx: tx.networks.add(values.network(name=site.network.name, project_id=other.id)))
    assert e.message == f"There is a network named {site.network.name} already."


def test_ended_operations_leave_their_node_to_the_next(store: SqlStore) -> None:
    node = values.node()
    node_id = node.id
    with store.transaction() as tx:
        tx.nodes.add(node)
    for state in OperationState:
        if state not in ACTIVE_STATES:
            with store.transaction() as tx:
                tx.operations.add(values.operation(node_id=node_id, state=state))
    for state in sorted(ACTIVE_STATES):
        operation = values.operation(node_id=node_id, state=state)
        with store.transaction() as tx:
            tx.operations.add(operation)
        e = refused(store, lambda tx: tx.operations.add(values.operation(node_id=node_id)))
        assert e.details["operation_state"] == state
        assert f"`m2 operation watch {node.name}`" in e.fix
        with store.transaction() as tx:
            tx.operations.change(operation.id, state=OperationState.SUCCEEDED)
            tx.operations.add(values.operation(node_id=None))


HELD = (NodeState.ALLOCATED, NodeState.RELEASING)


@pytest.mark.parametrize("state", NodeState)
def test_a_node_has_a_holder_exactly_when_it_is_held(store: SqlStore, site: Site, state: NodeState) -> None:
    nobody, somebody = values.node(state=state), values.node(state=state, project_id=site.project.id)
    if state in HELD:
        assert "needs a project" in refused(store, lambda tx: tx.nodes.add(nobody)).message
    else:
        with store.transaction() as tx:
            tx.nodes.add(nobody)
    if state in (*HELD, NodeState.QUARANTINED):
        with store.transaction() as tx:
            tx.nodes.add(somebody)
    else:
        assert "can be held" in refused(store, lambda tx: tx.nodes.add(somebody)).message


@pytest.mark.parametrize("vid", [0, -1, 4095, 4096])
def test_vlans_are_from_1_to_4094(store: SqlStore, vid: int) -> None:
    assert "from 1 to 4094" in refused(store, lambda tx: tx.vlans.add(values.vlan(vid))).message
    assert "from 1 to 4094" in refused(store, lambda tx: tx.networks.add(values.network(vid=vid))).message


def test_roles_stay_in_their_place(store: SqlStore, site: Site) -> None:
    refused(store, lambda tx: tx.users.add(values.user(site_role=Role.READER)))
    refused(store, lambda tx: tx.memberships.change(site.membership.id, role=Role.ADMIN))


#: What still needs each row of the site.
USED_BY = {
    "projects": {"membership": 1, "token": 1, "disk": 1, "snapshot": 1},
    "users": {"membership": 1, "token": 1},
    "nodes": {"NIC": 1, "target": 1, "boot intent": 1, "seed": 1, "console writer": 1},
    "switches": {"switch port": 1},
    "switch_ports": {"NIC": 1},
    "nics": {"attachment": 1},
    "networks": {"VLAN": 1, "attachment": 1, "reservation": 1, "target": 1, "boot intent": 1},
    "attachments": {"boot intent": 1},
    "images": {"disk": 1, "snapshot": 1},
    "disks": {"target": 1},
    "targets": {"boot intent": 1},
}


@pytest.mark.parametrize("table", USED_BY)
def test_what_is_used_cannot_be_removed(store: SqlStore, site: Site, table: str) -> None:
    value = getattr(site, values.TABLES[table])
    e = refused(store, lambda tx: getattr(tx, table).remove(value.id))
    assert e.details["used_by"] == USED_BY[table]
    assert "is still used by 1 " in e.message
    with store.reading() as tx:
        assert getattr(tx, table).get(value.id) == value


def test_nothing_points_to_what_is_not_there(store: SqlStore, site: Site) -> None:
    gone = values.node()
    e = refused(store, lambda tx: tx.nics.add(values.nic(gone)))
    assert e.message == f"The node {gone.id} does not exist any more."
    e = refused(store, lambda tx: tx.images.change(site.image.id, project_id=ProjectId(new_id())))
    assert e.message.startswith("The project ")
    with pytest.raises(Conflict, match="a network that does not exist"), store.transaction() as tx:
        tx.vlans.add(values.vlan(17, network_id=values.network().id))


def test_operations_and_events_outlive_what_they_tell_of(store: SqlStore) -> None:
    node, project = values.node(), values.project()
    operation = values.operation(node_id=node.id, project_id=project.id)
    with store.transaction() as tx:
        tx.nodes.add(node)
        tx.projects.add(project)
        tx.operations.add(operation)
        tx.events.append(values.event(node_id=node.id, project_id=project.id, operation_id=operation.id))
    with store.transaction() as tx:
        tx.nodes.remove(node.id)
        tx.projects.remove(project.id)
    with store.reading() as tx:
        assert tx.operations.get(operation.id) == operation
        assert len(tx.events.chain(f"node:{node.id}", 0, 10)) == 1


def test_a_conflict_ends_the_transaction_on_both_databases(store: SqlStore, site: Site) -> None:
    kept = values.project()

    def swallow_it() -> None:
        with store.transaction() as tx:
            tx.projects.add(kept)
            with pytest.raises(Conflict):
                tx.projects.add(values.project(name=site.project.name))
            with pytest.raises(RuntimeError, match="rolled back"):
                tx.projects.count()

    with pytest.raises(RuntimeError, match="left as if all were well"):
        swallow_it()
    with store.transaction() as tx:
        assert tx.projects.find(id=kept.id) is None
        tx.projects.add(kept)


def test_a_holder_that_is_only_in_the_same_transaction_is_not_named(store: SqlStore) -> None:
    node = values.node()

    def add_both(tx: Transaction) -> None:
        tx.nodes.add(node)
        tx.nodes.add(values.node(name=node.name))

    e = refused(store, add_both)
    assert e.message == f"There is a node named {node.name} already."
    assert "node_id" not in e.details
