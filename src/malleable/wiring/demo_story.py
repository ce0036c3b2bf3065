"""The main job as a story in the simulated room: provision, isolate, write, give back, resume elsewhere, survive."""

from uuid import UUID

from malleable.client import Client
from malleable.domain.ids import DiskId, NetworkId
from malleable.domain.nodes import NodeState
from malleable.domain.secrets import Secret
from malleable.sim.faults import FaultKind
from malleable.sim.targets import LoginRefused
from malleable.wire.nodes import NodeView, ProvisionRequest
from malleable.wire.operations import OperationDetail, OperationView
from malleable.wiring.simulated import SimulatedMachine, SimulatedSite
from malleable.wiring.story import Story

WAIT_S = 120.0
NOTE = b"written by alice before she gave her machine back"


def tell(story: Story, url: str, token: Secret, site: SimulatedSite) -> None:
    """Tell the story. Errors: StoryFailed at the first check that is not so."""
    with Client(url, token) as client:
        teller = _Teller(story, client, site)
        with story.chapter("Two projects each get a machine, a private network and a disk"):
            a, b = teller.provision("alice"), teller.provision("bob")
        with story.chapter("The tenants cannot reach each other"):
            teller.check_isolation(a, b)
        with story.chapter("Alice writes, gives her machine back, and resumes her disk elsewhere"):
            teller.move_by_release(a)
        with story.chapter("A switch that does not answer keeps its node out of use"):
            teller.quarantine(b)


class _Teller:
    def __init__(self, story: Story, client: Client, site: SimulatedSite) -> None:
        self.story, self.client, self.site = story, client, site

    def wait(self, operation: OperationView) -> OperationDetail:
        ended = self.client.operation_wait(operation.id, timeout_s=WAIT_S)
        steps = {s.name: round((s.finished_at - s.started_at).total_seconds(), 2) for s in ended.steps if s.finished_at}
        longest = max(steps, key=steps.__getitem__, default="")
        self.story.say(f"{ended.kind} {ended.node or ''}: {ended.state}, longest step {longest} {steps.get(longest)} s")
        return ended

    def provision(self, project: str, disk: str | None = None, node: str | None = None) -> NodeView:
        image = None if disk else "debian-12"
        wish = ProvisionRequest(project=project, network="net", image=image, disk=disk, node=node)
        ended = self.wait(self.client.provision(wish))
        node_view = self.client.node_get(str(ended.node_id))
        self.story.check(
            f"{project}'s machine {node_view.name} is up",
            ended.state == "succeeded" and node_view.boot == "up" and node_view.name in self.site.room.running(),
            {"operation": ended.state, "reason": ended.reason, "steps": [s.name for s in ended.steps]},
        )
        return node_view

    def machine(self, node: NodeView) -> SimulatedMachine:
        return next(m for m in self.site.machines if m.name == node.name)

    def check_isolation(self, a: NodeView, b: NodeView) -> None:
        ends = [(f"sim://{m.switch}", m.port) for m in (self.machine(a), self.machine(b))]
        carried = [str(self.site.switches.carried(*end)) for end in ends]
        self.story.check("their switch ports share no VLAN", not self.site.switches.meet(*ends), carried)
        stolen = next(iter(self.client.target_list(node=b.name)))
        try:
            self.site.targets.login(
                self._network(stolen.network_id), stolen.iqn, address="10.0.0.99", chap=("guess", Secret("guess"))
            )
            said = "let in"
        except LoginRefused as e:
            said = str(e)
        self.story.check("bob's disk refuses a stranger", said != "let in", said)

    def _network(self, network_id: UUID) -> NetworkId:
        return NetworkId(network_id)

    def move_by_release(self, node: NodeView) -> None:
        disk = next(d for d in self.client.disk_list(project="alice") if d.node_id == node.id)
        self.site.disks.write(DiskId(disk.id), 4096, NOTE)
        released = self.wait(self.client.node_release(node.name))
        free = self.client.node_get(node.name)
        self.story.check(
            f"{node.name} is free, off and shut",
            released.state == "succeeded" and free.state == "free" and free.power == "off",
            {s.name: s.evidence for s in released.steps},
        )
        other = next(n for n in self.client.node_list(state=NodeState.FREE) if n.name != node.name)
        again = self.provision("alice", disk=disk.name, node=other.name)
        kept = self.site.disks.read(DiskId(disk.id), 4096, len(NOTE))
        self.story.check(f"what alice wrote is there on {again.name}", kept == NOTE, kept.decode(errors="replace"))

    def quarantine(self, node: NodeView) -> None:
        machine = self.machine(node)
        self.site.faults.add("apply", FaultKind.REFUSED, times=None, key=f"sim://{machine.switch}")
        failed = self.wait(self.client.node_release(node.name))
        self.site.faults.clear()
        held = self.client.node_get(node.name)
        self.story.check(
            f"{node.name} is quarantined, and says why",
            failed.state == "failed" and held.state == "quarantined" and bool(held.state_reason),
            held.state_reason,
        )
        self.wait(self.client.node_readmit(node.name))
        free = self.client.node_get(node.name)
        self.story.check("readmitted once the switch answers", free.state == "free", free.state)
