"""What each network operating system is told, and what its answers mean. Pure: no Ansible, no device.

Source: the vendors' command references; "tested" says whether the contract suite ran on the real thing.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from malleable.domain.errors import Malformed, Refused
from malleable.domain.switches import SHUT, PortConfig, Switch

VIDS = range(1, 4095)
#: A trunk without a native network needs a native VLAN that nobody has; the setting dead_vlan chooses another.
DEAD_VID = 4094

#: What a port carries, or in words why that cannot be told.
Told = PortConfig | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One network operating system."""

    role: str
    connection: str  #: Ansible's connection plug-in
    network_os: str  #: ansible_network_os; "" where there is none
    needs: str  #: the collection that has to be installed; "" for none
    tested: str  #: on what the contract suite ran; "" for not at all
    show: Callable[[Switch], Sequence[object]]  #: the commands that tell of all ports
    read: Callable[[Switch, Sequence[str]], Mapping[str, Told]]  #: what their answers mean, by port
    change: Callable[[Switch, Mapping[str, PortConfig]], Sequence[str]]  #: what makes ports so
    enter: tuple[str, ...] = ()  #: what comes before a change
    leave: tuple[str, ...] = ()  #: what comes after it
    give_up: tuple[str, ...] = ()  #: what comes instead where it is refused half-way


def require_sane(name: str, config: PortConfig, *, dead_vid: int | None = None) -> None:
    """Refuse what no port can carry. Errors: Refused."""
    native = frozenset() if config.native_vid is None else frozenset({config.native_vid})
    bad = any(vid not in VIDS or vid == dead_vid for vid in native | config.tagged_vids)
    if bad or native & config.tagged_vids:
        raise Refused(
            f"Port {name} cannot carry {config}.",
            fix="Use VLANs 1 to 4094, each once on a port, and not the switch's dead_vlan.",
            code="bad-vlan",
        )
    if config.guard is not None:
        raise Refused(f"Port {name} cannot be guarded through Ansible.", code="no-guard")


def dead_vid(switch: Switch) -> int:
    """Return the VLAN that no network may have on this switch. Errors: Refused."""
    raw = switch.settings.get("dead_vlan", str(DEAD_VID))
    if not raw.isdecimal() or int(raw) not in VIDS:
        raise Refused(f"The setting dead_vlan={raw!a} of switch {switch.name} is no VLAN.", code="bad-setting")
    return int(raw)


def ranges(vids: frozenset[int]) -> str:
    """Write VLANs as a list of ranges: 1-3,7."""
    runs: list[list[int]] = []
    for vid in sorted(vids):
        if runs and vid == runs[-1][1] + 1:
            runs[-1][1] = vid
        else:
            runs.append([vid, vid])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def vids_in(text: str) -> frozenset[int]:
    """Read a list of ranges. Errors: Malformed."""
    found: set[int] = set()
    for part in filter(None, re.split(r"[,\s]+", text.strip())):
        match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", part, re.ASCII)
        if match is None:
            raise Malformed(f"{text!a} is no list of VLANs.")
        found.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    return frozenset(found)


# -- industry-standard CLIs: NX-OS, EOS, OS10, SONiC -------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Words:
    """How one of them says it."""

    show: str
    leave: str  #: what ends an interface's block
    l2: tuple[str, ...]  #: makes a port one of VLANs
    access: tuple[str, ...]
    trunk: tuple[str, ...]  #: with {native} and {tagged}
    native: str  #: patterns of the running configuration
    tagged: str
    access_vid: str
    is_trunk: str | None  #: None: it is one when it has tagged VLANs
    ports: str = r"Ethernet\S+"
    has_mtu: bool = True  #: whether a port of VLANs has an MTU of its own


