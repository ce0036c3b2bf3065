"""A gateway's parts together: what it says when one of them cannot work."""

import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.system.gateway.host import eventually
from tests.unit.gateway.clock import HandClock
from tests.unit.gateway.rehearsal import RehearsedControlPlane
from tests.unit.gateway.told import boot, host, network

from malleable.domain.errors import Conflict, Unavailable
from malleable.domain.gateways import NAME_TAKEN
from malleable.domain.ids import NetworkId
from malleable.drivers.uplink.ovs import OvsUplink
from malleable.gateway import namespace
from malleable.gateway.layout import short_name
from malleable.gateway.running import Running
from malleable.gateway.settings import GatewaySettings
from malleable.wire.gateway import BootStage, DesiredView, ReportsRequest


class PatientControlPlane(RehearsedControlPlane):
    """One whose last word stands for ever."""

    def gateway_desired(self, after: int, wait_s: float) -> DesiredView:
        if len(self.views) == 1 and after == self.views[0].generation:
            threading.Event().wait(min(wait_s, 0.05))
            return DesiredView(generation=after, networks=())
        return super().gateway_desired(after, wait_s) if len(self.views) > 1 else self.views[0]


def running(control_plane: RehearsedControlPlane, state_dir: Path) -> Running:
    settings = GatewaySettings(run_dir=state_dir / "run", state_dir=state_dir)
    return Running(control_plane, OvsUplink("unix:/nonexistent", "none"), settings, HandClock())


def test_a_disk_that_takes_nothing_is_told_and_what_was_missed_is_made_up_for(tmp_path: Path) -> None:
    control_plane, state_dir, stop = PatientControlPlane(), tmp_path / "state", threading.Event()
    control_plane.views = [DesiredView(generation=3, networks=(network(vid=1, cidr="nonsense"),))]
    gateway = running(control_plane, state_dir)
    away = state_dir.rename(tmp_path / "away")
    thread = threading.Thread(target=gateway.work, args=(stop,))
    thread.start()
    try:
        eventually(lambda: any("cannot be kept" in t.what for t in gateway.troubles()), "the trouble is told")
        away.rename(state_dir)
        eventually(lambda: not any("cannot be kept" in t.what for t in gateway.troubles()), "it is over")
    finally:
        stop.set()
        thread.join()
    assert (state_dir / "desired.json").exists()


def test_what_is_not_booted_is_told_of_its_boot() -> None:
    control_plane, stop = PatientControlPlane(), threading.Event()
    files = {"kernel": "vmlinuz", "initrd": "", "kernel_sha256": "0" * 64}
    told = {
        "not what was sealed": boot(
            "52:54:00:aa:00:01", "10.0.0.10", way="kernel", files={**files, "initrd": "initrd"}
        ),
        "There is no such object": boot("52:54:00:aa:00:02", "10.0.0.11", way="kernel"),
        "files.initrd": boot("52:54:00:aa:00:03", "10.0.0.12", way="kernel", files=files),
    }
    for name in ("vmlinuz", "initrd"):
        control_plane.files[str(told["not what was sealed"]["image_id"]), name] = b"another"
    hosts = [host(one["mac"], one["address"]) for one in told.values()]
    wanted = network(vid=1, hosts=hosts, boots=list(told.values()))
    control_plane.views = [DesiredView(generation=1, networks=(wanted,))]
    with TemporaryDirectory() as directory:  # of a path that leaves room for sockets' names
        thread = threading.Thread(target=running(control_plane, Path(directory)).work, args=(stop,))
        thread.start()
        try:
            eventually(lambda: sum(len(one.signs) for one in control_plane.signs) == len(told), "all are told")
        finally:
            stop.set()
            thread.join()
            namespace.remove(short_name(NetworkId(wanted.id)))  # a gateway that stops leaves what nodes run on
    signs = {sign.boot_id: sign for one in control_plane.signs for sign in one.signs}
    assert {sign.stage for sign in signs.values()} == {BootStage.REFUSED}
    for reason, one in told.items():
        assert reason in signs[one["id"]].log


class TakenControlPlane(PatientControlPlane):
    """One that knows another gateway of the same name."""

    def __init__(self) -> None:
        super().__init__()
        self.instances: list[str] = []

    def gateway_report(self, request: ReportsRequest) -> None:
        assert request.gateway is not None
        self.instances.append(request.gateway.instance)
        raise Conflict("Another gateway is called so.", code=NAME_TAKEN)


def test_the_double_of_a_gateway_that_lives_ends_before_it_hears_what_to_serve(tmp_path: Path) -> None:
    control_plane = TakenControlPlane()
    for _ in range(2):
        with pytest.raises(Conflict, match="called so"):
            running(control_plane, tmp_path).work(threading.Event())
    assert control_plane.asked == []
    assert len(control_plane.instances) == 2
    assert len(set(control_plane.instances)) == 1, "it is the same after a restart"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_gateway_without_one_of_its_threads_ends_and_nothing_else_does(tmp_path: Path) -> None:
    """The API and the worker of the same server live by the same signal; the gateway alone is started again."""
    stop = threading.Event()
    with pytest.raises(Unavailable, match="'follow' ended"):
        running(RehearsedControlPlane(), tmp_path).work(stop)  # which has no answer: a defect of ours
    assert not stop.is_set()
    names = {thread.name for thread in threading.enumerate()}
    assert names.isdisjoint({"follow", "report", "beat", "reconcile"})
