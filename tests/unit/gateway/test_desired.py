"""What is wanted, kept and believed; and telling the control plane."""

import threading
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from tests.unit.gateway.clock import HandClock
from tests.unit.gateway.rehearsal import RehearsedControlPlane
from tests.unit.gateway.told import boot, host, network

from malleable.domain.errors import Invalid, MalleableError, Refused, Unavailable
from malleable.domain.hooks import LOG_MAX_CHARS
from malleable.domain.ids import NetworkId
from malleable.domain.networks import NetworkState
from malleable.domain.secrets import Secret
from malleable.gateway.backoff import CALM_S, DELAYS_S, Backoff
from malleable.gateway.desired import Desired
from malleable.gateway.fabrics import Fabrics
from malleable.gateway.files import FileCache
from malleable.gateway.follower import Follower
from malleable.gateway.kept_signs import KeptSigns
from malleable.gateway.layout import NetworkLayout, portal_socket, short_name
from malleable.gateway.memory import Memory
from malleable.gateway.plan import BootPlan, parse_network
from malleable.gateway.reconciler import Served
from malleable.gateway.reporter import Reporter
from malleable.gateway.signs import BATCH_BYTES, Signs
from malleable.wire.gateway import BootStage, DesiredNetwork, DesiredView

MAC, ADDRESS = "52:54:00:aa:00:01", "10.0.0.10"


def view(generation: int, *networks: DesiredNetwork, has_more: bool = False) -> DesiredView:
    return DesiredView(generation=generation, networks=networks, has_more=has_more)


