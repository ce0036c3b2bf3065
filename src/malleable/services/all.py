"""All services, made from their parts."""

from dataclasses import dataclass

from malleable.services.access import Accesses
from malleable.services.attachments import Attachments
from malleable.services.authentication import Authentication
from malleable.services.bonds import Bonds
from malleable.services.boot_devices import BootDevices
from malleable.services.console_input import ConsoleInputs
from malleable.services.credentials import Credentials
from malleable.services.disk_offers import DiskOffers
from malleable.services.disks import Disks
from malleable.services.drivers import DriverService
from malleable.services.events import Events
from malleable.services.fabrics import Fabrics
from malleable.services.gateway import Gateways
from malleable.services.grants import Grants
from malleable.services.health import Health
from malleable.services.idempotency import Idempotency
from malleable.services.image_grants import ImageGrants
from malleable.services.image_tree import ImageTrees
from malleable.services.images import Images
from malleable.services.keys import Keys
from malleable.services.networks import Networks
from malleable.services.nics import Nics
from malleable.services.nodes import Nodes
from malleable.services.operations import Operations
from malleable.services.paces import Paces
from malleable.services.parts import Parts
from malleable.services.passwords import Passwords
from malleable.services.paths import Paths
from malleable.services.permits import Permits
from malleable.services.pool import Pool
from malleable.services.projects import Projects
from malleable.services.provisions import Provisions
from malleable.services.quotas import Quotas
from malleable.services.reservations import Reservations
from malleable.services.scrubs import Scrubs
from malleable.services.signers import Signers
from malleable.services.snapshots import Snapshots
from malleable.services.switches import SwitchService
from malleable.services.tokens import Tokens
from malleable.services.users import Users


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """One object per noun; safe to use from many threads."""

    parts: Parts
    authentication: Authentication
    idempotency: Idempotency
    paces: Paces
    users: Users
    tokens: Tokens
    accesses: Accesses
    projects: Projects
    quotas: Quotas
    keys: Keys
    fabrics: Fabrics
    switches: SwitchService
    paths: Paths
    drivers: DriverService
    nodes: Nodes
    boot_devices: BootDevices
    console_inputs: ConsoleInputs
    nics: Nics
    bonds: Bonds
    provisions: Provisions
    networks: Networks
    grants: Grants
    reservations: Reservations
    permits: Permits
    attachments: Attachments
    images: Images
    image_grants: ImageGrants
    image_trees: ImageTrees
    signers: Signers
    disks: Disks
    disk_offers: DiskOffers
    snapshots: Snapshots
    pool: Pool
    scrubs: Scrubs
    credentials: Credentials
    operations: Operations
    events: Events
    gateways: Gateways
    health: Health


def make_services(parts: Parts) -> Services:
    """Wire the services together."""
    passwords = Passwords(parts.clock)
    authentication = Authentication(parts, passwords)
    paces = Paces(parts)
    return Services(
        parts=parts,
        authentication=authentication,
        idempotency=Idempotency(parts),
        paces=paces,
        users=Users(parts, authentication, passwords),
        tokens=Tokens(parts, authentication),
        accesses=Accesses(parts, authentication),
        projects=Projects(parts, authentication),
        quotas=Quotas(parts),
        keys=Keys(parts),
        fabrics=Fabrics(parts),
        switches=SwitchService(parts),
        paths=Paths(parts),
        drivers=DriverService(parts),
        nodes=Nodes(parts, paces),
        boot_devices=BootDevices(parts, paces),
        console_inputs=ConsoleInputs(parts, paces),
        nics=Nics(parts),
        bonds=Bonds(parts),
        provisions=Provisions(parts),
        networks=Networks(parts),
        grants=Grants(parts),
        reservations=Reservations(parts),
        permits=Permits(parts),
        attachments=Attachments(parts),
        images=Images(parts),
        image_grants=ImageGrants(parts),
        image_trees=ImageTrees(parts),
        signers=Signers(parts),
        disks=Disks(parts),
        disk_offers=DiskOffers(parts),
        snapshots=Snapshots(parts),
        pool=Pool(parts),
        scrubs=Scrubs(parts),
        credentials=Credentials(parts),
        operations=Operations(parts),
        events=Events(parts),
        gateways=Gateways(parts),
        health=Health(parts),
    )
