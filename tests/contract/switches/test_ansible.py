"""The Ansible driver: the contract on a real Open vSwitch, and what its dialects say and understand.

What runs Ansible does so where the extra "ansible" is installed; the dialects are always tested.
"""

import importlib.util
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from tests.contract.switches.command_line import PASSWORD, USER, Device, listening
from tests.contract.switches.conftest import Bench, a_switch, ovs_bench
from tests.contract.switches.room import OvsRoom
from tests.contract.switches.suite import ACCESS, HYBRID, JUMBO, RULES, TRUNK

from malleable.domain.errors import Refused, Unreachable
from malleable.domain.secrets import Secret
from malleable.domain.switches import SHUT, PortConfig
from malleable.domain.switches import Switch as RealSwitch
from malleable.drivers.switch.ansible.dialects import Dialect, ranges, vids_in
from malleable.drivers.switch.ansible.driver import DIALECTS, ROLES, AnsibleSwitches, check_run

WITH_ANSIBLE = [
    pytest.mark.room,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ansible_runner") is None, reason='needs the extra "ansible"'),
]


@pytest.fixture
def ansible_bench(fresh_room: OvsRoom) -> Bench:
    bench = ovs_bench(fresh_room)
    settings = {**bench.switch.settings, "os": "openvswitch"}
    secret = replace(bench.switch, settings=settings, username="admin", password=Secret("never-on-a-command-line"))
    return replace(bench, driver=AnsibleSwitches(), switch=secret)


class TestOnOpenVswitch:
    pytestmark = WITH_ANSIBLE

    @pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
    def test_driver_keeps_the_rule(self, rule: Callable[[Bench], None], ansible_bench: Bench) -> None:
        rule(ansible_bench)
        assert not list(Path("/dev/shm").glob("m2-ansible-*")), "nothing is left of what Ansible read"

    def test_no_other_process_and_no_other_user_sees_the_password(self, ansible_bench: Bench) -> None:
        secret = ansible_bench.switch.password.reveal().encode()
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(ansible_bench.driver.check, ansible_bench.switch)
            modes, places = set(), set()
            while not call.done():
                for folder in Path("/dev/shm").glob("m2-ansible-*"):
                    modes |= _modes(folder)
                processes = (path for path in Path("/proc").iterdir() if path.name.isdecimal())
                places |= {process.name for process in processes if _holds(process, secret)}
        call.result()
        assert places == set()
        assert modes == {0o700, 0o600}


def _modes(folder: Path) -> set[int]:
    with suppress(FileNotFoundError):
        return {path.stat().st_mode & 0o777 for path in (folder, folder / "inventory" / "hosts.json")}
    return set()


def _holds(process: Path, secret: bytes) -> bool:
    with suppress(OSError):
        return any(secret in (process / name).read_bytes() for name in ("cmdline", "environ"))
    return False


@pytest.mark.parametrize("event", ["runner_on_failed", "runner_on_unreachable"])
@pytest.mark.parametrize(
    "said",
    [
        "Failed to authenticate.",
        "ssh connection failed: Access denied for 'password'. Authentication that can continue: publickey,password",
        "Authentication failed.",
        "Could not connect to https://10.0.0.1:443/command-api: HTTP Error 401: Unauthorized",
    ],
)
def test_a_password_changed_on_the_switch_is_not_told_as_silence(event: str, said: str) -> None:
    failed = {"event": event, "event_data": {"res": {"msg": said}}}
    with pytest.raises(Refused) as refused:
        check_run(a_switch("10.0.0.1"), [failed], "failed")
    assert refused.value.code == "switch-credentials"
    assert "m2 switch update" in refused.value.fix
    assert said not in str(refused.value)


def test_a_switch_that_does_not_answer_is_told_as_that() -> None:
    failed = {
        "event": "runner_on_failed",
        "event_data": {"res": {"msg": "ssh connection failed: Connection timed out"}},
    }
    with pytest.raises(Unreachable):
        check_run(a_switch("10.0.0.1"), [failed], "failed")


