"""What the service says of gateways and the pool."""

import re
import threading
from datetime import timedelta
from typing import Any

import pytest
from tests.contract.api.site import Site

from malleable.domain.errors import Unreachable
from malleable.domain.gateways import SILENT_AFTER_S
from malleable.domain.ports import Capacity
from malleable.services.gauge import FRESH_FOR_S, PoolGauge
from malleable.sim.clock import ManualClock
from malleable.sim.disks import SimDisks
from malleable.sim.faults import FaultKind


def beat(site: Site, *troubles: str, name: str = "host1") -> None:
    body = {"gateway": {"name": name, "troubles": list(troubles)}}
    assert site.post("gateway", "/v1/gateway/reports", body).status_code == 204


def warnings(site: Site) -> dict[str, Any]:
    answer = site.get("nobody", "/v1/health")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    assert found["status"] == ("warning" if found["warnings"] else "ok")
    return dict(found["warnings"])


def test_a_gateway_is_missed_while_it_is_silent(site: Site) -> None:
    assert warnings(site) == {"gateway": "No gateway was ever heard of."}
    beat(site)
    beat(site, name="host2")
    assert warnings(site) == {}
    site.clock.advance(SILENT_AFTER_S + 1)
    beat(site)
    assert warnings(site) == {"gateway": "1 of 2 gateways not heard of, one for 61 s."}
    told = site.get("operator", "/metrics").text
    assert 'malleable_gateway_silent_seconds{gateway="host1"} 0.0' in told
    assert 'malleable_gateway_silent_seconds{gateway="host2"} 61.0' in told
    site.clock.advance(timedelta(days=1).total_seconds())
    beat(site)
    assert warnings(site) == {}
    assert "host2" not in site.get("operator", "/metrics").text


def test_what_a_gateway_says_is_wrong_is_told_by_number_to_all_and_in_words_to_operators(site: Site) -> None:
    beat(site, "Network x: tgtd (pid 7) does not answer.")
    assert warnings(site) == {"gateway": "1 thing(s) wrong at 1 gateways."}
    assert 'malleable_gateway_troubles{gateway="host1"} 1.0' in site.get("operator", "/metrics").text
    beat(site)
    assert warnings(site) == {}


def test_that_nodes_wait_for_room_is_told_and_kept_as_events(site: Site) -> None:
    for is_held in (False, True, True, False):
        body = {"gateway": {"name": "host1", "holds_writers": is_held}}
        assert site.post("gateway", "/v1/gateway/reports", body).status_code == 204
        told = {"gateway": "1 gateway(s) have nodes wait, for the pool is nearly full."} if is_held else {}
        assert warnings(site) == told
    kinds = [event["kind"] for event in site.get("operator", "/v1/events").json()["items"]]
    assert [kind for kind in kinds if kind.startswith("pool.")] == ["pool.writers-held", "pool.writers-go-on"]


def test_disks_presented_are_counted_by_the_daemon_of_their_network(site: Site) -> None:
    text = site.get("operator", "/metrics").text
    before = dict(re.findall(r'malleable_targets{daemon="(\S+)"} (\S+)', text))
    assert list(before) == ["tgtd"]
    with site.store.transaction() as tx:
        tx.targets.change(tx.targets.list()[0].id, daemon=1)
    text = site.get("operator", "/metrics").text
    after = dict(re.findall(r'malleable_targets{daemon="(\S+)"} (\S+)', text))
    assert (after["tgtd-1"], float(after["tgtd"])) == ("1.0", float(before["tgtd"]) - 1)


def test_a_pool_is_told_with_its_room_and_missed_when_it_does_not_answer(site: Site) -> None:
    beat(site)
    pool = site.disks
    (told,) = re.findall(r'malleable_pool_bytes{kind="total"} (\S+)', site.get("operator", "/metrics").text)
    assert float(told) == pool.total_bytes
    pool.reserve_bytes = 2 * pool.total_bytes
    assert warnings(site) == {}
    site.clock.advance(FRESH_FOR_S)
    beat(site)
    assert "less free than its reserve" in warnings(site)["pool"]
    pool.faults.add("capacity", FaultKind.LOST_REQUEST, times=None)
    site.clock.advance(FRESH_FOR_S)
    assert warnings(site)["pool"] == "The pool cannot be measured."
    assert "malleable_pool_bytes{" not in site.get("operator", "/metrics").text


class Stuck(SimDisks):
    """A pool that answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = threading.Event()

    def capacity(self) -> Capacity:
        self.may_answer.wait(60)
        return super().capacity()


def test_a_pool_that_hangs_keeps_nobody_waiting() -> None:
    pool = Stuck()
    gauge = PoolGauge(pool, ManualClock().monotonic_s, wait_s=0.01)
    for _ in range(3):
        with pytest.raises(Unreachable):
            gauge.look()
    pool.may_answer.set()
    patient = PoolGauge(pool, ManualClock().monotonic_s, wait_s=60)
    assert patient.look().total_bytes == pool.total_bytes
