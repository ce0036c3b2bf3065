"""A server and a virtual machine room to tell the story in: started detached, found again, removed without a trace."""

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from malleable.config import Settings, UplinkSettings
from malleable.domain.errors import Busy, MalleableError, Unavailable
from malleable.domain.secrets import Secret
from malleable.drivers.storage.folder import unseal
from malleable.sim import rack
from malleable.sim.rack import processes
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
        self.run_dir.mkdir(parents=True, exist_ok=True)  # passable: dnsmasq reads in it, and is not root
        command = [sys.executable, "-m", "malleable.wiring", "serve"]
        server = processes.spawn(command, log=self.state_dir / "serve.log", env=self._environment(room))
        processes.record(self._pid_file, server)
        deadline_s = time.monotonic() + START_S
        while (url := self.url()) is None:
            if not processes.is_alive(server) or time.monotonic() > deadline_s:
                raise Unavailable("The server did not start.", fix=f"Its last words:\n{self.last_words()}")
            time.sleep(LOOK_S)
        return url

    def _environment(self, room: rack.RackDescription) -> Mapping[str, str]:
        return {
            **os.environ,
            "M2D_STATE_DIR": str(self.state_dir),
            "M2D_RUN_DIR": str(self.run_dir),
            # This host may be set up to serve for real: neither its database nor its address is this room's.
            "M2D_DATABASE_URL": "",
            "M2D_LISTEN__HOST": "127.0.0.1",
            "M2D_LISTEN__PORT": str(self.port),
            "M2D_UPLINK__OVSDB": f"unix:{room.switch.ovsdb_socket}",
            "M2D_UPLINK__BRIDGE": room.switch.bridge,
            "M2D_UPLINK__NETNS": room.switch.netns,
            "M2D_POOL__SIZE_GIB": "32",
        }

    @property
    def _pid_file(self) -> Path:
        return self.run_dir / "serve.pid"

    def server(self) -> processes.ProcessId | None:
        """Return the server's process; None while it does not run."""
        return processes.recorded(self._pid_file)

    def url(self) -> str | None:
        """Return where the server answers; None while it does not."""
        server = self.server()
        try:
            found = json.loads(serve_file(self.run_dir).read_text())
            # A server that was killed has left its file behind.
            return str(found["url"]) if server is not None and found["pid"] == server.pid else None
        except (OSError, ValueError, KeyError):
            return None

    def admin_password(self) -> Secret:
        """Read the first admin's password."""
        return read_private(self.state_dir / "admin-password")

    def last_words(self) -> str:
        """Return the end of the server's log."""
        try:
            return "\n".join((self.state_dir / "serve.log").read_text(errors="replace").splitlines()[-15:])
        except OSError:
            return "(no log)"

    def stop_server(self) -> None:
        """End the server and wait until it is gone; nothing to do if it does not run."""
        if (server := self.server()) is not None:
            processes.stop(server, term_s=STOP_S)

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
            unseal(self.state_dir / "pool")
            shutil.rmtree(self.state_dir, ignore_errors=True)
            shutil.rmtree(self.run_dir, ignore_errors=True)
        return troubles

    def _settings(self) -> Settings:
        uplink = UplinkSettings()
        if self.name in rack.names():
            switch = rack.describe(self.name).switch
            uplink = UplinkSettings(ovsdb=f"unix:{switch.ovsdb_socket}", bridge=switch.bridge, netns=switch.netns)
        return Settings(state_dir=self.state_dir, run_dir=self.run_dir, database_url="", uplink=uplink)
