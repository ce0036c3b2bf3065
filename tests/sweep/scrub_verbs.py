"""The swept workflows that scrub a machine: a release, what an undone provision becomes, and a readmission."""

from tests.sweep.verb import Verb
from tests.sweep.world import World

from malleable.domain.ids import NodeId, OperationId
from malleable.domain.nodes import NodeState
from malleable.domain.operations import OperationState
from malleable.domain.scrubs import Demand, Scrub, ScrubPolicy, SiteScrubs
from malleable.domain.secrets import Secret
from malleable.workflows import enrol, release

BMC = "sim://n1"
ALL = ScrubPolicy(
    accounts=Demand.REQUIRED,
    password=Demand.REQUIRED,
    bios=Demand.REQUIRED,
    tpm=Demand.REQUIRED,
    disks=Demand.REQUIRED,
)
EVERYTHING = SiteScrubs(policy=ALL)
STEPS = ("erase-disks", "check-accounts", "rotate-password", "reset-bios", "clear-tpm")
FIRST = Secret("right")


def soiled_node(world: World) -> NodeId:
    """Hold a machine that can be scrubbed and in which its holder left something everywhere.

    How it came to that is swept elsewhere: it is written down here, once per world.
    """
    world.can_scrub = tuple(Scrub)
    node_id, enrolling = world.rack()
    with world.store.transaction() as tx:
        tx.operations.change(enrolling, state=OperationState.SUCCEEDED, finished_at=world.clock.now())
        state, holder = NodeState.ALLOCATED, world.project_id
        tx.nodes.change(node_id, state=state, project_id=holder, bmc_system="n1", can_scrub=tuple(Scrub))
    world.room.bmcs.soil("n1")
    return node_id


def begin_release(world: World, node_id: NodeId, scrubs: SiteScrubs = EVERYTHING) -> OperationId:
    with world.store.transaction() as tx:
        node = tx.nodes.get(node_id)
        return release.request(tx, world.clock.now(), node=node, actor_id=None, scrubs=scrubs).id


def _release(world: World) -> tuple[NodeId, OperationId]:
    node_id = soiled_node(world)
    return node_id, begin_release(world, node_id)


def _readmit(world: World) -> tuple[NodeId, OperationId]:
    """Prove a machine clean that was found on while it was free."""
    node_id = soiled_node(world)
    with world.store.transaction() as tx:
        tx.nodes.change(node_id, state=NodeState.QUARANTINED, project_id=None, is_unscrubbed=True)
        node = tx.nodes.get(node_id)
        return node_id, enrol.request(tx, world.clock.now(), node=node, actor_id=None, scrubs=EVERYTHING).id


def _still_unscrubbed(world: World, node_id: NodeId) -> None:
    node = world.node(node_id)
    assert (node.state, node.is_unscrubbed) == (NodeState.QUARANTINED, True)
    assert_not_locked_out(world, node_id)


def scrubbed(world: World, node_id: NodeId) -> None:
    """Nothing that was left is there for the next holder, and we are not locked out."""
    world.assert_clean(node_id)
    assert_not_locked_out(world, node_id)
    assert not world.room.bmcs.accepts(BMC, FIRST), "it has a new password"
    left = world.room.bmcs.view("n1").soiled - world.room.bmcs.pending("n1")
    assert left == set(), "what is left is cleaned by the firmware before anything boots"


def assert_not_locked_out(world: World, node_id: NodeId) -> None:
    node = world.node(node_id)
    known = [each for each in (node.bmc_password, node.bmc_password_next) if each is not None]
    assert any(world.room.bmcs.accepts(BMC, each) for each in known)


SCRUB_VERBS = (
    Verb(name="release-scrub", begin=_release, check=scrubbed, steps=11),
    Verb(
        name="readmit-scrub",
        begin=_readmit,
        check=scrubbed,
        steps=10,
        can_cancel=True,
        check_undone=_still_unscrubbed,
        has_devices=False,  # the very steps of a release, whose devices fail in every way
    ),
)
