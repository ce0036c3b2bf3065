"""Provisioning: from "this disk on that network" to a node that boots it."""

import random
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from malleable.domain.disks import Disk, DiskState, DiskUse, Snapshot, Target, whole_sectors
from malleable.domain.errors import Conflict, Exhausted, Invalid
from malleable.domain.ids import DiskId, ProjectId, new_id
from malleable.domain.images import BootWay, Image, ImageState
from malleable.domain.networks import Network
from malleable.domain.nodes import Nic, Node, NodeState, dns_name
from malleable.domain.operations import Operation
from malleable.domain.projects import Holdings, Project
from malleable.domain.seeds import Given
from malleable.domain.store import Page, Transaction
from malleable.domain.unready import unsealed
from malleable.services import image_finding
from malleable.services.authorization import not_found, require
from malleable.services.caller import Caller
from malleable.services.finding import find_node, find_owned, project_for, shown
from malleable.services.idempotency import Asked, keep, reserve
from malleable.services.keys import with_project_keys
from malleable.services.networks import find_network
from malleable.services.nics import carrier
from malleable.services.parts import Parts, Shown
from malleable.services.signers import want_signed
from malleable.workflows import data_disks, move, provision
from malleable.workflows.provision import Wish
from malleable.workflows.quotas import want_within_quota
from malleable.workflows.storage import want_unused

#: Free nodes looked at when any will do: more than one, so that many askers at once do not all want the same.
CANDIDATES = 64
#: Times that "any node" is tried again after somebody else took the chosen one.
TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class BootWish:
    """How a node shall boot."""

    nic: str | None = None
    way: BootWay | None = None
    hostname: str | None = None
    ssh_keys: tuple[str, ...] = ()
    given: Given = field(default_factory=Given)  #: for its system's first start


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvisionWish:
    """What to run where: an existing disk, or a new one from an image; ``node`` None is any free one that fits."""

    project: str | None
    node: str | None
    disk: str | None
    image: str | None
    disk_name: str | None
    disk_size_bytes: int | None
    network: str
    boot: BootWish
    data_disks: tuple[str, ...] = ()  #: disks one has, for data
    is_stateless: bool = False  #: no new disk: the image itself, read only


