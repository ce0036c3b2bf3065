"""A network's second portal: one more interface in its namespace, by another bridge, with an address of its own.

Both interfaces are in one subnet. So each answers for its own address alone, and what the second address sends leaves
by the second interface: a cable that is cut takes one of two ways, not parts of both.
"""

from malleable.domain.ports import Uplink
from malleable.gateway import command, namespace
from malleable.gateway.fabrics import SECOND
from malleable.gateway.layout import NetworkLayout
from malleable.gateway.plan import NetworkPlan

#: Of the routes for what the second address sends, and of the rule that leads there.
_TABLE = 2


def ensure(layout: NetworkLayout, uplink: Uplink, plan: NetworkPlan, mtu: int) -> None:
    """Give a network's namespace its second interface and address; idempotent. Errors: Unavailable, the uplink's."""
    device, address = layout.second_interface, plan.second_address
    uplink.plug(device, plan.vid, layout.namespace, SECOND)
    namespace.answer_apart(layout.namespace, device)
    # Of /32: the subnet's own route leads by the first interface alone.
    namespace.configure(layout.namespace, device, [f"{address}/32"], mtu=mtu)
    rule = _rule(layout)
    if rule[1:] != ["from", address, "lookup", str(_TABLE)]:  # of another subnet, or none yet
        _drop(layout, rule)
        _ip(layout, "rule", "add", "from", address, "lookup", str(_TABLE), "pref", str(_TABLE))
    _ip(layout, "route", "replace", plan.cidr, "dev", device, "src", address, "table", str(_TABLE))


def remove(layout: NetworkLayout, uplink: Uplink) -> None:
    """Take the second interface away, or what a gateway that was killed had made of it. Errors: as of ``ensure``."""
    uplink.unplug(layout.second_interface)  # and with the device its addresses and routes
    _drop(layout, _rule(layout))


def _rule(layout: NetworkLayout) -> list[str]:
    """Read the words of the rule that leads to the second interface; none without one."""
    return _ip(layout, "rule", "show", "pref", str(_TABLE)).split()


def _drop(layout: NetworkLayout, rule: list[str]) -> None:
    if rule:
        _ip(layout, "rule", "del", "pref", str(_TABLE))


def _ip(layout: NetworkLayout, *words: str) -> str:
    return command.run(["ip", "-n", layout.namespace, *words])
