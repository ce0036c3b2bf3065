"""Scrubs: what their policy means, what a failure leaves, and that a new password never locks us out."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from tests.sweep.scrub_verbs import (
    BMC,
    EVERYTHING,
    FIRST,
    STEPS,
    assert_not_locked_out,
    begin_release,
    scrubbed,
    soiled_node,
)
from tests.sweep.world import Crash, CrashAt, World

from malleable.domain.errors import Conflict
from malleable.domain.ids import NodeId, OperationId
from malleable.domain.nodes import NodeState, PowerState, plain_address
from malleable.domain.operations import Operation, OperationState
from malleable.domain.ports import Bmc, BmcAccount, LocalDrive
from malleable.domain.scrubs import Demand, Scrub, ScrubPolicy, SiteScrubs
from malleable.domain.secrets import Secret, bmc_password
from malleable.domain.store import Page
from malleable.sim.bmcs import Lie, SimMachine
from malleable.sim.clock import ManualClock
from malleable.sim.faults import FaultKind
from malleable.sim.power import SimPower
from malleable.workflows import enrol, release
from malleable.workflows.catalogue import workflows
from malleable.workflows.requests import cancel
from malleable.workflows.scrubbing import ERASE_DEADLINE_S, TRIES
from malleable.workflows.watch import Watch

TRY_ALL = SiteScrubs(policy=ScrubPolicy(**dict.fromkeys(map(str, Scrub), Demand.TRY)))
NOTHING = SiteScrubs(policy=ScrubPolicy())


def only(scrub: Scrub, demand: Demand = Demand.REQUIRED) -> SiteScrubs:
    return SiteScrubs(policy=ScrubPolicy(**{scrub.value: demand}))


def evidence(world: World, operation_id: OperationId) -> dict[str, dict[str, object]]:
    """Read what every step proved, by its name."""
    with world.store.reading() as tx:
        return {step.name: dict(step.evidence) for step in tx.operations.steps([operation_id])}


def readmit(world: World, node_id: NodeId, scrubs: SiteScrubs = EVERYTHING) -> str:
    return world.run(begin_release(world, node_id, scrubs)).state


# What is done.


def test_every_scrub_leaves_its_evidence(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id = soiled_node(world)
    operation_id = begin_release(world, node_id)
    assert world.run(operation_id).state == "succeeded"
    found = evidence(world, operation_id)
    assert found["check-accounts"] == {"accounts": ["admin"], "unknown": []}
    assert found["rotate-password"] == {"account": "admin", "password": "changed; the BMC took a login with it"}
    assert found["reset-bios"] == {"bios": "reset to the maker's settings", "in_force": "at the next power-on"}
    assert found["clear-tpm"] == {"tpm": "to be cleared, read back", "in_force": "at the next power-on"}
    assert found["erase-disks"] == {"erased": ["disk0", "disk1"]}
    password = world.node(node_id).bmc_password.reveal()
    assert password not in repr(found)
    scrubbed(world, node_id)


def test_what_nobody_asked_for_is_no_step_and_no_call(new_world: Callable[[], World]) -> None:
    world = new_world()
    operation_id = begin_release(world, soiled_node(world), NOTHING)
    assert world.run(operation_id).state == "succeeded"
    assert not set(STEPS) & set(evidence(world, operation_id))
    assert "scrub" not in world.operation(operation_id).arguments


def test_by_default_a_bmc_that_can_do_nothing_is_asked_nothing(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id, _ = world.running_node()
    operation_id = begin_release(world, node_id, SiteScrubs())
    assert world.run(operation_id).state == "succeeded"
    assert not set(STEPS) & set(evidence(world, operation_id))


def test_by_default_accounts_are_looked_at_and_the_tpm_is_cleared(new_world: Callable[[], World]) -> None:
    world = new_world()
    operation_id = begin_release(world, soiled_node(world), SiteScrubs())
    assert world.run(operation_id).state == "succeeded"
    assert set(STEPS) & set(evidence(world, operation_id)) == {"check-accounts", "clear-tpm"}
    assert world.room.bmcs.accepts(BMC, FIRST)


def test_a_node_says_otherwise_than_its_site(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id = soiled_node(world)
    with world.store.transaction() as tx:
        tx.nodes.change(node_id, scrub_policy=ScrubPolicy(bios=Demand.SKIP, disks=Demand.SKIP))
    operation_id = begin_release(world, node_id)
    assert world.run(operation_id).state == "succeeded"
    assert set(STEPS) - set(evidence(world, operation_id)) == {"reset-bios", "erase-disks"}


# What cannot be done.


@pytest.mark.parametrize("scrub", Scrub)
def test_what_is_required_and_cannot_be_done_quarantines(new_world: Callable[[], World], scrub: Scrub) -> None:
    world = new_world()
    node_id, _ = world.running_node()
    ended = world.run(begin_release(world, node_id, only(scrub)))
    assert ended.state == "failed"
    assert ended.error is not None
    assert ended.error["code"] == "cannot-scrub"
    node = world.node(node_id)
    assert node.state is NodeState.QUARANTINED
    assert "It is off; its ports are shut" in node.state_reason
    with world.store.transaction() as tx:
        tx.nodes.change(node_id, scrub_policy=ScrubPolicy(**{scrub.value: Demand.SKIP}))
    assert readmit(world, node_id, only(scrub)) == "succeeded"
    world.assert_clean(node_id)


@pytest.mark.parametrize("kind", [FaultKind.REFUSED, FaultKind.LOST_REQUEST, FaultKind.LOST_REPLY])
@pytest.mark.parametrize("method", ["accounts", "set_password", "reset_bios", "clear_tpm", "drives", "erase_drive"])
def test_what_is_only_worth_a_try_is_noted_and_the_node_freed(
    new_world: Callable[[], World], method: str, kind: FaultKind
) -> None:
    world = new_world()
    node_id = soiled_node(world)
    world.faults.add(method, kind, times=None)
    operation_id = begin_release(world, node_id, TRY_ALL)
    assert world.run(operation_id).state == "succeeded"
    world.assert_clean(node_id)
    assert_not_locked_out(world, node_id)
    if method == "set_password" and kind is FaultKind.LOST_REPLY:
        return  # it was done, and found out
    assert "not done" in [proof for step in evidence(world, operation_id).values() for proof in step.values()]
    assert world.faults.calls.count((method, BMC)) <= 2 * TRIES
    with world.store.reading() as tx:
        assert [event.detail["reason"] for event in tx.events.list(Page(), kind="node.not-scrubbed")]


def test_a_stranger_on_the_bmc_quarantines_until_he_is_gone_or_known(new_world: Callable[[], World]) -> None:
    for way in ("gone", "known", "disabled"):
        world = new_world()
        node_id = soiled_node(world)
        world.room.bmcs.add_account(BMC, "mallory", is_enabled=way != "disabled")
        ended = world.run(begin_release(world, node_id, only(Scrub.ACCOUNTS)))
        if way == "disabled":
            assert ended.state == "succeeded"
            continue
        assert ended.error is not None
        assert (ended.error["code"], ended.error["details"]) == ("unknown-account", {"accounts": ["mallory"]})
        site = only(Scrub.ACCOUNTS)
        if way == "gone":
            world.room.bmcs.remove_account(BMC, "mallory")
        else:
            site = SiteScrubs(policy=site.policy, known_accounts=("mallory",))
        assert readmit(world, node_id, site) == "succeeded"
        world.assert_clean(node_id)


def test_a_disk_that_cannot_be_erased_quarantines_and_a_second_try_may_do_it(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id = soiled_node(world)
    world.room.bmcs.lie("n1", Lie.FAILS_TO_ERASE)
    assert world.run(begin_release(world, node_id, only(Scrub.DISKS))).state == "failed"
    assert "failed to erase" in world.node(node_id).state_reason
    world.room.bmcs.lie("n1")
    assert readmit(world, node_id) == "succeeded"
    scrubbed(world, node_id)


class SlowlyBusy(SimPower):
    """Says that it is busy when the step's time is over."""

    clock: ManualClock

    def accounts(self, bmc: Bmc) -> Sequence[BmcAccount]:
        self.clock.advance(400.0)
        return super().accounts(bmc)


