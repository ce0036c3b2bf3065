"""The BMC process of a room, from outside: its addresses, its passwords, its life."""

import json
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from malleable.domain.errors import Malformed, Unavailable
from malleable.domain.secrets import Secret, random_secret
from malleable.sim.rack import commands, processes
from malleable.sim.rack.layout import Layout
from malleable.sim.rack.private_file import write_private

HOST = "127.0.0.1"
USERNAME = "admin"
START_DEADLINE_S = 30.0
_BACKLOG = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A BMC's address and password; a machine keeps both for the life of the room."""

    port: int  #: 0 until the first start has chosen a free one
    password: Secret


def accounts(path: Path, nodes: Sequence[str]) -> dict[str, Account]:
    """Read the accounts of ``nodes``; a node without one gets a random password. Errors: Malformed."""
    try:
        raw = json.loads(path.read_text()) if path.exists() else {}
        known = {name: Account(port=int(one["port"]), password=Secret(one["password"])) for name, one in raw.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise Malformed(f"{path} holds no BMC accounts.", fix="Take the rack down and bring it up again.") from e
    return {name: known.get(name) or Account(port=0, password=random_secret()) for name in nodes}


def save_accounts(path: Path, chosen: Mapping[str, Account]) -> None:
    """Write the accounts, readable by their owner only."""
    plain = {name: {"port": one.port, "password": one.password.reveal()} for name, one in chosen.items()}
    write_private(path, json.dumps(plain))


def bind(stack: ExitStack, chosen: Mapping[str, Account]) -> dict[str, socket.socket]:
    """Bind every node's listener; port 0 takes any free one. Errors: Unavailable if a known port is taken."""
    listeners = {}
    for name, account in chosen.items():
        listener = stack.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, account.port))
        except OSError as e:
            raise Unavailable(
                f"The BMC of {name} cannot listen on {HOST}:{account.port}: {e.strerror}.",
                fix=f"See who holds it: ss -ltnp 'sport = :{account.port}'",
            ) from e
        listener.listen(_BACKLOG)
        listeners[name] = listener
    return listeners


def start(layout: Layout, listeners: Mapping[str, socket.socket]) -> None:
    """Start the BMC process on sockets that are bound already."""
    layout.bmc_ready.unlink(missing_ok=True)
    fds = [listener.fileno() for listener in listeners.values()]
    process = processes.spawn(
        [sys.executable, "-m", "malleable.sim.rack.bmc", "--run-dir", layout.run_dir,
         "--fds", ",".join(str(fd) for fd in fds)],
        log=layout.bmc_log,
        # Inserted media are downloaded to TMPDIR.
        env=commands.environment({"TMPDIR": str(layout.media_dir), "PYTHONPATH": _package_root()}),
        pass_fds=fds,
    )  # fmt: skip
    processes.record(layout.bmc_pid, process)


def wait(layout: Layout) -> None:
    """Wait until the BMC process serves. Not by asking a BMC: it may have a fault. Errors: Unavailable."""
    processes.wait_until(
        lambda: _serves(layout),
        deadline_s=START_DEADLINE_S,
        what="The BMC process did not start",
        fix=f"Read the end of {layout.bmc_log}.",
    )


def tell_faults_changed(layout: Layout) -> None:
    """Make the BMC process read the faults again; if it does not run, it will when it starts."""
    process = processes.recorded(layout.bmc_pid)
    if process is not None:
        processes.send(process, signal.SIGHUP)


def _serves(layout: Layout) -> bool:
    if processes.recorded(layout.bmc_pid) is None:
        raise Unavailable("The BMC process ended at its start.", fix=f"Read the end of {layout.bmc_log}.")
    return layout.bmc_ready.exists()


def _package_root() -> str:
    """Find where this very package is imported from, for a process that starts in another directory."""
    return str(Path(__file__).resolve().parents[3])
