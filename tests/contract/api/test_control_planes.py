"""What a gateway asks and tells, by HTTP and in the API's own process: the same answers, rights and errors."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from uuid import UUID

import pytest
from tests.contract.api.serving import served
from tests.contract.api.site import GOLDEN, Site
from tests.contract.api.test_gateway import arm

from malleable.client import Client
from malleable.domain.boots import Boot
from malleable.domain.errors import Forbidden, NotFound, Unauthenticated, Unavailable
from malleable.domain.ids import ImageId, NetworkId
from malleable.domain.networks import Network
from malleable.domain.secrets import Secret
from malleable.gateway.control_plane import ControlPlane
from malleable.services.bootstrap import bootstrap_gateway
from malleable.wire.gateway import BootSign, BootStage, GatewayBeat, ReportsRequest, ServedNetwork, SignsRequest
from malleable.wiring.beside import Beside

PATIENCE_S = 15.0


@dataclass
class Way:
    """A way to the calls of one site, with any token."""

    site: Site
    client: Client | Beside
    stop: threading.Event

    def signed_in(self, caller: str) -> ControlPlane:
        self.client.sign_in(Secret(self.site.tokens[caller]))
        return self.client


@pytest.fixture(params=["http", "beside"])
def way(request: pytest.FixtureRequest, site: Site) -> Iterator[Way]:
    stop = threading.Event()
    if request.param == "beside":
        yield Way(site, Beside(site.services, stop), stop)
        return
    with served(site) as url, Client(url) as client:
        yield Way(site, client, stop)


def _network(site: Site) -> Network:
    with site.store.reading() as tx:
        return tx.networks.get(NetworkId(site.ids["network:alpha"]))


def _boot(site: Site, boot_id: UUID) -> Boot:
    with site.store.reading() as tx:
        return tx.boots.get(boot_id)


def _whole(content: AbstractContextManager[Iterator[bytes]]) -> bytes:
    with content as pieces:
        return b"".join(pieces)


def test_it_is_told_what_to_serve_in_the_words_of_the_api(way: Way) -> None:
    arm(way.site)
    told = way.signed_in("gateway").gateway_desired(0, 0.0)
    assert told.model_dump(mode="json") == way.site.get("gateway", "/v1/gateway/desired").json()
    assert any(network.boots for network in told.networks)


def test_a_question_waits_for_a_change(way: Way) -> None:
    plane, id = way.signed_in("gateway"), NetworkId(way.site.ids["network:beta"])
    after = plane.gateway_desired(0, 0.0).generation
    assert not plane.gateway_desired(after, 0.05).networks
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(plane.gateway_desired, after, 20.0)
        with way.site.store.transaction() as tx:
            tx.networks.touch(id)
        assert [network.id for network in asked.result(PATIENCE_S).networks] == [id]


def test_who_knows_more_than_a_restored_database_is_told_so_at_once(way: Way) -> None:
    plane = way.signed_in("gateway")
    now = plane.gateway_desired(0, 0.0).generation
    assert plane.gateway_desired(now + 100, 20.0).generation == now


def test_what_it_tells_is_noted(way: Way) -> None:
    plane, boot_id = way.signed_in("gateway"), arm(way.site)
    id = _network(way.site).id
    with way.site.store.transaction() as tx:
        generation = tx.networks.touch(id)
    network = ServedNetwork(id=id, served_generation=generation, portal_epoch="first")
    plane.gateway_report(ReportsRequest(networks=(network,), gateway=GatewayBeat(name="one", troubles=("dusty",))))
    plane.gateway_signs(SignsRequest(signs=(BootSign(boot_id=boot_id, stage=BootStage.PHONED_HOME),)))
    noted = _network(way.site)
    assert (noted.served_generation, noted.portal_epoch) == (generation, "first")
    assert _boot(way.site, boot_id).phoned_home_at is not None
    with way.site.store.reading() as tx:
        assert [(one.name, one.troubles) for one in tx.gateways.list()] == [("one", ("dusty",))]


def test_files_and_documents_come_byte_for_byte(way: Way) -> None:
    plane, boot_id, image_id = way.signed_in("gateway"), arm(way.site), way.site.ids["image:alpha"]
    assert _whole(plane.gateway_file(image_id, "vmlinuz")) == GOLDEN
    path = f"/v1/gateway/boots/{boot_id}/documents/network-config"
    assert _whole(plane.gateway_document(boot_id, "network-config")) == way.site.get("gateway", path).content
    with pytest.raises(NotFound):
        _whole(plane.gateway_file(image_id, "../secret.key"))


def test_each_call_is_let_in_by_its_token(way: Way) -> None:
    for caller, refused in (("revoked", Unauthenticated), ("expired", Unauthenticated), ("admin", Forbidden)):
        plane = way.signed_in(caller)
        for call in (
            lambda plane=plane: plane.gateway_desired(0, 0.0),
            lambda plane=plane: plane.gateway_report(ReportsRequest()),
            lambda plane=plane: plane.gateway_signs(SignsRequest(signs=())),
            lambda plane=plane: _whole(plane.gateway_file(way.site.ids["image:alpha"], "vmlinuz")),
        ):
            with pytest.raises(refused):
                call()


def test_a_token_that_is_replaced_is_worth_nothing_from_then_on(way: Way) -> None:
    site = way.site
    for _ in range(2):
        site.tokens["mine"] = bootstrap_gateway(site.services.parts, site.services.users, of="mine").reveal()
        site.tokens.setdefault("first", site.tokens["mine"])
    assert way.signed_in("mine").gateway_desired(0, 0.0).networks
    with pytest.raises(Unauthenticated):
        way.signed_in("first").gateway_desired(0, 0.0)


def test_beside_the_api_a_file_that_cannot_be_read_is_told(site: Site) -> None:
    plane, image_id = Beside(site.services, threading.Event()), ImageId(site.ids["image:alpha"])
    plane.sign_in(Secret(site.tokens["gateway"]))
    with plane.gateway_file(image_id, "vmlinuz") as pieces:
        site.disks.file(image_id, "vmlinuz").unlink()
        with pytest.raises(Unavailable, match="vmlinuz cannot be read"):
            next(pieces)


def test_beside_the_api_a_question_ends_with_the_server(site: Site) -> None:
    stop = threading.Event()
    plane = Beside(site.services, stop)
    plane.sign_in(Secret(site.tokens["gateway"]))
    after = plane.gateway_desired(0, 0.0).generation
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(plane.gateway_desired, after, 600.0)
        stop.set()
        site.store.interrupt()
        assert not asked.result(PATIENCE_S).networks
