"""The first run."""

from pathlib import Path

import pytest

from malleable.domain.errors import Invalid, Unauthenticated
from malleable.domain.ports import Drivers
from malleable.domain.projects import Role
from malleable.domain.secrets import Secret
from malleable.domain.store import Store
from malleable.services.all import Services, make_services
from malleable.services.authentication import TokenWish
from malleable.services.bootstrap import bootstrap_admin, bootstrap_gateway
from malleable.services.parts import Parts
from malleable.sim.clock import ManualClock
from malleable.sim.disks import SimDisks
from malleable.sim.targets import SimTargets


@pytest.fixture
def services(store: Store, tmp_path: Path) -> Services:
    drivers = Drivers(power={}, switches={}, disks=SimDisks(), targets=SimTargets())
    return make_services(Parts(store=store, clock=ManualClock(), drivers=drivers, spool_dir=tmp_path))


def test_the_first_admin_can_log_in_and_is_made_once(services: Services) -> None:
    first = bootstrap_admin(services.parts, services.users)
    assert first is not None
    issued = services.authentication.login("admin", first.password.reveal(), TokenWish(name="t", ttl_s=60))
    assert services.authentication.caller_of(issued.secret.reveal()).is_admin
    assert bootstrap_admin(services.parts, services.users) is None


def test_a_given_password_is_taken_and_a_short_one_refused(services: Services) -> None:
    with pytest.raises(Invalid):
        bootstrap_admin(services.parts, services.users, password=Secret("short"))
    first = bootstrap_admin(services.parts, services.users, name="root", password=Secret("long enough"))
    assert first is not None
    services.authentication.login("root", "long enough", TokenWish(name="t", ttl_s=60))


def test_who_takes_a_token_at_every_start_has_one_and_takes_nobody_elses(services: Services) -> None:
    kept = [bootstrap_gateway(services.parts, services.users).reveal()]
    first, *later = (
        bootstrap_gateway(services.parts, services.users, of=who).reveal() for who in ("one", "other", "one")
    )
    kept += later
    for secret in kept:
        assert services.authentication.caller_of(secret).site_role is Role.GATEWAY
    with pytest.raises(Unauthenticated):
        services.authentication.caller_of(first)
    with services.parts.store.reading() as tx:
        assert sorted(token.name for token in tx.tokens.list()) == ["gateway", "gateway of one", "gateway of other"]


def test_a_gateway_gets_a_token_beside_those_there_are(services: Services) -> None:
    one = bootstrap_gateway(services.parts, services.users).reveal()
    other = bootstrap_gateway(services.parts, services.users).reveal()
    assert one != other
    for secret in (one, other):
        assert services.authentication.caller_of(secret).site_role is Role.GATEWAY
    with pytest.raises(Unauthenticated):
        services.authentication.caller_of(other + "x")
