"""Whose signatures on images are trusted."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import StringConstraints

from malleable.wire.shapes import Answer, Name, Open, Ref, Request


class SignerRequest(Request):
    """Somebody whose signatures are to be trusted; without a project by everybody."""

    name: Name
    project: Ref | None = None
    key: Annotated[str, StringConstraints(max_length=2048, pattern=r"^[^\x00]*$")]  #: minisign.pub or cosign.pub


class SignerView(Answer):
    """Somebody whose signatures on images are trusted."""

    id: Open[UUID]
    name: Open[str]
    project_id: Open[UUID | None]
    project: Open[str | None]
    key: Open[str]
    key_number: Open[str]  #: as minisign writes it; of cosign's, the beginning of its SHA-256
    created_at: Open[datetime]


class SigningRequest(Request):
    """Whether a project imports and boots signed images only."""

    needs_signed_images: bool
