"""What the gateway is to serve, and what it reports back."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any
from uuid import UUID

from malleable.domain import portals
from malleable.domain.boots import BOOT_REASONS, Boot
from malleable.domain.disks import Disk, DiskUse, Target, TargetState
from malleable.domain.errors import Conflict, Forbidden, Refused
from malleable.domain.gateways import ALL_FABRICS, NAME_TAKEN, SILENT_AFTER_S, Gateway
from malleable.domain.ids import BootId, GatewayId, ImageId, NetworkId, NodeId, OperationId, new_id
from malleable.domain.images import Image
from malleable.domain.networks import Attachment, Network, NetworkState
from malleable.domain.nodes import Nic, dns_name
from malleable.domain.reservations import Reservation
from malleable.domain.seeds import Document
from malleable.domain.store import Transaction
from malleable.services.authorization import not_found, require
from malleable.services.caller import Caller
from malleable.services.finding import names_of, shown
from malleable.services.parts import Parts
from malleable.services.seeds import read_document
from malleable.workflows import quiesce, storage
from malleable.workflows.requests import record

#: Networks in one answer; the gateway asks again for the rest.
DESIRED_MAX = 100
#: A gateway that was taken away for good is not missed for ever.
FORGOTTEN_AFTER_S = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Whose addresses of a network are: a node's NIC's, or of a reservation."""

    node_id: NodeId | None  #: None: reserved for what is no node
    mac: str  #: "": DHCP gives them to nobody
    address: str
    address6: str
    hostname: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """A boot intent with all that serves it."""

    boot: Boot
    target: Target
    image: Image
    address: str
    data: tuple[tuple[Target, Disk], ...] = ()  #: what the node has besides


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """One network as it is to be served."""

    network: Network
    intents: tuple[Intent, ...]
    hosts: tuple[Host, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What a gateway is to serve otherwise."""

    generation: int  #: to ask from the next time; less than before: the database was restored, ask for everything
    networks: tuple[Desired, ...]  #: in order of generation
    has_more: bool  #: there are others

    def is_news(self, after: int) -> bool:
        """Say whether whoever knows generation ``after`` hears of something here."""
        return bool(self.networks) or self.generation < after


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A network as a gateway serves it."""

    network_id: NetworkId
    served_generation: int
    portal_epoch: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """A sign of life of a boot, or why it is not served."""

    boot_id: BootId
    stage: str  #: one of BOOT_STAGES without its "_at", or of BOOT_REASONS; with ``freeze_id`` what became of that
    exit_status: int = 0  #: of the last stage
    log: str = ""
    freeze_id: OperationId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """A gateway's sign of life."""

    name: str
    troubles: tuple[str, ...] = ()
    holds_writers: bool = False
    instance: str = ""
    fabrics: tuple[str, ...] = ()


class Gateways:
    """The gateway's calls; nobody else's, and of a gateway's only what is of the fabrics that its token names."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def gateway_desired(self, caller: Caller, after: int) -> Changes:
        """Read the networks changed since generation ``after``, with what each is to serve.

        The answer holds CHAP secrets and boot tokens. Eight queries however many networks.
        """
        fabrics = _fabrics(caller, "gateway_desired")
        with self._parts.store.reading() as tx:
            found = tx.networks.changed_since(after, DESIRED_MAX, fabrics)
            # Never beyond ``after``: what is committed at this moment would be missed.
            generation = found[-1].generation if found else min(after, tx.networks.generation())
            return Changes(generation=generation, networks=_desired(tx, found), has_more=len(found) >= DESIRED_MAX)

    def gateway_report(
        self, caller: Caller, served: Sequence[Served], removed: Sequence[UUID], beat: Beat | None = None
    ) -> None:
        """Note what a gateway has in force, and wake what waits for it. Idempotent; unknown networks are passed over.

        A new epoch of a target daemon begins to give it its targets back.
        Errors: Conflict with code "gateway-name-taken" for a beat in the name of another gateway that lives.
        """
        fabrics = _fabrics(caller, "gateway_report")
        now = self._parts.now()
        with self._parts.claiming() as claim, self._parts.store.transaction() as tx:
            if beat is not None:
                _heard(tx, now, beat, fabrics)
            ids = {s.network_id for s in served} | set(removed)
            networks = {n.id: n for n in tx.networks.list(id=ids) if _is_of(n, fabrics)} if ids else {}
            woken = 0
            told = [(s.network_id, s) for s in served], [(NetworkId(id), None) for id in removed]
            for id, report in sorted(chain(*told), key=itemgetter(0)):  # in the order in which everybody locks them
                network = networks.get(id)
                if network is not None and report is not None:
                    woken += _note(tx, now, network, report)
                elif network is not None and network.state is NetworkState.REMOVING:
                    tx.networks.change(network.id, served_generation=network.generation)
                    woken += _wake(tx, now, network.id)
            if woken:
                claim(tx)

    def gateway_sign(self, caller: Caller, signs: Sequence[Sign]) -> None:
        """Note signs of life; of each kind the first since the boot was armed counts. Unknown boots are passed over."""
        fabrics = _fabrics(caller, "gateway_sign")
        now = self._parts.now()
        with self._parts.claiming() as claim, self._parts.store.transaction() as tx:
            ids = {sign.boot_id for sign in signs}
            boots = {boot.id: boot for boot in _served(tx, fabrics, id=ids)} if ids else {}
            stages: dict[BootId, dict[str, Any]] = {}
            for sign in signs:
                boot = boots.get(sign.boot_id)
                if boot is None or boot.armed_at is None or sign.freeze_id is not None:
                    continue
                told = _told(now, sign)
                if not getattr(boot, next(iter(told))):
                    stages.setdefault(boot.id, {}).update(told)
            # In one order, so that two batches do not wait for each other in a circle.
            of: dict[UUID, list[Sign]] = {}
            for sign in signs:
                of.setdefault(sign.boot_id, []).append(sign)
            noted: set[OperationId] = set()
            for boot_id in sorted(boots):
                if boot_id in stages:
                    tx.boots.change(boot_id, expect={"armed_at": boots[boot_id].armed_at}, **stages[boot_id])
                noted |= _note_freezes(tx, now, boot_id, of[boot_id])
            woken = 0
            for node_id in sorted(boots[boot_id].node_id for boot_id in stages):
                tx.operations.wake(now=now, node_id=node_id)
            for freeze_id in sorted(noted):
                woken += tx.operations.wake_all(now=now, resource=quiesce.resource(freeze_id))
            if stages or woken:
                claim(tx)

    def gateway_file(self, caller: Caller, image_id: UUID, name: str) -> Path:
        """Locate a file kept beside an image. Errors: NotFound."""
        fabrics = _fabrics(caller, "gateway_file")
        what = f"file {shown(name)} of image {image_id}"
        with self._parts.store.reading() as tx:
            image = tx.images.find(id=image_id)
            if fabrics is not None and not tx.networks.boot_image(fabrics, image_id):
                image = None
        if image is None or not name or name not in (image.kernel, image.initrd):
            raise not_found(what)
        try:
            return self._parts.drivers.disks.file(ImageId(image_id), name)
        except Refused as e:
            raise not_found(what) from e

    def gateway_document(self, caller: Caller, boot_id: UUID, document: Document) -> bytes:
        """Read a document for a boot's system. Errors: NotFound."""
        fabrics = _fabrics(caller, "gateway_document")
        with self._parts.store.reading() as tx:
            if fabrics is not None and not _served(tx, fabrics, id=[boot_id]):
                raise not_found(f"{document} of boot {boot_id}")
            return read_document(tx, BootId(boot_id), document)


def _fabrics(caller: Caller, action: str) -> Collection[str] | None:
    """Let a gateway do ``action``, for the fabrics that are returned; None: for all. Errors: Forbidden."""
    require(caller, action)
    if not caller.fabrics:
        raise Forbidden(
            "This token names no fabric that its gateway serves.",
            code="token-scope",
            fix="Make one with `m2d gateway-token FILE --fabric NAME`.",
        )
    return None if ALL_FABRICS in caller.fabrics else caller.fabrics


def _is_of(network: Network, fabrics: Collection[str] | None) -> bool:
    return fabrics is None or network.fabric in fabrics


def _served(tx: Transaction, fabrics: Collection[str] | None, **wanted: Any) -> Sequence[Boot]:
    """Read boots, of the networks of some fabrics alone."""
    boots = tx.boots.list(**wanted)
    if fabrics is None or not boots:
        return boots
    networks = {n.id for n in tx.networks.list(id={boot.network_id for boot in boots}) if _is_of(n, fabrics)}
    return [boot for boot in boots if boot.network_id in networks]


def _told(now: datetime, sign: Sign) -> dict[str, Any]:
    """Say what a sign changes of its boot, first what it is known by."""
    if sign.stage in BOOT_REASONS:
        return {BOOT_REASONS[sign.stage]: sign.log}
    of_end = {"exit_status": sign.exit_status, "finish_log": sign.log} if sign.stage == "finished" else {}
    return {f"{sign.stage}_at": now, **of_end}


def _note_freezes(tx: Transaction, now: datetime, boot_id: BootId, signs: Sequence[Sign]) -> set[OperationId]:
    """Note what a boot's agent says of freezes, and return those of which that was news."""
    return {
        sign.freeze_id
        for sign in signs
        if sign.freeze_id is not None
        and quiesce.note(tx, now, boot_id, sign.freeze_id, stage=sign.stage, words=sign.log)
    }


def _heard(tx: Transaction, now: datetime, beat: Beat, fabrics: Collection[str] | None) -> None:
    """Note that a gateway lives; forget those that have been silent for long, now that another one serves."""
    serves = (ALL_FABRICS,) if fabrics is None else tuple(sorted(fabrics))
    apart = tuple(name for name in beat.fabrics if fabrics is None or name in fabrics)
    known = tx.gateways.find(name=beat.name)
    if known is not None and not known.is_silent(now):
        _require_same(known, beat, serves, now)
    if known is None:
        tx.gateways.add(
            Gateway(
                id=GatewayId(new_id()),
                name=beat.name,
                seen_at=now,
                troubles=beat.troubles,
                holds_writers=beat.holds_writers,
                fabrics=apart,
                serves=serves,
                instance=beat.instance,
                created_at=now,
            )
        )
    else:
        tx.gateways.change(
            known.id,
            seen_at=now,
            troubles=beat.troubles,
            holds_writers=beat.holds_writers,
            fabrics=apart,
            serves=serves,
            instance=beat.instance,
        )
    if beat.holds_writers != (known is not None and known.holds_writers):
        kind = "pool.writers-held" if beat.holds_writers else "pool.writers-go-on"
        record(tx, now, kind, data={"gateway": beat.name})
    for other in tx.gateways.list():
        if other.silent_s(now) > FORGOTTEN_AFTER_S:
            tx.gateways.remove(other.id)


def _require_same(known: Gateway, beat: Beat, serves: tuple[str, ...], now: datetime) -> None:
    """Be sure that a beat is of the gateway that had its name last; where it does not say, of one for the same fabrics.

    Errors: Conflict.
    """
    says = bool(known.instance and beat.instance)
    if (known.instance == beat.instance) if says else (known.serves == serves):
        return
    raise Conflict(
        f"Another gateway is called {known.name} as well: it was heard of {known.silent_s(now):.0f} s ago, and serves"
        f" {'all fabrics' if known.serves == (ALL_FABRICS,) else ', '.join(known.serves)}. It is instance"
        f" {known.instance or 'unknown'}, this one is {beat.instance or 'unknown'}.",
        code=NAME_TAKEN,
        fix="Stop one of them, or give its host another name. The file gateway/instance in each state directory tells"
        f" them apart. One that is gone for good makes room {SILENT_AFTER_S:.0f} s after it was last heard of.",
    )


def _note(tx: Transaction, now: datetime, network: Network, report: Served) -> int:
    """Note what is in force of a network, and return how many operations that has woken."""
    changes: dict[str, Any] = {}
    if report.served_generation > network.served_generation and report.served_generation <= network.generation:
        changes["served_generation"] = report.served_generation
    if report.portal_epoch and report.portal_epoch != network.portal_epoch:
        changes["portal_epoch"] = report.portal_epoch
        moves = portals.compare(network.portal_epoch, report.portal_epoch)
        if moves.lost:
            storage.request_restore(tx, now, network_id=network.id, moves=moves)
    if not changes:
        return 0
    tx.networks.change(network.id, **changes)
    return _wake(tx, now, network.id)


def _wake(tx: Transaction, now: datetime, network_id: NetworkId) -> int:
    """Make every operation that waits for the network look again; return how many.

    None can miss it: what an operation asks of the gateway is committed together with its wait.
    """
    return tx.operations.wake_all(now=now, resource=f"network:{network_id}")


def _desired(tx: Transaction, networks: Sequence[Network]) -> tuple[Desired, ...]:
    live = [network.id for network in networks if network.state is NetworkState.ACTIVE]
    attachments = tx.attachments.list(network_id=live) if live else ()
    reserved = tx.reservations.list(network_id=live) if live else ()
    nics = {nic.id: nic for nic in tx.nics.list(id={a.nic_id for a in attachments})} if attachments else {}
    nodes = names_of(tx.nodes, (nic.node_id for nic in nics.values()))
    boots = tx.boots.list(network_id=live) if live else ()
    intents = _intents(tx, [b for b in boots if b.armed_at is not None], {a.id: a for a in attachments})
    return tuple(
        Desired(
            network=network,
            intents=tuple(i for i in intents if i.boot.network_id == network.id),
            hosts=_hosts(
                [_host(a, nics[a.nic_id], nodes) for a in attachments if a.network_id == network.id],
                [r for r in reserved if r.network_id == network.id],
            ),
        )
        for network in networks
    )


def _intents(tx: Transaction, boots: Sequence[Boot], attachments: Mapping[UUID, Attachment]) -> list[Intent]:
    """Join armed boots with their targets and images; one whose disk is not presented yet is not served."""
    if not boots:
        return []
    targets = tx.targets.list(node_id=[boot.node_id for boot in boots])
    by_id = {target.id: target for target in targets}
    by_node: dict[UUID, list[Target]] = {boot.node_id: [] for boot in boots}
    for one in targets:
        by_node[one.node_id].append(one)
    disks: dict[UUID | None, Disk] = (
        {d.id: d for d in tx.disks.list(id=[t.disk_id for t in targets])} if targets else {}
    )
    image_ids = {disk.image_id for disk in disks.values()} | {target.image_id for target in targets}
    images: dict[UUID | None, Image] = {i.id: i for i in tx.images.list(id=image_ids)} if targets else {}
    intents = []
    for boot in boots:
        target = by_id.get(boot.target_id) if boot.target_id is not None else None
        attachment = attachments.get(boot.attachment_id)
        if target is not None and attachment is not None:
            data = tuple((t, disks[t.disk_id]) for t in by_node[boot.node_id] if _is_data(t, boot))
            image = images[target.image_id or disks[target.disk_id].image_id]
            intents.append(Intent(boot=boot, target=target, image=image, address=attachment.address, data=data))
    return intents


def _is_data(target: Target, boot: Boot) -> bool:
    is_there = target.state is TargetState.EXPORTED and target.network_id == boot.network_id
    return target.use is DiskUse.DATA and is_there


def _hosts(nodes: Sequence[Host], reserved: Sequence[Reservation]) -> tuple[Host, ...]:
    """Add what is reserved; a name that a node has is the node's."""
    names = {host.hostname for host in nodes}
    others = (
        Host(
            node_id=None,
            mac=one.mac,
            address=one.address,
            address6=one.address6,
            hostname="" if one.hostname in names else one.hostname,
        )
        for one in reserved
    )
    return (*nodes, *others)


def _host(attachment: Attachment, nic: Nic, nodes: Mapping[UUID, str]) -> Host:
    return Host(
        node_id=nic.node_id,
        mac=nic.mac,
        address=attachment.address,
        address6=attachment.address6,
        hostname=dns_name(nodes[nic.node_id]),
    )
