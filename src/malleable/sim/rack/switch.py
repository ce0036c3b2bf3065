"""The room's switch: one Open vSwitch with its own database, userspace datapath, in the room's namespace."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from malleable.domain.errors import Unavailable
from malleable.sim.rack import commands, namespace, preflight, processes
from malleable.sim.rack.layout import BRIDGE, Layout

OVSDB = "ovsdb-server"
VSWITCHD = "ovs-vswitchd"

DEAD_VLAN = 4095  #: reserved by IEEE 802.1Q: no network can ever have it

#: A port is born carrying nothing. Without a VLAN an Open vSwitch port is a trunk of every VLAN, so these columns go
#: into the very transaction that makes the port: a trunk of the dead VLAN alone drops untagged frames and every
#: network's, and ``protected`` ports cannot reach each other even with frames tagged 4095.
#: Source: ovs-vswitchd.conf.db(5); drops traced by the system tests on Open vSwitch 3.1.
SHUT = ("vlan_mode=trunk", f"trunks={DEAD_VLAN}", "protected=true")

START_DEADLINE_S = 20.0
_VSCTL_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomSwitch:
    """Starts, finds again and stops the switch of one room."""

    layout: Layout

    def ensure(self, ports: Iterable[str]) -> None:
        """Run the switch with a port for each tap in ``ports``; new ports are shut, existing ones keep their VLAN.

        Errors: Unavailable, with what the switch said.
        """
        self._ensure_database()
        self._ensure_datapath()
        self._vsctl(
            "--may-exist", "add-br", BRIDGE,
            "--", "set", "bridge", BRIDGE, "datapath_type=netdev", "fail_mode=standalone",
            "--", "set", "port", BRIDGE, *SHUT,
        )  # fmt: skip
        self._prove(BRIDGE)
        for port in ports:
            if port not in self._vsctl("list-ports", BRIDGE).split():
                self._vsctl("add-port", BRIDGE, port, "--", "set", "port", port, *SHUT)
            self._prove(port)

    def is_running(self) -> bool:
        """Say whether both daemons run."""
        return all(processes.recorded(self.layout.daemon_pid(daemon)) for daemon in (OVSDB, VSWITCHD))

    def stop(self) -> None:
        """Stop both daemons; nothing to do if they are gone."""
        for daemon in (VSWITCHD, OVSDB):
            process = processes.recorded(self.layout.daemon_pid(daemon))
            if process is not None:
                processes.stop(process, term_s=5)

    def _ensure_database(self) -> None:
        layout = self.layout
        if not layout.ovsdb_file.exists():
            commands.run(["ovsdb-tool", "create", layout.ovsdb_file, preflight.OVS_SCHEMA])
        self._ensure_daemon(OVSDB, layout.ovsdb_file, f"--remote=punix:{layout.ovsdb_socket}")
        processes.wait_until(
            lambda: self._answers("list-br"),
            deadline_s=START_DEADLINE_S,
            what="The switch's database did not answer",
            fix=f"Read {layout.daemon_log(OVSDB)}.",
        )

    def _ensure_datapath(self) -> None:
        self._ensure_daemon(VSWITCHD, f"unix:{self.layout.ovsdb_socket}")

    def _ensure_daemon(self, daemon: str, *arguments: str | Path) -> None:
        layout = self.layout
        pid_file = layout.daemon_pid(daemon)
        if processes.recorded(pid_file) is not None:
            return
        argv = namespace.inside(
            layout.netns,
            daemon,
            *arguments,
            f"--unixctl={layout.run_dir}/{daemon}.ctl",
            f"--log-file={layout.daemon_log(daemon)}",
            "-vconsole:off",
            "-vsyslog:off",
        )
        started = processes.spawn(
            argv, log=layout.state_dir / "daemons.log", env=commands.environment(self._environment())
        )
        processes.record(pid_file, started)

    def _environment(self) -> dict[str, str]:
        run_dir = str(self.layout.run_dir)
        return {"OVS_RUNDIR": run_dir, "OVS_LOGDIR": str(self.layout.state_dir), "OVS_DBDIR": run_dir}

    def _prove(self, interface: str) -> None:
        """Prove that the interface is in the datapath: ovs-vsctl ends with 0 also when the switch could not add it."""
        said = self._vsctl("get", "interface", interface, "error", "ofport").split("\n")
        error, port_number = (word.strip().strip('"') for word in said[:2])
        if error != "[]" or port_number in ("[]", "-1"):
            raise Unavailable(
                f"The switch could not take {interface}: {error}.",
                fix=f"Read {self.layout.daemon_log(VSWITCHD)}.",
            )

    def _answers(self, *arguments: str) -> bool:
        try:
            self._vsctl("--no-wait", *arguments)
        except Unavailable:
            return False
        return True

    def _vsctl(self, *arguments: str) -> str:
        database = f"--db=unix:{self.layout.ovsdb_socket}"
        return commands.run(["ovs-vsctl", database, f"--timeout={_VSCTL_TIMEOUT_S}", *arguments])
