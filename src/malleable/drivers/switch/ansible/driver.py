"""AnsibleSwitches: switches configured by Ansible, through ansible-runner, with a role of ours for each system.

The extra "ansible" installs what it needs; nothing of it is imported before a switch is asked. A run of Ansible takes
seconds, so all ports of a call go in one. What Ansible has to know, the password included, lies in a private folder in
memory (0700, its files 0600) while it runs, and never in arguments or the environment.
"""

import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog

from malleable.cores import anywhere
from malleable.domain.drivers import DriverFacts
from malleable.domain.errors import Malformed, Refused, Unreachable
from malleable.domain.switches import PortConfig, Switch
from malleable.domain.tunnels import Tunnel
from malleable.drivers.switch.ansible import dialects
from malleable.drivers.switch.ansible.dialects import Dialect, Told
from malleable.drivers.switch.ansible.openvswitch import OPENVSWITCH

log = structlog.get_logger()

ROLES = Path(__file__).with_name("roles")
#: By the setting "os" of a switch.
DIALECTS: Mapping[str, Dialect] = {
    "eos": dialects.EOS,
    "junos": dialects.JUNOS,
    "nxos": dialects.NXOS,
    "openvswitch": OPENVSWITCH,
    "os10": dialects.OS10,
    "sonic": dialects.SONIC,
}
_IN_MEMORY = Path("/dev/shm")
_COLLECTIONS = "~/.ansible/collections:/usr/share/ansible/collections"
#: What a module says when the device did not answer in time, whatever Ansible calls it.
_SILENCE = ("timed out", "timeout", "connection failed", "unreachable", "no route to host", "connection refused")
#: How it says that it was not let in: paramiko, libssh ("ssh connection failed: …") and eAPI, each in its own words.
_NO_ENTRY = (
    "authentication failed",
    "failed to authenticate",
    "permission denied",
    "access denied",
    "invalid password",
    "unauthorized",
)
#: How it says that it does not know the switch's system, with the system's name before it.
_NO_COLLECTION = "is not supported"
_SIGALRM = -14  #: how ovs-vsctl ends when its --timeout is over


FACTS = tuple(
    DriverFacts(
        kind="switch",
        name="ansible",
        system=f"os={os_name}",
        tested=dialect.tested,
        needs=" and ".join(filter(None, ("malleable[ansible]", dialect.needs))),
    )
    for os_name, dialect in DIALECTS.items()
)


class AnsibleSwitches:
    """Switches of every system in DIALECTS."""

    def __init__(self, *, timeout_s: float = 60.0) -> None:
        """End every run of Ansible after ``timeout_s``."""
        self._timeout_s = timeout_s

    def check(self, switch: Switch) -> None:
        self._told(switch)

    def ports(self, switch: Switch) -> Sequence[str]:
        return sorted(self._told(switch))

    def can_guard(self, switch: Switch) -> bool:  # noqa: ARG002 - the port's signature
        return False

    def can_bond(self, switch: Switch) -> bool:  # noqa: ARG002 - the port's signature
        return False

    def can_tunnel(self, switch: Switch) -> bool:  # noqa: ARG002 - the port's signature
        return False

    def weave(self, switch: Switch, wanted: Collection[Tunnel]) -> None:
        if wanted:
            raise Refused(f"Switch {switch.name} has no tunnels by Ansible.", code="no-tunnels")

    def stand_by(self, switch: Switch, wait_s: float) -> bool | None:  # noqa: ARG002 - the port's signature
        return None

    def tunnels(self, switch: Switch) -> frozenset[Tunnel]:  # noqa: ARG002 - the port's signature
        return frozenset()

    def apply(self, switch: Switch, wanted: Mapping[str, PortConfig]) -> None:
        """Change all ports in one run, after one that makes sure of them; the difference goes to the log."""
        if any(config.bond for config in wanted.values()):
            raise Refused(f"Switch {switch.name} cannot bond its ports by Ansible.", code="no-bond")
        dialect = _dialect(switch)
        change = dialect.change(switch, wanted)
        before = _require(switch, self._told(switch), wanted)
        if not wanted:
            return
        self._run(switch, dialect, change=change, show=[])
        changed = {name: (before[name], config) for name, config in wanted.items() if before[name] != config}
        log.info("switch changed", switch=switch.name, ports={name: f"{a} -> {b}" for name, (a, b) in changed.items()})

    def read(self, switch: Switch, ports: Collection[str]) -> Mapping[str, PortConfig]:
        told = _require(switch, self._told(switch), ports)
        wrong = {name: why for name in ports if isinstance(why := told[name], str)}
        if wrong:
            raise Malformed(
                f"Switch {switch.name}: " + "; ".join(f"port {name} {why}" for name, why in wrong.items()) + ".",
                fix="Apply the wanted configuration again.",
                details={"ports": wrong},
            )
        return {name: config for name in ports if isinstance(config := told[name], PortConfig)}

    def _told(self, switch: Switch) -> Mapping[str, Told]:
        dialect = _dialect(switch)
        return dialect.read(switch, self._run(switch, dialect, change=[], show=dialect.show(switch)))

    def _run(self, switch: Switch, dialect: Dialect, *, change: Sequence[str], show: Sequence[object]) -> Sequence[str]:
        """Run the role once; return what was shown. Errors: Unreachable, Refused."""
        runner = _runner()
        told = {"change": [*dialect.enter, *change, *dialect.leave] if change else [], "show": list(show)}
        with _folder(switch, dialect, {**told, "give_up": dialect.give_up}) as folder:
            with anywhere():
                done = runner.run(
                    private_data_dir=str(folder),
                    playbook="play.yml",
                    roles_path=str(ROLES),
                    quiet=True,
                    timeout=int(self._timeout_s),
                    envvars=_environment(folder),
                    settings={"suppress_env_files": True},
                )
            events = [event for event in done.events if event.get("event_data", {}).get("task") in ("change", "show")]
            if done.status == "timeout":
                raise Unreachable(f"Ansible did not end with switch {switch.name} within {self._timeout_s:.0f} s.")
            check_run(switch, events, done.status)
        shown = [event["event_data"]["res"] for event in events if event["event"] == "runner_item_on_ok"]
        return [str(result.get("stdout", "")) for result in shown]


