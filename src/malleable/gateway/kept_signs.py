"""Signs that a node gives once, on the gateway's own disk until the control plane has them."""

import logging
import os
from collections.abc import Iterable
from pathlib import Path

from pydantic import Field, ValidationError

from malleable.domain.errors import Unavailable
from malleable.gateway.private_file import replace_file
from malleable.wire.gateway import BootSign

log = logging.getLogger(__name__)


class KeptSign(BootSign):
    """A sign with the token of its arming, as a line of the file."""

    token: str = Field(repr=False)


class KeptSigns:
    """A file of lines; one that a crash cut short was promised to nobody. Used under its owner's lock."""

    def __init__(self, path: Path) -> None:
        """Look at nothing yet."""
        self._path = path

    def read(self) -> list[KeptSign]:
        """Read what an earlier gateway kept."""
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        found = []
        for line in lines:
            try:
                found.append(KeptSign.model_validate_json(line))
            except ValidationError:
                continue
        return found

    def add(self, sign: KeptSign) -> None:
        """Keep one more; it is on disk before this returns. Errors: Unavailable."""
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(fd, "ab") as out:
                # Begins a line of its own after one that a full disk cut short.
                out.write(b"\n" + sign.model_dump_json().encode() + b"\n")
                out.flush()
                os.fsync(out.fileno())
        except OSError as e:
            log.error("a node's report cannot be kept in %s: %s", self._path, e.strerror)
            raise Unavailable(f"The report cannot be kept in {self._path}: {e.strerror}.") from e

    def replace(self, signs: Iterable[KeptSign]) -> None:
        """Keep just these; if the disk does not take it, the others are told twice, which does no harm."""
        text = "".join(f"{sign.model_dump_json()}\n" for sign in signs)
        try:
            if text:
                replace_file(self._path, text)
            else:
                self._path.unlink(missing_ok=True)
        except OSError as e:
            log.warning("what was told is still kept in %s: %s", self._path, e.strerror)
