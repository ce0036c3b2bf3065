"""The gateway's bridge has two cables, one of which is cut while a node uses its disk."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from tests.contract.targets.initiator import Initiator
from tests.system.gateway.bench import GatewayBench
from tests.system.gateway.fabric import CABLES
from tests.system.gateway.far import Far
from tests.system.gateway.host import eventually

from malleable.domain.portals import ISCSI_PORT

pytestmark = pytest.mark.room


def write_on(disk: Initiator, written: list[bytes], is_over: threading.Event) -> None:
    """Write and read back until it is over. Errors: IoFailed."""
    while not is_over.is_set():
        data = len(written).to_bytes(512)
        disk.write(0, data)
        assert disk.read(0, 512) == data
        written.append(data)


def test_a_node_keeps_its_session_whichever_of_two_cables_is_cut(bench: GatewayBench) -> None:
    bench.fabric.lay_cables()
    far = Far.of(bench)
    with (
        closing(Initiator(name="iqn.x:node", iqn=far.export.iqn, lun=1, is_patient=True)) as disk,
        ThreadPoolExecutor(1) as pool,
    ):
        disk.login(far.node.namespace, f"{far.told.gateway_address}:{ISCSI_PORT}", far.chap)
        before = far.sessions()
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
        assert far.sessions() == before != ()
    assert far.file.read_bytes()[:512] == written[-1]
