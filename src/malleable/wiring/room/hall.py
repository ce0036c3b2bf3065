"""A server and a virtual machine room to tell the story in: started detached, found again, removed without a trace."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from malleable.config import Settings, UplinkSettings
from malleable.domain.errors import Busy, MalleableError, Unavailable
from malleable.domain.secrets import Secret
from malleable.sim import rack
from malleable.wiring.assembly import serve_file
from malleable.wiring.keys import read_private
from malleable.wiring.teardown import teardown_gateway, unmount_pool

START_S = 60.0
STOP_S = 20.0
LOOK_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Hall:
    """Where everything of one room and its server lives."""

    name: str
    state_dir: Path
    run_dir: Path
    port: int = 0

    def room(self, nodes: int, memory_mib: int) -> rack.RackDescription:
        """Build the room, or find it."""
        return rack.up(rack.RackSpec(name=self.name, nodes=nodes, memory_mib=memory_mib))

    def start_server(self, room: rack.RackDescription) -> str:
        """Start `m2d serve`, detached, on its embedded defaults with the room's switch as uplink; return its URL."""
        if (url := self.url()) is not None:
            return url
        self.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.state_dir / "serve.log").open("ab") as log:
            server = subprocess.Popen(
                [sys.executable, "-m", "malleable.wiring", "serve"],
                env=self._environment(room),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline_s = time.monotonic() + START_S
        while (url := self.url()) is None:
            if server.poll() is not None or time.monotonic() > deadline_s:
                raise Unavailable("The server did not start.", fix=f"Its last words:\n{self.last_words()}")
            time.sleep(LOOK_S)
        return url

    def _environment(self, room: rack.RackDescription) -> Mapping[str, str]:
        return {
            **os.environ,
            "M2D_STATE_DIR": str(self.state_dir),
            "M2D_RUN_DIR": str(self.run_dir),
            "M2D_LISTEN__PORT": str(self.port),
            "M2D_UPLINK__OVSDB": f"unix:{room.switch.ovsdb_socket}",
            "M2D_UPLINK__BRIDGE": room.switch.bridge,
            "M2D_UPLINK__NETNS": room.switch.netns,
            "M2D_POOL__SIZE_GIB": "32",
        }

    def url(self) -> str | None:
        """Return where the server answers; None while it does not run."""
        try:
            found = json.loads(serve_file(self.run_dir).read_text())
            os.kill(found["pid"], 0)
        except (OSError, ValueError, KeyError):
            return None
        return str(found["url"])

    def admin_password(self) -> Secret:
        """Read the first admin's password."""
        return read_private(self.state_dir / "admin-password")

    def last_words(self) -> str:
        """Return the end of the server's log."""
        try:
            return "\n".join((self.state_dir / "serve.log").read_text(errors="replace").splitlines()[-15:])
        except OSError:
            return "(no log)"

    def stop_server(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the server and wait until it is gone; nothing to do if it does not run."""
        try:
            pid = int(json.loads(serve_file(self.run_dir).read_text())["pid"])
            os.kill(pid, number)
        except (OSError, ValueError, KeyError):
            return
        deadline_s = time.monotonic() + STOP_S
        while _lives(pid):
            if time.monotonic() > deadline_s:
                os.kill(pid, signal.SIGKILL)
            time.sleep(LOOK_S)

    def remove(self) -> Sequence[str]:
        """Take down server, gateway, pool and room with all they made; return what could not be removed."""
        self.stop_server()
        settings, troubles = self._settings(), []
        # In this order: the gateway unplugs from the room's switch, and the room's machines hold the pool's mount.
        for take_down in (lambda: teardown_gateway(settings), lambda: rack.down(self.name)):
            try:
                take_down()
            except MalleableError as e:
                troubles.append(str(e))
        with contextlib.suppress(Busy):
            # Somebody's namespace on this host has a copy of the mount: the loop device goes with that, by itself.
            unmount_pool(settings)
        if not troubles:
            shutil.rmtree(self.state_dir, ignore_errors=True)
            shutil.rmtree(self.run_dir, ignore_errors=True)
        return troubles

    def _settings(self) -> Settings:
        uplink = UplinkSettings()
        if self.name in rack.names():
            switch = rack.describe(self.name).switch
            uplink = UplinkSettings(ovsdb=f"unix:{switch.ovsdb_socket}", bridge=switch.bridge, netns=switch.netns)
        return Settings(state_dir=self.state_dir, run_dir=self.run_dir, uplink=uplink)


def _lives(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        # Our own child would stay a zombie otherwise.
        os.waitpid(pid, os.WNOHANG)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
