"""Idempotency-Key: the same POST twice is done once."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from httpx import Response
from tests.contract.api.site import Site

from malleable.domain.errors import Conflict
from malleable.services.idempotency import KEPT, Asked, Repeated
from malleable.services.provisions import BootWish, ProvisionWish

KEY = {"Idempotency-Key": "one"}


def asked(site: Site, key: str) -> Asked:
    caller = site.services.authentication.caller_of(site.tokens["admin"])
    return Asked(user_id=caller.user_id, key=key, request_sha256="sha")


def test_a_repeated_post_is_done_once_and_answered_alike(site: Site) -> None:
    first = site.post("admin", "/v1/projects", {"name": "new"}, headers=KEY)
    again = site.post("admin", "/v1/projects", {"name": "new"}, headers=KEY)
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers


def test_an_operation_is_begun_once(site: Site) -> None:
    body = {"name": "d", "image": "tiny"}
    first = site.post("member", "/v1/disks", body, headers=KEY)
    again = site.post("member", "/v1/disks", body, headers=KEY)
    assert again.status_code == first.status_code == 202
    assert again.headers["location"] == first.headers["location"] == f"/v1/operations/{first.json()['id']}"


def provision(site: Site, key: str = "one", **more: str) -> Response:
    body = {"image": "tiny", "network": "blue", "project": "alpha", **more}
    return site.post("member", "/v1/provisions", body, headers={"Idempotency-Key": key})


def test_a_provision_asked_for_twice_takes_one_node(site: Site) -> None:
    first, again = provision(site), provision(site)
    assert (first.status_code, again.status_code) == (202, 202), again.json()
    assert again.json()["id"] == first.json()["id"]
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["idempotency-replayed"] == "true"
    with site.store.reading() as tx:
        assert tx.operations.count(kind="provision") == 1


def test_a_provision_whose_server_died_before_its_answer_is_found_by_whoever_asks_again(site: Site) -> None:
    caller = site.services.authentication.caller_of(site.tokens["member"])
    wish = ProvisionWish(
        project="alpha",
        node=None,
        disk=None,
        image="tiny",
        disk_name=None,
        disk_size_bytes=None,
        network="blue",
        boot=BootWish(),
    )
    one = replace(asked(site, "lost"), user_id=caller.user_id)
    begun = site.services.provisions.provision_create(caller, wish, one)  # committed, and nobody is told
    with pytest.raises(Repeated) as repeated:
        site.services.provisions.provision_create(caller, wish, one)
    assert repeated.value.operation_id == begun.value.id


def test_a_provision_and_another_request_may_share_a_key(site: Site) -> None:
    """A provision's is held for as long as that takes: no crowd of others shall wait for it."""
    assert provision(site).status_code == 202
    assert site.post("member", "/v1/disks", {"name": "d", "image": "tiny"}, headers=KEY).status_code == 202


def test_a_provisions_key_is_not_for_another_one(site: Site) -> None:
    assert provision(site).status_code == 202
    response = provision(site, disk_name="other")
    assert (response.status_code, response.json()["code"]) == (409, "idempotency-key-reused")


def test_a_refused_provision_leaves_its_key_free(site: Site) -> None:
    assert provision(site, node="nowhere").status_code == 404
    assert provision(site).status_code == 202


def test_of_one_provision_asked_for_many_times_at_once_one_is_done(site: Site) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: provision(site), range(8)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert [answer.headers.get("idempotency-replayed") for answer in answers].count("true") == 7
    with site.store.reading() as tx:
        assert tx.operations.count(kind="provision") == 1


def test_a_key_is_not_for_another_request(site: Site) -> None:
    site.post("admin", "/v1/projects", {"name": "new"}, headers=KEY)
    for path, body in (("/v1/projects", {"name": "other"}), ("/v1/users", {"name": "new", "password": "long enough"})):
        response = site.post("admin", path, body, headers=KEY)
        assert (response.status_code, response.json()["code"]) == (409, "idempotency-key-reused")


def test_keys_of_two_users_do_not_meet(site: Site) -> None:
    assert site.post("member", "/v1/disks", {"name": "d", "image": "tiny"}, headers=KEY).status_code == 202
    response = site.post("other", "/v1/disks", {"name": "d", "image": "tiny"}, headers=KEY)
    assert response.status_code == 202
    assert "idempotency-replayed" not in response.headers


def test_a_key_is_free_again_after_a_refusal(site: Site) -> None:
    body = {"name": "blue"}
    assert site.post("member", "/v1/networks", body, headers=KEY).status_code == 409
    assert site.post("member", "/v1/networks", {"name": "green"}, headers=KEY).status_code == 201


def test_a_key_is_busy_while_the_first_request_is_answered(site: Site) -> None:
    one = asked(site, "k")
    assert site.services.idempotency.begin([one]) == [None]
    (busy,) = site.services.idempotency.begin([one])
    assert isinstance(busy, Conflict)
    assert busy.code == "idempotency-key-busy"


def test_of_the_same_request_twice_at_once_one_is_done(site: Site) -> None:
    kept = site.services.idempotency.begin([asked(site, "a"), asked(site, "b"), asked(site, "a")])
    first, other, busy = kept
    assert first is None
    assert other is None
    assert isinstance(busy, Conflict)
    assert busy.code == "idempotency-key-busy"


def test_kept_answers_are_dropped_after_a_day(site: Site) -> None:
    keys = site.services.idempotency
    keys.begin([asked(site, "old")])
    site.clock.advance(KEPT.total_seconds() + 1)
    keys.expire()
    assert keys.begin([asked(site, "new")]) == [None]
    assert keys.begin([replace(asked(site, "old"), request_sha256="other sha")]) == [None]


def test_a_new_tokens_secret_is_sealed_in_the_kept_answer(small_site: Site, memory_path: Path) -> None:
    response = small_site.post("member", "/v1/tokens", {"name": "ci"}, headers=KEY)
    again = small_site.post("member", "/v1/tokens", {"name": "ci"}, headers=KEY)
    assert again.json()["token"] == response.json()["token"]
    secret = response.json()["token"].encode()
    files = list(memory_path.glob("malleable.db*"))
    assert files
    assert not any(secret in file.read_bytes() for file in files)


def test_unusable_keys_are_refused(small_site: Site) -> None:
    for key in ("", "with space", "x" * 201):
        response = small_site.post("admin", "/v1/projects", {"name": "n"}, headers={"Idempotency-Key": key})
        assert response.status_code == 422, key


def test_a_narrower_token_does_not_get_a_wider_ones_answer(small_site: Site) -> None:
    assert small_site.post("member", "/v1/tokens", {"name": "ci"}, headers=KEY).status_code == 201
    response = small_site.post("read_only", "/v1/tokens", {"name": "ci"}, headers=KEY)
    assert (response.status_code, response.json()["code"]) == (409, "idempotency-key-reused")
