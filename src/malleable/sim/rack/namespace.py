"""The room's network namespace and the taps in it.

A namespace of its own because one network namespace holds one userspace ovs-vswitchd (it owns a device called
``ovs-netdev``): with it, several rooms and the host's own Open vSwitch run side by side.
"""

import os
import signal
from collections.abc import Iterable
from pathlib import Path

from malleable.sim.rack import commands, processes

NETNS_DIR = Path("/run/netns")


def exists(netns: str) -> bool:
    """Say whether the namespace is there."""
    return (NETNS_DIR / netns).exists()


def ensure(netns: str) -> None:
    """Make the namespace, with its loopback up; nothing to do if it is there."""
    if not exists(netns):
        commands.run(["ip", "netns", "add", netns])
    commands.run(["ip", "-n", netns, "link", "set", "lo", "up"])


def ensure_taps(netns: str, taps: Iterable[str]) -> None:
    """Make each tap and set its link up; existing ones are kept.

    Persistent taps: the switch port stays when QEMU ends.
    """
    present = set(links(netns))
    for tap in taps:
        if tap not in present:
            commands.run(["ip", "-n", netns, "tuntap", "add", tap, "mode", "tap"])
        set_link(netns, tap, up=True)


def set_link(netns: str, link: str, *, up: bool) -> None:
    """Set a link up or down, as pulling its cable would."""
    commands.run(["ip", "-n", netns, "link", "set", link, "up" if up else "down"])


def is_link_up(netns: str, link: str) -> bool:
    """Say whether a link is administratively up."""
    said = commands.run(["ip", "-n", netns, "-o", "link", "show", "dev", link])
    return "UP" in said[said.index("<") + 1 : said.index(">")].split(",")


def links(netns: str) -> list[str]:
    """Name the links in the namespace."""
    lines = commands.run(["ip", "-n", netns, "-o", "link", "show"]).splitlines()
    return [line.split(": ")[1].partition("@")[0] for line in lines]


def inside(netns: str, *argv: str | Path) -> list[str | Path]:
    """Make the command that runs ``argv`` in the namespace; it replaces itself, so its pid is the program's."""
    return ["ip", "netns", "exec", netns, *argv]


def remove(netns: str) -> None:
    """Remove the namespace with all that lives in it; nothing to do if it is gone.

    Whatever still runs inside is killed: it would hold the taps and the switch's devices alive.
    """
    if not exists(netns):
        return
    for pid in commands.run(["ip", "netns", "pids", netns]).split():
        process = processes.identify(int(pid))
        if process is not None and process.pid != os.getpid():
            processes.send(process, signal.SIGKILL)
            processes.stop(process, term_s=0)
    commands.run(["ip", "netns", "del", netns])
