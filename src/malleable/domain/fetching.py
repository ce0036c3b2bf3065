"""What reads files from the web: the port of images that the server itself fetches."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from malleable.domain.progress import OnProgress
from malleable.domain.secrets import Secret
from malleable.domain.urls import ANY_ARTIFACT, ArtifactWish


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """Who asks a registry."""

    username: str
    password: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A file that came from the web."""

    size_bytes: int
    sha256: str = ""  #: what it is said to be, not proven yet; "": nobody says
    signing_key: str = ""  #: with which of the keys somebody signed that it is this; "": none were given


class Fetcher(Protocol):
    """What reads files from the web. Neither those who name them nor the servers are to be trusted."""

    def fetch(
        self,
        url: str,
        target: Path,
        *,
        size_bytes: int | None,
        max_bytes: int,
        on_progress: OnProgress,
        login: Login | None = None,
        artifact: ArtifactWish = ANY_ARTIFACT,
    ) -> Fetched:
        """Write a file of the web, or a registry's (``oci://``), to ``target`` (all or nothing).

        Who signed an artifact is known before any of its file is read.

        Goes on where an earlier call for the same target stopped, if the server can. ``size_bytes``: what it must have;
        None takes the server's word. ``on_progress`` is told how many bytes of how many are there: before the first,
        then about every second. What it raises ends the call; what has come is kept for the next.
        Errors: Unreachable, Busy or Malformed (call again); Refused with code "url-refused" (not to be asked),
        "url-answer" (the server will not), "registry-login" (not without another login), "layer-unclear" (several
        files in one, or not one for the architecture), "signature", "wrong-size", "url-too-large" or "spool-full".
        """