def test_what_is_only_worth_a_try_and_ends_too_late_quarantines_nothing(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id = soiled_node(world)
    world.faults.add("drives", FaultKind.SLOW, delay_s=ERASE_DEADLINE_S + 1)
    world.faults.add("accounts", FaultKind.BUSY)
    slow = SlowlyBusy(world.room.bmcs, faults=world.faults)
    slow.clock = world.clock
    world.drivers = replace(world.drivers, power={"sim": slow})
    assert world.run(begin_release(world, node_id, TRY_ALL)).state == "succeeded"
    world.assert_clean(node_id)
    with world.store.reading() as tx:
        told = [event.detail["reason"] for event in tx.events.list(Page(), kind="node.not-scrubbed")]
    assert len(told) == 2, told


# Disks that hide.


def assert_not_erased(world: World, node_id: NodeId, code: str) -> None:
    """A release that requires it quarantines; one that only tries says so."""
    ended = world.run(begin_release(world, node_id, only(Scrub.DISKS)))
    assert ended.error is not None
    assert ended.error["code"] == code
    assert world.run(begin_release(world, node_id, only(Scrub.DISKS, Demand.TRY))).state == "succeeded"
    with world.store.reading() as tx:
        (told,) = tx.events.list(Page(), kind="node.not-scrubbed")
    assert str(ended.error["message"]) in str(told.detail["reason"])


def test_no_drive_at_all_is_no_proof_that_all_are_erased(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id = soiled_node(world)
    world.room.bmcs.lie("n1", Lie.HIDES_DRIVES)
    assert_not_erased(world, node_id, "no-drives")


def test_a_drive_that_was_there_before_is_missed(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id = soiled_node(world)
    with world.store.transaction() as tx:
        tx.nodes.change(node_id, drives=("disk0", "disk1", "disk2"))
    assert_not_erased(world, node_id, "drive-missing")
    assert evidence(world, latest_release(world))["erase-disks"]["erased"] == ["disk0", "disk1"]


def test_a_drive_that_cannot_be_erased_is_told_of(new_world: Callable[[], World]) -> None:
    class Stubborn(SimPower):
        def drives(self, bmc: Bmc) -> Sequence[LocalDrive]:
            return [replace(drive, can_erase=drive.id != "disk1") for drive in super().drives(bmc)]

    world = new_world()
    node_id = soiled_node(world)
    world.drivers = replace(world.drivers, power={"sim": Stubborn(world.room.bmcs, faults=world.faults)})
    assert_not_erased(world, node_id, "cannot-scrub")


def latest_release(world: World) -> OperationId:
    with world.store.reading() as tx:
        return max(operation.id for operation in tx.operations.list(kind="release"))


def test_an_inspection_and_a_release_remember_the_drives(new_world: Callable[[], World]) -> None:
    world = new_world()
    world.can_scrub = tuple(Scrub)
    node_id = world.free_node()
    assert world.node(node_id).drives == ("disk0", "disk1")
    world = new_world()
    node_id = soiled_node(world)
    assert world.run(begin_release(world, node_id)).state == "succeeded"
    assert world.node(node_id).drives == ("disk0", "disk1")


def test_a_drive_that_is_said_to_be_erased_is_waited_for_while_it_is_busy(new_world: Callable[[], World]) -> None:
    class Untold(SimPower):
        looks = 0

        def erase_drive(self, bmc: Bmc, drive: str) -> str:
            super().erase_drive(bmc, drive)
            return ""

        def drives(self, bmc: Bmc) -> Sequence[LocalDrive]:
            self.looks += 1
            return [replace(drive, is_busy=1 < self.looks < 5) for drive in super().drives(bmc)]

    world = new_world()
    node_id = soiled_node(world)
    untold = Untold(world.room.bmcs, faults=world.faults)
    world.drivers = replace(world.drivers, power={"sim": untold})
    assert world.run(begin_release(world, node_id, only(Scrub.DISKS))).state == "succeeded"
    assert untold.looks == 5
    assert world.faults.calls.count(("erase_drive", BMC)) == 2


# A machine that wakes up.


class Waking(SimPower):
    """The machine switches itself on while its disks are erased: its holder has set its clock's alarm."""

    def erase_drive(self, bmc: Bmc, drive: str) -> str:
        self.bmcs.force("n1", PowerState.ON)
        return super().erase_drive(bmc, drive)


def test_a_machine_that_wakes_up_while_it_is_scrubbed_is_quarantined(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id = soiled_node(world)
    world.drivers = replace(world.drivers, power={"sim": Waking(world.room.bmcs, faults=world.faults)})
    ended = world.run(begin_release(world, node_id))
    assert ended.error is not None
    assert (ended.error["step"], ended.error["code"]) == ("prove-still-off", "woke-up")
    assert world.node(node_id).state is NodeState.QUARANTINED
    world.drivers = replace(world.drivers, power={"sim": world.power})
    world.room.bmcs.soil("n1")
    assert readmit(world, node_id) == "succeeded"
    scrubbed(world, node_id)


def test_a_free_machine_that_wakes_up_is_taken_out_and_scrubbed_again(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id = soiled_node(world)
    assert world.run(begin_release(world, node_id)).state == "succeeded"
    world.room.bmcs.force("n1", PowerState.ON)
    world.room.bmcs.soil("n1")
    watch = Watch(store=world.store, drivers=world.drivers, clock=world.clock)
    watch.look_at_powers()
    watch.look_at_powers()
    watch.close()
    node = world.node(node_id)
    assert (node.state, node.power, node.is_unscrubbed) == (NodeState.QUARANTINED, PowerState.ON, True)
    with world.store.reading() as tx:
        kinds = [event.kind for event in tx.events.list(Page(limit=100), node_id=node_id)]
    assert kinds[-2:] == ["node.powered-on-while-free", "node.quarantined"]
    with world.store.transaction() as tx:
        again = enrol.request(tx, world.clock.now(), node=node, actor_id=None, scrubs=EVERYTHING)
    assert world.run(again.id).state == "succeeded"
    scrubbed(world, node_id)


# The password.


class Dying(SimPower):
    """The worker dies within the step, before or after the BMC has acted."""

    is_after = False
    left = 1

    def set_password(self, bmc: Bmc, password: Secret) -> None:
        if self.is_after:
            super().set_password(bmc, password)
        if self.left:
            self.left -= 1
            raise Crash
        super().set_password(bmc, password)


@pytest.mark.parametrize("is_after", [False, True])
def test_a_worker_that_dies_while_it_changes_the_password_locks_nobody_out(
    new_world: Callable[[], World], is_after: bool
) -> None:
    world = new_world()
    node_id = soiled_node(world)
    dying = Dying(world.room.bmcs, faults=world.faults)
    dying.is_after = is_after
    world.drivers = replace(world.drivers, power={"sim": dying})
    assert world.run(begin_release(world, node_id)).state == "succeeded"
    scrubbed(world, node_id)
    assert world.node(node_id).bmc_password_next is None


@pytest.mark.parametrize("kind", [FaultKind.LOST_REQUEST, FaultKind.LOST_REPLY])
def test_a_password_of_which_nothing_is_known_is_found_by_the_next_release(
    new_world: Callable[[], World], kind: FaultKind
) -> None:
    """The BMC dies in the middle of it. Days later it lives again, and takes the one password or the other."""
    world = new_world()
    node_id = soiled_node(world)
    world.faults.add("set_password", kind, times=None)
    world.faults.add("state", FaultKind.LOST_REQUEST, skip=STATES_BEFORE, times=None)
    assert world.run(begin_release(world, node_id)).state == "failed"
    node = world.node(node_id)
    assert node.state is NodeState.QUARANTINED
    assert node.bmc_password_next is not None
    assert_not_locked_out(world, node_id)
    world.faults.clear()
    assert readmit(world, node_id) == "succeeded"
    scrubbed(world, node_id)


#: How often a release reads the power before it changes the password.
STATES_BEFORE = 2


def test_a_bmc_that_keeps_its_password_quarantines_and_is_not_lost(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id = soiled_node(world)
    world.room.bmcs.lie("n1", Lie.KEEPS_PASSWORD)
    ended = world.run(begin_release(world, node_id))
    assert ended.error is not None
    assert ended.error["code"] == "password-not-kept"
    assert world.room.bmcs.accepts(BMC, FIRST)
    assert_not_locked_out(world, node_id)
    world.room.bmcs.lie("n1")
    assert readmit(world, node_id) == "succeeded"
    scrubbed(world, node_id)


def test_a_password_that_is_refused_is_not_tried_a_second_time(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id = soiled_node(world)
    world.faults.add("set_password", FaultKind.REFUSED)
    assert world.run(begin_release(world, node_id)).state == "failed"
    node = world.node(node_id)
    assert (node.bmc_password, node.bmc_password_next) == (FIRST, None)


@pytest.mark.parametrize(("address", "same"), [(BMC, BMC), ("https://b", "https://b:443/"), ("https://b", "http://b")])
def test_a_bmc_of_two_nodes_keeps_its_password(new_world: Callable[[], World], address: str, same: str) -> None:
    world = new_world()
    node_id = soiled_node(world)
    world.can_scrub = ()
    if address != BMC:
        machine = SimMachine(name="n9", can_scrub=tuple(Scrub), drives=("disk0",))
        world.room.bmcs.add(address, machine, username="admin", password=FIRST)
    other, enrolling = world.rack("n2", "p2")
    with world.store.transaction() as tx:
        tx.operations.change(enrolling, state=OperationState.SUCCEEDED, finished_at=world.clock.now())
        tx.nodes.change(node_id, bmc_address=address, bmc_system="n1" if address == BMC else "n9")
        tx.nodes.change(other, bmc_address=plain_address(same))
    ended = world.run(begin_release(world, node_id))
    assert ended.error is not None
    assert (ended.error["code"], "n2" in str(ended.error["message"])) == ("shared-bmc", True)
    assert world.room.bmcs.accepts(address, FIRST)


# No way round.


def test_who_cancels_a_provision_after_its_machine_ran_leaves_it_scrubbed(new_world: Callable[[], World]) -> None:
    world = new_world()
    world.can_scrub = tuple(Scrub)
    world.workflows = workflows(up_deadline_s=16.0, scrubs=EVERYTHING)
    node_id = world.free_node()
    operation_id = world.provision(node_id)
    cancelling = CancelAt("await-up", operation_id, world)
    assert world.run(operation_id, cancelling).state == "cancelled"
    node = world.node(node_id)
    assert (node.state, node.project_id) == (NodeState.RELEASING, world.project_id)
    world.room.bmcs.soil("n1")
    with world.store.reading() as tx:
        (following,) = tx.operations.list(kind="release")
        kinds = [event.kind for event in tx.events.list(Page(limit=100), node_id=node_id)]
    assert kinds[-1] == "node.releasing"
    assert "node.freed" not in kinds
    assert world.run(following.id).state == "succeeded"
    scrubbed(world, node_id)


def test_who_cancels_a_provision_before_its_machine_ran_waits_for_nothing(new_world: Callable[[], World]) -> None:
    world = new_world()
    world.can_scrub = tuple(Scrub)
    world.workflows = workflows(up_deadline_s=16.0, scrubs=EVERYTHING)
    node_id = world.free_node()
    operation_id = world.provision(node_id)
    assert world.run(operation_id, CancelAt("arm-boot", operation_id, world)).state == "cancelled"
    assert world.node(node_id).state is NodeState.FREE


def test_a_retired_node_is_scrubbed_before_it_is_free_again(new_world: Callable[[], World]) -> None:
    world = new_world()
    node_id = soiled_node(world)
    with world.store.transaction() as tx:
        tx.nodes.change(node_id, state=NodeState.QUARANTINED)
    with world.store.transaction() as tx:
        retiring = release.request_retire(tx, world.clock.now(), node=tx.nodes.get(node_id), actor_id=None)
    assert world.run(retiring.id).state == "succeeded"
    with pytest.raises(Conflict, match="not scrubbed"), world.store.transaction() as tx:
        tx.nodes.change(node_id, state=NodeState.FREE)
    with world.store.transaction() as tx:
        tx.nodes.change(node_id, state=NodeState.INSPECTED)
    with world.store.transaction() as tx:
        node = tx.nodes.get(node_id)
        proving = enrol.request(tx, world.clock.now(), node=node, actor_id=None, scrubs=EVERYTHING)
    assert world.run(proving.id).state == "succeeded"
    scrubbed(world, node_id)


class CancelAt(CrashAt):
    """Cancels an operation when it begins a step."""

    def __init__(self, step: str, operation_id: OperationId, world: World) -> None:
        super().__init__(count=-1)
        self.step, self.operation_id, self.world = step, operation_id, world

    def at(self, point: str, operation: Operation) -> None:
        if (operation.step, point) == (self.step, "begun"):
            with self.world.store.transaction() as tx:
                found = tx.operations.get(self.operation_id)
                if not found.is_cancel_requested:
                    cancel(tx, self.world.clock.now(), found)


def test_new_passwords_are_what_most_bmcs_take() -> None:
    made = [bmc_password().reveal() for _ in range(200)]
    assert len(set(made)) == 200
    for each in made:
        assert re.fullmatch(r"[A-Za-z0-9]{16}", each)
        assert all(re.search(kind, each) for kind in ("[a-z]", "[A-Z]", "[0-9]"))
