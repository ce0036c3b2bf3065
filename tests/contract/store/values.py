"""Valid values to store, each unlike all others; a test names only the fields it is about."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from malleable.domain.access import ConsoleWriter
from malleable.domain.boots import Boot
from malleable.domain.disks import Disk, DiskState, Snapshot, SnapshotState, Target, TargetState, new_iqn
from malleable.domain.events import Event
from malleable.domain.ids import (
    AttachmentId,
    BootId,
    ConsoleWriterId,
    DiskId,
    EventId,
    FetchLoginId,
    ImageId,
    MembershipId,
    NetworkId,
    NicId,
    NodeId,
    OperationId,
    PermitId,
    ProjectId,
    ProjectKeyId,
    ReservationId,
    SeedId,
    SignerId,
    SnapshotId,
    SwitchId,
    SwitchPortId,
    TargetId,
    TokenId,
    UserId,
    VlanId,
    new_id,
)
from malleable.domain.images import BootWay, FetchLogin, Image, ImageState
from malleable.domain.networks import Attachment, AttachmentState, Channel, Network, NetworkKind, Vlan
from malleable.domain.nodes import Firmware, Nic, Node, NodeState
from malleable.domain.operations import Operation
from malleable.domain.projects import Membership, Project, ProjectKey, Role, Token, User
from malleable.domain.reservations import Permit, Reservation
from malleable.domain.secrets import Secret
from malleable.domain.seeds import Document, Seed
from malleable.domain.signatures import Signer
from malleable.domain.store import Transaction
from malleable.domain.switches import Guard, PortConfig, PortState, Switch, SwitchPort

NOW = datetime(2026, 11, 20, 12, 0, 0, 123456, tzinfo=UTC)

_numbers = count(1)


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def project(**changes: Any) -> Project:
    return replace(Project(id=ProjectId(new_id()), name=f"project-{next(_numbers)}", created_at=NOW), **changes)


def user(**changes: Any) -> User:
    made = User(
        id=UserId(new_id()),
        name=f"user-{next(_numbers)}",
        password_hash=Secret("$argon2id$hash"),
        site_role=Role.OPERATOR,
        created_at=NOW,
    )
    return replace(made, **changes)


def membership(user: User, project: Project, **changes: Any) -> Membership:
    made = Membership(id=MembershipId(new_id()), user_id=user.id, project_id=project.id, role=Role.MEMBER)
    return replace(made, **changes)


def project_key(project: Project, **changes: Any) -> ProjectKey:
    made = ProjectKey(
        id=ProjectKeyId(new_id()), project_id=project.id, name="ann", key="ssh-ed25519 AAAA ann@lab", created_at=NOW
    )
    return replace(made, **changes)


def signer(**changes: Any) -> Signer:
    made = Signer(id=SignerId(new_id()), name="builders", project_id=None, key="RWQ", created_at=NOW)
    return replace(made, **changes)


def fetch_login(image: Image, **changes: Any) -> FetchLogin:
    made = FetchLogin(id=FetchLoginId(new_id()), image_id=image.id, username="ann", password=Secret("let me in"))
    return replace(made, **changes)


def token(user: User, **changes: Any) -> Token:
    made = Token(
        id=TokenId(new_id()),
        user_id=user.id,
        name="laptop",
        secret_sha256=f"{next(_numbers):064x}",
        project_id=None,
        is_read_only=True,
        expires_at=later(3600),
        created_at=NOW,
    )
    return replace(made, **changes)


def node(**changes: Any) -> Node:
    number = next(_numbers)
    made = Node(
        id=NodeId(new_id()),
        name=f"node-{number}",
        state=NodeState.FREE,
        state_reason="",
        state_since=NOW,
        project_id=None,
        power_seen_at=later(-5),
        power_driver="sim",
        bmc_address=f"https://bmc-{number}",
        bmc_username="admin",
        bmc_password=Secret("node's password"),
        bmc_system="/redfish/v1/Systems/1",
        firmware=Firmware.UEFI,
        cpu_count=64,
        memory_mib=1 << 40,
        created_at=NOW,
    )
    return replace(made, **changes)


def switch(**changes: Any) -> Switch:
    made = Switch(
        id=SwitchId(new_id()),
        name=f"switch-{next(_numbers)}",
        driver="sim",
        fabric="main",
        address="10.0.0.1",
        settings={"b": "2", "a": "1"},
        password=Secret("switch's password"),
        created_at=NOW,
    )
    return replace(made, **changes)


def port(switch: Switch, **changes: Any) -> SwitchPort:
    made = SwitchPort(
        id=SwitchPortId(new_id()),
        switch_id=switch.id,
        name=f"port{next(_numbers)}",
        wanted=PortConfig(
            native_vid=7, tagged_vids=frozenset({30, 9, 4094}), guard=Guard(macs=frozenset({"52:54:00:00:00:01"}))
        ),
        wanted_generation=2,
        state=PortState.CHANGING,
        created_at=NOW,
    )
    return replace(made, **changes)


def nic(node: Node, **changes: Any) -> Nic:
    number = next(_numbers)
    mac = f"52:54:00:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"
    made = Nic(id=NicId(new_id()), node_id=node.id, name=f"nic{number}", mac=mac, switch_port_id=None)
    return replace(made, **changes)


def network(**changes: Any) -> Network:
    number = next(_numbers)
    made = Network(
        id=NetworkId(new_id()),
        name=f"network-{number}",
        project_id=None,
        kind=NetworkKind.TENANT,
        fabric="main",
        vid=number % 4094 + 1,
        cidr="10.0.0.0/24",
        created_at=NOW,
    )
    return replace(made, **changes)


def console_writer(node: Node, user: User, token: Token) -> ConsoleWriter:
    return ConsoleWriter(
        id=ConsoleWriterId(new_id()),
        node_id=node.id,
        user_id=user.id,
        token_id=token.id,
        token=token.name,
        seen_at=NOW,
        busy_until=later(30),
        written_bytes=2**33,
        created_at=NOW,
    )


def vlan(vid: int, **changes: Any) -> Vlan:
    return replace(Vlan(id=VlanId(new_id()), fabric="main", vid=vid, network_id=None, reusable_at=NOW), **changes)


def attachment(nic: Nic, network: Network, **changes: Any) -> Attachment:
    made = Attachment(
        id=AttachmentId(new_id()),
        nic_id=nic.id,
        network_id=network.id,
        channel=Channel.NATIVE,
        state=AttachmentState.ATTACHED,
        address=f"10.0.0.{next(_numbers) % 250}",
        created_at=NOW,
    )
    return replace(made, **changes)


def reservation(network: Network, **changes: Any) -> Reservation:
    made = Reservation(
        id=ReservationId(new_id()),
        network_id=network.id,
        name=f"reservation-{next(_numbers)}",
        address="10.0.0.251",
        address6="fd00::251",
        mac="52:54:00:aa:00:01",
        hostname="printer",
        created_at=NOW,
    )
    return replace(made, **changes)


def permit(reservation: Reservation, attachment: Attachment, **changes: Any) -> Permit:
    made = Permit(id=PermitId(new_id()), reservation_id=reservation.id, attachment_id=attachment.id, created_at=NOW)
    return replace(made, **changes)


def image(**changes: Any) -> Image:
    made = Image(
        id=ImageId(new_id()),
        name=f"image-{next(_numbers)}",
        project_id=None,
        state=ImageState.SEALED,
        size_bytes=1 << 40,
        sha256="0" * 64,
        boot_ways=(BootWay.KERNEL, BootWay.SAN),
        firmwares=(),
        created_at=NOW,
    )
    return replace(made, **changes)


def disk(project: Project, image: Image, **changes: Any) -> Disk:
    made = Disk(
        id=DiskId(new_id()),
        name=f"disk-{next(_numbers)}",
        project_id=project.id,
        image_id=image.id,
        state=DiskState.READY,
        size_bytes=1 << 40,
        created_at=NOW,
    )
    return replace(made, **changes)


def snapshot(disk: Disk, **changes: Any) -> Snapshot:
    made = Snapshot(
        id=SnapshotId(new_id()),
        name=f"snapshot-{next(_numbers)}",
        project_id=disk.project_id,
        disk_id=disk.id,
        image_id=disk.image_id,
        state=SnapshotState.READY,
        size_bytes=disk.size_bytes,
        created_at=NOW,
    )
    return replace(made, **changes)


def target(disk: Disk, node: Node, network: Network, **changes: Any) -> Target:
    made = Target(
        id=TargetId(new_id()),
        disk_id=disk.id,
        node_id=node.id,
        network_id=network.id,
        state=TargetState.EXPORTED,
        iqn=new_iqn(),
        initiator_iqn="iqn.2026-11.org.malleable:node:1",
        chap_username="u",
        chap_password=Secret("chap password"),
        initiator_address="10.0.0.10",
        created_at=NOW,
    )
    return replace(made, **changes)


def boot(attachment: Attachment, target: Target, **changes: Any) -> Boot:
    made = Boot(
        id=BootId(new_id()),
        node_id=target.node_id,
        network_id=attachment.network_id,
        attachment_id=attachment.id,
        target_id=target.id,
        mac="52:54:00:00:00:01",
        way=BootWay.SAN,
        hostname="host",
        ssh_keys=("ssh-ed25519 AAAA one", "ssh-ed25519 BBBB two"),
        documents=(Document.USER_DATA,),
        token=Secret("boot token"),
        armed_at=NOW,
    )
    return replace(made, **changes)


def seed(node: Node, **changes: Any) -> Seed:
    made = Seed(id=SeedId(new_id()), node_id=node.id, user_data=Secret("I2Ns"), network_config=Secret("version: 2"))
    return replace(made, **changes)


def operation(**changes: Any) -> Operation:
    made = Operation(
        id=OperationId(new_id()),
        kind="provision",
        node_id=None,
        project_id=None,
        actor_id=None,
        arguments={"disk": "d1", "nested": [1, {"two": None}]},
        next_due_at=NOW,
        created_at=NOW,
    )
    return replace(made, **changes)


def event(**changes: Any) -> Event:
    made = Event(
        id=EventId(new_id()),
        kind="node.allocated",
        at=NOW,
        actor_id=None,
        project_id=None,
        node_id=None,
        operation_id=None,
        data={"z": 1, "a": [1.5, "ü"]},
    )
    return replace(made, **changes)


class Site:
    """One of everything, stored and fitting together."""

    def __init__(self, tx: Transaction) -> None:
        self.project, self.user, self.switch, self.image = project(), user(), switch(), image()
        self.node, self.network = node(), network()
        self.membership = membership(self.user, self.project)
        self.project_key = project_key(self.project)
        self.signer = signer(project_id=self.project.id)
        self.fetch_login = fetch_login(self.image)
        self.token = token(self.user, project_id=self.project.id)
        self.port = port(self.switch)
        self.nic = nic(self.node, switch_port_id=self.port.id)
        self.console_writer = console_writer(self.node, self.user, self.token)
        self.vlan = vlan(self.network.vid, network_id=self.network.id)
        self.attachment = attachment(self.nic, self.network)
        self.reservation = reservation(self.network, project_id=self.project.id)
        self.permit = permit(self.reservation, self.attachment)
        self.disk = disk(self.project, self.image)
        self.snapshot = snapshot(self.disk)
        self.target = target(self.disk, self.node, self.network)
        self.boot = boot(self.attachment, self.target)
        self.seed = seed(self.node)
        self.operation = operation(node_id=self.node.id, project_id=self.project.id, actor_id=self.user.id)
        for name in TABLES:
            getattr(tx, name).add(getattr(self, TABLES[name]))


#: All tables of ``Rows``, in an order in which rows can be added; and what one row is called.
TABLES = {
    "projects": "project",
    "users": "user",
    "memberships": "membership",
    "project_keys": "project_key",
    "signers": "signer",
    "tokens": "token",
    "nodes": "node",
    "switches": "switch",
    "switch_ports": "port",
    "nics": "nic",
    "console_writers": "console_writer",
    "networks": "network",
    "vlans": "vlan",
    "attachments": "attachment",
    "reservations": "reservation",
    "permits": "permit",
    "images": "image",
    "fetch_logins": "fetch_login",
    "disks": "disk",
    "snapshots": "snapshot",
    "targets": "target",
    "boots": "boot",
    "seeds": "seed",
    "operations": "operation",
}
