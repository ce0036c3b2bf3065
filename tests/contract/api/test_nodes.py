"""Nodes: what their holders may see of them, and when their wiring may change."""

import pytest
from tests.contract.api.site import Site

from malleable.domain.nodes import BootState, NodeState, PowerState
from malleable.domain.switches import SHUT
from malleable.workflows.requests import begin

CONSOLE = "/v1/nodes/held/console"
EARLIER = "password of the holder before"


def _seen(site: Site, boot: BootState, power: PowerState) -> None:
    with site.store.transaction() as tx:
        tx.nodes.change(site.ids["held"], boot=boot, power=power)


@pytest.mark.parametrize(
    ("boot", "power", "is_own"),
    [
        (BootState.NONE, PowerState.OFF, False),
        (BootState.NONE, PowerState.ON, False),  # switched on by hand while nobody had it
        (BootState.BOOTING, PowerState.OFF, False),  # armed, and not yet powered on
        (BootState.BOOTING, PowerState.UNKNOWN, False),
        (BootState.BOOTING, PowerState.ON, True),
        (BootState.UP, PowerState.ON, True),
        (BootState.UP, PowerState.OFF, True),
        (BootState.FAILED, PowerState.OFF, True),
    ],
)
def test_a_new_holder_does_not_read_the_earlier_ones_console(
    small_site: Site, boot: BootState, power: PowerState, *, is_own: bool
) -> None:
    small_site.room.bmcs.write_console("held", EARLIER)
    _seen(small_site, boot, power)
    for caller in ("member", "reader"):
        assert (EARLIER in small_site.get(caller, CONSOLE).json()["text"]) is is_own
    for caller in ("operator", "admin"):
        assert EARLIER in small_site.get(caller, CONSOLE).json()["text"]


def test_a_release_closes_the_console_at_once_and_to_its_tenants_alone(small_site: Site) -> None:
    _seen(small_site, BootState.UP, PowerState.ON)
    assert small_site.get("member", CONSOLE).status_code == 200
    assert small_site.call("member", "POST", "/v1/nodes/held/release").status_code == 202
    for caller in ("member", "reader"):
        closed = small_site.get(caller, CONSOLE)
        assert (closed.status_code, closed.json()["code"]) == (409, "console-closed")
    assert small_site.get("operator", CONSOLE).status_code == 200


def test_a_read_that_a_release_overtakes_tells_nothing(small_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    small_site.room.bmcs.write_console("held", "mine")
    _seen(small_site, BootState.UP, PowerState.ON)
    lines = small_site.room.bmcs.console

    def release_meanwhile(name: str) -> object:
        assert small_site.call("member", "POST", "/v1/nodes/held/release").status_code == 202
        return lines(name)

    monkeypatch.setattr(small_site.room.bmcs, "console", release_meanwhile)
    overtaken = small_site.get("member", CONSOLE)
    assert (overtaken.status_code, overtaken.json()["code"]) == (409, "console-closed")


def test_the_wiring_stays_while_an_operation_reads_it(small_site: Site) -> None:
    with small_site.store.transaction() as tx:
        tx.nodes.change(small_site.ids["free"], state=NodeState.INSPECTED)
        begin(tx, small_site.clock.now(), "enrol", node_id=small_site.ids["free"])  # type: ignore[arg-type]
    path = "/v1/nodes/free/nics/nic0/port"
    for method, body in (("PUT", {"switch": "tor1", "port": "p5"}), ("DELETE", None)):
        response = small_site.call("operator", method, path, json=body)
        assert (response.status_code, response.json()["code"]) == (409, "node-busy")


def test_who_provisions_a_node_twice_hears_that_it_is_being_worked_on(small_site: Site) -> None:
    wish = {"project": "alpha", "image": "tiny", "network": "blue", "node": "free"}
    assert small_site.post("member", "/v1/provisions", {**wish, "disk_name": "one"}).status_code == 202
    again = small_site.post("member", "/v1/provisions", {**wish, "disk_name": "two"})
    assert (again.status_code, again.json()["code"]) == (409, "node-busy")
    assert "m2 operation watch free" in again.json()["fix"]
    assert small_site.get("member", "/v1/disks/two?project=alpha").status_code == 404


@pytest.mark.parametrize("power", list(PowerState))
def test_only_a_node_that_is_off_is_free_after_maintenance(small_site: Site, power: PowerState) -> None:
    """A retired node may still run its last holder's system."""
    with small_site.store.transaction() as tx:
        tx.nodes.change(small_site.ids["broken"], power=power)
        tx.switch_ports.change(small_site.ids["port2"], observed=SHUT)
    answer = small_site.call("operator", "DELETE", "/v1/nodes/broken/maintenance").json()
    assert answer["state"] == ("free" if power is PowerState.OFF else "inspected")
    assert ("off" in answer["state_reason"]) is (power is not PowerState.OFF)


def test_a_node_is_not_called_like_another_one_in_dns(small_site: Site) -> None:
    with small_site.store.transaction() as tx:
        tx.nodes.change(small_site.ids["held"], name="rack1.n1")
    body = {"name": "rack1-n1", "bmc": {"driver": "sim", "address": "sim://new"}}
    response = small_site.post("operator", "/v1/nodes", body)
    told = response.json()
    assert (response.status_code, told["code"], told["fix"]) == (409, "conflict", "Choose another name.")
    assert "rack1-n1 is called like node rack1.n1" in told["detail"]
