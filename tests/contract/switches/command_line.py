"""A switch's command line over SSH, for Ansible to talk to: modes, prompts, and no ear for what is no command there."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh

USER, PASSWORD = "netops", "never-on-a-command-line"
#: Lines that each refuses, in its own words.
_NO = {"junos": "\r\nerror: syntax error\r\n"}
_EXEC, _CONFIG, _PORT = "", "(config)", "(config-if)"


@dataclass(kw_only=True)
class Device:
    """What a switch keeps: lines by port; a change is made as it is said, or all of it at a commit."""

    system: str
    lines: dict[str, list[str]]
    refuses: str = ""  #: a word; lines with it are refused
    heard: list[str] = field(default_factory=list)
    pending: dict[str, list[str]] | None = None  #: what a session has changed and not committed

    @property
    def is_junos(self) -> bool:
        return self.system == "junos"

    def show(self) -> str:
        """Write the running configuration."""
        if self.is_junos:
            return "\n".join(f"set interfaces {port} {line}" for port, lines in self.lines.items() for line in lines)
        blocks = [[f"interface {port}", *(f"  {line}" for line in lines)] for port, lines in self.lines.items()]
        return "\n".join(line for block in blocks for line in block)

    def take(self, commands: Sequence[str]) -> None:
        """Do what is said, in order."""
        lines, port = self.lines if self.pending is None else self.pending, ""
        for command in commands:
            words = command.split()
            if self.is_junos:
                _say_junos(lines.setdefault(words[2], []), words)
            elif words[0] == "interface":
                port = words[1]
                lines.setdefault(port, [])
            elif words[0] != "exit":
                lines[port] = _said(lines[port], command)


def _say_junos(kept: list[str], words: Sequence[str]) -> None:
    rest = " ".join(words[3:])
    if words[0] == "delete":
        kept[:] = [line for line in kept if not line.startswith(rest)]
    elif rest not in kept:
        kept.append(rest)


def _said(lines: Sequence[str], command: str) -> list[str]:
    """The later word on a matter is the one that counts; a bare "no" clears it."""
    matter = command.removeprefix("no ").rsplit(" ", 1)[0] if command[-1].isdigit() else command.removeprefix("no ")
    matter = "switchport mode" if command.startswith("switchport mode") else matter
    kept = [line for line in lines if line.removeprefix("no ") != matter and not line.startswith(f"{matter} ")]
    is_cleared = command.startswith("no ") and command != "no shutdown"
    return kept if is_cleared else [*kept, command]


class _Login(asyncssh.SSHServer):
    def __init__(self, open_connections: set[asyncssh.SSHServerConnection]) -> None:
        self._open = open_connections

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._open.add(conn)

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return (username, password) == (USER, PASSWORD)


class _Shell:
    """One session."""

    def __init__(self, device: Device) -> None:
        self._device, self._mode, self._port = device, _EXEC, ""

    def prompt(self) -> str:
        if self._device.is_junos:
            return f"{USER}@dev{'#' if self._mode else '>'} "
        return f"dev{self._mode}# "

    def answer(self, line: str) -> str:
        """Do a line and return what it prints."""
        device = self._device
        device.heard.append(line)
        if not line or line.startswith(("terminal ", "set cli ")):
            return ""
        if line.startswith("show "):
            return device.show().replace("\n", "\r\n") + "\r\n"
        if (device.refuses and device.refuses in line) or not self._do(line):
            return _NO.get(device.system, "% Invalid input detected at '^' marker.\r\n")
        return ""

    def _do(self, line: str) -> bool:
        device = self._device
        if self._mode == _EXEC:
            if not line.startswith("configure "):
                return False
            self._mode = _CONFIG
            is_whole = line in ("configure session", "configure exclusive")
            device.pending = {port: list(lines) for port, lines in device.lines.items()} if is_whole else None
        elif line in ("commit", "commit and-quit"):
            if device.pending is None:
                return False
            device.lines, device.pending, self._mode = device.pending, None, _EXEC
        elif line in ("end", "abort", "exit configuration-mode"):
            device.pending, self._mode = None, _EXEC
        elif line == "rollback 0":
            device.pending = {port: list(lines) for port, lines in device.lines.items()}
        elif device.is_junos:
            device.take([line])
        else:
            return self._do_port(line)
        return True

    def _do_port(self, line: str) -> bool:
        """In a port's block lines are the port's; outside of one they are no commands."""
        if line.startswith("interface "):
            self._mode, self._port = _PORT, line
        elif self._mode != _PORT:
            return False
        elif line == "exit":
            self._mode = _CONFIG
            return True
        self._device.take([self._port, *([] if line == self._port else [line])])
        return True


async def _converse(process: Any, device: Device) -> None:
    shell, heard = _Shell(device), ""
    process.stdout.write(f"Welcome\r\n{shell.prompt()}")
    while more := await process.stdin.read(4096):
        heard += more.replace("\n", "\r")
        while "\r" in heard:
            line, _, heard = heard.partition("\r")
            process.stdout.write(f"{line}\r\n{shell.answer(line.strip())}{shell.prompt()}")
    process.exit(0)


@contextmanager
def listening(device: Device, home: Path) -> Iterator[int]:
    """Serve a device on the returned port of the loopback; ``home`` gets to know its host key."""
    key, ports, loops = asyncssh.generate_private_key("ssh-ed25519"), list[int](), list[asyncio.AbstractEventLoop]()
    is_up, is_over = threading.Event(), asyncio.Event()

    async def serve() -> None:
        connections: set[asyncssh.SSHServerConnection] = set()
        server = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_factory=lambda: _Login(connections),
            server_host_keys=[key],
            process_factory=lambda process: _converse(process, device),
            line_editor=False,
        )
        ports.append(server.get_port())
        loops.append(asyncio.get_running_loop())
        is_up.set()
        await is_over.wait()
        server.close()
        for connection in connections:
            connection.abort()
        await asyncio.gather(*(connection.wait_closed() for connection in connections), server.wait_closed())

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert is_up.wait(30)
    known = home / ".ssh" / "known_hosts"
    known.parent.mkdir(mode=0o700, exist_ok=True)
    known.write_text(f"[127.0.0.1]:{ports[0]} {key.export_public_key().decode()}")
    try:
        yield ports[0]
    finally:
        loops[0].call_soon_threadsafe(is_over.set)
        thread.join(30)
