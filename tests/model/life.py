"""One life of a site: what may happen in it, what a simple model makes of it, and what must hold at every moment."""

import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.model.site import CABLES, POOL, TENANTS, Key, Look, Site
from tests.sweep.world import SWITCH

from malleable.domain.access import Verb
from malleable.domain.errors import Conflict, Exhausted, Forbidden, NotFound, TooMany
from malleable.domain.ids import OperationId
from malleable.domain.networks import AttachmentState, Channel, NetworkState
from malleable.domain.nodes import NodeState
from malleable.domain.operations import Operation, OperationState
from malleable.services.access import AccessWish
from malleable.sim.faults import FaultKind
from malleable.sim.switches import Misbehaviour
from malleable.store import SqlStore
from malleable.workflows.networks import VLAN_REST_S

MakeStore = Callable[[], tuple[SqlStore, Path]]
#: What decides at random: Hypothesis itself prefers what it chose before, and lives become dull.
Dice = random.Random

NODES, NETWORKS = sorted(CABLES), ("red", "green", "blue")
NICS = [(node, f"nic{n}") for node, ports in CABLES.items() for n in range(len(ports))]
#: Methods of BMCs, switches and target daemons.
METHODS = ("apply", "apply", "read", "read", "set", "state", "reset_boot", "export", "revoke", "sessions")
FAULTS = [kind for kind in FaultKind if kind is not FaultKind.SLOW]
#: A switch that lies about its data path is beyond what reading back can find; packets are not.
HONEST = (Misbehaviour.DROPS, Misbehaviour.LATE, Misbehaviour.HALF, Misbehaviour.DEAD)
JUMPS_S = (-90_000, -30, 3, 100, 2_000, 90_000)
#: Longer than all jumps back together.
AGES_S = 1e7
#: What happens, and how often.
HAPPENINGS = {
    "make_network": 2,
    "remove_network": 2,
    "provision": 4,
    "attach": 6,
    "detach": 4,
    "release": 4,
    "change_node": 2,
    "let": 2,
    "readmit": 2,
    "cancel": 2,
    "break_a_call": 8,
    "break_the_switch": 2,
    "silence_a_bmc": 2,
    "turn_the_gateway": 1,
    "let_the_clock_jump": 1,
    "work": 8,
    "work_disturbed": 6,
    "work_long": 5,
    "scan": 2,
    "heal": 3,
}


