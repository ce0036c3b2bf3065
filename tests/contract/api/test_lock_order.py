"""Requests beside each other on PostgreSQL, where two of them may want the same rows: none waits in a circle."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from uuid import UUID

import psycopg
import pytest
from tests.contract.api.room import Room
from tests.contract.api.site import Site, items
from tests.contract.api.test_gateway import arm
from tests.contract.engine.conftest import Until

from malleable.domain.ids import AttachmentId, BootId, DiskId, NetworkId, NodeId, new_id
from malleable.domain.networks import AttachmentState, NetworkState
from malleable.domain.switches import SHUT, PortState
from malleable.workflows.requests import begin

PATIENCE_S = 30
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
until = Until()
Waiters = Callable[[int], bool]


@pytest.fixture
def waiters(postgres_url: str) -> Waiters:
    """Tell whether so many transactions wait for another one."""

    def are(count: int) -> bool:
        with psycopg.connect(postgres_url) as connection:
            row = connection.execute(WAITING).fetchone()
        return row == (count,)

    return are


def test_a_rename_beside_a_provision_that_wants_disk_and_name(postgres_site: Site, waiters: Waiters) -> None:
    """The provision waits for one disk, and wants the other and a name; the rename has that, and wants the name."""
    site = postgres_site
    ids = sorted(new_id() for _ in range(2))
    with site.store.transaction() as tx:
        spare = tx.disks.get(site.ids["spare:alpha"])
        for id, name in zip(ids, ("first", "second"), strict=True):
            tx.disks.add(replace(spare, id=DiskId(id), name=name))
    wish = {"project": "alpha", "image": "tiny", "disk_name": "wanted", "network": "blue", "node": "free"}
    body = {**wish, "data_disks": ["first", "second"]}
    with ThreadPoolExecutor(2) as pool:
        with site.store.transaction() as tx:
            tx.disks.change(ids[0], state=spare.state)
            provision = pool.submit(site.post, "member", "/v1/provisions", body)
            until(lambda: provision.done() or waiters(1), seconds=PATIENCE_S)
            path = "/v1/disks/second/name?project=alpha"
            rename = pool.submit(site.call, "member", "PUT", path, json={"name": "wanted"})
            until(lambda: rename.done() or waiters(2), seconds=PATIENCE_S)
        answers = [rename.result(PATIENCE_S), provision.result(PATIENCE_S)]
    assert [(answer.status_code, answer.json().get("code")) for answer in answers] == [(200, None), (409, "conflict")]


def test_two_batches_of_a_gateways_signs_at_once(postgres_site: Site, waiters: Waiters) -> None:
    site = postgres_site
    boots = [arm(site), BootId(new_id())]
    with site.store.transaction() as tx:
        other = replace(
            tx.boots.get(boots[0]),
            id=boots[1],
            node_id=NodeId(site.ids["foreign"]),
            network_id=NetworkId(site.ids["network:beta"]),
            attachment_id=AttachmentId(site.ids["attachment:beta"]),
            mac=tx.nics.get(site.ids["nic:foreign"]).mac,
            target_id=None,
        )
        tx.boots.add(other)
    lower, higher = sorted(boots)
    batches = (
        [(lower, "script_fetched"), (higher, "script_fetched")],
        [(higher, "phoned_home"), (lower, "phoned_home")],
    )
    bodies = [{"signs": [{"boot_id": str(id), "stage": stage} for id, stage in batch]} for batch in batches]
    with ThreadPoolExecutor(2) as pool:
        with site.store.transaction() as tx:
            tx.boots.change(lower, hostname="web")
            answers = [pool.submit(site.post, "gateway", "/v1/gateway/signs", body) for body in bodies]
            until(lambda: waiters(2), seconds=PATIENCE_S)
        assert [answer.result(PATIENCE_S).status_code for answer in answers] == [204, 204]
    with site.store.reading() as tx:
        for boot_id in boots:
            boot = tx.boots.get(boot_id)
            assert boot.script_fetched_at is not None
            assert boot.phoned_home_at is not None


class _Never(Exception):
    """Ends a transaction without a trace."""


def _permitted(site: Site) -> str:
    """Reserve two addresses of a network that alpha's node is on, and let it use the second; return their path."""
    path = "/v1/networks/blue/reservations"
    for name in ("vip", "used"):
        assert site.post("member", path, {"name": name}).status_code == 201
    assert site.post("member", f"{path}/used/permits", {"node": "held"}).status_code == 202
    _work(site)
    return path


def _work(site: Site) -> None:
    for _ in Room(site).work():
        pass


