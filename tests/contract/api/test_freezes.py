"""What the API says of snapshots that are to be quiesced, and what it takes of the gateway about that."""

from typing import Any

import pytest
from tests.contract.api.site import Site
from tests.contract.api.test_gateway import arm

from malleable.domain.freezes import FreezeState
from malleable.domain.ids import BootId, OperationId, new_id


def sign(site: Site, boot_id: BootId, stage: str, **more: Any) -> int:
    body = {"signs": [{"boot_id": str(boot_id), "stage": stage, **more}]}
    return site.post("gateway", "/v1/gateway/signs", body).status_code


def snapshot(site: Site, **more: Any) -> Any:
    disk = str(site.ids["disk:alpha"])
    return site.post("member", "/v1/snapshots", {"name": f"s{new_id().hex}", "disk": disk, **more})


def test_what_cannot_be_quiesced_is_refused_with_what_to_do(site: Site) -> None:
    arm(site)
    refused = snapshot(site, quiesce=True)
    assert (refused.status_code, refused.json()["code"]) == (409, "not-quiesced")
    assert "--quiesce" in refused.json()["fix"]
    assert snapshot(site).json()["arguments"].keys() == {"name", "disk_id", "snapshot_id"}
    assert snapshot(site, quiesce="perhaps").status_code == 422


def test_a_freeze_goes_to_the_gateway_and_back(site: Site) -> None:
    boot_id, freeze_id = arm(site), OperationId(new_id())
    assert sign(site, boot_id, "agent_seen") == 204
    assert snapshot(site, quiesce=True).status_code == 202
    with site.store.transaction() as tx:
        assert tx.boots.get(boot_id).agent_seen_at == site.clock.now()
        tx.boots.change(boot_id, freeze_id=freeze_id, freeze_serial="DISK", freeze_state=FreezeState.ASKED)
    networks = site.get("gateway", "/v1/gateway/desired").json()["networks"]
    told = [boot["freeze"] for network in networks for boot in network["boots"]]
    assert told == [{"id": str(freeze_id), "serial": "DISK", "is_held": True}]
    for stage, state in (("frozen", FreezeState.FROZEN), ("unfrozen", FreezeState.FAILED)):
        assert sign(site, boot_id, stage, freeze_id=str(freeze_id), log="no room") == 204
        with site.store.reading() as tx:
            assert tx.boots.get(boot_id).freeze_state is state
    with site.store.reading() as tx:
        assert 'frozen: "no room"' in tx.boots.get(boot_id).freeze_reason


@pytest.mark.parametrize("more", [{"stage": "frozen"}, {"stage": "phoned_home", "freeze_id": str(new_id())}])
def test_a_sign_of_no_freeze_or_of_one_too_many_is_refused(site: Site, more: dict[str, str]) -> None:
    boot_id = arm(site)
    assert sign(site, boot_id, **more) == 422
    assert sign(site, boot_id, "thawed", freeze_id=str(new_id())) == 204, "of a freeze that is over: passed over"
