"""A site to call the API of: two projects, machines in every state, and a caller of every kind."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

from anyio.from_thread import start_blocking_portal
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient, Response
from minisign import KeyPair

from malleable.api.app import close_streams, create_app
from malleable.domain.access import Verb
from malleable.domain.disks import Disk, DiskOffer, DiskState, Snapshot, SnapshotState, Target, TargetState, new_iqn
from malleable.domain.gateways import ALL_FABRICS
from malleable.domain.ids import (
    AttachmentId,
    DiskId,
    DiskOfferId,
    GrantId,
    ImageGrantId,
    ImageId,
    MembershipId,
    NetworkId,
    NicId,
    NodeId,
    ProjectId,
    ReservationId,
    SignerId,
    SnapshotId,
    SwitchId,
    SwitchPortId,
    TargetId,
    UserId,
    VlanId,
    new_id,
)
from malleable.domain.images import BootWay, Image, ImageGrant, ImageState
from malleable.domain.networks import (
    Attachment,
    AttachmentState,
    Channel,
    Grant,
    GrantState,
    Network,
    NetworkKind,
    Vlan,
)
from malleable.domain.nodes import Firmware, Nic, Node, NodeState
from malleable.domain.ports import Drivers
from malleable.domain.projects import Membership, Project, Role, Token, User
from malleable.domain.reservations import Reservation
from malleable.domain.secrets import Secret
from malleable.domain.signatures import Signer
from malleable.domain.store import Store, Transaction
from malleable.domain.switches import PortState, Switch, SwitchPort
from malleable.services.all import Services, make_services
from malleable.services.authentication import TokenWish, issue
from malleable.services.parts import Parts
from malleable.sim.clock import ManualClock
from malleable.sim.disks import SimDisks
from malleable.sim.power import SimPower
from malleable.sim.room import SimRoom
from malleable.sim.switches import SimSwitches
from malleable.sim.targets import SimTargets
from malleable.workflows.requests import begin

START = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
SWITCH = "sim://tor1"
GOLDEN = b"golden" * 1024
#: Nobody's real hash: people of this site have tokens and do not log in.
NO_PASSWORD = Secret("!")
BMC_PASSWORD = "bmc-password-that-must-not-leak"
CHAP_PASSWORD = "chap-password-that-must-not-leak"
CALLERS = (
    "nobody",
    "reader",
    "member",
    "other",
    "operator",
    "admin",
    "gateway",
    "expired",
    "revoked",
    "read_only",
    "scoped",
    "narrow",
    "elsewhere",
)


@dataclass
class Site:
    """Everything in one place; ``ids`` holds what requests name."""

    store: Store
    spool: Path
    clock: ManualClock = field(default_factory=lambda: ManualClock(START))
    ids: dict[str, UUID] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.switches = SimSwitches(monotonic_s=self.clock.monotonic_s)
        self.targets, self.disks = SimTargets(), SimDisks()
        self.room = SimRoom(switches=self.switches, targets=self.targets, later=lambda _s, call: call())
        self.switches.add(SWITCH, [f"p{n}" for n in range(1, 9)])
        drivers = Drivers(
            power={"sim": SimPower(self.room.bmcs)},
            switches={"sim": self.switches},
            disks=self.disks,
            targets=self.targets,
        )
        parts = Parts(store=self.store, clock=self.clock, drivers=drivers, spool_dir=self.spool)
        self.services: Services = make_services(parts)
        self.app: FastAPI = create_app(self.services, version="0")
        self._portal_context = start_blocking_portal()
        self._portal = self._portal_context.__enter__()
        transport = ASGITransport(app=self.app, raise_app_exceptions=False)
        self._client = AsyncClient(transport=transport, base_url="http://site")
        self._seal()
        with self.store.transaction() as tx:
            self._people(tx)
            self._room(tx)
            self._tenant(tx, "alpha", "held", 101)
            self._tenant(tx, "beta", "foreign", 102)
            self._narrow(tx, "narrow", "held")
            self._narrow(tx, "elsewhere", "free")
            self._share(tx)
            self._share_image(tx)
            self._offer_disk(tx)
            self._signers(tx)
            operation = begin(
                tx, START, "create-disk", project_id=ProjectId(self.ids["alpha"]), arguments={"disk_id": str(new_id())}
            )
            self.ids["operation"] = operation.id

    def close(self) -> None:
        close_streams(self.app)
        self._portal.call(self._client.aclose)
        self._portal_context.__exit__(None, None, None)

    # -- calling -----------------------------------------------------------------------------------------------------

    def call(self, caller: str, method: str, path: str, json: Any = None, **options: Any) -> Response:
        """Make one request as one of ``CALLERS``."""
        headers = dict(options.pop("headers", {}))
        if caller != "nobody":
            headers.setdefault("Authorization", f"Bearer {self.tokens[caller]}")
        if json is not None:
            options["json"] = json

        async def request() -> Response:
            return await self._client.request(method, path, headers=headers, **options)

        return self._portal.call(request)

    def get(self, caller: str, path: str, **options: Any) -> Response:
        return self.call(caller, "GET", path, **options)

    def post(self, caller: str, path: str, json: Any = None, **options: Any) -> Response:
        return self.call(caller, "POST", path, json=json, **options)

    # -- furnishing --------------------------------------------------------------------------------------------------

    def _new(self, name: str) -> UUID:
        self.ids[name] = new_id()
        return self.ids[name]

    def _seal(self) -> None:
        source = self.spool / "golden"
        source.write_bytes(GOLDEN)
        digest = sha256(GOLDEN).hexdigest()
        self.disks.seal(ImageId(self._new("image")), source, sha256=digest, files={"vmlinuz": source, "initrd": source})

    def _people(self, tx: Transaction) -> None:
        for name in ("alpha", "beta", "empty"):
            tx.projects.add(Project(id=ProjectId(self._new(name)), name=name, created_at=START))
        for name, site_role in (("admin", Role.ADMIN), ("operator", Role.OPERATOR), ("gateway", Role.GATEWAY)):
            self._user(tx, name, site_role)
        for name, project, role in (
            ("reader", "alpha", Role.READER),
            ("member", "alpha", Role.MEMBER),
            ("other", "beta", Role.MEMBER),
        ):
            user = self._user(tx, name, None)
            self._join(tx, user, project, role)
        member = tx.users.get(self.ids["user:member"])
        self._token(tx, member, "expired", ttl_s=1)
        self._token(tx, member, "revoked", revoked=True)
        self._token(tx, member, "read_only", is_read_only=True)
        admin = tx.users.get(self.ids["user:admin"])
        self._token(tx, admin, "scoped", project="alpha")
        self.clock.advance(2)

    def _user(self, tx: Transaction, name: str, site_role: Role | None) -> User:
        user = User(
            id=UserId(self._new(f"user:{name}")),
            name=name,
            password_hash=NO_PASSWORD,
            site_role=site_role,
            created_at=START,
        )
        tx.users.add(user)
        self._token(tx, user, name)
        return user

    def _join(self, tx: Transaction, user: User, project: str, role: Role) -> None:
        project_id = ProjectId(self.ids[project])
        tx.memberships.add(Membership(id=MembershipId(new_id()), user_id=user.id, project_id=project_id, role=role))

    def _token(self, tx: Transaction, user: User, name: str, **how: Any) -> Token:
        wish = TokenWish(
            name=name,
            ttl_s=how.get("ttl_s", 3600 * 24 * 365),
            is_read_only=how.get("is_read_only", False),
            fabrics=(ALL_FABRICS,) if user.site_role is Role.GATEWAY else (),
        )
        project = how.get("project")
        issued = issue(tx, START, user, wish, ProjectId(self.ids[project]) if project else None)
        if how.get("revoked"):
            tx.tokens.change(issued.token.id, revoked_at=START)
        self.tokens[name] = issued.secret.reveal()
        self.ids[f"token:{name}"] = issued.token.id
        return issued.token

    def _narrow(self, tx: Transaction, name: str, node: str) -> None:
        """Let a program do everything that can be let to one of alpha's nodes."""
        member = tx.users.get(self.ids["user:member"])
        wish = TokenWish(name=name, ttl_s=3600, node_id=NodeId(self.ids[node]), verbs=tuple(Verb))
        issued = issue(tx, self.clock.now(), member, wish, ProjectId(self.ids["alpha"]))
        self.tokens[name] = issued.secret.reveal()
        self.ids[f"token:{name}"] = issued.token.id

    def _room(self, tx: Transaction) -> None:
        for vid in range(100, 110):
            tx.vlans.add(Vlan(id=VlanId(new_id()), fabric="default", vid=vid, network_id=None, reusable_at=START))
        tx.switches.add(
            Switch(
                id=SwitchId(self._new("switch")),
                name="tor1",
                driver="sim",
                fabric="default",
                address=SWITCH,
                password=Secret("switch-password-that-must-not-leak"),
                created_at=START,
            )
        )
        for number in range(1, 6):
            port = SwitchPort(
                id=SwitchPortId(self._new(f"port{number}")),
                switch_id=SwitchId(self.ids["switch"]),
                name=f"p{number}",
                state=PortState.SETTLED,
                created_at=START,
            )
            tx.switch_ports.add(port)
        self.node(tx, "free", NodeState.FREE, port=1)
        self.node(tx, "broken", NodeState.MAINTENANCE, port=2)
        self.image(tx, "tiny", "image", None)

    def node(
        self, tx: Transaction, name: str, state: NodeState, *, port: int | None, project: str | None = None
    ) -> Node:
        """Add a node with one NIC, named ``<name>`` and ``nic:<name>`` in ``ids``."""
        node_id = NodeId(self._new(name))
        node = Node(
            id=node_id,
            name=name,
            state=state,
            state_reason="",
            state_since=START,
            project_id=ProjectId(self.ids[project]) if project else None,
            power_driver="sim",
            bmc_address=f"sim://{name}",
            bmc_username="admin",
            bmc_password=Secret(BMC_PASSWORD),
            bmc_system="",
            firmware=Firmware.UEFI,
            created_at=START,
        )
        tx.nodes.add(node)
        mac = f"52:54:00:00:00:{len(self.ids) % 256:02x}"
        port_id = SwitchPortId(self.ids[f"port{port}"]) if port else None
        tx.nics.add(
            Nic(id=NicId(self._new(f"nic:{name}")), node_id=node_id, name="nic0", mac=mac, switch_port_id=port_id)
        )
        password = Secret(BMC_PASSWORD)
        self.room.add_machine(
            name,
            address=f"sim://{name}",
            password=password,
            mac=mac,
            switch=SWITCH,
            port=f"p{port or 8}",
            firmware=Firmware.UEFI,
        )
        return node

    def image(
        self, tx: Transaction, name: str, key: str, project: str | None, state: ImageState = ImageState.SEALED
    ) -> Image:
        """Add an image."""
        image = Image(
            id=ImageId(self.ids.get(key) or self._new(key)),
            name=name,
            project_id=ProjectId(self.ids[project]) if project else None,
            state=state,
            size_bytes=len(GOLDEN),
            sha256=sha256(GOLDEN).hexdigest(),
            boot_ways=(BootWay.SAN, BootWay.KERNEL),
            kernel="vmlinuz",
            initrd="initrd",
            created_at=START,
        )
        tx.images.add(image)
        return image

    def _upload(self, image: Image) -> None:
        """Leave a complete upload in the spool."""
        place = self.spool / str(image.id)
        (place / "files").mkdir(parents=True)
        for name in ("content", "files/vmlinuz", "files/initrd"):
            (place / name).write_bytes(GOLDEN)

    def _share_image(self, tx: Transaction) -> None:
        """Offer beta's image to alpha."""
        grant = ImageGrant(
            id=ImageGrantId(self._new("image_grant")),
            image_id=ImageId(self.ids["image:beta"]),
            project_id=ProjectId(self.ids["alpha"]),
            created_at=START,
        )
        tx.image_grants.add(grant)

    def _offer_disk(self, tx: Transaction) -> None:
        """Offer a disk of beta's to alpha, which cannot take it: it has a snapshot."""
        tx.disk_offers.add(
            DiskOffer(
                id=DiskOfferId(self._new("disk_offer")),
                disk_id=DiskId(self.ids["spare:beta"]),
                project_id=ProjectId(self.ids["alpha"]),
                created_at=START,
            )
        )

    def _signers(self, tx: Transaction) -> None:
        """Trust somebody everywhere, and somebody else in alpha."""
        for name, owner in (("signer", None), ("signer:alpha", "alpha")):
            project_id = ProjectId(self.ids[owner]) if owner else None
            key = str(KeyPair.generate().public_key.to_base64(), "ascii")
            id = SignerId(self._new(name))
            tx.signers.add(Signer(id=id, name=name.replace(":", "-"), project_id=project_id, key=key, created_at=START))

    def _share(self, tx: Transaction) -> None:
        """Make a network that alpha shares with beta, one of the site's that is offered to alpha, and a public one.

        The first one has a reservation.
        """
        for name, vid, owner in (("lent", 103, "alpha"), ("site", 4001, None), ("public", 4002, None)):
            network = Network(
                id=NetworkId(self._new(f"network:{name}")),
                name=name,
                project_id=ProjectId(self.ids[owner]) if owner else None,
                kind=NetworkKind.TENANT if owner else NetworkKind.PROVIDER,
                fabric="default",
                vid=vid,
                cidr="10.8.0.0/24",
                is_public=name == "public",
                created_at=START,
            )
            tx.networks.add(network)
            if owner:
                vlan = tx.vlans.find(fabric="default", vid=vid)
                assert vlan is not None
                tx.vlans.change(vlan.id, network_id=network.id)
            tx.networks.touch(network.id)
        kept = Reservation(
            id=ReservationId(self._new("reservation:lent")),
            network_id=NetworkId(self.ids["network:lent"]),
            name="kept",
            address="10.8.0.250",
            address6="",
            created_at=START,
        )
        tx.reservations.add(kept)
        for name, grantee, state in (("lent", "beta", GrantState.ACCEPTED), ("site", "alpha", GrantState.OFFERED)):
            grant = Grant(
                id=GrantId(self._new(f"grant:{name}")),
                network_id=NetworkId(self.ids[f"network:{name}"]),
                project_id=ProjectId(self.ids[grantee]),
                state=state,
                created_at=START,
            )
            tx.grants.add(grant)

    def _snapshot(self, tx: Transaction, project: str, disk: Disk) -> None:
        """Add a disk that runs nowhere, and its snapshot."""
        spare = replace(disk, id=DiskId(self._new(f"spare:{project}")), name="spare")
        tx.disks.add(spare)
        snapshot = Snapshot(
            id=SnapshotId(self._new(f"snapshot:{project}")),
            name="kept",
            project_id=disk.project_id,
            disk_id=spare.id,
            image_id=disk.image_id,
            state=SnapshotState.READY,
            size_bytes=disk.size_bytes,
            created_at=START,
        )
        tx.snapshots.add(snapshot)

    def _tenant(self, tx: Transaction, project: str, node: str, vid: int) -> None:
        """Give a project a network, an image, a disk, and a node that has the disk."""
        held = self.node(tx, node, NodeState.ALLOCATED, port=3 if project == "alpha" else 4, project=project)
        project_id, network_id = ProjectId(self.ids[project]), NetworkId(self._new(f"network:{project}"))
        vlan = tx.vlans.find(fabric="default", vid=vid)
        assert vlan is not None
        network = Network(
            id=network_id,
            name="blue",
            project_id=project_id,
            kind=NetworkKind.TENANT,
            fabric="default",
            vid=vid,
            cidr="10.0.0.0/24",
            created_at=START,
        )
        tx.networks.add(network)
        tx.vlans.change(vlan.id, network_id=network_id)
        tx.networks.touch(network_id)
        image = self.image(tx, f"{project}-image", f"image:{project}", project)
        source = self.spool / "golden"
        self.disks.seal(image.id, source, sha256=None, files={"vmlinuz": source, "initrd": source})
        self._upload(self.image(tx, f"{project}-new", f"new:{project}", project, ImageState.IMPORTING))
        disk = Disk(
            id=DiskId(self._new(f"disk:{project}")),
            name="root",
            project_id=project_id,
            image_id=image.id,
            state=DiskState.READY,
            size_bytes=image.size_bytes,
            created_at=START,
        )
        tx.disks.add(disk)
        self._snapshot(tx, project, disk)
        attachment = Attachment(
            id=AttachmentId(self._new(f"attachment:{project}")),
            nic_id=NicId(self.ids[f"nic:{node}"]),
            network_id=network_id,
            channel=Channel.NATIVE,
            state=AttachmentState.ATTACHED,
            address="10.0.0.10",
            created_at=START,
        )
        tx.attachments.add(attachment)
        target = Target(
            id=TargetId(self._new(f"target:{project}")),
            disk_id=disk.id,
            node_id=held.id,
            network_id=network_id,
            state=TargetState.EXPORTED,
            iqn=new_iqn(),
            initiator_iqn="iqn.2026-11.org.malleable:node:x",
            chap_username="m2",
            chap_password=Secret(CHAP_PASSWORD),
            initiator_address="10.0.0.10",
            created_at=START,
        )
        tx.targets.add(target)


def items(response: Response) -> list[Mapping[str, Any]]:
    """Read a list's items."""
    assert response.status_code == 200, response.text
    found: list[Mapping[str, Any]] = response.json()["items"]
    return found


def later(seconds: float) -> datetime:
    """Return a moment after the site's beginning."""
    return START + timedelta(seconds=seconds)
