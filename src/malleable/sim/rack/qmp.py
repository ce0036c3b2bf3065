"""QEMU's machine protocol (QMP): one command per connection, over the node's unix socket."""

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from malleable.domain.errors import Malformed, Refused, Unreachable

TIMEOUT_S = 5.0


def command(path: Path, name: str, **arguments: object) -> Any:
    """Execute ``name`` on the QEMU that listens at ``path`` and return its answer.

    Errors: Unreachable if nobody answers, Refused with QEMU's words, Malformed if it is no QMP.
    Source: QEMU docs/interop/qmp-spec.rst.
    """
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(TIMEOUT_S)
            connection.connect(str(path))
            with connection.makefile("rwb") as stream:
                _answer(stream, "QMP")
                _ask(stream, {"execute": "qmp_capabilities"})
                _answer(stream, "return")
                _ask(stream, {"execute": name, "arguments": arguments})
                return _answer(stream, "return")
    except OSError as e:
        said = e.strerror or e
        raise Unreachable(f"QEMU does not answer at {path}: {said}.", fix="Power the node off and on.") from e


def _ask(stream: Any, message: Mapping[str, object]) -> None:
    stream.write(json.dumps(message).encode() + b"\n")
    stream.flush()


def _answer(stream: Any, key: str) -> Any:
    """Read on to the message that has ``key``; events in between are not ours."""
    for line in stream:
        try:
            message = json.loads(line)
        except ValueError as e:
            raise Malformed(f"QEMU sent {line[:80]!r} over QMP.") from e
        if key in message:
            return message[key]
        if "error" in message:
            raise Refused(f"QEMU refused: {message['error'].get('desc', 'no reason given')}.")
    raise Unreachable("QEMU closed its QMP connection.", fix="Read the node's console log.")