class Provisions:
    """Requests that make a node run a disk."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def provision_create(self, caller: Caller, wish: ProvisionWish, asked: Asked | None = None) -> Shown[Operation]:
        """Take a node for a project and begin to boot a disk on it; once, where its key is told.

        Errors: Repeated; Invalid; NotFound; Forbidden; Conflict naming who holds what was asked for; Exhausted when no
        free node fits.
        """
        if wish.is_stateless and (wish.image is None or wish.disk_name or wish.disk_size_bytes):
            raise Invalid("A node without a disk of its own boots an image.", fix="Give image=, and nothing of a disk.")
        if wish.disk is not None:
            _refuse_hook(wish.boot)
        if (wish.disk is None) == (wish.image is None):
            raise Invalid("Name either a disk or an image.", fix="Give disk= for one you have, image= for a new one.")
        for _ in range(TRIES - 1 if wish.node is None else 0):
            try:
                return self._provision(caller, wish, asked)
            except Conflict as e:
                if e.code not in ("node-not-available", "conflict"):
                    raise
        return self._provision(caller, wish, asked)

    def disk_move(
        self, caller: Caller, ref: str, *, node: str, network: str | None, boot: BootWish, project: str | None
    ) -> Operation:
        """Begin to take a disk from its node, which stops if it runs it, and to have it on another.

        Errors: as provisioning.
        """
        _refuse_hook(boot)
        now = self._parts.now()
        with self._parts.store.transaction() as tx:
            disk = find_owned(tx, tx.disks, caller, "disk_use", ref, project)
            require(caller, "provision_create", project_id=disk.project_id)
            target = tx.targets.find(disk_id=disk.id)
            if target is not None and target.use is DiskUse.DATA:
                return self._move_data(tx, caller, disk, target, node)
            if network is not None:
                where = find_network(tx, caller, "network_use", network, disk.project_id)
            elif target is not None:
                where = tx.networks.get(target.network_id)
            else:
                used = {"disk_id": str(disk.id)}  # by another move, say, that is between two nodes
                want_unused(tx, f"disk {disk.name}", used, project_id=disk.project_id)
                raise Invalid(f"Disk {disk.name} runs nowhere.", code="network-needed", fix="Name a network.")
            chosen = find_node(tx, caller, "node_get", node)
            image = image_of(tx, disk)
            want_signed(tx, self._parts, disk.project_id, image)
            wish = _wish(tx, caller, disk.project_id, node=chosen, disk=disk, image=image, network=where, boot=boot)
            operation = move.request(tx, now, wish)
            _want_within_quota(tx, wish)
            return operation

    def _move_data(self, tx: Transaction, caller: Caller, disk: Disk, target: Target, node: str) -> Operation:
        """Hand a disk for data from one node to another, which boots what it boots."""
        chosen = find_node(tx, caller, "node_attach", node)
        now, actor_id = self._parts.now(), caller.user_id
        return data_disks.request_move(tx, now, disk=disk, target=target, node=chosen, actor_id=actor_id)

    def _provision(self, caller: Caller, wish: ProvisionWish, asked: Asked | None) -> Shown[Operation]:
        with self._parts.store.transaction() as tx:
            repeated = reserve(tx, self._parts.now(), asked) if asked is not None else None
            if repeated is None:
                operation, names = self._request(tx, caller, wish)
                if asked is not None:
                    keep(tx, asked, operation)
                begun = self._parts.enter(tx, operation)
        if repeated is not None:
            raise repeated
        return Shown(value=self._parts.walk(operation, begun), names=names)

    def _request(self, tx: Transaction, caller: Caller, wish: ProvisionWish) -> tuple[Operation, dict[UUID, str]]:
        """Find all that is wished for, and begin; return names for whoever asked, too."""
        now = self._parts.now()
        project = project_for(tx, caller, wish.project, "provision_create")
        project_id = project.id
        network = find_network(tx, caller, "network_use", wish.network, project_id)
        disk, image = self._disk(tx, caller, wish, project)
        want_signed(tx, self._parts, project_id, image)
        node = find_node(tx, caller, "node_get", wish.node) if wish.node is not None else _any_free(tx, image, network)
        makes_disk = disk is None and not wish.is_stateless
        runs = _new_disk(wish, project, image, node, now) if makes_disk else disk
        boot = _boot_wish(wish, image)
        full = _wish(tx, caller, project_id, node=node, disk=runs, image=image, network=network, boot=boot)
        data = tuple(find_owned(tx, tx.disks, caller, "disk_use", ref, project_id) for ref in wish.data_disks)
        full = replace(full, makes_disk=makes_disk, data_disks=data)
        operation = provision.request(tx, now, full, adds=False)
        if full.makes_disk and runs is not None:
            # After it has locked the disks for data: who renames one of those waits for its name with that locked.
            tx.disks.add(runs)
        _want_within_quota(tx, full)
        return operation, {node.id: node.name, project_id: project.name}

    def _disk(
        self, tx: Transaction, caller: Caller, wish: ProvisionWish, project: Project
    ) -> tuple[Disk | None, Image]:
        if wish.disk is not None:
            disk = find_owned(tx, tx.disks, caller, "disk_use", wish.disk, project.id)
            return disk, image_of(tx, disk)
        image = find_image(tx, caller, wish.image or "", project)
        if image.state is not ImageState.SEALED:
            raise unsealed(image)
        return None, image


def _any_free(tx: Transaction, image: Image, network: Network) -> Node:
    """Choose one of the free nodes that the image boots on and that hang on the network's fabric, at random."""
    free = tx.nodes.list(Page(limit=CANDIDATES), state=NodeState.FREE)
    fitting = [n for n in free if n.firmware is None or n.firmware in image.firmwares]
    reachable = _on_fabric(tx, fitting, network.fabric)
    if not reachable:
        raise Exhausted(
            f"No free node fits image {image.name} and network {network.name}.",
            code="no-free-node",
            fix="Wait for a release, or look at `m2 node list --state free`.",
        )
    return random.choice(reachable)


def _on_fabric(tx: Transaction, nodes: list[Node], fabric: str) -> list[Node]:
    """Keep the nodes with a NIC on a switch of the fabric; three queries however many nodes."""
    if not nodes:
        return []
    switches = [switch.id for switch in tx.switches.list(fabric=fabric)]
    nics = [nic for nic in tx.nics.list(node_id=[n.id for n in nodes]) if nic.switch_port_id is not None]
    wired = tx.switch_ports.list(id=[nic.switch_port_id for nic in nics], switch_id=switches)
    ports = {port.id for port in wired}
    reachable = {nic.node_id for nic in nics if nic.switch_port_id in ports}
    return [node for node in nodes if node.id in reachable]


