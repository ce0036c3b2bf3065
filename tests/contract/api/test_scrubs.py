"""Policies of scrubs over the API: what counts, what a BMC cannot do, and that nobody skips one by the back door."""

from dataclasses import replace
from typing import Any

import pytest
from tests.contract.api.site import Site, items

from malleable.domain.nodes import Firmware, NodeState, PowerState
from malleable.domain.scrubs import Demand, Scrub, ScrubPolicy
from malleable.domain.secrets import Secret
from malleable.domain.switches import SHUT
from malleable.sim.bmcs import Lie

PATH = "/v1/nodes/held/scrubs"


def shown(site: Site) -> dict[str, tuple[str, str | None, bool]]:
    """Read of every kind what counts, what the node says itself, and whether its BMC can do it."""
    lines: list[dict[str, Any]] = site.get("operator", PATH).json()["items"]
    return {line["scrub"]: (line["demand"], line["own"], line["is_able"]) for line in lines}


def learn(site: Site) -> None:
    """Give the node a BMC that can do everything."""
    site.room.add_machine(
        "able",
        address="sim://able",
        password=Secret("right"),
        mac="52:54:00:00:0a:01",
        switch="sim://tor1",
        port="p9",
        firmware=Firmware.UEFI,
        can_scrub=tuple(Scrub),
        drives=("disk0", "disk1"),
    )
    account = {"bmc_username": "admin", "bmc_password": Secret("right"), "bmc_system": "able"}
    with site.store.transaction() as tx:
        tx.nodes.change(site.ids["held"], bmc_address="sim://able", power_driver="sim", **account)  # type: ignore[arg-type]


def test_a_policy_is_the_sites_until_the_node_says_otherwise(small_site: Site) -> None:
    assert list(shown(small_site)) == list(Scrub)
    assert shown(small_site)["tpm"] == ("best-effort", None, False)
    small_site.call("operator", "PUT", PATH, json={"tpm": "skip", "disks": "best-effort"})
    assert shown(small_site)["tpm"] == ("skip", "skip", False)
    assert shown(small_site)["disks"] == ("best-effort", "best-effort", False)
    small_site.call("operator", "PUT", PATH, json={"tpm": None})
    assert shown(small_site)["tpm"] == ("best-effort", None, False)
    assert shown(small_site)["disks"] == ("best-effort", "best-effort", False), "what is left out stays"
    told = [event["data"] for event in items(small_site.get("operator", "/v1/events?kind=node.scrub-policy"))]
    assert len(told) == 2


def test_what_a_bmc_cannot_do_cannot_be_required_of_its_node(small_site: Site) -> None:
    refused = small_site.call("operator", "PUT", PATH, json={"tpm": "required"})
    assert (refused.status_code, refused.json()["code"]) == (409, "cannot-scrub")
    assert shown(small_site)["tpm"] == ("best-effort", None, False)
    learn(small_site)
    assert small_site.call("operator", "PUT", PATH, json={"tpm": "required"}).status_code == 200
    assert shown(small_site)["tpm"] == ("required", "required", True)
    small_site.room.bmcs.silence("sim://able")
    assert small_site.call("operator", "PUT", PATH, json={"bios": "required"}).status_code == 504
    assert small_site.call("operator", "PUT", PATH, json={"tpm": "skip"}).status_code == 200, "a dead BMC is not asked"


def test_who_requires_that_disks_are_erased_counts_those_that_are_there(small_site: Site) -> None:
    learn(small_site)
    small_site.room.bmcs.lie("able", Lie.HIDES_DRIVES)
    assert small_site.call("operator", "PUT", PATH, json={"disks": "required"}).status_code == 409
    small_site.room.bmcs.lie("able")
    with small_site.store.transaction() as tx:
        tx.nodes.change(small_site.ids["held"], drives=("disk0", "taken-out"))
    assert small_site.call("operator", "PUT", PATH, json={"disks": "required"}).status_code == 200
    with small_site.store.reading() as tx:
        assert tx.nodes.get(small_site.ids["held"]).drives == ("disk0", "disk1")


def test_of_two_who_change_a_policy_at_once_one_is_told(postgres_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def meanwhile(of: ScrubPolicy, **changes: Demand) -> ScrubPolicy:
        with postgres_site.store.transaction() as tx:
            tx.nodes.change(postgres_site.ids["held"], scrub_policy=ScrubPolicy(bios=Demand.REQUIRED))
        monkeypatch.setattr("malleable.services.scrubs.replace", replace)
        return replace(of, **changes)

    monkeypatch.setattr("malleable.services.scrubs.replace", meanwhile)
    refused = postgres_site.call("operator", "PUT", PATH, json={"tpm": "skip"})
    assert (refused.status_code, refused.json()["code"]) == (409, "node-changed")
    assert postgres_site.call("operator", "PUT", PATH, json={"tpm": "skip"}).status_code == 200
    assert (shown(postgres_site)["bios"][1], shown(postgres_site)["tpm"][1]) == ("required", "skip")


@pytest.mark.parametrize("body", [{"tpm": "perhaps"}, {"floppy": "skip"}, {"tpm": 1}, []])
def test_nonsense_is_no_policy(small_site: Site, body: object) -> None:
    assert small_site.call("operator", "PUT", PATH, json=body).status_code == 422


def test_a_release_is_begun_with_the_policy_of_its_moment(small_site: Site) -> None:
    with small_site.store.transaction() as tx:
        policy = ScrubPolicy(bios=Demand.REQUIRED, accounts=Demand.SKIP)
        tx.nodes.change(small_site.ids["held"], scrub_policy=policy, can_scrub=(Scrub.TPM, Scrub.ACCOUNTS))
    begun = small_site.call("member", "POST", "/v1/nodes/held/release").json()
    assert "scrub" not in begun["arguments"], "tenants are not told"
    arguments = small_site.get("operator", f"/v1/operations/{begun['id']}").json()["arguments"]
    assert arguments["scrub"] == {"bios": "required", "tpm": "best-effort"}


def test_a_node_that_was_never_scrubbed_is_not_free_after_maintenance(small_site: Site) -> None:
    with small_site.store.transaction() as tx:
        tx.nodes.change(small_site.ids["broken"], power=PowerState.OFF, is_unscrubbed=True)
        tx.switch_ports.change(small_site.ids["port2"], observed=SHUT)
    answer = small_site.call("operator", "DELETE", "/v1/nodes/broken/maintenance").json()
    assert answer["state"] == NodeState.INSPECTED
    assert answer["state_reason"] == "it was not scrubbed since its last holder: readmit it"
