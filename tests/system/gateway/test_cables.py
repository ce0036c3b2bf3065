"""The gateway's bridge has two cables, one of which is cut while a node uses its disk."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from tests.contract.targets.initiator import Initiator
from tests.system.gateway.bench import GatewayBench
from tests.system.gateway.fabric import CABLES, FAR_BRIDGE
from tests.system.gateway.host import eventually
from tests.unit.gateway.told import host, network

from malleable.domain.disks import new_iqn
from malleable.domain.ids import NetworkId
from malleable.domain.portals import ISCSI_PORT
from malleable.domain.ports import DiskHandle, Export
from malleable.domain.secrets import chap_secret
from malleable.drivers.target.tgt import TgtTargets
from malleable.gateway.layout import portal_socket

pytestmark = pytest.mark.room

MAC, ADDRESS = "52:54:00:aa:00:01", "10.0.0.10"


def write_on(disk: Initiator, written: list[bytes], is_over: threading.Event) -> None:
    """Write and read back until it is over. Errors: IoFailed."""
    while not is_over.is_set():
        data = len(written).to_bytes(512)
        disk.write(0, data)
        assert disk.read(0, 512) == data
        written.append(data)


def test_a_node_keeps_its_session_whichever_of_two_cables_is_cut(bench: GatewayBench) -> None:
    bench.fabric.lay_cables()
    told = bench.serve(network(vid=101, hosts=[host(MAC, ADDRESS)]))
    node = bench.fabric.probe("a", MAC, 101, FAR_BRIDGE)
    assert node.dhcp()[0] == ADDRESS
    targets, file = TgtTargets(lambda found: portal_socket(bench.settings.run_dir, found)), bench.directory / "disk"
    file.write_bytes(bytes(1 << 20))
    export = Export(
        network_id=NetworkId(told.id), iqn=new_iqn(), lun=1, serial="S1", handle=DiskHandle(path=str(file)),
        chap_username="u", chap_password=chap_secret(), initiator_address=ADDRESS, size_bytes=1 << 20,
    )  # fmt: skip
    targets.export(export)
    with (
        closing(Initiator(name="iqn.x:node", iqn=export.iqn, lun=1, is_patient=True)) as disk,
        ThreadPoolExecutor(1) as pool,
    ):
        chap = (export.chap_username, export.chap_password)
        disk.login(node.namespace, f"{told.gateway_address}:{ISCSI_PORT}", chap)
        before = targets.sessions(export.network_id, export.iqn)
        written, is_over = list[bytes](), threading.Event()
        work = pool.submit(write_on, disk, written, is_over)
        try:
            for cable in CABLES:
                with bench.fabric.cut(cable):
                    # One may have been under way; what is begun after it goes the other way.
                    enough = len(written) + 3
                    eventually(lambda: len(written) >= enough or work.done(), "it writes on", deadline_s=60)  # noqa: B023
        finally:
            is_over.set()
        work.result()
        assert targets.sessions(export.network_id, export.iqn) == before != ()
    assert file.read_bytes()[:512] == written[-1]