_NATIVE = "switchport trunk native"
_CISCO = _Words(
    show="show running-config",
    leave="exit",
    l2=("switchport",),
    access=("switchport mode access", "switchport access vlan {native}"),
    trunk=(
        "switchport mode trunk",
        "switchport trunk native vlan {native}",
        "switchport trunk allowed vlan {tagged}",
    ),
    native=r"switchport trunk native vlan (\d+)",
    tagged=r"switchport trunk allowed vlan (\S+)",
    access_vid=r"switchport access vlan (\d+)",
    is_trunk=r"switchport mode trunk",
)
_ARISTA = replace(_CISCO, has_mtu=False)
_OS10 = _Words(
    show="show running-configuration",
    leave="exit",
    l2=(),
    access=("switchport mode access", "switchport access vlan {native}"),
    trunk=("switchport mode trunk", "switchport access vlan {native}", "switchport trunk allowed vlan {tagged}"),
    native=r"switchport access vlan (\d+)",
    tagged=r"switchport trunk allowed vlan (\S+)",
    access_vid=r"switchport access vlan (\d+)",
    is_trunk=r"switchport mode trunk",
    ports=r"ethernet\S+",
)
_SONIC = _Words(
    show="show running-configuration interface",
    leave="exit",
    l2=("no switchport trunk allowed Vlan 1-4094",),
    access=("switchport access Vlan {native}",),
    trunk=("switchport access Vlan {native}", "switchport trunk allowed Vlan {tagged}"),
    native=r"switchport access Vlan (\d+)",
    tagged=r"switchport trunk allowed Vlan (\S+)",
    access_vid=r"switchport access Vlan (\d+)",
    is_trunk=None,
)


def _cli_change(words: _Words, switch: Switch, wanted: Mapping[str, PortConfig]) -> Sequence[str]:
    """Write one block for each port; a port is down while it changes, so it carries no mixture."""
    dead, lines = dead_vid(switch), []
    for name, config in wanted.items():
        require_sane(name, config, dead_vid=dead)
        if config.mtu is not None and not words.has_mtu:
            raise Refused(f"Port {name} has no MTU of its own.", fix="Forward large frames everywhere.", code="no-mtu")
        lines += [f"interface {name}", "shutdown"]
        if not config.is_shut:
            native, tagged = config.native_vid or dead, config.tagged_vids
            if config.native_vid is not None and tagged and words.native.startswith(_NATIVE):
                tagged |= {config.native_vid}  # there the native VLAN is one of those allowed
            wording = words.trunk if tagged else words.access
            lines += [*words.l2, *(word.format(native=native, tagged=ranges(tagged)) for word in wording)]
            if words.has_mtu:
                lines.append("no mtu" if config.mtu is None else f"mtu {config.mtu}")
            lines.append("no shutdown")
        lines.append(words.leave)
    return lines


def _cli_read(words: _Words, switch: Switch, answers: Sequence[str]) -> Mapping[str, Told]:
    blocks = re.split(r"(?m)^(?=interface )", "\n".join(answers))
    ports = {}
    for block in blocks:
        head = re.match(rf"interface ({words.ports})\s*$", block, re.ASCII | re.MULTILINE)
        if head is not None:
            lines = [line.strip() for line in block.splitlines()[1:]]
            ports[head[1]] = _cli_port(words, dead_vid(switch), lines)
    return ports


def _cli_port(words: _Words, dead: int, lines: Sequence[str]) -> Told:
    """Read one block of the running configuration; what it leaves out is the vendor's default, never shut."""
    if "shutdown" in lines:
        return SHUT
    if "no switchport" in lines:
        return "is routed, not a port of VLANs"
    native, tagged, access = (
        next((match[1] for line in lines if (match := re.fullmatch(pattern, line))), None)
        for pattern in (words.native, words.tagged, words.access_vid)
    )
    mtu = next((int(match[1]) for line in lines if (match := re.fullmatch(r"mtu (\d+)", line, re.ASCII))), None)
    is_trunk = tagged is not None if words.is_trunk is None else words.is_trunk in lines
    if not is_trunk:
        return PortConfig(native_vid=int(access), mtu=mtu) if access else "is in the switch's default VLAN"
    if tagged is None:
        return "carries every VLAN"
    vid = int(native) if native else 1
    carried = vids_in("" if tagged == "none" else tagged)
    return PortConfig(native_vid=None if vid == dead else vid, tagged_vids=carried - {vid}, mtu=mtu)


#: The one role of all that are spoken to by a command line.
ROLE = "command_line"


