"""Boot scripts for iPXE, rendered from checked values alone: there is no template a user could reach.

Every script that something can fail in asks the gateway again after a pause: the gateway, its files or its targets may
be on their way back. Source: https://ipxe.org/cmd; iPXE 1.0.0+git-20190125 as in Debian 12 and QEMU 7.2.
"""

from malleable.domain.images import BootWay
from malleable.domain.portals import port_of
from malleable.gateway.plan import BootPlan, NetworkPlan

_RETRY_S = 3


def outside() -> str:
    """Lead iPXE to its first stage, in whatever network it is; ask until the gateway answers, however long that takes.

    Replaced by what it fetches: a script that ends gives the machine back to its firmware, not to this one.
    """
    url = "http://${netX/next-server}/boot/ipxe?mac=${netX/mac:hexhyp}"
    return _script(
        ":again",
        f"chain --replace --autofree {url} ||",
        "echo Malleable: the gateway does not answer, asking again",
        f"sleep {_RETRY_S}",
        "goto again",
    )


def first_stage(network: NetworkPlan, mac: str, ticket: str) -> str:
    """Send the node to its second stage; no secret but the ticket, which is good once."""
    return _script(
        f"chain --replace --autofree http://{network.gateway_address}/boot/{ticket} ||",
        "echo Malleable: the boot script could not be fetched, asking again",
        *_ask_again(network, mac),
    )


def second_stage(network: NetworkPlan, boot: BootPlan) -> str:
    """Boot the node's disk. Secrets inside."""
    lines = _kernel(network, boot) if boot.way is BootWay.KERNEL else _san(network, boot)
    return _script(*_credentials(boot), *lines, *_ask_again(network, boot.mac))


def nothing_to_run(network: NetworkPlan, mac: str, address: str, reason: str) -> str:
    """Say on the console why nothing is run, and give the machine back to its firmware."""
    return _script(
        "echo",
        f"echo Malleable: nothing to boot for {mac} at {address} in network {network.name}.",
        f"echo Reason: {_echoable(reason)}",
        "sleep 5",
        "exit 1",
    )


def _san(network: NetworkPlan, boot: BootPlan) -> list[str]:
    return [
        f"sanboot {_targets(network, boot)} ||",
        "echo Malleable: the disk could not be booted, asking again",
        *_let_go(),
    ]


def _kernel(network: NetworkPlan, boot: BootPlan) -> list[str]:
    files = f"http://{network.gateway_address}/files/{boot.image_id}"
    # One initrd, named by its URL's last part: UEFI kernels look it up by that name.
    words = (boot.cmdline, _seed(network, boot), f"malleable.token={boot.token.reveal()}", f"initrd={boot.initrd}")
    arguments = " ".join(word for word in words if word)
    return [
        f"sanhook {_targets(network, boot)} || goto failed",
        f"kernel {files}/{boot.kernel} {arguments} || goto failed",
        f"initrd {files}/{boot.initrd} || goto failed",
        "boot ||",
        ":failed",
        "echo Malleable: the disk or the kernel could not be had, asking again",
        "imgfree ||",
        *_let_go(),
    ]


def _seed(network: NetworkPlan, boot: BootPlan) -> str:
    """Tell cloud-init where it finds its seed, unless the image says so itself; other systems pass over it."""
    is_told = any(word.startswith("ds=") for word in boot.cmdline.split(" "))
    return "" if is_told else f"ds=nocloud-net;s=http://{network.gateway_address}/nocloud/"


def _let_go() -> list[str]:
    """Unhook the disk: while keep-san is set iPXE holds it, and its drive number is taken when it is tried again."""
    return ["set keep-san 0 ||", "sanunhook ||"]


def _credentials(boot: BootPlan) -> list[str]:
    return [
        f"set initiator-iqn {boot.initiator_iqn}",
        f"set username {boot.chap_username}",
        f"set password {boot.chap_password.reveal()}",
        # The operating system finds the disk by the iBFT: it must stay when iPXE ends.
        "set keep-san 1",
    ]


def _targets(network: NetworkPlan, boot: BootPlan) -> str:
    """Name the disk at each portal that the system knows what to do with: another would see it twice."""
    # RFC 4173: iscsi:<server>:<protocol>:<port>:<LUN, hexadecimal>:<target>
    port = port_of(boot.daemon) if boot.daemon else ""
    portals = [network.gateway_address]
    if boot.has_multipath and network.second_address:
        portals.append(network.second_address)
    return " ".join(f"iscsi:{address}::{port}:{boot.lun:x}:{boot.iqn}" for address in portals)


def _ask_again(network: NetworkPlan, mac: str) -> list[str]:
    url = f"http://{network.gateway_address}/boot/ipxe?mac={mac.replace(':', '-')}"
    return [":again", f"sleep {_RETRY_S}", f"chain --replace --autofree {url} || goto again"]


def _echoable(reason: str) -> str:
    """Keep what iPXE prints as it is: no expansion, no line end."""
    return "".join(c if c.isascii() and c.isprintable() and c not in "$|&;#" else "?" for c in reason)


def _script(*lines: str) -> str:
    return "\n".join(("#!ipxe", *lines)) + "\n"
