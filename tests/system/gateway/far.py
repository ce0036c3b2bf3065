"""A node behind the gateway's cables, and a disk that it may have."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.system.gateway.bench import GatewayBench
from tests.system.gateway.fabric import FAR_BRIDGE, Fabric, Probe
from tests.unit.gateway.told import host, network

from malleable.domain.disks import new_iqn
from malleable.domain.ids import NetworkId
from malleable.domain.networks import MTU_USUAL
from malleable.domain.ports import DiskHandle, Export, Session
from malleable.domain.secrets import Secret, chap_secret
from malleable.drivers.target.tgt import TgtTargets
from malleable.gateway.layout import portal_socket
from malleable.wire.gateway import DesiredNetwork

MAC, ADDRESS = "52:54:00:aa:00:01", "10.0.0.10"


@dataclass(frozen=True, slots=True, kw_only=True)
class Far:
    """The node, its network as the gateway was told of it, and its disk's file and target."""

    told: DesiredNetwork
    node: Probe
    file: Path
    targets: TgtTargets
    export: Export

    @classmethod
    def of(cls, bench: GatewayBench, fabric: Fabric | None = None, mtu: int = MTU_USUAL) -> Self:
        """Serve the network, and present a disk of 1 MiB to the node; it is behind another switch if one is named."""
        told = bench.serve(network(vid=101, mtu=mtu, hosts=[host(MAC, ADDRESS)]))
        node = fabric.probe("a", MAC, 101) if fabric else bench.fabric.probe("a", MAC, 101, FAR_BRIDGE)
        assert node.dhcp()[0] == ADDRESS
        targets, file = TgtTargets(lambda found: portal_socket(bench.settings.run_dir, found)), bench.directory / "disk"
        file.write_bytes(bytes(1 << 20))
        export = Export(
            network_id=NetworkId(told.id), iqn=new_iqn(), lun=1, serial="S1", handle=DiskHandle(path=str(file)),
            chap_username="u", chap_password=chap_secret(), initiator_address=ADDRESS, size_bytes=1 << 20,
        )  # fmt: skip
        targets.export(export)
        return cls(told=told, node=node, file=file, targets=targets, export=export)

    @property
    def chap(self) -> tuple[str, Secret]:
        return self.export.chap_username, self.export.chap_password

    def sessions(self) -> Sequence[Session]:
        """Read what is logged in."""
        return self.targets.sessions(self.export.network_id, self.export.iqn)
