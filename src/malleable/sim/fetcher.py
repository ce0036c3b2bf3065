"""A web in memory, with faults to order."""

from pathlib import Path

from malleable.domain.errors import Refused
from malleable.domain.fetching import Fetched, Login
from malleable.domain.progress import OnProgress
from malleable.domain.urls import ANY_ARTIFACT, ArtifactWish
from malleable.sim.faults import Faults


class SimFetcher:
    """``Fetcher`` from a dictionary of URLs."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self.files: dict[str, bytes] = {}
        self.signed: dict[str, str] = {}  #: with which key cosign signed an artifact
        self.logins: dict[str, Login] = {}  #: who may have a file; without one, only who has no login

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
        """Do as ``Fetcher.fetch``."""
        self.faults.before("fetch", url)
        if self.logins.get(url) != login:
            raise Refused("The registry asks for another login.", code="registry-login")
        signed = "" if artifact.keys is None else self.signed.get(url, "")
        if artifact.keys is not None and signed not in artifact.keys:
            raise Refused("Nobody trusted signed the artifact.", code="signature")
        if target.exists():
            return Fetched(size_bytes=target.stat().st_size, signing_key=signed)
        content = self.files.get(url)
        if content is None:
            raise Refused("The web server answers with status 404.", code="url-answer")
        if size_bytes not in (None, len(content)):
            raise Refused(f"The file has {len(content)} bytes, {size_bytes} were announced.", code="wrong-size")
        if not 0 < len(content) <= max_bytes:
            raise Refused(f"The file has {len(content)} bytes.", code="url-too-large")
        part = target.with_name(f".{target.name}.fetched")
        have_bytes = part.stat().st_size if part.exists() else 0
        on_progress(have_bytes, len(content))
        with part.open("ab") as file:
            file.write(content[have_bytes:])
        on_progress(len(content), len(content))
        part.replace(target)
        self.faults.after("fetch", url)
        return Fetched(size_bytes=len(content), signing_key=signed)