def _runner() -> Any:
    try:
        import ansible_runner
    except ImportError as e:
        raise Refused(
            "Ansible is not installed.", fix='Run `pip install "malleable[ansible]"`.', code="no-ansible"
        ) from e
    return ansible_runner


def _dialect(switch: Switch) -> Dialect:
    found = DIALECTS.get(switch.settings.get("os", ""))
    if found is None:
        raise Refused(
            f"Switch {switch.name} has no setting os that is known.",
            fix=f"Set os to one of: {', '.join(DIALECTS)}.",
            code="missing-setting",
        )
    return found


@contextmanager
def _folder(switch: Switch, dialect: Dialect, told: Mapping[str, object]) -> Iterator[Path]:
    """Write what Ansible reads where nobody else does, and leave nothing of it."""
    place = _IN_MEMORY if _IN_MEMORY.is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="m2-ansible-", dir=place))
    try:
        host = {
            "ansible_host": switch.address,
            "ansible_connection": dialect.connection,
            "ansible_network_os": dialect.network_os,
            "ansible_user": switch.username,
            "ansible_password": switch.password.reveal(),
            "ansible_python_interpreter": sys.executable,
            **({"ansible_port": _ssh_port(switch)} if "ssh_port" in switch.settings else {}),
        }
        play = [{"hosts": "all", "gather_facts": False, "roles": [dialect.role]}]
        _write(folder / "inventory" / "hosts.json", {"all": {"hosts": {"switch": host}}})
        _write(folder / "env" / "extravars", dict(told))
        _write(folder / "project" / "play.yml", play)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _ssh_port(switch: Switch) -> int:
    raw = switch.settings["ssh_port"]
    if not re.fullmatch(r"[0-9]{1,5}", raw) or not 0 < int(raw) < 1 << 16:
        raise Refused(f"The setting ssh_port={raw!a} of switch {switch.name} is no port.", code="bad-setting")
    return int(raw)


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(content, file)  # JSON is YAML


def _environment(folder: Path) -> Mapping[str, str]:
    programs = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    return {
        "ANSIBLE_HOME": str(folder / "home"),
        # By itself it would look in that new home, where nobody has installed anything.
        "ANSIBLE_COLLECTIONS_PATH": os.environ.get("ANSIBLE_COLLECTIONS_PATH", _COLLECTIONS),
        "ANSIBLE_LOCAL_TEMP": str(folder / "tmp"),
        "ANSIBLE_REMOTE_TEMP": str(folder / "tmp"),
        "ANSIBLE_RETRY_FILES_ENABLED": "0",
        "PATH": programs,
    }


def check_run(switch: Switch, events: Sequence[Mapping[str, Any]], status: str) -> None:
    """Raise what a run died of, by its events. Errors: Unreachable; Refused, of a login with "switch-credentials"."""
    bad = ("runner_on_unreachable", "runner_on_failed", "runner_item_on_failed")
    failed = next((event for event in events if event["event"] in bad), None)
    if failed is None:
        if status != "successful":
            raise Refused(f"Ansible could not begin with switch {switch.name}.", fix="See the log.", code="ansible")
        return
    result = failed["event_data"].get("res", {})
    said = " ".join(str(result.get("stderr") or result.get("msg") or "no reason").split())[:300]
    if _is_about_login(said):
        raise Refused(
            f"Switch {switch.name} does not let {switch.username} in.",
            fix=f"If its password was changed, run `m2 switch update {switch.name} --username USER`.",
            code="switch-credentials",
        )
    is_silent = failed["event"] == "runner_on_unreachable" or result.get("rc") == _SIGALRM
    if is_silent or any(word in said.lower() for word in _SILENCE):
        raise Unreachable(f"Switch {switch.name} at {switch.address} does not answer: {said}")
    if _NO_COLLECTION in said:
        needs = _dialect(switch).needs
        raise Refused(
            f"Switch {switch.name} cannot be asked: Ansible has no collection {needs} here.",
            fix=f"Run `ansible-galaxy collection install {needs}` as the user that the server runs as.",
            code="no-collection",
        )
    raise Refused(f"Switch {switch.name} refused: {said}", code="ansible")


def _is_about_login(said: str) -> bool:
    return any(word in said.lower() for word in _NO_ENTRY)


def _require(switch: Switch, told: Mapping[str, Told], names: Collection[str]) -> Mapping[str, Told]:
    missing = sorted(set(names) - set(told))
    if missing:
        raise Refused(f"Switch {switch.name} has no port {', '.join(missing)}.", code="no-such-port")
    return told
