"""A site whose devices fail and say too much, worked by a real engine; and whatever a tenant reads of it meanwhile."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from tests.contract.api.site import BMC_PASSWORD, CHAP_PASSWORD, SWITCH, Site

from malleable.domain.errors import DriverError
from malleable.domain.images import BootWay
from malleable.domain.networks import Network, NetworkState
from malleable.domain.ports import Drivers
from malleable.domain.store import Transaction
from malleable.sim.faults import Faults
from malleable.sim.room import Intent
from malleable.workflows.catalogue import workflows
from malleable.workflows.engine import Engine

#: What real drivers put into their errors, all of it.
BMC_ADDRESS, BMC_USER, PORT, POOL = "https://192.0.2.66/redfish", "bmc-root", "Ethernet1/7", "/srv/pool/images"
LISTS = (
    "nodes",
    "networks",
    "attachments",
    "images",
    "disks",
    "targets",
    "snapshots",
    "operations",
    "events",
    "projects",
    "tokens",
)
#: Numbers that may be any, also one that is a VLAN's; and the tag that a tenant's own system uses.
COUNTS = {"attempt", "attempts", "ordinal", "position", "generation", "served_generation", "vlan"}
UP_DEADLINE_S = 10.0
MOMENTS_MAX = 2000


class Talkative(Faults):
    """Faults whose errors hold everything a tenant must not read."""

    def __init__(self, site: Site) -> None:
        super().__init__(delay=site.clock.advance)
        self._site = site

    def before(self, method: str, key: str | None = None) -> None:
        """Fail as ordered."""
        try:
            super().before(method, key)
        except DriverError as e:
            raise self._told(e) from e

    def after(self, method: str, key: str | None = None) -> None:
        """Lose the reply if that was ordered."""
        try:
            super().after(method, key)
        except DriverError as e:
            raise self._told(e) from e

    def _told(self, e: DriverError) -> DriverError:
        room = (
            f"BMC {BMC_ADDRESS} of {BMC_USER}, switch tor1 at {SWITCH} port {PORT} VLAN 102, {POOL}, {self._site.spool}"
        )
        return type(e)(
            f"{room}: tenant beta on {self._site.ids['foreign']} has it.",
            fix=f"Look at {room}.",
            code=e.code,
            details={"address": BMC_ADDRESS, "path": POOL, "node": str(self._site.ids["foreign"])},
        )


@dataclass
class Room:
    """The site's engine and gateway, with time in the test's hand."""

    site: Site
    is_gateway_up: bool = True
    has_power: bool = True  #: whether machines are given what they boot
    faults: Talkative = field(init=False)

    def __post_init__(self) -> None:
        self.faults = Talkative(self.site)
        drivers: Drivers = self.site.services.parts.drivers
        for device in (*drivers.power.values(), *drivers.switches.values(), drivers.disks, drivers.targets):
            device.faults = self.faults  # type: ignore[attr-defined]
        self._engine = Engine(
            store=self.site.store,
            clock=self.site.clock,
            drivers=drivers,
            workflows=workflows(up_deadline_s=UP_DEADLINE_S),
            worker="worker",
        )

    def work(self) -> Iterator[None]:
        """Let time pass until every operation rests; yield whenever something can have changed."""
        for _ in range(MOMENTS_MAX):
            self._engine.run_due()
            self._serve()
            yield
            with self.site.store.reading() as tx:
                due = tx.operations.next_due()
            if due is None:
                return
            self.site.clock.advance_to(due)
        raise AssertionError("the operations never rest")

    def _serve(self) -> None:
        if not self.is_gateway_up:
            return
        with self.site.store.transaction() as tx:
            for network in tx.networks.list():
                self._serve_network(tx, network)

    def _serve_network(self, tx: Transaction, network: Network) -> None:
        if network.state is NetworkState.ACTIVE:
            self.site.targets.start(network.id)
            if self.has_power:
                self.site.room.serve(network.vid, network.id, dict(_intents(tx, network)))
        if not network.portal_epoch or network.served_generation < network.generation:
            tx.networks.change(network.id, served_generation=network.generation, portal_epoch="first")
            tx.operations.wake_all(now=self.site.clock.now(), resource=f"network:{network.id}")


def _intents(tx: Transaction, network: Network) -> Iterator[tuple[str, Intent]]:
    for boot in tx.boots.list(network_id=network.id):
        target = tx.targets.find(id=boot.target_id) if boot.target_id else None
        if target is not None:
            chap = (target.chap_username, target.chap_password)
            yield (
                boot.mac,
                Intent(
                    boot_id=boot.id,
                    address=target.initiator_address,
                    way=BootWay.SAN,
                    iqn=target.iqn,
                    initiator_iqn=target.initiator_iqn,
                    chap=chap,
                ),
            )


def readable(site: Site, caller: str) -> Iterator[tuple[str, Any]]:
    """Read everything there is for a caller, refusals included; yield paths and bodies."""
    for noun in LISTS:
        yield noun, site.get(caller, f"/v1/{noun}?limit=1000").json()
    for operation in site.get(caller, "/v1/operations?limit=1000").json()["items"]:
        yield "operation", site.get(caller, f"/v1/operations/{operation['id']}").json()
    chains = (f"project:{site.ids['alpha']}", *(f"node:{site.ids[node]}" for node in ("held", "free")))
    for path in (
        *(f"chains/{chain}?limit=1000" for chain in chains),
        *(f"nodes/{node}{part}" for node in ("held", "free") for part in ("", "/nics", "/console")),
        "networks/blue",
        "projects/alpha/members",
        "switches",
        "switches/any",
        "switches/any/ports",
        "fabrics",
        "pool",
        "pool/audit",
        "health",
    ):
        yield path, site.get(caller, f"/v1/{path}").json()


def leaks(site: Site, body: Any, at: str = "") -> Iterator[str]:
    """Find what a tenant of project alpha must not read; yield where it stands and what it is."""
    return _leaks(_hidden(site), body, at)


def _leaks(hidden: re.Pattern[str], body: Any, at: str) -> Iterator[str]:
    if isinstance(body, Mapping):
        for key, value in body.items():
            if key in COUNTS:
                continue
            yield from _leaks(hidden, value, f"{at}.{key}")
    elif isinstance(body, list):
        for value in body:
            yield from _leaks(hidden, value, f"{at}[]")
    elif isinstance(body, str) and (found := hidden.search(body)):
        yield f"{at}: {found[0]!r} in {body!r}"
    elif isinstance(body, int) and not isinstance(body, bool) and 100 <= body < 110:
        yield f"{at}: VLAN {body}"


def _hidden(site: Site) -> re.Pattern[str]:
    """Match whatever names the room or another tenant. Ids in a text would match as words, ids alone do not."""
    ids = ("beta", "foreign", "network:beta", "disk:beta", "switch", "user:other", *(f"port{n}" for n in range(1, 6)))
    words = [
        BMC_ADDRESS,
        "192.0.2",
        BMC_USER,
        PORT,
        POOL,
        SWITCH,
        "sim://",
        str(site.spool),
        BMC_PASSWORD,
        CHAP_PASSWORD,
    ]
    words += [str(site.ids[name]) for name in ids]
    plain = "|".join(map(re.escape, words))
    return re.compile(rf"{plain}|\btor1\b|\bp[1-8]\b|\bVLAN \d|\bbeta\b|\bforeign\b|\bEthernet|\bswitch:|\bbmc:")


def texts(body: Any) -> str:
    """Write a body as text, to look for words."""
    return json.dumps(body)


def operation_of(site: Site, caller: str, answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """Read the operation that a request began."""
    found: Mapping[str, Any] = site.get(caller, f"/v1/operations/{UUID(str(answer['id']))}").json()
    return found
