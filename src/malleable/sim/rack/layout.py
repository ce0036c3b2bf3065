"""Where a room keeps its files: every path of the room is named here and nowhere else."""

from dataclasses import dataclass
from pathlib import Path

from malleable.domain.errors import Invalid
from malleable.sim.rack.spec import RackSpec

BRIDGE = "room0"
SOCKET_PATH_LIMIT = 107  #: bytes of sun_path without its final zero, unix(7)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFiles:
    """One node's files."""

    run_dir: Path
    state_dir: Path
    name: str  #: short, "n1": it is part of socket paths

    @property
    def qemu_pid(self) -> Path:
        return self.run_dir / f"{self.name}.pid"

    @property
    def qemu_pid_raw(self) -> Path:
        """As QEMU itself writes it: the bare number, for finding a QEMU whose start we did not survive."""
        return self.run_dir / f"{self.name}.qemu"

    @property
    def qmp_socket(self) -> Path:
        return self.run_dir / f"{self.name}.qmp"

    @property
    def console_socket(self) -> Path:
        return self.run_dir / f"{self.name}.tty"

    @property
    def tpm_socket(self) -> Path:
        return self.run_dir / f"{self.name}.tpm"

    @property
    def tpm_pid(self) -> Path:
        return self.run_dir / f"{self.name}.tpm.pid"

    @property
    def tpm_log(self) -> Path:
        return self.state_dir / "tpm.log"

    @property
    def tpm_dir(self) -> Path:
        return self.state_dir / "tpm"

    @property
    def nvram(self) -> Path:
        return self.state_dir / "vars.fd"

    @property
    def settings(self) -> Path:
        return self.state_dir / "settings.json"

    @property
    def console(self) -> Path:
        return self.state_dir / "console.log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The room's files."""

    rack: str
    run_dir: Path
    state_dir: Path

    @classmethod
    def of(cls, spec: RackSpec) -> "Layout":
        """Lay out ``spec``. Errors: Invalid if its sockets would have paths too long for the kernel."""
        layout = cls(rack=spec.name, run_dir=spec.run_dir, state_dir=spec.state_dir)
        longest = max(len(bytes(path)) for path in layout._sockets(spec))
        if longest > SOCKET_PATH_LIMIT:
            raise Invalid(
                f"Socket paths under {spec.run_dir} would be {longest} bytes long.",
                fix=f"Choose a run directory that is at least {longest - SOCKET_PATH_LIMIT} bytes shorter.",
            )
        return layout

    def _sockets(self, spec: RackSpec) -> list[Path]:
        last = self.node(spec.nodes)
        return [
            self.ovsdb_socket,
            last.qmp_socket,
            last.console_socket,
            last.tpm_socket,
            self.run_dir / f"{BRIDGE}.snoop",
        ]

    def node(self, number: int) -> NodeFiles:
        """Lay out node ``number``, counted from 1."""
        short = f"n{number}"
        return NodeFiles(run_dir=self.run_dir, state_dir=self.state_dir / short, name=short)

    @property
    def netns(self) -> str:
        return f"m2-rack-{self.rack}"

    @property
    def description(self) -> Path:
        return self.run_dir / "rack.json"

    @property
    def spec(self) -> Path:
        return self.run_dir / "spec.json"

    @property
    def faults(self) -> Path:
        return self.run_dir / "faults.json"

    @property
    def ovsdb_socket(self) -> Path:
        return self.run_dir / "db.sock"

    @property
    def ovsdb_file(self) -> Path:
        return self.state_dir / "switch.db"

    @property
    def bmc_pid(self) -> Path:
        return self.run_dir / "bmc.pid"

    @property
    def bmc_ready(self) -> Path:
        """There while the BMC process serves."""
        return self.run_dir / "bmc.ready"

    @property
    def bmc_log(self) -> Path:
        return self.state_dir / "bmc.log"

    @property
    def accounts(self) -> Path:
        """The BMCs' ports and passwords."""
        return self.state_dir / "bmc-accounts.json"

    @property
    def media_dir(self) -> Path:
        return self.state_dir / "media"

    def daemon_pid(self, daemon: str) -> Path:
        return self.run_dir / f"{daemon}.pid"

    def daemon_log(self, daemon: str) -> Path:
        return self.state_dir / f"{daemon}.log"