class TestDesired:
    """A desired state over a file."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        return tmp_path / "desired.json"

    def desired(self, file: Path, *leftovers: NetworkId) -> Desired:
        return Desired(Memory(file), leftovers, Fabrics())

    def test_a_vlan_of_two_fabrics_is_one_unless_they_are_apart(self, file: Path) -> None:
        first, other = network(vid=7, fabric="hall", name="first"), network(vid=7, fabric="roof", name="other")
        for fabrics, refused in ((Fabrics(), {other.id}), (Fabrics(names=("roof",)), set[UUID]())):
            desired = Desired(Memory(file), [], fabrics)
            desired.told(view(3, first, other), is_whole=True)
            assert set(desired.unreadable) == refused
            assert all("M2D_UPLINK__BRIDGES" in trouble.fix for trouble in desired.unreadable.values())
            assert len({plan.slot for plan in desired.plans.values()}) == len(desired.plans) == 2 - len(refused)
            file.unlink()

    def test_a_memory_that_knows_no_fabrics_is_no_twin_of_what_is_told(self, file: Path) -> None:
        known = network(vid=7, fabric="", generation=1)
        self.desired(file).told(view(1, known), is_whole=True)
        later = self.desired(file)
        later.told(view(2, known.model_copy(update={"fabric": "default", "generation": 2})), is_whole=True)
        assert not later.unreadable
        assert [plan.generation for plan in later.plans.values()] == [2]

    def test_a_refused_twin_can_be_removed_and_is_served_when_the_other_is_gone(self, file: Path) -> None:
        first, other = network(vid=7, fabric="hall", name="first"), network(vid=7, fabric="roof", name="other")
        desired = self.desired(file)
        desired.told(view(3, first, other), is_whole=True)
        assert desired.read_again() == []
        desired.gone(NetworkId(first.id))
        assert [plan.name for plan in desired.read_again()] == ["other"]
        assert not desired.unreadable
        desired.told(view(4, first), is_whole=False)
        going = first.model_copy(update={"state": NetworkState.REMOVING})
        desired.told(view(5, going), is_whole=False)
        assert desired.plans[NetworkId(first.id)].state is NetworkState.REMOVING

    def test_who_takes_the_place_of_a_network_that_is_to_go_is_served(self, file: Path) -> None:
        first, other = network(vid=7, fabric="hall", name="first"), network(vid=7, fabric="roof", name="other")
        desired = self.desired(file)
        desired.told(view(3, first), is_whole=True)
        assert desired.told(view(4, other), is_whole=True) == {first.id}
        assert set(desired.plans) == {other.id}

    def test_it_is_kept_for_root_alone_and_read_again(self, file: Path) -> None:
        told = network(vid=1, hosts=[host(MAC, ADDRESS)], boots=[boot(MAC, ADDRESS)])
        first = self.desired(file)
        first.told(view(3, told), is_whole=True)
        assert file.stat().st_mode & 0o777 == 0o600
        again = self.desired(file)
        assert again.plans == first.plans
        assert again.plans[NetworkId(told.id)].boots[0].chap_password.reveal() == "0123456789abcdef"

    @pytest.mark.parametrize("content", ["", "{", '{"generation": "x"}'])
    def test_a_file_that_cannot_be_read_is_an_empty_memory(self, file: Path, content: str) -> None:
        file.write_text(content)
        assert self.desired(file).plans == {}

    def test_what_the_whole_truth_lacks_is_to_go_with_what_earlier_gateways_left(self, file: Path) -> None:
        old, new = network(vid=1), network(vid=2)
        leftover = NetworkId(network(vid=3).id)
        self.desired(file).told(view(3, old), is_whole=True)
        assert self.desired(file, leftover).told(view(4, new), is_whole=True) == {old.id, leftover}

    def test_a_change_says_nothing_about_the_others(self, file: Path) -> None:
        desired = self.desired(file)
        desired.told(view(3, network(vid=1)), is_whole=True)
        assert desired.told(view(4, network(vid=2)), is_whole=False) == set()
        assert len(desired.plans) == 2

    def test_an_older_control_plane_takes_nothing_down_but_what_lost_its_vlan(self, file: Path) -> None:
        kept, displaced = network(vid=1), network(vid=2)
        self.desired(file).told(view(9, kept, displaced), is_whole=True)
        desired = self.desired(file)
        assert desired.told(view(4, network(vid=2)), is_whole=True) == {displaced.id}
        assert desired.is_outrun
        assert kept.id in desired.plans
        # It stays so for the next gateway, until somebody says otherwise.
        assert self.desired(file).told(view(5, network(vid=3)), is_whole=True) == set()

    def test_a_network_that_cannot_be_read_goes_on_as_it_was(self, file: Path) -> None:
        good = network(vid=1)
        desired = self.desired(file)
        desired.told(view(1, good), is_whole=True)
        desired.told(view(2, good.model_copy(update={"vid": 4095}), network(vid=2)), is_whole=False)
        assert desired.plans[NetworkId(good.id)].vid == 1
        assert list(desired.unreadable) == [good.id]
        assert len(desired.plans) == 2

    def test_what_cannot_be_kept_is_not_believed_until_it_can_be(self, file: Path) -> None:
        old, new = network(vid=1), network(vid=2)
        desired = self.desired(file)
        desired.told(view(3, old), is_whole=True)
        away = file.parent.rename(file.parent.with_name("away"))
        with pytest.raises(Unavailable, match="cannot be kept"):
            desired.told(view(4, new), is_whole=True)
        assert list(desired.plans) == [old.id]
        away.rename(file.parent)
        assert desired.told(view(4, new), is_whole=True) == {old.id}
        assert list(desired.plans) == [new.id]

    def test_what_is_gone_is_forgotten_once(self, file: Path) -> None:
        told = network(vid=1, state="removing")
        desired = self.desired(file)
        desired.told(view(1, told), is_whole=True)
        assert desired.active() == {}
        assert desired.gone(NetworkId(told.id))
        assert not desired.gone(NetworkId(told.id))
        assert self.desired(file).plans == {}


class TestFollower:
    """A follower over rehearsed answers."""

    def run(self, control_plane: RehearsedControlPlane, until: int) -> tuple[list[tuple[int, bool]], list[str]]:
        stop, heard, lost = threading.Event(), list[tuple[int, bool]](), list[str]()

        def told(answer: DesiredView, is_whole: bool) -> None:
            heard.append((answer.generation, is_whole))
            if len(heard) == until:
                stop.set()

        def failed(why: MalleableError) -> None:
            lost.append(why.message)

        Follower(control_plane, HandClock(), wait_s=30, told=told, lost=failed).run(stop)
        return heard, lost

    def test_it_asks_for_the_whole_first_and_then_for_news(self) -> None:
        control_plane = RehearsedControlPlane()
        control_plane.views = [view(0), view(3), view(5)]
        assert self.run(control_plane, 3) == ([(0, True), (3, True), (5, False)], [])
        assert control_plane.asked == [(0, 0.0), (0, 30), (3, 30)]

    def test_the_whole_truth_in_pages_is_one(self, tmp_path: Path) -> None:
        pages = [network(vid=1), network(vid=2)]
        file, leftover = tmp_path / "desired.json", NetworkId(network(vid=3).id)
        for kept in (True, False):  # with what an earlier gateway knew, and without
            desired = Desired(Memory(file), [NetworkId(pages[1].id), leftover], Fabrics())
            control_plane = RehearsedControlPlane()
            control_plane.views = [view(1, pages[0], has_more=True), view(2, pages[1])]
            stop, orphans, lost = threading.Event(), set[NetworkId](), list[MalleableError]()

            def told(
                answer: DesiredView, is_whole: bool, into: Desired, gone: set[NetworkId], end: threading.Event
            ) -> None:
                gone |= into.told(answer, is_whole=is_whole)
                end.set()

            hear = partial(told, into=desired, gone=orphans, end=stop)
            Follower(control_plane, HandClock(), wait_s=30, told=hear, lost=lost.append).run(stop)
            assert (orphans, desired.is_outrun, len(desired.plans)) == ({leftover}, False, 2)
            assert control_plane.asked == [(0, 0.0), (1, 0.0)]
            if kept:
                file.unlink()

    def test_what_could_not_be_taken_in_is_asked_for_whole(self) -> None:
        control_plane, stop, heard = RehearsedControlPlane(), threading.Event(), list[bool]()
        control_plane.views = [view(3), view(4), view(4)]

        def told(answer: DesiredView, is_whole: bool) -> None:
            heard.append(is_whole)
            if len(heard) == 2:
                raise Unavailable("the disk is full")
            if len(heard) == 3:
                stop.set()

        lost = list[MalleableError]()
        Follower(control_plane, HandClock(), wait_s=30, told=told, lost=lost.append).run(stop)
        assert (heard, len(lost)) == ([True, False, True], 1)
        assert [after for after, _ in control_plane.asked] == [0, 3, 0]

    def test_a_control_plane_that_went_back_is_asked_for_the_whole(self) -> None:
        control_plane = RehearsedControlPlane()
        control_plane.views = [view(9), view(4), view(4)]
        assert self.run(control_plane, 2)[0] == [(9, True), (4, True)]
        assert [after for after, _ in control_plane.asked] == [0, 9, 0]

    def test_it_goes_on_asking_while_nobody_answers(self) -> None:
        control_plane = RehearsedControlPlane()
        control_plane.failures = [Unavailable("away")]
        control_plane.views = [view(1)]
        assert self.run(control_plane, 1) == ([(1, True)], ["away"])


class TestReporter:
    """A reporter with its thread."""

    def reporter(self, control_plane: RehearsedControlPlane, signs: Signs) -> tuple[Reporter, threading.Thread]:
        made = Reporter(control_plane, signs, HandClock())
        thread = threading.Thread(target=made.run, daemon=True)
        thread.start()
        return made, thread

    @pytest.fixture
    def signs(self, tmp_path: Path) -> Signs:
        return Signs(KeptSigns(tmp_path / "signs"))

    def test_it_tells_once_and_again_only_when_asked(self, signs: Signs) -> None:
        control_plane, network_id = RehearsedControlPlane(), NetworkId(network(vid=1).id)
        reporter, thread = self.reporter(control_plane, signs)
        served = Served(generation=1, portal_epoch="e")
        reporter.linked(True)
        reporter.served(network_id, served)
        with control_plane.heard:
            assert control_plane.heard.wait_for(lambda: len(control_plane.reports) == 1, 5)
        reporter.removed(NetworkId(network(vid=2).id))
        with control_plane.heard:
            assert control_plane.heard.wait_for(lambda: len(control_plane.reports) == 2, 5)
        reporter.served(network_id, served)
        reporter.retell()
        reporter.served(network_id, served)
        with control_plane.heard:
            assert control_plane.heard.wait_for(lambda: len(control_plane.reports) == 3, 5)
        reporter.stop()
        thread.join(5)
        assert [len(report.networks) for report in control_plane.reports] == [1, 0, 1]

    @pytest.mark.parametrize("failure", [Unavailable("away"), None])
    def test_signs_wait_for_the_link_and_survive_a_failure(self, signs: Signs, failure: MalleableError | None) -> None:
        control_plane = RehearsedControlPlane()
        control_plane.failures = [failure] if failure else []
        reporter, thread = self.reporter(control_plane, signs)
        plan = parse_network(network(vid=1, hosts=[host(MAC, ADDRESS)], boots=[boot(MAC, ADDRESS)]))
        signs.see(plan.boots[0], BootStage.SCRIPT_FETCHED)
        reporter.look()
        reporter.linked(True)
        with control_plane.heard:
            assert control_plane.heard.wait_for(lambda: control_plane.signs, 5)
        reporter.stop()
        thread.join(5)
        assert [sign.stage for request in control_plane.signs for sign in request.signs] == [BootStage.SCRIPT_FETCHED]
        assert signs.batch() == ()

    def test_a_sign_that_is_refused_is_not_told_for_ever(self, signs: Signs) -> None:
        control_plane = RehearsedControlPlane()
        control_plane.failures = [Invalid("no such boot")]
        plan = parse_network(network(vid=1, hosts=[host(MAC, ADDRESS)], boots=[boot(MAC, ADDRESS)]))
        reporter, thread = self.reporter(control_plane, signs)
        signs.see(plan.boots[0], BootStage.SCRIPT_FETCHED)
        reporter.linked(True)
        reporter.removed(plan.id)
        with control_plane.heard:
            assert control_plane.heard.wait_for(lambda: control_plane.reports, 5)
        reporter.stop()
        thread.join(5)
        assert signs.batch() == ()
        assert control_plane.signs == []

    def test_one_refused_sign_takes_no_other_with_it(self, signs: Signs) -> None:
        control_plane = RehearsedControlPlane()
        control_plane.failures = [
            Invalid("one of them is bad"),
            Invalid("it is in this half"),
            Invalid("it is this one"),
        ]
        boots = [boot(MAC, ADDRESS, token=f"arming-{number}") for number in range(4)]
        for one in boots:
            plan = parse_network(network(vid=1, hosts=[host(MAC, ADDRESS)], boots=[one]))
            signs.see(plan.boots[0], BootStage.PHONED_HOME)
        reporter, thread = self.reporter(control_plane, signs)
        reporter.linked(True)
        with control_plane.heard:
            assert control_plane.heard.wait_for(lambda: len(control_plane.signs) == 2, 5)
        reporter.stop()
        thread.join(5)
        told = [sign.boot_id for request in control_plane.signs for sign in request.signs]
        assert told == [one["id"] for one in boots[1:]]

    def test_no_call_is_larger_than_the_api_takes(self, signs: Signs) -> None:
        control_plane, count = RehearsedControlPlane(), 300
        for number in range(count):
            one = boot(MAC, ADDRESS, token=f"arming-{number}")
            plan = parse_network(network(vid=1, hosts=[host(MAC, ADDRESS)], boots=[one]))
            signs.see(plan.boots[0], BootStage.FINISHED, exit_status=255, log="\n" * LOG_MAX_CHARS)
        reporter, thread = self.reporter(control_plane, signs)
        reporter.linked(True)
        with control_plane.heard:
            assert control_plane.heard.wait_for(lambda: sum(len(r.signs) for r in control_plane.signs) == count, 20)
        reporter.stop()
        thread.join(5)
        assert max(len(request.model_dump_json()) for request in control_plane.signs) <= BATCH_BYTES


class TestKeptSigns:
    """Signs over a file."""

    @pytest.fixture
    def plan(self) -> BootPlan:
        return parse_network(network(vid=1, hosts=[host(MAC, ADDRESS)], boots=[boot(MAC, ADDRESS)])).boots[0]

    def test_what_a_node_was_told_is_kept_outlives_the_gateway_until_it_is_told(
        self, tmp_path: Path, plan: BootPlan
    ) -> None:
        file = tmp_path / "signs"
        Signs(KeptSigns(file)).see(plan, BootStage.METADATA_FETCHED)
        Signs(KeptSigns(file)).see(plan, BootStage.FINISHED, exit_status=3, log="why\nso")
        with file.open("ab") as cut_short:
            cut_short.write(b'{"boot_id": "')
        again = Signs(KeptSigns(file))
        again.see(plan, BootStage.PHONED_HOME)
        assert file.stat().st_mode & 0o777 == 0o600
        third = Signs(KeptSigns(file))
        finished, phoned = third.batch()
        assert (finished.stage, finished.exit_status, finished.log) == (BootStage.FINISHED, 3, "why\nso")
        assert not third.see(plan, BootStage.FINISHED), "it is one report still"
        third.told((finished,))
        assert Signs(KeptSigns(file)).batch() == (phoned,)
        Signs(KeptSigns(file)).keep_only({(plan.id, Secret("another-arming"))})
        assert not file.exists()

    def test_what_cannot_be_kept_is_not_taken(self, tmp_path: Path, plan: BootPlan) -> None:
        signs = Signs(KeptSigns(tmp_path / "missing" / "signs"))
        with pytest.raises(Unavailable, match="kept"):
            signs.see(plan, BootStage.FINISHED)
        (tmp_path / "missing").mkdir()
        assert signs.see(plan, BootStage.FINISHED)


class TestFileCache:
    """A cache over files in memory."""

    def test_a_file_is_fetched_once_and_pieces_are_never_shown(self, tmp_path: Path) -> None:
        control_plane, plan = RehearsedControlPlane(), parse_network(network(vid=1, **kernel_boot()))
        image = plan.boots[0].image_id
        control_plane.files[str(image), "vmlinuz"] = b"kernel"
        control_plane.failures = [Unavailable("cut off")]
        cache = FileCache(tmp_path / "files", control_plane.gateway_file, 100)
        with pytest.raises(Unavailable):
            cache.path(image, "vmlinuz")
        assert list((tmp_path / "files").rglob("*")) == []
        paths = {cache.path(image, "vmlinuz") for _ in range(3)}
        assert paths.pop().read_bytes() == b"kernel"
        assert len(control_plane.fetched) == 2

    def test_a_disk_that_takes_nothing_is_told_of_until_it_does(self, tmp_path: Path) -> None:
        control_plane, plan = RehearsedControlPlane(), parse_network(network(vid=1, **kernel_boot()))
        image = plan.boots[0].image_id
        control_plane.files[str(image), "vmlinuz"] = b"kernel"
        cache = FileCache(tmp_path / "files", control_plane.gateway_file, 100)
        away = (tmp_path / "files").rename(tmp_path / "away")
        with pytest.raises(Unavailable, match="kept"):
            cache.path(image, "vmlinuz")
        assert cache.trouble is not None
        away.rename(tmp_path / "files")
        assert cache.path(image, "vmlinuz").exists()
        assert cache.trouble is None

    def test_a_file_that_is_not_what_was_sealed_is_never_served(self, tmp_path: Path) -> None:
        files = {"kernel": "vmlinuz", "initrd": "initrd", "kernel_sha256": sha256(b"kernel").hexdigest()}
        told = boot(MAC, ADDRESS, way="kernel", files=files)
        plan = parse_network(network(vid=1, hosts=[host(MAC, ADDRESS)], boots=[told])).boots[0]
        control_plane = RehearsedControlPlane()
        cache = FileCache(tmp_path / "files", control_plane.gateway_file, 100)
        control_plane.files[str(plan.image_id), "vmlinuz"] = b"another"
        with pytest.raises(Refused, match="not what was sealed"):
            cache.path(plan.image_id, "vmlinuz", plan.files["vmlinuz"])
        assert cache.trouble is not None
        assert list((tmp_path / "files").rglob("*")) == []
        control_plane.files[str(plan.image_id), "vmlinuz"] = b"kernel"
        assert cache.path(plan.image_id, "vmlinuz", plan.files["vmlinuz"]).read_bytes() == b"kernel"

    def test_beyond_the_limit_what_no_boot_needs_goes(self, tmp_path: Path) -> None:
        control_plane = RehearsedControlPlane()
        plans = [parse_network(network(vid=1, **kernel_boot())) for _ in range(2)]
        keys = [(plan.boots[0].image_id, "vmlinuz") for plan in plans]
        cache = FileCache(tmp_path / "files", control_plane.gateway_file, 5)
        for image, name in keys:
            control_plane.files[str(image), name] = b"kernel"
            cache.path(image, name)
        cache.shrink(keys[:1])
        assert [path.name for path in (tmp_path / "files").iterdir()] == [str(keys[0][0])]


def kernel_boot() -> dict[str, Any]:
    return {"hosts": [host(MAC, ADDRESS)], "boots": [boot(MAC, ADDRESS, way="kernel")]}


def test_backoff_grows_and_calms_down() -> None:
    backoff, now_s = Backoff(), 0.0
    assert [backoff.fail(now_s) for _ in range(9)] == [*DELAYS_S, DELAYS_S[-1]]
    assert not backoff.is_calm(now_s + CALM_S)
    assert backoff.is_calm(now_s + CALM_S + DELAYS_S[-1] + 1)
    assert backoff.fail(now_s + CALM_S + DELAYS_S[-1] + 1) == 0.0


def test_names_fit_and_do_not_collide(tmp_path: Path) -> None:
    ids = [NetworkId(network(vid=1).id) for _ in range(2000)]
    names = {short_name(network_id) for network_id in ids}
    assert len(names) == len(ids)
    assert {len(name) for name in names} == {15}
    assert portal_socket(Path("/run/x"), ids[0]) == Path(f"/run/x/networks/{ids[0]}/tgt.0")
    with pytest.raises(Invalid, match="bytes"):
        NetworkLayout(run_dir=tmp_path / ("x" * 60), network_id=ids[0])
    ula = NetworkLayout(run_dir=Path("/run/x"), network_id=ids[0]).ula
    assert ula.packed[0] == 0xFD
