"""What a control plane tells a gateway, for its tests."""

from typing import Any

from malleable.domain.ids import new_id
from malleable.wire.gateway import DesiredNetwork

Json = dict[str, Any]


def network(*, vid: int, name: str = "lan", cidr: str = "10.0.0.0/24", **more: Any) -> DesiredNetwork:
    """Make a network that is to be served."""
    gateway_address = cidr.partition("/")[0].rpartition(".")[0] + ".1"
    told: Json = {"id": new_id(), "name": name, "generation": 1, "state": "active", "vid": vid, "cidr": cidr}
    told |= {"gateway_address": gateway_address, "boots": [], "hosts": [], **more}
    return DesiredNetwork.model_validate(told)


def host(mac: str, address: str, hostname: str = "node") -> Json:
    """Make a reservation."""
    return {"node_id": new_id(), "mac": mac, "address": address, "hostname": hostname}


def boot(mac: str, address: str, **more: Any) -> Json:
    """Make a boot intent."""
    told: Json = {
        "id": new_id(), "node_id": new_id(), "mac": mac, "address": address, "hostname": "alpha", "way": "san",
        "initiator_iqn": "iqn.2026-11.org.malleable:node:1", "iqn": "iqn.2026-11.org.malleable:0a1b", "lun": 1,
        "chap_username": "someuser", "chap_password": "0123456789abcdef", "serial": "DISK0001",
        "files": {"kernel": "vmlinuz", "initrd": "initrd"}, "image_id": new_id(), "cmdline": "root=LABEL=rootfs",
        "ssh_keys": ["ssh-ed25519 AAAA someone@example"], "documents": ["user-data"], "token": "boot-token-1",
    }  # fmt: skip
    return {**told, **more}