def _over_the_network(system: str) -> RealSwitch:
    """Describe a switch where no switch is; maybe this host's own SSH listens there."""
    return replace(a_switch("127.0.0.1"), settings={"os": system}, username="netops", password=Secret("secret"))


@pytest.mark.skipif(importlib.util.find_spec("ansible_runner") is None, reason='needs the extra "ansible"')
class TestOverTheNetwork:
    @pytest.mark.parametrize("system", ["nxos", "eos", "junos", "sonic"])
    def test_everything_is_installed_that_a_switch_is_asked_with(self, system: str) -> None:
        with pytest.raises((Unreachable, Refused), match=r"(?i)ssh|host key|does not let") as failed:
            AnsibleSwitches().check(_over_the_network(system))
        assert "installed" not in str(failed.value)

    def test_a_collection_that_is_missing_is_named(self) -> None:
        with pytest.raises(Refused) as refused:
            AnsibleSwitches().check(_over_the_network("os10"))
        assert refused.value.code == "no-collection"
        assert "ansible-galaxy collection install dellemc.os10" in refused.value.fix

    def test_a_collection_that_somebody_installed_is_found(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plugins = tmp_path / ".ansible/collections/ansible_collections/dellemc/os10/plugins"
        put_in(plugins)
        monkeypatch.setenv("HOME", str(tmp_path))
        with pytest.raises((Unreachable, Refused), match=r"(?i)ssh|host key|does not let"):
            AnsibleSwitches().check(_over_the_network("os10"))


def _spoken_to(system: str, port: int) -> RealSwitch:
    settings = {"os": system, "ssh_port": str(port)}
    return replace(a_switch("127.0.0.1"), settings=settings, username=USER, password=Secret(PASSWORD))


#: Where collections are that somebody installed; asked for before a test has another home.
COLLECTIONS = [
    Path(place).expanduser()
    for place in os.environ.get(
        "ANSIBLE_COLLECTIONS_PATH", "~/.ansible/collections:/usr/share/ansible/collections"
    ).split(":")
]
HAS_OS10 = any((place / "ansible_collections/dellemc/os10/plugins").is_dir() for place in COLLECTIONS)
SPOKEN_TO = ("nxos", "eos", "junos", "sonic", "os10")
#: Enough of Dell's collection, which is in no Python package: its prompts, and how it tells an error.
STAND_IN = {
    "terminal": """
import re
from ansible_collections.ansible.netcommon.plugins.plugin_utils.terminal_base import TerminalBase
class TerminalModule(TerminalBase):
    terminal_stdout_re = [re.compile(rb"[\\r\\n]?[\\w.-]+(?:\\([^)]+\\))*# ?$")]
    terminal_stderr_re = [re.compile(rb"% ?(?:Error|Invalid input)")]
    def on_open_shell(self):
        self._exec_cli_command(b"terminal length 0")
""",
    "cliconf": """
from ansible_collections.ansible.netcommon.plugins.plugin_utils.cliconf_base import CliconfBase
class Cliconf(CliconfBase):
    def get(self, command, **how):
        return self.send_command(command=command, **how)
    def get_device_info(self):
        return {"network_os": "os10"}
    def get_capabilities(self):
        return "{}"
    def get_config(self, **how):
        raise NotImplementedError
    edit_config = get_config
""",
}


def put_in(plugins: Path) -> None:
    """Write the stand-in for Dell's collection."""
    for kind, source in STAND_IN.items():
        (plugins / kind).mkdir(parents=True)
        (plugins / kind / "os10.py").write_text(source)


@pytest.fixture
def collections(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Have Ansible find the collections of whoever runs the tests, wherever the home is then; or what stands in."""
    places = list(COLLECTIONS)
    if not HAS_OS10:
        places.append(tmp_path_factory.mktemp("collections"))
        put_in(places[-1] / "ansible_collections/dellemc/os10/plugins")
    monkeypatch.setenv("ANSIBLE_COLLECTIONS_PATH", ":".join(map(str, places)))


@pytest.mark.skipif(importlib.util.find_spec("ansible_runner") is None, reason='needs the extra "ansible"')
@pytest.mark.usefixtures("collections")
@pytest.mark.parametrize("system", SPOKEN_TO)
class TestByACommandLine:
    """Ansible, its connection plug-in for the system, our role, SSH: all real, but for the switch itself."""

    def test_ports_are_as_wanted_and_a_refusal_half_way_opens_none(
        self, system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        prefix = dialect_of(system)[1]
        ports, driver = (f"{prefix}1", f"{prefix}2"), AnsibleSwitches()
        # As they come from the factory: there, so that a comparison would find their blocks.
        device = Device(system=system, lines={port: ["disable" if system == "junos" else "shutdown"] for port in ports})
        with listening(device, tmp_path) as port:
            switch = _spoken_to(system, port)
            assert list(driver.ports(switch)) == list(ports)
            for wanted in (
                dict(zip(ports, (ACCESS, HYBRID), strict=True)),
                dict(zip(ports, (TRUNK, SHUT), strict=True)),
            ):
                driver.apply(switch, wanted)
                assert driver.read(switch, ports) == wanted
            device.refuses = "101"
            with pytest.raises(Refused, match=r"refused: .*101.*: "):
                driver.apply(switch, {ports[0]: ACCESS})
            device.refuses = ""
            is_whole = system in ("eos", "junos")
            assert driver.read(switch, ports) == {ports[0]: TRUNK if is_whole else SHUT, ports[1]: SHUT}
            assert device.pending is None, "nothing is left open on the switch"

    def test_a_wrong_password_is_told_as_that(
        self, system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        with listening(Device(system=system, lines={}), tmp_path) as port, pytest.raises(Refused) as refused:
            AnsibleSwitches().check(replace(_spoken_to(system, port), password=Secret("an old one")))
        assert refused.value.code == "switch-credentials"


@pytest.mark.parametrize("port", ["0", "65536", "ssh", "-1", "", "\u0663"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    switch = replace(a_switch("10.0.0.9"), settings={"os": "nxos", "ssh_port": port})
    with pytest.raises(Refused) as refused:
        AnsibleSwitches().check(switch)
    assert refused.value.code == "bad-setting"


# The dialects, each with a running configuration as its system writes it.

RECORDED = {
    "nxos": """
interface Ethernet1/1
  switchport
  switchport access vlan 101
  no shutdown
interface Ethernet1/2
  switchport
  switchport mode trunk
  switchport trunk native vlan 101
  switchport trunk allowed vlan 101,201
interface Ethernet1/3
  switchport mode trunk
  switchport trunk native vlan 4094
  switchport trunk allowed vlan 201-202
interface Ethernet1/4
  switchport access vlan 101
  shutdown
interface Ethernet1/5
  switchport mode trunk
interface Ethernet1/6
  no switchport
  ip address 10.0.0.1/30
interface Ethernet1/7
interface mgmt0
  vrf member management
""",
    "os10": """
interface ethernet1/1/1
 no shutdown
 switchport access vlan 101
interface ethernet1/1/2
 no shutdown
 switchport mode trunk
 switchport access vlan 101
 switchport trunk allowed vlan 201
interface ethernet1/1/3
 no shutdown
 switchport mode trunk
 switchport access vlan 4094
 switchport trunk allowed vlan 201-202
interface ethernet1/1/4
 shutdown
interface ethernet1/1/5
 switchport mode trunk
interface ethernet1/1/6
 no switchport
interface ethernet1/1/7
 no shutdown
""",
    "sonic": """
interface Ethernet1
 no shutdown
 switchport access Vlan 101
interface Ethernet2
 no shutdown
 switchport access Vlan 101
 switchport trunk allowed Vlan 201
interface Ethernet3
 no shutdown
 switchport access Vlan 4094
 switchport trunk allowed Vlan 201-202
interface Ethernet4
 shutdown
interface Ethernet7
 no shutdown
""",
    "junos": """
set interfaces ge-0/0/1 unit 0 family ethernet-switching interface-mode access
set interfaces ge-0/0/1 unit 0 family ethernet-switching vlan members 101
set interfaces ge-0/0/2 native-vlan-id 101
set interfaces ge-0/0/2 unit 0 family ethernet-switching interface-mode trunk
set interfaces ge-0/0/2 unit 0 family ethernet-switching vlan members 101
set interfaces ge-0/0/2 unit 0 family ethernet-switching vlan members 201
set interfaces ge-0/0/3 unit 0 family ethernet-switching interface-mode trunk
set interfaces ge-0/0/3 unit 0 family ethernet-switching vlan members 201-202
set interfaces ge-0/0/4 disable
set interfaces ge-0/0/5 unit 0 family ethernet-switching interface-mode trunk
set interfaces ge-0/0/5 unit 0 family ethernet-switching vlan members all
set interfaces ge-0/0/6 unit 0 family inet address 10.0.0.1/30
""",
}
RECORDED["eos"] = RECORDED["nxos"].replace("Ethernet1/", "Ethernet").replace("mgmt0", "Management1")
TYPICAL = {"1": ACCESS, "2": HYBRID, "3": TRUNK, "4": SHUT}
CLI = [name for name in DIALECTS if name != "openvswitch"]


def dialect_of(name: str) -> tuple[Dialect, str]:
    return DIALECTS[name], {"nxos": "Ethernet1/", "eos": "Ethernet", "sonic": "Ethernet", "junos": "ge-0/0/"}.get(
        name, "ethernet1/1/"
    )


@pytest.mark.parametrize("name", CLI)
def test_a_running_configuration_is_understood(name: str) -> None:
    dialect, prefix = dialect_of(name)
    told = dialect.read(a_switch("10.0.0.9"), [RECORDED[name]])
    assert {port: told[prefix + port] for port in TYPICAL} == TYPICAL
    odd = {port: config for port, config in told.items() if port.removeprefix(prefix) not in TYPICAL}
    assert all(isinstance(why, str) for why in odd.values()), "never shut, nor anything else that it is not"
    assert set(odd) <= {prefix + port for port in ("5", "6", "7")}


@pytest.mark.parametrize("name", CLI)
def test_what_is_said_reads_back_whatever_was_there_before(name: str) -> None:
    dialect, prefix = dialect_of(name)
    switch, device = a_switch("10.0.0.9"), Device(system=name, lines={})
    edge = PortConfig(native_vid=1, tagged_vids=frozenset({7}))
    for config in (ACCESS, TRUNK, *([] if name == "eos" else [JUMBO]), HYBRID, SHUT, HYBRID, ACCESS, edge):
        device.take(list(dialect.change(switch, {prefix + "1": config, prefix + "2": SHUT})))
        assert dialect.read(switch, [device.show()]) == {prefix + "1": config, prefix + "2": SHUT}


@pytest.mark.parametrize("name", DIALECTS)
def test_bad_vlans_are_refused_before_anything_is_said(name: str) -> None:
    dialect, switch = DIALECTS[name], a_switch("unix:/x", bridge="br0")
    for config in (PortConfig(native_vid=0), PortConfig(tagged_vids=frozenset({4095}))):
        with pytest.raises(Refused):
            dialect.change(switch, {"p": config})


def test_every_system_has_its_role_and_only_what_ran_is_called_tested() -> None:
    assert {path.name for path in ROLES.iterdir()} == {dialect.role for dialect in DIALECTS.values()}
    assert [name for name, dialect in DIALECTS.items() if dialect.tested] == ["openvswitch"]


def test_lists_of_vlans() -> None:
    assert ranges(frozenset({1, 2, 3, 7, 9, 10})) == "1-3,7,9-10"
    assert vids_in("1-3,7, 9-10") == {1, 2, 3, 7, 9, 10}
    assert vids_in("") == frozenset()
