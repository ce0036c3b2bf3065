"""A gateway's token names its fabrics: of the others it hears nothing, and what it says of them is passed over."""

from uuid import UUID

import pytest
from tests.contract.api.site import START, Site
from tests.contract.api.test_gateway import arm
from tests.contract.api.test_lists import counted_queries

from malleable.domain.boots import Boot
from malleable.domain.errors import Invalid, NotFound
from malleable.domain.gateways import SILENT_AFTER_S
from malleable.domain.ids import NetworkId, VlanId, new_id
from malleable.domain.networks import Vlan
from malleable.services.authentication import TokenWish, issue
from malleable.services.bootstrap import bootstrap_gateway


@pytest.fixture
def gateways(site: Site) -> Site:
    """Let there be gateways of one fabric each, "default" and "roof", and one whose token names none."""
    with site.store.transaction() as tx:
        tx.vlans.add(Vlan(id=VlanId(new_id()), fabric="roof", vid=100, network_id=None, reusable_at=START))
        wish = TokenWish(name="by hand", ttl_s=3600)
        issued = issue(tx, site.clock.now(), tx.users.get(site.ids["user:gateway"]), wish, None)
        site.tokens["gateway:none"] = issued.secret.reveal()
    for fabric in ("default", "roof"):
        secret = bootstrap_gateway(site.services.parts, site.services.users, fabrics=[fabric])
        site.tokens[f"gateway:{fabric}"] = secret.reveal()
    return site


def _boot(site: Site, boot_id: UUID) -> Boot:
    with site.store.reading() as tx:
        return tx.boots.get(boot_id)


def test_it_hears_of_its_fabrics_alone(gateways: Site) -> None:
    site, boot_id = gateways, arm(gateways)
    paths = (
        f"/v1/gateway/images/{site.ids['image:alpha']}/files/vmlinuz",
        f"/v1/gateway/boots/{boot_id}/documents/network-config",
    )
    for name, count, status in (("gateway", 5, 200), ("gateway:default", 5, 200), ("gateway:roof", 0, 404)):
        told = site.get(name, "/v1/gateway/desired").json()
        assert len(told["networks"]) == count
        assert [site.get(name, path).status_code for path in paths] == [status] * 2
    with counted_queries(site) as statements:
        assert site.get("gateway:default", paths[0]).status_code == 200
    assert len([one for one in statements if "boots" in one]) == 1, "however many boot it"
    assert told["generation"] == 0, "what is its, and is committed at this moment, is not missed"


def test_what_it_says_of_others_is_passed_over(gateways: Site) -> None:
    site, boot_id = gateways, arm(gateways)
    id = site.ids["network:alpha"]
    report = {"networks": [{"id": str(id), "served_generation": 1, "portal_epoch": "tgtd-1"}]}
    signs = {"signs": [{"boot_id": str(boot_id), "stage": "phoned_home"}]}
    for name, heard in (("gateway:roof", False), ("gateway:default", True)):
        assert site.post(name, "/v1/gateway/reports", report).status_code == 204
        assert site.post(name, "/v1/gateway/signs", signs).status_code == 204
        with site.store.reading() as tx:
            assert (tx.networks.get(NetworkId(id)).portal_epoch == "tgtd-1") is heard
        assert (_boot(site, boot_id).phoned_home_at is not None) is heard


def test_one_without_fabrics_serves_nothing(gateways: Site) -> None:
    for told in (
        gateways.get("gateway:none", "/v1/gateway/desired"),
        gateways.post("gateway:none", "/v1/gateway/reports", {}),
        gateways.post("gateway:none", "/v1/gateway/signs", {"signs": []}),
    ):
        assert (told.status_code, told.json()["code"]) == (403, "token-scope")
        assert "gateway-token" in told.json()["fix"]


def test_a_token_names_fabrics_that_there_are(gateways: Site) -> None:
    parts, users = gateways.services.parts, gateways.services.users
    with pytest.raises(NotFound, match="rooof") as failed:
        bootstrap_gateway(parts, users, fabrics=["rooof"])
    assert failed.value.fix == "There are: default, roof."
    with pytest.raises(Invalid):
        bootstrap_gateway(parts, users, fabrics=[])


def test_a_fabric_is_apart_when_its_gateways_serve_no_other(gateways: Site) -> None:
    def apart() -> list[str]:
        fabrics = gateways.get("operator", "/v1/fabrics").json()["items"]
        return [fabric["name"] for fabric in fabrics if fabric["is_apart"]]

    for name in ("default", "roof"):
        # It says that it reaches the other by a way of its own: that is none of its business.
        beat = {"gateway": {"name": name, "fabrics": ["default", "roof"]}}
        assert gateways.post(f"gateway:{name}", "/v1/gateway/reports", beat).status_code == 204
    assert apart() == ["default", "roof"]
    assert gateways.post("gateway", "/v1/gateway/reports", {"gateway": {"name": "old"}}).status_code == 204
    assert apart() == []


def _beat(site: Site, token: str, instance: str) -> str:
    """Have a gateway called "east" tell that it lives; return "" or why it may not."""
    told = site.post(token, "/v1/gateway/reports", {"gateway": {"name": "east", "instance": instance}})
    assert told.status_code == (409 if told.content else 204)
    return f"{told.json()['code']}: {told.json()['detail']}" if told.content else ""


def test_no_gateway_speaks_in_the_name_of_another_that_lives(gateways: Site) -> None:
    site = gateways
    for waits_s, name, whose in (
        (0, "gateway:roof", "roof"),
        (1, "gateway:default", "roof"),
        (SILENT_AFTER_S, "gateway:default", "default"),
    ):
        site.clock.advance(waits_s)
        assert bool(_beat(site, name, "")) is (waits_s == 1)
        with site.store.reading() as tx:
            assert [gateway.serves for gateway in tx.gateways.list()] == [(whose,)]


def test_of_two_gateways_of_one_name_and_the_same_fabrics_the_second_is_told_of_the_first(gateways: Site) -> None:
    site = gateways
    assert _beat(site, "gateway", "one") == ""
    site.clock.advance(7)
    refused = _beat(site, "gateway", "other")
    assert refused.startswith("gateway-name-taken: Another gateway is called east as well: it was heard of 7 s ago")
    assert "serves all fabrics. It is instance one, this one is other." in refused
    assert _beat(site, "gateway:roof", "one") == "", "it was started anew, with another token"
    site.clock.advance(SILENT_AFTER_S + 1)
    assert _beat(site, "gateway", "other") == "", "the first is gone"
    assert _beat(site, "gateway", "one"), "and is the second when it comes back"
    with site.store.reading() as tx:
        assert [gateway.instance for gateway in tx.gateways.list()] == ["other"]
