"""Passwords: hashing and guessing."""

import pytest

from malleable.domain.errors import Invalid, TooMany
from malleable.services.passwords import NO_PASSWORD, TRIES, WINDOW_S, Passwords
from malleable.sim.clock import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def passwords(clock: ManualClock) -> Passwords:
    return Passwords(clock)


def test_a_hash_is_argon2id_and_opens_to_its_password_only(passwords: Passwords) -> None:
    stored = passwords.hash("long enough")
    assert stored.reveal().startswith("$argon2id$")
    assert passwords.check("ann", stored, "long enough")
    assert not passwords.check("ann", stored, "Long enough")


def test_a_user_who_does_not_exist_is_never_right(passwords: Passwords) -> None:
    assert not passwords.check("bob", None, "anything")


def test_an_account_without_a_password_opens_to_none(passwords: Passwords) -> None:
    assert not passwords.check("gateway", NO_PASSWORD, NO_PASSWORD.reveal())


def test_something_else_than_a_hash_opens_to_nothing(passwords: Passwords) -> None:
    stored = passwords.hash("long enough")
    assert not passwords.check("ann", type(stored)("?"), "?")


@pytest.mark.parametrize("bad", ["", "short", "x" * 1001])
def test_short_and_endless_passwords_are_refused(bad: str, passwords: Passwords) -> None:
    with pytest.raises(Invalid):
        passwords.hash(bad)


def test_guessing_stops_after_ten_and_begins_again_after_a_minute(passwords: Passwords, clock: ManualClock) -> None:
    stored = passwords.hash("long enough")
    for _ in range(TRIES):
        assert not passwords.check("ann", stored, "wrong")
    with pytest.raises(TooMany):
        passwords.check("ann", stored, "long enough")
    assert passwords.check("eve", stored, "long enough"), "another user is not held up"
    clock.advance(WINDOW_S + 1)
    assert passwords.check("ann", stored, "long enough")


def test_a_right_password_clears_the_count(passwords: Passwords) -> None:
    stored = passwords.hash("long enough")
    for _ in range(2):
        for _ in range(TRIES - 1):
            passwords.check("ann", stored, "wrong")
        assert passwords.check("ann", stored, "long enough")
