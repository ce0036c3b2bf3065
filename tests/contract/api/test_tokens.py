"""Logging in, tokens, and what they are narrowed to."""

from concurrent.futures import ThreadPoolExecutor

from tests.contract.api.room import Room
from tests.contract.api.site import Site, items

from malleable.sim.faults import FaultKind

PASSWORD = "correct horse"


def _with_password(site: Site, name: str = "ann") -> None:
    assert site.post("admin", "/v1/users", {"name": name, "password": PASSWORD}).status_code == 201
    site.call("admin", "PUT", f"/v1/projects/alpha/members/{name}", json={"role": "member"})


def _login(site: Site, **body: object) -> dict[str, object]:
    response = site.post("nobody", "/v1/login", {"username": "ann", "password": PASSWORD, **body})
    assert response.status_code == 201, response.text
    site.tokens["ann"] = response.json()["token"]
    told: dict[str, object] = response.json()
    return told


def test_login_gives_a_token_that_works_until_it_ends(site: Site) -> None:
    _with_password(site)
    told = _login(site, ttl_s=60)
    who = site.get("ann", "/v1/whoami").json()
    assert who["user"]["name"] == "ann"
    assert who["token"]["id"] == told["id"]
    assert [m["project"] for m in who["memberships"]] == ["alpha"]
    site.clock.advance(61)
    assert site.get("ann", "/v1/whoami").status_code == 401


def test_wrong_password_and_unknown_user_get_the_same_answer(small_site: Site) -> None:
    _with_password(small_site)
    wrong = small_site.post("nobody", "/v1/login", {"username": "ann", "password": "wrong"})
    unknown = small_site.post("nobody", "/v1/login", {"username": "bob", "password": "wrong"})
    odd = small_site.post("nobody", "/v1/login", {"username": "../\x00", "password": "wrong"})
    for response in (wrong, unknown, odd):
        told = response.json()
        assert (response.status_code, told["code"], told["detail"]) == (
            401,
            "wrong-password",
            "The user name or the password is wrong.",
        )


def test_guessing_is_slowed_down_per_user(small_site: Site) -> None:
    _with_password(small_site)
    wrong = {"username": "ann", "password": "wrong"}
    codes = [small_site.post("nobody", "/v1/login", wrong).status_code for _ in range(11)]
    assert codes == [401] * 10 + [429]
    right = small_site.post("nobody", "/v1/login", {"username": "ann", "password": PASSWORD})
    assert right.status_code == 429
    assert int(right.headers["retry-after"]) <= 61
    small_site.clock.advance(61)
    _login(small_site)


def test_many_logins_at_once_all_get_an_answer(small_site: Site) -> None:
    _with_password(small_site)
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda _: _login(small_site), range(8)))
    assert len({t["token"] for t in told}) == 8


def test_revocation_counts_at_once(site: Site) -> None:
    assert site.get("member", "/v1/nodes").status_code == 200
    assert site.call("admin", "DELETE", f"/v1/tokens/{site.ids['token:member']}").status_code == 204
    assert site.get("member", "/v1/nodes").status_code == 401


def test_revocation_by_another_process_counts_within_two_seconds(site: Site) -> None:
    assert site.get("member", "/v1/nodes").status_code == 200
    with site.store.transaction() as tx:
        tx.tokens.change(site.ids["token:member"], revoked_at=site.clock.now())
    site.clock.advance(2.1)
    assert site.get("member", "/v1/nodes").status_code == 401


def test_leaving_a_project_counts_at_once(site: Site) -> None:
    assert site.get("member", "/v1/nodes/held").status_code == 200
    assert site.call("admin", "DELETE", "/v1/projects/alpha/members/member").status_code == 204
    assert site.get("member", "/v1/nodes/held").status_code == 404
    assert site.get("read_only", "/v1/nodes/held").status_code == 404


def test_a_new_password_ends_other_sessions(small_site: Site) -> None:
    _with_password(small_site)
    _login(small_site)
    small_site.tokens["old"] = small_site.tokens["ann"]
    _login(small_site)
    path, new = "/v1/users/ann/password", "another long one"
    wrong = small_site.call("ann", "PUT", path, json={"password": new, "old_password": "no"})
    assert (wrong.status_code, wrong.json()["code"]) == (403, "wrong-password")
    body = {"password": new, "old_password": PASSWORD}
    assert small_site.call("ann", "PUT", path, json=body).status_code == 204
    assert small_site.get("ann", "/v1/whoami").status_code == 200
    assert small_site.get("old", "/v1/whoami").status_code == 401
    assert small_site.post("nobody", "/v1/login", {"username": "ann", "password": PASSWORD}).status_code == 401


def test_a_narrowed_token_makes_only_narrowed_tokens(small_site: Site) -> None:
    issued = small_site.post("scoped", "/v1/tokens", {"name": "more"}).json()
    small_site.tokens["more"] = issued["token"]
    who = small_site.get("more", "/v1/whoami").json()
    assert who["site_role"] is None
    assert who["token"]["project"] == "alpha"
    assert {t["project"] for t in items(small_site.get("scoped", "/v1/tokens"))} == {"alpha"}


def test_a_narrowed_token_cannot_touch_the_account(small_site: Site) -> None:
    body = {"password": "long enough", "old_password": "x"}
    assert small_site.call("scoped", "PUT", "/v1/users/admin/password", json=body).status_code == 403


def test_a_token_narrowed_to_a_project_one_has_left_is_worth_nothing(small_site: Site) -> None:
    issued = small_site.post("member", "/v1/tokens", {"name": "t", "project": "alpha"}).json()
    small_site.tokens["t"] = issued["token"]
    assert small_site.get("t", "/v1/nodes/held").status_code == 200
    small_site.call("admin", "DELETE", "/v1/projects/alpha/members/member")
    assert small_site.get("t", "/v1/nodes/held").status_code == 404
    # What is everybody's is still theirs, as golden images are.
    assert [network["name"] for network in items(small_site.get("t", "/v1/networks"))] == ["public"]


def test_tokens_live_at_most_thirty_days(small_site: Site) -> None:
    assert small_site.post("member", "/v1/tokens", {"name": "t", "ttl_s": 31 * 86_400}).status_code == 422


def test_the_last_admin_stays(small_site: Site) -> None:
    response = small_site.call("admin", "DELETE", "/v1/users/admin")
    assert (response.status_code, response.json()["code"]) == (409, "last-admin")


def test_a_deleted_user_is_gone_with_its_tokens(site: Site) -> None:
    assert site.get("member", "/v1/nodes").status_code == 200
    assert site.call("admin", "DELETE", "/v1/users/member").status_code == 204
    for caller in ("member", "read_only"):
        assert site.get(caller, "/v1/nodes").status_code == 401


def test_what_a_deleted_user_began_goes_on_for_its_project(site: Site) -> None:
    room = Room(site)
    begun = site.post("member", "/v1/nodes/held/release")
    assert begun.status_code == 202, begun.text
    room.faults.add("apply", FaultKind.LOST_REQUEST)
    work = room.work()
    next(work)
    assert site.call("admin", "DELETE", "/v1/users/member").status_code == 204
    assert site.get("admin", f"/v1/operations/{begun.json()['id']}").json()["finished_at"] is None
    list(work)
    ended = site.get("admin", f"/v1/operations/{begun.json()['id']}").json()
    assert (ended["state"], ended["actor_id"]) == ("succeeded", str(site.ids["user:member"]))
    assert site.get("operator", "/v1/nodes/held").json()["state"] == "free"