def _new_disk(wish: ProvisionWish, project: Project, image: Image, node: Node, now: datetime) -> Disk:
    disk_id = DiskId(new_id())
    return Disk(
        id=disk_id,
        name=wish.disk_name or f"{node.name[:40]}-{disk_id.hex[-12:]}",
        project_id=project.id,
        image_id=image.id,
        state=DiskState.CREATING,
        size_bytes=grown(image, wish.disk_size_bytes),
        pool=project.pool,
        created_at=now,
    )


def _want_within_quota(tx: Transaction, wish: Wish) -> None:
    """Be sure that the project may have the node and its attachment, if it held it not, and the disk, if it is new."""
    taken = Holdings(disks=1, disk_bytes=wish.disk.size_bytes) if wish.makes_disk and wish.disk else Holdings()
    new = int(wish.node.project_id != wish.project_id)
    want_within_quota(tx, wish.project_id, replace(taken, nodes=new, attachments=new))


def _refuse_hook(boot: BootWish) -> None:
    """A system that had its first boot runs no script of that: nobody would report its end."""
    if boot.given.has_hook:
        raise Invalid("A first-boot script is for a new disk.", fix="Give an image, or --user-data for what runs anew.")


def _boot_wish(wish: ProvisionWish, image: Image) -> BootWish:
    """Choose the boot way that can tell the system to write to memory, unless one is named."""
    is_free = wish.is_stateless and wish.boot.way is None and BootWay.KERNEL in image.boot_ways
    return replace(wish.boot, way=BootWay.KERNEL) if is_free else wish.boot


def find_image(tx: Transaction, caller: Caller, ref: str, project: Project) -> Image:
    """Find an image that a project's disks may be cloned from. Errors: NotFound, Conflict."""
    image = image_finding.find_image(tx, caller, "image_get", ref, project.id)
    if not image_finding.is_usable(tx, image, project.id):
        # Its owner could not delete it as long as another project's disk depends on it, and would not see why.
        raise not_found(f"image {shown(ref)}")
    if image.pool not in ("", project.pool):
        raise Conflict(
            f"Image {image.name} is in another pool than what project {project.name} has.",
            code="image-in-another-pool",
            fix=f"Copy it: `m2 image copy {image.name} --to {project.name}`.",
        )
    return image


def image_of(tx: Transaction, origin: Disk | Snapshot) -> Image:
    """Read what a disk, or a snapshot of one, boots as. Errors: Conflict for what was made blank."""
    if origin.image_id is None:
        raise Conflict(
            f"{type(origin).__name__} {origin.name} was made blank: nothing is known of how it boots.",
            code="nothing-to-boot",
            fix="Boot a disk cloned from an image; a blank one is for data.",
        )
    return tx.images.get(origin.image_id)


def grown(origin: Image | Snapshot, size_bytes: int | None) -> int:
    """Decide a disk's size, in whole sectors. Errors: Invalid when it is smaller than what it is cloned from."""
    if size_bytes is None:
        return whole_sectors(origin.size_bytes)
    if size_bytes < origin.size_bytes:
        raise Invalid(
            f"A disk of {size_bytes} bytes is smaller than {origin.name}, which has {origin.size_bytes}.",
            code="disk-too-small",
            fix="Leave the size out to take the same.",
        )
    return size_bytes


def _wish(
    tx: Transaction,
    caller: Caller,
    project_id: ProjectId,
    *,
    node: Node,
    disk: Disk | None,
    image: Image,
    network: Network,
    boot: BootWish,
) -> Wish:
    nic = _nic(tx, node, boot.nic)
    wish = Wish(
        node=node,
        project_id=project_id,
        disk=disk,
        image=image,
        network=network,
        nic=nic,
        way=boot.way or image.boot_ways[0],
        hostname=boot.hostname or dns_name(node.name),
        actor_id=caller.user_id,
        is_by_site=caller.is_admin,
    )
    given = replace(boot.given, has_disk=boot.given.has_disk or image.wants_seed_disk)
    return replace(wish, ssh_keys=with_project_keys(tx, project_id, boot.ssh_keys), given=given)


def _nic(tx: Transaction, node: Node, ref: str | None) -> Nic:
    nic = carrier(tx, node, ref)
    if nic is None:
        raise Conflict(f"Node {node.name} has no NIC.", code="no-nic", fix="An operator enrols it again.")
    return nic
