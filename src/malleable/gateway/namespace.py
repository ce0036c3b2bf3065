"""Network namespaces: made, entered by a helper thread, and removed with proof that nothing is left."""

import ctypes
import json
import os
import socket
import threading
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from malleable.domain.errors import Unavailable
from malleable.domain.networks import MTU_USUAL
from malleable.gateway import command, process
from malleable.gateway.layout import NAMESPACES

T = TypeVar("T")
_CLONE_NEWNET = 0x40000000  #: sched.h; os.setns came with Python 3.12
_BACKLOG = 128
_NEVER = ("ipv6/conf/default/accept_ra",)
#: Linux's strict reverse path filter (RFC 3704): a source is believed only where an answer to it would go.
_ALWAYS = ("ipv4/conf/all/rp_filter",)


def exists(namespace: str) -> bool:
    """Say whether the namespace is there."""
    return (NAMESPACES / namespace).exists()


def ensure(namespace: str) -> None:
    """Make the namespace; nothing to do if it is there.

    It takes no address or route from what a node advertises, nor packets of a node that poses as a host behind another
    of its interfaces: answers would go there.
    """
    if not exists(namespace):
        command.run(["ip", "netns", "add", namespace])
    within(namespace, lambda: _set(_NEVER, 0))
    within(namespace, lambda: _set(_ALWAYS, 1))


def answer_apart(namespace: str, interface: str) -> None:
    """Have each interface answer ARP for what it would send from alone, and ``interface`` speak no IPv6."""
    within(namespace, lambda: _set(("ipv4/conf/all/arp_filter",), 1))
    within(namespace, lambda: _set(("ipv4/conf/all/arp_announce",), 2))
    within(namespace, lambda: _set((f"ipv6/conf/{interface}/disable_ipv6",), 1))


def forward(namespace: str, *, ip: bool = False, ip6: bool = False) -> None:
    """Have a namespace forward packets of these families alone. What, and where to, is its rules' to say."""
    within(namespace, lambda: _set(("ipv4/ip_forward",), int(ip)))
    within(namespace, lambda: _set(("ipv6/conf/all/forwarding",), int(ip6)))


def has_interface(namespace: str, interface: str) -> bool:
    """Say whether there is a device of that name."""
    return within(namespace, lambda: interface in (name for _, name in socket.if_nameindex()))


def configure(namespace: str, interface: str, addresses: list[str], *, mtu: int = MTU_USUAL) -> None:
    """Bring ``interface`` and the loopback up with just these addresses (with prefix); idempotent.

    One that is made anew gets the MAC address that it had: nodes go on sending to that for up to a minute.
    A link-local address that the kernel chose stays, unless another one is told.
    """
    mac, present = _present(namespace, interface)
    lines = ["link set lo up"]
    if mac != mac_of(interface):
        lines.append(f"link set {interface} address {mac_of(interface)}")
    if any(address.startswith("fe80:") for address in addresses):
        lines.append(f"link set {interface} addrgenmode none")  # else it takes another link-local one, and speaks by it
    lines.append(f"link set {interface} up mtu {mtu}")
    # nodad: dnsmasq must be able to use the address at once.
    lines += [f"addr replace {a} dev {interface}" + (" nodad" if ":" in a else "") for a in addresses]
    # After the new ones: what goes on by an address that only gets another prefix is not cut off.
    lines += [f"addr del {a} dev {interface}" for a in present if _is_stale(a, addresses)]
    command.run(["ip", "-n", namespace, "-batch", "-"], text="\n".join(lines) + "\n")


def mac_of(interface: str) -> str:
    """Choose the MAC address of an interface of ours, by its name: a locally administered one (IEEE 802, 8.4)."""
    return f"02:{sha256(interface.encode()).digest()[:5].hex(':')}"


def _present(namespace: str, interface: str) -> tuple[str, list[str]]:
    """Read an interface's MAC address, and its addresses with their prefixes."""
    listing = command.run(["ip", "-n", namespace, "-j", "addr", "show", "dev", interface])
    devices = [device for device in json.loads(listing or "[]") if device]
    told = [one for device in devices for one in device.get("addr_info", ())]
    mac = next((str(device.get("address")) for device in devices), "")
    return mac, [f"{one['local']}/{one['prefixlen']}" for one in told]


def _is_stale(present: str, wanted: list[str]) -> bool:
    is_chosen = present.startswith("fe80:") and not any(address.startswith("fe80:") for address in wanted)
    return present not in wanted and not is_chosen


def remove_interface(namespace: str, interface: str) -> None:
    """Delete a device. Errors: Unavailable."""
    command.run(["ip", "-n", namespace, "link", "del", interface])


def interface_index(namespace: str, interface: str) -> int:
    """Return the kernel's number of an interface; a new one after it was made again. Errors: Unavailable if missing."""
    try:
        return within(namespace, lambda: socket.if_nametoindex(interface))
    except OSError as e:
        raise Unavailable(f"The interface {interface} is not in the namespace {namespace}.") from e


def inside(namespace: str, *argv: str) -> list[str]:
    """Make the command that runs ``argv`` in the namespace; it replaces itself, so its pid is the program's.

    nsenter, not ``ip netns exec``: that also takes a private copy of the mount table, so a daemon would not see a
    disk pool mounted after it, and would keep one busy that was unmounted.
    """
    return ["nsenter", f"--net={NAMESPACES / namespace}", "--", *argv]


def listen(namespace: str, port: int) -> socket.socket:
    """Make a listening TCP socket that stays in the namespace; any thread may accept on it.

    Errors: Unavailable, with the kernel's words.
    """
    try:
        return within(namespace, lambda: socket.create_server(("0.0.0.0", port), backlog=_BACKLOG))
    except OSError as e:
        raise Unavailable(
            f"Port {port} in the namespace {namespace} cannot be had: {e.strerror}.",
            fix=f"See who holds it: ip netns exec {namespace} ss -ltnp",
        ) from e


def within(namespace: str, do: Callable[[], T]) -> T:
    """Run ``do`` in a thread of its own inside the namespace, and return what it returns.

    A fresh thread that ends: a thread cannot be trusted to find its way back, and a pooled one must never leave.
    """
    outcome: list[T] = []
    failure: list[BaseException] = []

    def enter() -> None:
        try:
            _set_namespace(NAMESPACES / namespace)
            outcome.append(do())
        except (OSError, Unavailable) as e:
            failure.append(e)

    thread = threading.Thread(target=enter, name=f"enter {namespace}", daemon=True)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def remove(namespace: str) -> None:
    """End every process in the namespace, remove it, and prove that nothing of it is left; idempotent.

    Sockets that this process holds in it must be closed before. Errors: Unavailable, naming what is left.
    """
    path = NAMESPACES / namespace
    if not path.exists():
        return
    inode = path.stat().st_ino
    for member in _members(inode):
        process.kill(member)
    left = _members(inode)
    if left:
        raise Unavailable(f"Process {left[0].pid} came up in {namespace} while it was removed.")
    command.run(["ip", "netns", "del", namespace])


def _members(inode: int) -> list[process.ProcessId]:
    """Find the processes inside a namespace; ours is never one: only its sockets are."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            is_inside = (entry / "ns/net").stat().st_ino == inode
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue
        member = process.identify(int(entry.name)) if is_inside else None
        if member is not None:
            found.append(member)
    return found


def _set_namespace(path: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("rb") as namespace:
        if libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))


def _set(names: Iterable[str], value: int) -> None:
    for name in names:
        setting = Path("/proc/sys/net") / name
        if setting.exists() and setting.read_text().strip() != str(value):
            setting.write_text(str(value))