def test_a_permit_beside_the_end_of_the_attachment_that_it_is_for(postgres_site: Site, waiters: Waiters) -> None:
    """The permit has the network and wants the attachment; the detach is to remove that, and wants the network."""
    site = postgres_site
    path = _permitted(site)
    (attachment,) = [one for one in items(site.get("member", "/v1/attachments")) if one["network"] == "blue"]
    with ThreadPoolExecutor(2) as pool:
        with suppress(_Never), site.store.transaction() as tx:
            (vip,) = tx.reservations.list(name="vip")
            tx.reservations.remove(vip.id)
            permit = pool.submit(site.post, "member", f"{path}/vip/permits", {"node": "held"})
            until(lambda: permit.done() or waiters(1), seconds=PATIENCE_S)
            detach = site.call("member", "DELETE", f"/v1/attachments/{attachment['id']}").json()
            worked = pool.submit(_work, site)
            until(lambda: worked.done() or waiters(2), seconds=PATIENCE_S)
            raise _Never
        assert permit.result(PATIENCE_S).json().get("code") == "port-in-doubt"
        worked.result(PATIENCE_S)
    assert site.get("member", f"/v1/operations/{detach['id']}").json()["state"] == "succeeded"


def test_a_denial_waits_for_a_change_of_the_guard(postgres_site: Site, waiters: Waiters) -> None:
    """Else the change would have the port guarded with what it read before, after the denial's end."""
    site = postgres_site
    path = _permitted(site)
    (permit,) = items(site.get("member", f"{path}/used/permits"))
    with ThreadPoolExecutor(1) as pool:
        with site.store.transaction() as tx:
            tx.networks.change(site.ids["network:alpha"])
            denial = pool.submit(site.call, "member", "DELETE", f"{path}/used/permits/{permit['id']}")
            until(lambda: denial.done() or waiters(1), seconds=PATIENCE_S)
            assert not denial.done()
        assert denial.result(PATIENCE_S).status_code == 202


def test_who_touches_a_network_beside_one_that_holds_it_and_then_touches_it(
    postgres_site: Site, waiters: Waiters
) -> None:
    """As two releases do: the one that waits for the network must not have the site's counter."""
    site = postgres_site
    network_id = NetworkId(site.ids["network:alpha"])

    def touch() -> int:
        with site.store.transaction() as tx:
            return tx.networks.touch(network_id)

    with ThreadPoolExecutor(1) as pool:
        with site.store.transaction() as tx:
            tx.networks.change(network_id)
            other = pool.submit(touch)
            until(lambda: other.done() or waiters(1), seconds=PATIENCE_S)
            generation = tx.networks.touch(network_id)
        assert other.result(PATIENCE_S) == generation + 1


def test_a_repair_that_takes_a_node_off_a_network_beside_a_change_of_its_guard(
    postgres_site: Site, postgres_url: str, waiters: Waiters
) -> None:
    """The change has the network and wants its ports; the repair, which waits for the network, must have none."""
    site = postgres_site
    (attachment,) = [one for one in items(site.get("member", "/v1/attachments")) if one["network"] == "blue"]
    with site.store.transaction() as tx:
        tx.attachments.change(AttachmentId(UUID(attachment["id"])), state=AttachmentState.DETACHING)
        nic = tx.nics.get(site.ids["nic:held"])
        assert nic.switch_port_id is not None
        port = tx.switch_ports.get(nic.switch_port_id)
        tx.switch_ports.change(
            port.id, wanted=SHUT, wanted_generation=port.wanted_generation + 1, state=PortState.UNKNOWN
        )
        arguments = {"name": "tor1", "switch_id": str(port.switch_id), "ports": [port.name]}
        begin(tx, site.clock.now(), "repair-ports", arguments=arguments)
    with ThreadPoolExecutor(1) as pool:
        with site.store.transaction() as tx:
            tx.networks.change(site.ids["network:alpha"])
            worked = pool.submit(_work, site)
            until(lambda: worked.done() or waiters(1), seconds=PATIENCE_S)
            with psycopg.connect(postgres_url) as other:
                other.execute("SELECT 1 FROM switch_ports FOR UPDATE NOWAIT")
        worked.result(PATIENCE_S)
    with site.store.reading() as tx:
        assert tx.attachments.find(id=UUID(attachment["id"])) is None


def test_a_report_that_waits_for_the_first_of_its_networks_has_none_of_the_others(
    postgres_site: Site, postgres_url: str, waiters: Waiters
) -> None:
    """Served or gone, they are noted in one order: else it and one that wants two of them might wait in a circle."""
    site = postgres_site
    with site.store.transaction() as tx:
        first, *_, last = tx.networks.list()
        tx.networks.change(first.id, state=NetworkState.REMOVING)
        generation = tx.networks.touch(last.id)
    served = {"id": str(last.id), "served_generation": generation, "portal_epoch": "one"}
    body = {"networks": [served], "removed": [str(first.id)]}
    with ThreadPoolExecutor(1) as pool:
        with site.store.transaction() as tx:
            tx.networks.change(first.id)
            report = pool.submit(site.post, "gateway", "/v1/gateway/reports", body)
            until(lambda: report.done() or waiters(1), seconds=PATIENCE_S)
            with psycopg.connect(postgres_url) as other:
                other.execute("SELECT 1 FROM networks WHERE id = %s FOR UPDATE NOWAIT", [last.id])
        assert report.result(PATIENCE_S).status_code == 204
    with site.store.reading() as tx:
        assert tx.networks.get(last.id).served_generation == generation
