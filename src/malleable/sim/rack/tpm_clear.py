"""Clear a node's TPM, as its firmware would: owner, lockout and what they kept are gone, its endorsement key stays.

Source: TCG TPM 2.0 Library, part 3, TPM2_Clear (§24.6); swtpm(8) speaks the commands as they are on its server socket.
"""

import socket
import struct

from malleable.domain.errors import Unavailable
from malleable.sim.rack import commands, namespace, processes, tpm
from malleable.sim.rack.layout import NodeFiles

PLATFORM = 0x4000000C
CLEAR = 0x126
_SESSIONS = 0x8002
_PASSWORD = struct.pack(">IHBH", 0x40000009, 0, 0, 0)  #: an empty one, which the platform's is at every start
_HEADER = struct.Struct(">HII")


def clear(files: NodeFiles, netns: str) -> None:
    """Start the TPM for this alone, clear it, end it (0.1 s). Errors: Unavailable."""
    code = command(files, netns, CLEAR, PLATFORM)
    if code:
        raise Unavailable(
            f"The TPM of {files.name} was not cleared: it answered {code:#x}.", fix=f"Read {files.tpm_log}."
        )


def command(files: NodeFiles, netns: str, code: int, handle: int, parameters: bytes = b"") -> int:
    """Send one authorised command to a TPM whose machine is off; return its response code, 0 for success."""
    tpm.stop(files)
    files.tpm_socket.unlink(missing_ok=True)
    argv = namespace.inside(
        netns, "swtpm", "socket", "--tpm2", "--tpmstate", f"dir={files.tpm_dir}",
        "--server", f"type=unixio,path={files.tpm_socket},mode=0600",
        "--flags", "not-need-init,startup-clear", "--terminate", "--log", f"file={files.tpm_log},level=1",
    )  # fmt: skip
    processes.record(files.tpm_pid, processes.spawn(argv, log=files.tpm_log, env=commands.environment()))
    try:
        processes.wait_until(
            files.tpm_socket.exists,
            deadline_s=tpm.START_DEADLINE_S,
            what=f"The TPM of {files.name} did not start",
            fix=f"Read {files.tpm_log}.",
        )
        return _converse(files, struct.pack(">II", handle, len(_PASSWORD)) + _PASSWORD + parameters, code)
    finally:
        tpm.stop(files)


def _converse(files: NodeFiles, body: bytes, code: int) -> int:
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(tpm.START_DEADLINE_S)
        line.connect(str(files.tpm_socket))
        line.sendall(_HEADER.pack(_SESSIONS, _HEADER.size + len(body), code) + body)
        answer = line.recv(4096)
    if len(answer) < _HEADER.size:
        raise Unavailable(f"The TPM of {files.name} ended without an answer.", fix=f"Read {files.tpm_log}.")
    return int(_HEADER.unpack_from(answer)[2])
