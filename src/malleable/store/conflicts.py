"""Broken constraints in words: what is taken, and by whom.

The transaction is rolled back by then; who stands in the way is read afterwards from what others have committed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Index, Select, Table, UniqueConstraint, and_, bindparam, func, select
from sqlalchemy.exc import IntegrityError

from malleable.domain.errors import Conflict, Public
from malleable.domain.operations import ACTIVE_STATES
from malleable.store import schema as s
from malleable.store.records import Record
from malleable.store.session import Session

Facts = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """How to tell of one unique constraint. Fields of the refused value and facts of the holder fill the braces."""

    plain: str  #: when the holder is gone again
    held: str  #: when the holder was found
    holder: Select[Any]  #: reads facts of the holder; parameters are fields of the refused value
    fix: str = ""
    held_fix: str = ""  #: instead, when the holder was found
    public: Public | None = None  #: for tenants, where the words are about the room
    includes: str = ""  #: the rule that is broken as well where no holder is found: which is told first is chance


def _given(column: Any, name: str) -> Any:
    return column == bindparam(name, type_=column.type)


_NO_NETWORK = Public("The network could not be made.", "Try again.")
_NIC_AND_NODE = (
    select(s.nics.c.id.label("nic_id"), s.nics.c.name.label("nic"), s.nodes.c.id.label("node_id"))
    .add_columns(s.nodes.c.name.label("node"))
    .join_from(s.nics, s.nodes)
)


def _dns_name(name: Any) -> Any:
    """Write a name as ``domain.nodes.dns_name`` does, and the unique index."""
    return func.replace(func.replace(name, ".", "-"), "_", "-")


_TAKEN = {
    "uq_nodes_dns_name": Taken(
        plain="Another node is called like {name} in DNS, where dots and underscores are hyphens.",
        held="In DNS, where dots and underscores are hyphens, {name} is called like node {node}.",
        includes="uq_nodes_name",
        holder=select(s.nodes.c.id.label("node_id"), s.nodes.c.name.label("node")).where(
            _dns_name(s.nodes.c.name) == _dns_name(bindparam("name", type_=s.nodes.c.name.type)),
            s.nodes.c.name != bindparam("name", type_=s.nodes.c.name.type),
        ),
        fix="Choose another name.",
    ),
    "uq_nics_mac": Taken(
        plain="The MAC address {mac} is taken by another NIC.",
        held="The MAC address {mac} belongs to {nic} of node {node}.",
        holder=_NIC_AND_NODE.where(_given(s.nics.c.mac, "mac")),
        fix="Remove that NIC or node first, or check which machine this is.",
    ),
    "uq_nics_node_id_name": Taken(
        plain="The node has another NIC named {name}.",
        held="Node {node} has a NIC named {name} already.",
        holder=_NIC_AND_NODE.where(_given(s.nics.c.node_id, "node_id"), _given(s.nics.c.name, "name")),
    ),
    "uq_nics_switch_port_id": Taken(
        plain="The switch port is wired to another NIC.",
        held="Switch port {switch_port} is wired to {nic} of node {node}.",
        holder=_NIC_AND_NODE.add_columns(s.switch_ports.c.name.label("switch_port"))
        .join(s.switch_ports, s.nics.c.switch_port_id == s.switch_ports.c.id)
        .where(_given(s.nics.c.switch_port_id, "switch_port_id")),
        fix="Unwire that NIC first, or name the right port.",
    ),
    "uq_operations_active_node": Taken(
        plain="The node is busy with another operation.",
        held="Node {node} is busy: {operation} is {operation_state}.",
        holder=select(
            s.operations.c.id.label("operation_id"),
            s.operations.c.kind.label("operation"),
            s.operations.c.state.label("operation_state"),
            s.nodes.c.name.label("node"),
        )
        .join_from(s.operations, s.nodes, s.operations.c.node_id == s.nodes.c.id)
        .where(_given(s.operations.c.node_id, "node_id"), s.operations.c.state.in_(sorted(ACTIVE_STATES))),
        fix="Wait for its end (`m2 operation watch NODE`), or cancel it (`m2 operation cancel NODE`).",
        held_fix="Wait for its end (`m2 operation watch {node}`), or cancel it (`m2 operation cancel {node}`).",
    ),
    "uq_targets_disk_id": Taken(
        plain="The disk is in use on another node.",
        held="The disk is in use on node {node}.",
        holder=select(s.targets.c.id.label("target_id"), s.nodes.c.id.label("node_id"), s.nodes.c.name.label("node"))
        .join_from(s.targets, s.nodes)
        .where(_given(s.targets.c.disk_id, "disk_id")),
        fix="Release that node or move the disk.",
    ),
    "uq_targets_node_id_boot": Taken(
        plain="The node boots another disk.",
        held="The node boots disk {disk} already.",
        holder=select(s.targets.c.id.label("target_id"), s.disks.c.name.label("disk"))
        .join_from(s.targets, s.disks)
        .where(_given(s.targets.c.node_id, "node_id"), s.targets.c.use == "boot"),
        fix="Stop the node first, or attach the disk for data.",
    ),
    "uq_attachments_native": Taken(
        plain="The NIC has another native network.",
        held="The NIC carries network {network} natively.",
        holder=select(s.networks.c.id.label("network_id"), s.networks.c.name.label("network"))
        .join_from(s.attachments, s.networks)
        .where(_given(s.attachments.c.nic_id, "nic_id"), s.attachments.c.channel == "native"),
        fix="Attach this network tagged, or detach the other one first.",
    ),
    "uq_attachments_nic_id_network_id": Taken(
        plain="The NIC is on this network already.",
        held="The NIC is on this network already, {channel}.",
        holder=select(s.attachments.c.id.label("attachment_id"), s.attachments.c.channel).where(
            _given(s.attachments.c.nic_id, "nic_id"), _given(s.attachments.c.network_id, "network_id")
        ),
    ),
    "uq_attachments_network_id_address": Taken(
        plain="The address {address} is taken in this network.",
        held="The address {address} belongs to {nic} of node {node} in this network.",
        holder=_NIC_AND_NODE.join(s.attachments, s.attachments.c.nic_id == s.nics.c.id).where(
            _given(s.attachments.c.network_id, "network_id"), _given(s.attachments.c.address, "address")
        ),
    ),
    "uq_attachments_network_id_address6": Taken(
        plain="The address {address6} is taken in this network.",
        held="The address {address6} belongs to {nic} of node {node} in this network.",
        holder=_NIC_AND_NODE.join(s.attachments, s.attachments.c.nic_id == s.nics.c.id).where(
            _given(s.attachments.c.network_id, "network_id"), _given(s.attachments.c.address6, "address6")
        ),
    ),
    **{
        f"uq_reservations_network_id_{field}": Taken(
            plain=f"The {words} {{{field}}} is reserved in this network.",
            held=f"The {words} {{{field}}} is reserved for {{reservation}} in this network.",
            holder=select(s.reservations.c.name.label("reservation")).where(
                _given(s.reservations.c.network_id, "network_id"), _given(s.reservations.c[field], field)
            ),
            fix="`m2 reservation list NETWORK` shows what is reserved.",
        )
        for field, words in (
            ("address", "address"),
            ("address6", "address"),
            ("mac", "MAC address"),
            ("hostname", "host name"),
        )
    },
    "uq_permits_reservation_id_attachment_id": Taken(
        plain="The node is permitted to use this reservation there already.",
        held="The node is permitted to use reservation {reservation} there already.",
        holder=select(s.reservations.c.name.label("reservation")).where(_given(s.reservations.c.id, "reservation_id")),
        fix="If it is just being taken away, ask again when that has ended (`m2 operation list`).",
    ),
    "uq_networks_fabric_vid": Taken(
        plain="VLAN {vid} of fabric {fabric} is taken.",
        held="VLAN {vid} of fabric {fabric} is taken by another network.",
        holder=select(s.networks.c.id.label("network_id")).where(
            _given(s.networks.c.fabric, "fabric"), _given(s.networks.c.vid, "vid")
        ),
        fix="Use another VLAN.",
        public=_NO_NETWORK,
    ),
    "uq_vlans_network_id": Taken(
        plain="The network has a VLAN already.",
        held="The network has VLAN {held_vid} of fabric {held_fabric} already.",
        holder=select(s.vlans.c.vid.label("held_vid"), s.vlans.c.fabric.label("held_fabric")).where(
            _given(s.vlans.c.network_id, "network_id")
        ),
        public=_NO_NETWORK,
    ),
}

#: Check constraints: reached only by a bug of ours or by a race that a compare-and-set did not cover.
_CHECKS = {
    "ck_nodes_held": "A node that is allocated or releasing needs a project that holds it.",
    "ck_nodes_scrubbed": "A node that was not scrubbed since its last holder cannot be free.",
    "ck_nodes_chosen": "Only a node that a project holds starts from another device than the network.",
    "ck_nodes_holder": "Only an allocated, releasing or quarantined node can be held by a project.",
    "ck_targets_presents": "A target presents either a disk or an image.",
    "ck_networks_vni": "A VNI is from 1 to 16777215.",
    "ck_vlans_vni": "A VNI is from 1 to 16777215.",
    "ck_networks_vid": "A VLAN id is from 1 to 4094.",
    "ck_vlans_vid": "A VLAN id is from 1 to 4094.",
    "ck_users_site_role": "A site role is admin, operator or gateway.",
    "ck_memberships_role": "A role in a project is member or reader.",
}


def explain_write(
    session: Session, record: Record[Any], e: IntegrityError, values: Mapping[str, object], id: UUID | None = None
) -> Conflict:
    """Say why an insert of ``values``, or their change in row ``id``, was refused."""
    table = record.table
    if id is not None:
        rows = session.after_death(select(table).where(table.c.id == id), {})
        values = {**(rows[0] if rows else {}), **values}
    constraint = _constraint(table, e)
    if constraint in _CHECKS:
        return Conflict(_CHECKS[constraint], details={"constraint": constraint})
    if constraint in _TAKEN:
        return _tell(session, table, values, constraint)
    if constraint in _uniques(table):
        return _tell_generic(session, table, constraint, values)
    return _missing(session, table, values) or Conflict(
        f"The {record.noun} breaks the rule {constraint or 'of its references'}.", details={"constraint": constraint}
    )


def explain_remove(session: Session, table: Table, id: UUID) -> Conflict:
    """Say what still depends on a row that could not be removed."""
    users: dict[str, int] = {}
    for column in _referrers(table):
        count = select(func.count().label("n")).select_from(column.table).where(_given(column, "id"))
        found = session.after_death(count, {"id": id})[0]["n"]
        if found:
            users[column.table.info["noun"]] = users.get(column.table.info["noun"], 0) + found
    words = ", ".join(f"{count} {noun}{'s' if count > 1 else ''}" for noun, count in users.items())
    return Conflict(
        f"The {table.info['noun']} is still used by {words or 'something that has gone since'}.",
        fix="Remove what uses it first." if users else "Try again.",
        details={"used_by": users},
    )


def explain_commit(reason: object) -> Conflict:
    """Say why a commit was refused: only the reference of a VLAN to its network is checked that late."""
    return Conflict(
        "A VLAN was taken for a network that does not exist.", fix="Try again.", details={"reason": str(reason)}
    )


def _tell(session: Session, table: Table, values: Facts, constraint: str) -> Conflict:
    taken = _TAKEN[constraint]
    wanted = {name: values[name] for name in taken.holder.compile().params if name in values}
    found = session.after_death(taken.holder, wanted)
    if taken.includes and not found:
        return _tell_generic(session, table, taken.includes, values)
    facts = dict(found[0]) if found else {}
    words = (taken.held if found else taken.plain).format(**{**values, **facts})
    details = {"constraint": constraint, **_plain(facts)}
    fix = taken.held_fix.format(**facts) if found and taken.held_fix else taken.fix
    return Conflict(words, fix=fix, details=details, public=taken.public)


def _tell_generic(session: Session, table: Table, constraint: str, values: Facts) -> Conflict:
    columns = [table.c[name] for name in _uniques(table)[constraint]]
    same = and_(*(column == bindparam(column.name, values[column.name], type_=column.type) for column in columns))
    holders = session.after_death(select(table.c.id).where(same), {}) if "id" in table.c else []
    noun: str = table.info["noun"]
    if "name" in constraint:
        words = f"There is {'an' if noun == 'image' else 'a'} {noun} named {values['name']} already."
    else:
        words = f"There is a {noun} with this {' and '.join(c.name.removesuffix('_id') for c in columns)} already."
    facts = {f"{noun.replace(' ', '_')}_id": holders[0]["id"]} if len(holders) == 1 else {}
    fix = "Choose another name." if "name" in constraint else ""
    return Conflict(words, fix=fix, details={"constraint": constraint, **_plain(facts)})


def _missing(session: Session, table: Table, values: Facts) -> Conflict | None:
    """Find a reference to a row that does not exist (any more)."""
    for key in table.foreign_keys:
        wanted = values.get(key.parent.name)
        if wanted is None:
            continue
        there = select(key.column).where(_given(key.column, "id"))
        if not session.after_death(there, {"id": wanted}):
            noun = key.column.table.info["noun"]
            return Conflict(f"The {noun} {wanted} does not exist any more.", details={key.parent.name: str(wanted)})
    return None


def _constraint(table: Table, e: IntegrityError) -> str:
    """Name the broken constraint; "" for a foreign key in SQLite, which does not say which."""
    diagnosis = getattr(e.orig, "diag", None)
    if diagnosis is not None:
        return diagnosis.constraint_name or ""
    text = str(e.orig)
    check = re.fullmatch(r"CHECK constraint failed: (\w+)", text)
    if check:
        return check[1]
    index = re.fullmatch(r"UNIQUE constraint failed: index '(\w+)'", text)
    if index:
        return index[1]
    unique = re.fullmatch(r"UNIQUE constraint failed: ([\w., ]+)", text)
    broken = tuple(column.split(".")[1] for column in unique[1].split(", ")) if unique else ()
    return next((name for name, columns in _uniques(table).items() if columns == broken), "")


def _uniques(table: Table) -> dict[str, tuple[str, ...]]:
    """Map the names of a table's unique constraints and indexes to their columns."""
    found: dict[str, tuple[str, ...]] = {str(table.primary_key.name): tuple(c.name for c in table.primary_key)}
    for rule in (*table.constraints, *table.indexes):
        if isinstance(rule, UniqueConstraint) or (isinstance(rule, Index) and rule.unique):
            found[str(rule.name)] = tuple(column.name for column in rule.columns)
    return found


def _referrers(table: Table) -> list[Any]:
    """Find the columns that keep a row of ``table`` from being removed."""
    return [
        key.parent
        for other in s.metadata.sorted_tables
        for key in other.foreign_keys
        if key.column.table is table and key.ondelete == "RESTRICT"
    ]


def _plain(facts: Facts) -> dict[str, object]:
    return {name: str(value) if isinstance(value, UUID) else value for name, value in facts.items()}
