"""The swept workflows of networks and their grants."""

from tests.sweep.verb import Verb
from tests.sweep.world import SWITCH, World

from malleable.domain.ids import GrantId, NodeId, OperationId, ProjectId, new_id
from malleable.domain.networks import Grant, GrantState
from malleable.domain.nodes import NodeState, PowerState
from malleable.domain.projects import Project
from malleable.workflows import grants


def revoke_grant(world: World) -> tuple[NodeId, OperationId]:
    """The network a node boots in was another project's all along, who now takes it back by force."""
    node_id, _ = world.running_node()
    grant = shared(world, GrantState.ACCEPTED)
    with world.store.transaction() as tx:
        network, now = tx.networks.get(world.network_id), world.clock.now()
        assert network.project_id is not None
        operation = grants.request_revoke(
            tx, now, grant=grant, network=network, for_project_id=network.project_id, is_forced=True, actor_id=None
        )
    return node_id, operation.id


def shared(world: World, state: GrantState) -> Grant:
    """Have the network be another project's, that shares it by a grant in such a state."""
    owner = Project(id=ProjectId(new_id()), name="owner", created_at=world.clock.now())
    grant = Grant(
        id=GrantId(new_id()),
        network_id=world.network_id,
        project_id=world.project_id,
        state=state,
        created_at=world.clock.now(),
    )
    with world.store.transaction() as tx:
        tx.projects.add(owner)
        tx.networks.change(world.network_id, project_id=owner.id)
        tx.grants.add(grant)
    return grant


def _grant_revoked(world: World, node_id: NodeId) -> None:
    node = world.node(node_id)
    assert (node.state, node.project_id) == (NodeState.ALLOCATED, world.project_id), "it stays its holder's"
    assert world.room.bmcs.view("n1").power is PowerState.OFF
    assert world.targets.list(world.network_id) == frozenset()
    carried = world.switches.carried(SWITCH, "p1")
    assert carried is not None
    assert carried.is_shut
    with world.store.reading() as tx:
        assert (tx.grants.count(), tx.attachments.count()) == (0, 0)


NETWORK_VERBS = (Verb(name="revoke-grant", begin=revoke_grant, check=_grant_revoked, steps=1, has_devices=False),)
