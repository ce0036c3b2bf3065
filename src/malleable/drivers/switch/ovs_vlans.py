"""What a port carries, as columns of Open vSwitch's table Port.

SHUT is a trunk of the reserved VLAN 4095 alone, on a protected port: untagged frames and every VLAN a network can
have are dropped both ways, and frames tagged 4095 reach no other shut port because both are protected. An access port
on 4095 alone would join all shut ports in one network; a port without any tag carries every VLAN.
Source: ovs-vswitchd.conf.db(5), and packets sent through Open vSwitch 3.1 by tests/contract/switches.
"""

from malleable.domain.errors import Refused
from malleable.domain.switches import SHUT, PortConfig
from malleable.drivers.ovsdb import Row, members, to_set

DEAD_VID = 4095  #: reserved by IEEE 802.1Q; never a network's
VIDS = range(1, 4095)


def row_of(name: str, config: PortConfig) -> Row:
    """Write a configuration as columns of table Port. Errors: Refused."""
    native, tagged = config.native_vid, sorted(config.tagged_vids)
    if any(vid not in VIDS for vid in config.vids) or native in tagged:
        raise Refused(
            f"Port {name} cannot carry {config}.", fix="Use VLANs 1 to 4094, each once on a port.", code="bad-vlan"
        )
    if config.is_shut:
        mode, tagged = "trunk", [DEAD_VID]
    elif native is None:
        mode = "trunk"
    else:
        mode = "native-untagged" if tagged else "access"
    return {
        "vlan_mode": mode,
        "tag": to_set([] if native is None else [native]),
        "trunks": to_set(tagged),
        "cvlans": to_set([]),
        "protected": config.is_shut,
    }


def told_by(port: Row) -> PortConfig | str:
    """Read what columns of table Port mean in the data path; words when no PortConfig can tell it."""
    tag, trunks = members(port["tag"]), frozenset(members(port["trunks"]))
    # Without a mode a tag makes an access port, and anything else a trunk.
    mode = (members(port["vlan_mode"]) or ("access" if tag else "trunk",))[0]
    is_protected = port["protected"] is True
    if mode == "trunk" and trunks == {DEAD_VID} and is_protected:
        return SHUT
    if is_protected:
        return "is protected, so cut off from other protected ports"
    if mode == "access" and tag and not trunks:
        config = PortConfig(native_vid=tag[0])
    elif mode == "trunk" and trunks:
        config = PortConfig(tagged_vids=trunks)
    elif mode == "native-untagged" and tag and trunks:
        config = PortConfig(native_vid=tag[0], tagged_vids=trunks - {tag[0]})
    elif mode in ("trunk", "native-untagged", "native-tagged") and not trunks:
        return "carries every VLAN"
    else:
        return f"is in VLAN mode {mode} with tag {list(tag)} and trunks {sorted(trunks)}"
    odd = sorted(vid for vid in config.vids if vid not in VIDS)
    return f"carries the reserved VLANs {odd}" if odd else config
