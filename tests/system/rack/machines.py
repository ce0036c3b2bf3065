"""How these tests talk to a machine: through its BMC, as any control plane would."""

from collections.abc import Mapping
from typing import Any

import httpx
import sushy
from sushy import auth

from malleable.sim.rack import NodeDescription
from malleable.sim.rack.processes import wait_until

BOOT_DEADLINE_S = 60.0  #: UEFI takes 5 s on two idle cores, 10 s on busy ones


def system(node: NodeDescription) -> Any:
    """Log in and return the one system that this BMC has."""
    root = sushy.Sushy(node.bmc_url, auth=auth.BasicAuth(node.username, node.password.reveal()))
    (only,) = root.get_system_collection().get_members()
    return only


def power(node: NodeDescription) -> Any:
    """Read the power state."""
    return system(node).power_state


def call(
    node: NodeDescription, method: str, path: str = "", *, json: object = None, timeout_s: float = 5.0
) -> httpx.Response:
    """Send one request about the machine; what the BMC answers is the test's to judge."""
    return httpx.request(
        method,
        f"{node.bmc_url}/redfish/v1/Systems/{node.uuid}{path}",
        auth=(node.username, node.password.reveal()),
        json=json,
        timeout=timeout_s,
    )


def reset(node: NodeDescription, kind: str, *, timeout_s: float = 5.0) -> httpx.Response:
    """Ask for a power change."""
    return call(node, "POST", "/Actions/ComputerSystem.Reset", json={"ResetType": kind}, timeout_s=timeout_s)


def console(node: NodeDescription) -> str:
    """Read the console since the last power-on, through Redfish."""
    entries: Mapping[str, Any] = call(node, "GET", "/LogServices/HostLogger/Entries").json()
    return "\n".join(entry["Message"] for entry in entries["Members"])


def wait_for_console(node: NodeDescription, *words: str) -> None:
    """Wait until the console has said any of ``words``."""
    wait_until(
        lambda: any(word in console(node) for word in words),
        deadline_s=BOOT_DEADLINE_S,
        what=f"{node.name} did not say any of {words}",
        fix=f"Read {node.console}.",
    )
