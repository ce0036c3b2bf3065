"""Passwords: argon2id, a few at a time, because each takes 64 MiB and tens of milliseconds."""

from threading import BoundedSemaphore, Lock

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from malleable.cores import anywhere
from malleable.domain.errors import Invalid, TooMany
from malleable.domain.ports import Clock
from malleable.domain.secrets import Secret, random_secret

MIN_CHARS = 10
MAX_CHARS = 1000
#: At most this many hashes at once in a process: 128 MiB and two cores, however many log in.
CONCURRENCY = 2
WAIT_S = 10.0
#: Wrong passwords for one user name, per minute, before further tries are refused unread.
TRIES = 10
WINDOW_S = 60.0
#: In the place of a hash: no password opens this account, as a gateway's, which has a token.
NO_PASSWORD = Secret("!")
NAMES_MAX = 10_000


class Passwords:
    """Hashes and checks passwords; slows down guessing."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._hasher = PasswordHasher()
        self._slots = BoundedSemaphore(CONCURRENCY)
        self._lock = Lock()
        self._failures: dict[str, tuple[float, int]] = {}
        self._decoy: str | None = None

    def hash(self, password: str) -> Secret:
        """Hash a new password. Errors: Invalid when it is too short; TooMany when the machine is busy hashing."""
        if not MIN_CHARS <= len(password) <= MAX_CHARS:
            raise Invalid(
                f"The password has {len(password)} characters.", fix=f"Use {MIN_CHARS} to {MAX_CHARS} characters."
            )
        return Secret(self._hash(password))

    def check(self, username: str, stored: Secret | None, password: str) -> bool:
        """Say whether ``password`` is right for ``username``; ``stored`` None is a user who does not exist.

        Takes the same time whether the user exists or not, and for one who has none.
        Errors: TooMany after 10 failures within a minute.
        """
        self._check_tries(username)
        known = None if stored == NO_PASSWORD else stored
        is_right = self._verify(known.reveal() if known else self._decoy_hash(), password) and known is not None
        with self._lock:
            if is_right:
                self._failures.pop(username, None)
            else:
                self._count_failure(username)
        return is_right

    def _check_tries(self, username: str) -> None:
        with self._lock:
            began_s, count = self._failures.get(username, (0.0, 0))
            left_s = began_s + WINDOW_S - self._clock.monotonic_s()
        if count >= TRIES and left_s > 0:
            raise TooMany(
                "There were too many wrong passwords for this user.",
                code="too-many-logins",
                fix=f"Wait {int(left_s) + 1} seconds.",
                details={"retry_after_s": int(left_s) + 1},
            )

    def _count_failure(self, username: str) -> None:
        now_s = self._clock.monotonic_s()
        began_s, count = self._failures.pop(username, (now_s, 0))
        if now_s - began_s > WINDOW_S:
            began_s, count = now_s, 0
        self._failures[username] = (began_s, count + 1)
        while len(self._failures) > NAMES_MAX:
            self._failures.pop(next(iter(self._failures)))

    def _decoy_hash(self) -> str:
        if self._decoy is None:
            self._decoy = self._hash(random_secret().reveal())
        return self._decoy

    def _hash(self, password: str) -> str:
        self._take_slot()
        try:
            with anywhere():
                return self._hasher.hash(password)
        finally:
            self._slots.release()

    def _verify(self, stored: str, password: str) -> bool:
        self._take_slot()
        try:
            with anywhere():
                return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False
        finally:
            self._slots.release()

    def _take_slot(self) -> None:
        if not self._slots.acquire(timeout=WAIT_S):
            raise TooMany("Too many people log in at once.", code="too-many-logins", fix="Try again in a few seconds.")