def _cli(
    words: _Words,
    network_os: str,
    *,
    enter: str = "configure terminal",
    leave: str = "end",
    give_up: str = "end",
) -> Dialect:
    return Dialect(
        role=ROLE,
        connection="ansible.netcommon.network_cli",
        network_os=network_os,
        needs=network_os.rpartition(".")[0],
        tested="",
        enter=(enter,),
        leave=(leave,),
        give_up=(give_up,),
        show=lambda _: [words.show],
        read=lambda switch, answers: _cli_read(words, switch, answers),
        change=lambda switch, wanted: _cli_change(words, switch, wanted),
    )


# -- Junos -------------------------------------------------------------------------------------------------------------

_JUNOS_HEADER = 14  #: its MTU counts the Ethernet header
_UNIT = "unit 0 family ethernet-switching"


def _junos_change(_: Switch, wanted: Mapping[str, PortConfig]) -> Sequence[str]:
    """Write set commands; the candidate is committed at once, so no port carries a mixture."""
    lines = []
    for name, config in wanted.items():
        require_sane(name, config)
        lines += [f"delete interfaces {name} {_UNIT}", f"delete interfaces {name} native-vlan-id"]
        lines.append(f"delete interfaces {name} mtu")
        if config.is_shut:
            lines += [f"set interfaces {name} disable", f"set interfaces {name} {_UNIT}"]
            continue
        lines.append(f"delete interfaces {name} disable")
        vids = config.tagged_vids | (frozenset() if config.native_vid is None else {config.native_vid})
        mode = "trunk" if config.tagged_vids else "access"
        lines.append(f"set interfaces {name} {_UNIT} interface-mode {mode}")
        lines += [f"set interfaces {name} {_UNIT} vlan members {vid}" for vid in sorted(vids)]
        if config.mtu is not None:
            lines.append(f"set interfaces {name} mtu {config.mtu + _JUNOS_HEADER}")
        if mode == "trunk" and config.native_vid is not None:
            lines.append(f"set interfaces {name} native-vlan-id {config.native_vid}")
    return lines


def _junos_read(_: Switch, answers: Sequence[str]) -> Mapping[str, Told]:
    by_port: dict[str, list[str]] = {}
    for line in "\n".join(answers).splitlines():
        match = re.match(r"set interfaces ((?:ge|xe|et|ae)-?\S+) ?(.*)", line.strip(), re.ASCII)
        if match is not None:
            by_port.setdefault(match[1], []).append(match[2])
    return {name: _junos_port(words) for name, words in by_port.items()}


def _junos_port(words: Sequence[str]) -> Told:
    if "disable" in words:
        return SHUT
    members = [word.removeprefix(f"{_UNIT} vlan members ") for word in words if "vlan members" in word]
    if not members:
        return "is no port of VLANs"
    if not all(re.fullmatch(r"\d+(-\d+)?", member, re.ASCII) for member in members):
        return f"carries VLANs by name: {', '.join(members)}"
    vids = frozenset(vid for member in members for vid in vids_in(member))
    told = next((int(word.split()[1]) for word in words if re.fullmatch(r"mtu \d+", word, re.ASCII)), None)
    mtu = None if told is None else told - _JUNOS_HEADER
    if f"{_UNIT} interface-mode trunk" not in words:
        return PortConfig(native_vid=min(vids), mtu=mtu) if len(vids) == 1 else "is an access port of several VLANs"
    native = next((int(word.split()[1]) for word in words if word.startswith("native-vlan-id ")), None)
    return PortConfig(native_vid=native, tagged_vids=vids - {native}, mtu=mtu)


JUNOS = Dialect(
    role=ROLE,
    connection="ansible.netcommon.network_cli",
    network_os="junipernetworks.junos.junos",
    needs="junipernetworks.junos",
    tested="",
    # Nobody else's changes are committed along, and what is not committed is forgotten.
    enter=("configure exclusive",),
    leave=("commit and-quit",),
    give_up=("rollback 0", "exit configuration-mode"),
    show=lambda _: ["show configuration interfaces | display set"],
    read=_junos_read,
    change=_junos_change,
)
NXOS = _cli(_CISCO, "cisco.nxos.nxos")
# A session: all of it or none; one that is left open counts against the few that there may be.
EOS = _cli(_ARISTA, "arista.eos.eos", enter="configure session", leave="commit", give_up="abort")
OS10 = _cli(_OS10, "dellemc.os10.os10")
SONIC = _cli(_SONIC, "dellemc.enterprise_sonic.sonic")
