"""Of switches that are added to one Open vSwitch at the same moment, in several fabrics, one gets it: on PostgreSQL."""

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from tests.contract.store.values import NOW, later

from malleable.domain.errors import Conflict
from malleable.domain.ids import TokenId, UserId, new_id
from malleable.domain.ports import Drivers
from malleable.domain.projects import Role
from malleable.domain.secrets import Secret
from malleable.services.all import make_services
from malleable.services.caller import Caller
from malleable.services.parts import Parts
from malleable.services.switches import SwitchService, SwitchWish
from malleable.sim.clock import ManualClock
from malleable.sim.disks import SimDisks
from malleable.sim.switches import SimSwitches
from malleable.sim.targets import SimTargets
from malleable.store import SqlStore

ASKERS = 4
MEETINGS = 25

ADMIN = Caller(
    user_id=UserId(new_id()), name="admin", site_role=Role.ADMIN, token_id=TokenId(new_id()), expires_at=later(3600)
)


@pytest.fixture
def switches(postgres_store: SqlStore, tmp_path: Path) -> SwitchService:
    """Serve the switches of a room where each asker has one already, at a place of its own."""
    driver = SimSwitches()
    drivers = Drivers(power={}, switches={"sim": driver}, disks=SimDisks(), targets=SimTargets())
    parts = Parts(store=postgres_store, clock=ManualClock(NOW), drivers=drivers, spool_dir=tmp_path)
    for place in (*map(str, range(MEETINGS)), *(f"own{asker}" for asker in range(ASKERS))):
        driver.add(f"unix:/run/{place}", ["p1"])
    service = make_services(parts).switches
    for asker in range(ASKERS):
        service.switch_create(ADMIN, _wish(f"own{asker}", asker, f"own{asker}"))
    return service


def _wish(name: str, asker: int, place: str) -> SwitchWish:
    return SwitchWish(
        name=name,
        driver="sim",
        fabric=f"hall{asker}",
        address=f"unix:/run/{place}",
        settings={"vtep": f"10.9.{asker}.1"},
        username="",
        password=Secret(""),
    )


def _ask(switches: SwitchService, asker: int, together: threading.Barrier) -> Counter[str]:
    """Meet the others at one place after the other, every second asker with a switch that it has."""
    ends = Counter[str]()
    for meeting in range(MEETINGS):
        create = partial(switches.switch_create, ADMIN, _wish(f"s{asker}-{meeting}", asker + 10, str(meeting)))
        move = partial(
            switches.switch_update, ADMIN, f"own{asker}", address=f"unix:/run/{meeting}", username=None, password=None
        )
        ask: Callable[[], object] = move if asker % 2 else create
        together.wait(60)
        try:
            ask()
            ends["done"] += 1
        except Conflict as e:
            ends[e.code] += 1
    return ends


def test_one_open_vswitch_is_never_two_switches_where_one_has_tunnels(
    switches: SwitchService, postgres_store: SqlStore
) -> None:
    together = threading.Barrier(ASKERS)
    with ThreadPoolExecutor(ASKERS) as pool:
        ends = sum(pool.map(lambda asker: _ask(switches, asker, together), range(ASKERS)), Counter[str]())
    with postgres_store.reading() as tx:
        places = Counter(switch.address for switch in tx.switches.list())
    assert max(places.values()) == 1
    assert set(ends) == {"done", "vtep-not-alone"}
    assert ends["done"] >= MEETINGS, "somebody got each place"
