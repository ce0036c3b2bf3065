"""Freezes: a node's system stops writing to one disk for the moment in which a snapshot of it is taken."""

import hashlib
import hmac
import re
from enum import StrEnum

from malleable.domain.secrets import Secret

AGENT_HEADER = "x-malleable-agent"
#: The system ends a freeze by itself after so long, whatever else happens: it is the agent's to keep.
HELD_MAX_S = 10.0
#: What is done within so long after "frozen" was heard was done while the disk was frozen. The agent ends a freeze by
#: itself after 8 s, which it counts in whole ones, so 7; and what it reports may be on its way for 3 s.
PROVEN_S = 4.0
#: A shell splits what it is told by spaces.
WORDS_MAX_CHARS = 200
_PLAIN = re.compile(r"[^\x20-\x7e]+")


class FreezeState(StrEnum):
    """How far a freeze has come; a system that says nothing leaves it where it is."""

    ASKED = "asked"  #: the system is to stop writing
    FROZEN = "frozen"  #: it says that it has
    ENDING = "ending"  #: it is to go on
    THAWED = "thawed"  #: it went on, and had not until it was asked to
    FAILED = "failed"  #: it could not, or went on too soon


def agent_token(chap_password: Secret) -> Secret:
    """Make what the agent proves itself with, of a secret that its system's root alone can read: in the iBFT.

    Shells can make it too: the SHA-256 of "malleable-agent:" and the secret. It tells nothing of that.
    """
    digest = hashlib.sha256(f"malleable-agent:{chap_password.reveal()}".encode())
    return Secret(digest.hexdigest())


def is_agent(said: str, chap_password: Secret) -> bool:
    """Say whether ``said`` is the agent's token, in time that does not depend on it."""
    return hmac.compare_digest(said.encode("latin-1", "replace"), agent_token(chap_password).reveal().encode())


def parse_words(raw: bytes) -> str:
    """Keep the beginning of what an agent says, of plain characters alone: it is shown on terminals."""
    return _PLAIN.sub(" ", raw[:WORDS_MAX_CHARS].decode("latin-1")).strip()
