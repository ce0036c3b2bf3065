"""Freezes: a node's system stops writing to one disk for the moment in which a snapshot of it is taken."""

import hashlib
import hmac
import re
from enum import StrEnum

from malleable.domain.secrets import Secret

AGENT_HEADER = "x-malleable-agent"
#: What an agent proves to be told what to do: it lets nobody report anything.
ASKS = "ask"
#: The system ends a freeze by itself after so long, whatever else happens: it is the agent's to keep.
HELD_MAX_S = 10.0
#: What is done within so long after "frozen" was heard was done while the disk was frozen. The agent ends a freeze by
#: itself after 8 s, which it counts in whole ones, so 7; and what it reports may be on its way for 3 s.
PROVEN_S = 4.0
#: An agent that is there has asked within so long: after 120 s without an answer, which may be all that it notices of a
#: gateway that was cut off, it pauses for up to 19 s and asks again.
ASKS_WITHIN_S = 150.0
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


def agent_proof(chap_password: Secret, *words: str) -> str:
    """Prove that ``words`` come from who knows a secret that a system's root alone can read: in the iBFT.

    Shells can make it too: the SHA-256 of "malleable-agent", the words and the secret, joined by colons. It tells
    nothing of the secret, and proves no other words. None of them holds a colon.
    """
    said = ":".join(("malleable-agent", *words, chap_password.reveal()))
    return hashlib.sha256(said.encode()).hexdigest()


def is_proof(said: str, chap_password: Secret, *words: str) -> bool:
    """Say whether ``said`` proves ``words``, in time that does not depend on it."""
    return hmac.compare_digest(said.encode("latin-1", "replace"), agent_proof(chap_password, *words).encode())


def parse_words(raw: bytes) -> str:
    """Keep the beginning of what an agent says, of plain characters alone: it is shown on terminals."""
    return _PLAIN.sub(" ", raw[:WORDS_MAX_CHARS].decode("latin-1")).strip()