class Life(RuleBasedStateMachine):
    """What tenants were promised, and what they get."""

    def __init__(self, make_store: MakeStore, met: Counter[str]) -> None:
        super().__init__()
        store, spool = make_store()
        self.site, self.met = Site(store=store, spool=spool, met=met), met
        self.owner: dict[str, str] = {}  #: network to tenant
        self.holder: dict[str, str] = {}  #: node to tenant
        self.on: dict[Key, Channel] = {}
        self.doubted: set[str] = set()  #: nodes of which something could not be proven
        self.asked: dict[OperationId, Callable[[Operation], None]] = {}  #: what an operation's end means
        self.left_at: dict[int, float] = {}  #: VLAN to when its last network was gone
        self.happened = 0

    @initialize()
    def begin(self) -> None:
        """Life begins with three networks and a running machine."""
        for name, who in zip(NETWORKS, ("alice", "alice", "bob"), strict=True):
            self.site.make_network(who, name)
            self.owner[name] = who
        operation = self.site.provision("alice", "n2", "red")
        self.holder["n2"], self.on["n2", "nic0", "red"] = "alice", Channel.NATIVE
        self.site.rest()
        assert self.site.operation(operation.id).state is OperationState.SUCCEEDED

    @rule(seed=st.integers(0, 2**32))
    def something_happens(self, seed: int) -> None:
        self.happened += 1
        dice = Dice(f"{seed} {self.happened}")
        (name,) = dice.choices(list(HAPPENINGS), weights=list(HAPPENINGS.values()))
        happen: Callable[[Dice], None] = getattr(self, name)
        happen(dice)

    def teardown(self) -> None:
        try:
            self.everything_can_be_taken_down()
        finally:
            self.met.update(f"{o.kind} {o.state}" for o in self.site.operations())
            self.met.update({f"fault {kind}": times for kind, times in self.site.world.faults.struck.items()})
            self.site.store.close()

    # -- what tenants ask --------------------------------------------------------------------------------------------

    def make_network(self, dice: Dice) -> None:
        who, name = dice.choice(TENANTS), dice.choice(NETWORKS)
        if name in self.owner:
            return
        vids = self._vids()
        try:
            network = self.site.make_network(who, name)
        except Exhausted:
            assert len(vids) + len(self.left_at) >= len(POOL)
            return
        assert network.vid not in vids.values(), "two networks on one VLAN"
        rested_s = self.site.world.clock.now().timestamp() - self.left_at.pop(network.vid, float("-inf"))
        assert rested_s >= VLAN_REST_S, "a VLAN had no rest"
        self.owner[name] = who

    def remove_network(self, dice: Dice) -> None:
        name = dice.choice(NETWORKS)
        who = self._who(self.owner.get(name), dice)
        is_used, vid = any(key[2] == name for key in self.on), self._vids().get(name, 0)
        operation = self._ask(
            lambda: self.site.services.networks.network_delete(self.site.callers[who], name),
            is_right=self.owner.get(name) == who,
            is_sure=not is_used,
        )
        if operation is not None:
            assert not is_used
            self.asked[operation.id] = lambda ended: self._network_gone(name, vid, ended)

    def provision(self, dice: Dice) -> None:
        node, network = dice.choice(NODES), dice.choice(NETWORKS)
        who = self._who(self.owner.get(network), dice)
        operation = self._ask(
            lambda: self.site.provision(who, node, network),
            is_right=self.owner.get(network) == who and self.holder.get(node, who) == who,
            is_sure=node not in self.holder,
        )
        if operation is not None:
            if operation.kind == "provision":
                self.holder[node], self.on[node, "nic0", network] = who, Channel.NATIVE
            self.asked[operation.id] = lambda ended: self._provisioned(node, ended)

    def attach(self, dice: Dice) -> None:
        nic, channel = dice.choice(NICS), dice.choice(list(Channel))
        holder = self.holder.get(nic[0])
        who, key = self._who(holder, dice), (*nic, self._network_for(holder, dice))
        fits = key not in self.on and not (channel is Channel.NATIVE and self._has_native(nic))
        operation = self._ask(
            lambda: self.site.attach(who, *key, channel),
            is_right=self.owner.get(key[2]) == who == holder,
            is_sure=fits,
        )
        if operation is not None:
            assert fits or nic[0] in self.doubted
            self.on[key] = channel
            self.asked[operation.id] = lambda ended: self._attached(key, ended)

    def detach(self, dice: Dice) -> None:
        if not self.on:
            return
        key = dice.choice(sorted(self.on))
        who = self._who(self.holder.get(key[0]), dice)
        is_right = self.owner.get(key[2]) == who == self.holder.get(key[0])
        operation = self._ask(lambda: self.site.detach(who, *key), is_right=is_right)
        if operation is not None:
            self.asked[operation.id] = lambda ended: self._detached(key, ended)

    def release(self, dice: Dice) -> None:
        node = dice.choice(NODES)
        who = self._who(self.holder.get(node), dice)
        operation = self._ask(
            lambda: self.site.services.nodes.node_release(self.site.callers[who], node),
            is_right=self.holder.get(node) == who,
            is_sure=True,
        )
        if operation is not None:
            self.asked[operation.id] = lambda ended: self._released(node, ended)

    def change_node(self, dice: Dice) -> None:
        node, verb = dice.choice(NODES), dice.choice(["stop", "cycle", "off"])
        who, nodes = self._who(self.holder.get(node), dice), self.site.services.nodes
        caller = self.site.callers[who]
        operation = self._ask(
            lambda: nodes.node_stop(caller, node) if verb == "stop" else nodes.node_power(caller, node, verb),
            is_right=self.holder.get(node) == who,
        )
        if operation is not None:
            self.asked[operation.id] = lambda ended: self._note_doubt(node)

    def let(self, dice: Dice) -> None:
        """Make a token for a node, whatever is being done to it."""
        node = dice.choice(NODES)
        who, wish = self._who(self.holder.get(node), dice), AccessWish(name="t", verbs=tuple(Verb), ttl_s=60)
        with suppress(Conflict, NotFound):
            self.site.services.accesses.access_allow(self.site.callers[who], node, wish)
            assert self.site.look().nodes[node].project_id == self.site.project_id(who)

    def readmit(self, dice: Dice) -> None:
        """Let an operator see to a node in quarantine."""
        node = dice.choice(NODES)
        operation = self._ask(lambda: self.site.services.nodes.node_readmit(self.site.operator, node), is_right=True)
        if operation is not None:
            assert node in self.doubted
            self.asked[operation.id] = lambda ended: self._released(node, ended)

    def cancel(self, dice: Dice) -> None:
        if self.asked:
            id = dice.choice(list(self.asked))
            self._ask(lambda: self.site.services.operations.operation_cancel(self.site.operator, id), is_right=True)

    def ask_for_something(self, dice: Dice) -> None:
        """Let a tenant ask for what moves ports, that trouble meets something."""
        ask: Callable[[Dice], None] = getattr(self, dice.choice(["provision", "attach", "attach", "detach", "release"]))
        ask(dice)

    # -- what goes wrong ---------------------------------------------------------------------------------------------

    def break_a_call(self, dice: Dice) -> None:
        times = dice.choice([1, 2, None])
        self.site.world.faults.add(dice.choice(METHODS), dice.choice(FAULTS), skip=dice.randrange(3), times=times)
        self.ask_for_something(dice)

    def break_the_switch(self, dice: Dice) -> None:
        how = dice.choice(HONEST)
        self.site.world.switches.misbehave(SWITCH, how, late_s=dice.choice([0.4, 30.0]))
        self.met[f"switch {how}"] += 1

    def silence_a_bmc(self, dice: Dice) -> None:
        self.site.world.room.bmcs.silence(f"sim://{dice.choice(NODES)}")

    def turn_the_gateway(self, dice: Dice) -> None:
        self.site.world.is_gateway_up = dice.choice([True, False])

    def let_the_clock_jump(self, dice: Dice) -> None:
        jump_s = dice.choice(JUMPS_S)
        self.site.world.clock.jump(jump_s)
        self.met["clock back" if jump_s < 0 else "clock forth"] += 1

    # -- time --------------------------------------------------------------------------------------------------------

    def work(self, dice: Dice) -> None:
        self.site.world.clock.advance(dice.choice([0.5, 3.0, 30.0]))
        self.site.work()

    def work_disturbed(self, dice: Dice) -> None:
        """Let a worker die at any boundary, or let another one take over from it, while there is work."""
        self.ask_for_something(dice)
        self.site.world.clock.advance(0.5)
        self.site.work(until=dice.randrange(12), crashes=dice.choice([True, False]))

    def work_long(self, dice: Dice) -> None:
        """Wait until patience ends: what does not work by now is given up."""
        self.site.world.work_for(dice.choice([200, 900]))

    def scan(self, dice: Dice) -> None:
        """Let the watch look at the switch in whatever state all is."""
        self.site.scan()

    def heal(self, dice: Dice | None = None) -> None:
        """Let everything work again, and whatever was begun come to its end."""
        world = self.site.world
        world.faults.clear()
        world.switches.misbehave(SWITCH, None)
        world.is_gateway_up = True
        for node in CABLES:
            world.room.bmcs.silence(f"sim://{node}", silent=False)
        self.site.rest()
        self.site.scan()
        self.site.rest()
        self._hear()
        look = self.site.look()
        for name, found in look.nodes.items():
            is_settled = all(look.ports[port].state == "settled" for port in CABLES[name])
            assert is_settled or found.state is not NodeState.ALLOCATED, f"{found} is held and stays in doubt"

    # -- what must hold ----------------------------------------------------------------------------------------------

    @invariant()
    def nobody_meets_anybody(self) -> None:
        self._hear()
        look = self.site.look()
        assert len({network.vid for network in look.networks.values()}) == len(look.networks)
        for node, ports in CABLES.items():
            allowed = {n.vid for n in look.networks.values() if n.project_id == look.nodes[node].project_id}
            for port in ports:
                vids = look.vids(port)
                assert vids <= allowed, f"{port} of {node} carries {vids}, its holder has {allowed}"
        for node in look.let:
            assert look.nodes[node].state is NodeState.ALLOCATED, f"{node} is not held, and a token is good for it"
        for node in look.free():
            assert look.nodes[node].project_id is None
            assert node not in look.tied | look.on, f"{node} is free, and on or tied to a disk"
            assert not look.attached_to(node)
            for port in CABLES[node]:
                assert not look.vids(port)
                assert (look.ports[port].state, look.ports[port].is_shut) == ("settled", True)
        for node in set(CABLES) - look.busy:
            self._agree(look, node)

    def _agree(self, look: Look, name: str) -> None:
        """Compare a node with the model while no operation works on it."""
        node = look.nodes[name]
        if name in self.doubted and node.state is NodeState.ALLOCATED and not node.state_reason:
            self._clear_up(look, name)
        if name in self.doubted:
            assert node.state_reason, f"{node} does not say what is not proven"
            return
        assert node.state is (NodeState.ALLOCATED if name in self.holder else NodeState.FREE), node
        assert node.project_id == (self.site.project_id(self.holder[name]) if name in self.holder else None)
        promised = {key: (on, AttachmentState.ATTACHED) for key, on in self.on.items() if key[0] == name}
        assert look.attached_to(name) == promised
        for number, port in enumerate(CABLES[name]):
            on = {look.networks[key[2]].vid: a[0] for key, a in promised.items() if key[1] == f"nic{number}"}
            native = next((vid for vid, channel in on.items() if channel is Channel.NATIVE), None)
            assert look.carried[port] == (native, frozenset(on) - {native})
            assert look.ports[port].state == "settled"

    def _clear_up(self, look: Look, name: str) -> None:
        """Take in that the watch has ended a doubt: what was being taken off is off, and nothing else changed."""
        self.doubted.discard(name)
        left = look.attached_to(name)
        mine = {key for key in self.on if key[0] == name}
        assert left.keys() <= mine
        for key in mine - left.keys():
            del self.on[key]

    def everything_can_be_taken_down(self) -> None:
        """There is a way back from everywhere: all nodes become free, all networks go, all VLANs can be had again."""
        self.heal()
        for node, found in self.site.look().nodes.items():
            if found.state is NodeState.QUARANTINED:
                self.site.services.nodes.node_readmit(self.site.operator, node)
            elif found.state is not NodeState.FREE:
                self.site.services.nodes.node_release(self.site.operator, node)
        self.site.rest()
        look = self.site.look()
        assert look.free() == set(CABLES), look.nodes
        for name, network in look.networks.items():
            if network.state is NetworkState.ACTIVE:
                self.site.services.networks.network_delete(self.site.callers[self.owner[name]], name)
        self.site.rest()
        assert self.site.look().networks == {}
        self.site.world.clock.advance(AGES_S)
        assert [self.site.make_network("alice", f"last-{vid}").vid for vid in POOL] == list(POOL)

    # -- the model ---------------------------------------------------------------------------------------------------

    def _ask(self, ask: Callable[[], Operation | None], *, is_right: bool, is_sure: bool = False) -> Operation | None:
        """Ask a service: it may only do what is right, and must do what nothing stands in the way of."""
        self._hear()
        must = is_right and is_sure and not self.doubted and not self.asked
        operation = None
        with suppress(*(() if must else (Conflict, NotFound, Forbidden, TooMany))):
            operation = ask()
        assert is_right or operation is None, "somebody got what is another's"
        return operation

    def _hear(self) -> None:
        """Take in which operations have ended, in the order they did."""
        ended = [o for o in (self.site.operation(id) for id in list(self.asked)) if not o.is_active]
        for operation in sorted(ended, key=lambda o: (str(o.finished_at), o.id)):
            self.asked.pop(operation.id)(operation)

    def _provisioned(self, node: str, ended: Operation) -> None:
        if ended.kind == "provision" and self.site.look().nodes[node].project_id is None:
            self._give_up(node)
        self._note_doubt(node)

    def _attached(self, key: Key, ended: Operation) -> None:
        if key not in self.site.look().attached:
            self.on.pop(key, None)
        elif ended.state is not OperationState.SUCCEEDED:
            self.doubted.add(key[0])

    def _detached(self, key: Key, ended: Operation) -> None:
        if ended.state is OperationState.SUCCEEDED:
            self.on.pop(key, None)
        else:
            self.doubted.add(key[0])

    def _released(self, node: str, ended: Operation) -> None:
        if ended.state is OperationState.SUCCEEDED:
            self._give_up(node)
            self.doubted.discard(node)
        self._note_doubt(node)

    def _give_up(self, node: str) -> None:
        self.holder.pop(node, None)
        self.on = {key: channel for key, channel in self.on.items() if key[0] != node}

    def _note_doubt(self, node: str) -> None:
        if self.site.look().nodes[node].state is NodeState.QUARANTINED:
            self.doubted.add(node)

    def _network_gone(self, name: str, vid: int, ended: Operation) -> None:
        assert ended.finished_at is not None
        del self.owner[name]
        self.left_at[vid] = ended.finished_at.timestamp()

    def _who(self, right: str | None, dice: Dice) -> str:
        """Mostly who has the right asks, now and then somebody else."""
        return dice.choice(TENANTS) if right is None or dice.random() < 0.15 else right

    def _network_for(self, who: str | None, dice: Dice) -> str:
        mine = [name for name, owner in self.owner.items() if owner == who]
        return dice.choice(mine) if mine and dice.random() < 0.9 else dice.choice(NETWORKS)

    def _vids(self) -> dict[str, int]:
        return {name: network.vid for name, network in self.site.look().networks.items()}

    def _has_native(self, nic: tuple[str, str]) -> bool:
        return any(key[:2] == nic and channel is Channel.NATIVE for key, channel in self.on.items())
