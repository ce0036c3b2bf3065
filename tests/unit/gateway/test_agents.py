"""What a gateway tells the agents in its nodes' systems, what it believes of them, and how they wait."""

import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path

import pytest
from tests.unit.gateway.clock import HandClock
from tests.unit.gateway.told import boot, host, network

from malleable.domain.freezes import (
    ASKS_WITHIN_S,
    PROVEN_S,
    WORDS_MAX_CHARS,
    agent_proof,
    parse_words,
)
from malleable.domain.ids import BootId, NetworkId, OperationId, new_id
from malleable.domain.secrets import Secret
from malleable.gateway.agent_routes import AgentRoutes
from malleable.gateway.http_message import Request, Response, refusal, text
from malleable.gateway.http_server import HttpServer
from malleable.gateway.kept_signs import KeptSigns
from malleable.gateway.plan import FreezePlan, parse_network
from malleable.gateway.settings import GatewaySettings
from malleable.gateway.signs import Signs
from malleable.gateway.waiting import EXPIRY_S, Waiting

NETWORK = NetworkId(new_id())
#: Of the agent: how long it waits for an answer, and how long it pauses after none.
QUESTION_S, PAUSE_MAX_S = 120.0, 19.0


class Node:
    """A node's agent, and the gateway it talks to."""

    def __init__(self, directory: Path) -> None:
        self.signs = Signs(KeptSigns(directory / "signs"))
        self.clock = HandClock()
        self.routes = AgentRoutes(self.signs, self.clock)
        mac, address = "52:54:00:aa:00:01", "10.0.0.10"
        told = network(vid=101, hosts=[host(mac, address)], boots=[boot(mac, address)])
        self.plan = parse_network(told)
        (self.boot,) = self.plan.boots
        self.routes.serve([self.plan])

    def wanted(self, freeze: FreezePlan | None) -> None:
        self.routes.serve([replace(self.plan, boots=(replace(self.boot, freeze=freeze),))])

    def proof(self, *words: str) -> str:
        return agent_proof(self.boot.chap_password, *words)

    def ask(self, done: str = "none", *, method: str = "GET", proof: str | None = None) -> Response:
        headers = {"x-malleable-agent": self.proof("ask") if proof is None else proof}
        query = {"done": done}
        request = Request(method=method, path="/metadata/agent", source="10.0.0.10", query=query, headers=headers)
        return self.routes.answer(self.boot, request)

    def report(self, state: str, freeze: object, words: bytes = b"", *, proof: str | None = None) -> HTTPStatus:
        headers = {"x-malleable-agent": self.proof(state, str(freeze)) if proof is None else proof}
        query = {"state": state, "freeze": str(freeze)}
        request = Request(method="POST", path="/metadata/agent", source="", query=query, headers=headers, body=words)
        return self.routes.answer(self.boot, request).status

    def heard(self) -> list[tuple[str, OperationId | None, str]]:
        return [(sign.stage.value, sign.freeze_id, sign.log) for sign in self.signs.batch()]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def freeze(*, is_held: bool = True) -> FreezePlan:
    return FreezePlan(id=OperationId(new_id()), serial="DISK0001", is_held=is_held)


def test_an_agent_waits_until_there_is_something_to_do(node: Node) -> None:
    waits = node.ask()
    assert waits.later is not None
    assert waits.later() is None
    asked = freeze()
    node.wanted(asked)
    proof = node.proof("freeze", str(asked.id), "DISK0001")
    assert waits.later() == text(f"freeze {asked.id} {proof} DISK0001\n")
    held = node.ask(f"freeze-{asked.id}")
    assert held.later is not None
    assert held.later() is None
    node.wanted(replace(asked, is_held=False))
    told = text(f"thaw {asked.id} {node.proof('thaw', str(asked.id))}\n")
    assert held.later() == told
    assert node.ask(f"freeze-{asked.id}") == told
    node.wanted(None)
    assert node.ask(f"thaw-{asked.id}") == text("none\n")
    assert node.heard() == [("agent_seen", None, "")]


@pytest.mark.parametrize("proof", ["", "nonsense", "\xff", agent_proof(Secret("another"), "ask")])
def test_nobody_but_the_systems_root_is_told_or_heard(node: Node, proof: str) -> None:
    assert node.ask(proof=proof).status == HTTPStatus.FORBIDDEN
    assert node.ask(proof=proof, method="POST").status == HTTPStatus.FORBIDDEN
    assert node.heard() == []


def test_what_was_heard_on_the_network_lets_nobody_say_anything_else(node: Node) -> None:
    asked, before = freeze(), str(new_id())
    node.wanted(asked)
    this = str(asked.id)
    heard = [("ask",), ("frozen", before), ("freeze", this, "DISK0001"), ("thaw", this), ("unfrozen", this)]
    for words in heard:
        for state in ("frozen", "thawed"):
            assert node.report(state, this, proof=node.proof(*words)) == HTTPStatus.FORBIDDEN, words
    for words in heard[1:]:
        assert node.ask(proof=node.proof(*words)).status == HTTPStatus.FORBIDDEN, words
    assert node.report(f"freeze:{this}", "DISK0001", proof=node.proof(*heard[2])) == HTTPStatus.BAD_REQUEST
    assert node.heard() == []


def test_what_is_reported_passes_once_and_only_of_what_is_asked(node: Node) -> None:
    asked = freeze()
    assert node.report("frozen", asked.id) == HTTPStatus.CONFLICT
    node.wanted(asked)
    assert node.report("frozen", new_id()) == HTTPStatus.CONFLICT
    assert node.report("finished", asked.id) == HTTPStatus.BAD_REQUEST
    assert node.report("frozen", asked.id) == HTTPStatus.OK
    for _ in range(50):
        assert node.report("unfrozen", asked.id, b"\x1b[2Jno\n room\xff") == HTTPStatus.OK
    assert node.heard() == [("frozen", asked.id, ""), ("unfrozen", asked.id, "[2Jno  room")]
    node.wanted(replace(asked, is_held=False))
    assert node.report("frozen", asked.id) == HTTPStatus.CONFLICT, "nobody waits for it any more"
    assert node.report("thawed", asked.id) == HTTPStatus.OK


def reported(node: Node, *steps: str | float) -> list[str]:
    """Ask for a freeze; let an agent report, seconds pass or the control plane be done ("end"); list what is told."""
    asked = freeze()
    node.wanted(asked)
    for step in steps:
        if isinstance(step, float):
            node.clock.wind(step)
        elif step == "end":
            node.wanted(replace(asked, is_held=False))
        else:
            node.report(step, asked.id)
    return [stage for stage, _, _ in node.heard()]


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        (["frozen", PROVEN_S, "end", 60.0, "thawed"], ["frozen", "thawed"]),
        (["frozen", PROVEN_S + 0.1, "end", "thawed"], ["frozen", "unfrozen"]),
        (["frozen", 1.0, "thawed", "end"], ["frozen", "unfrozen"]),
        (["frozen", 1.0, "frozen", "end", "thawed"], ["frozen", "unfrozen", "thawed"]),
        (["frozen", 1.0, "end", "frozen", "thawed"], ["frozen", "unfrozen", "thawed"]),
        (["end", "thawed"], ["unfrozen"]),
    ],
)
def test_an_agent_held_only_if_it_froze_once_and_was_to_end_it_before_it_would_by_itself(
    node: Node, steps: list[str | float], told: list[str]
) -> None:
    assert reported(node, *steps) == told


def is_unheard(node: Node) -> bool:
    asked = freeze()
    node.wanted(asked)
    node.wanted(replace(asked, is_held=False))
    return ("unheard", asked.id, "") in node.heard()


def test_a_freeze_of_which_no_agent_would_hear_is_said_to_be_so(node: Node) -> None:
    node.clock.wind(ASKS_WITHIN_S - 1.0)
    assert not is_unheard(node), "agents may not have come to this gateway yet"
    node.clock.wind(1.0)
    assert is_unheard(node)
    node.ask()
    node.clock.wind(ASKS_WITHIN_S - 1.0)
    assert not is_unheard(node)
    node.clock.wind(1.0)
    assert is_unheard(node)
    again = replace(node.boot, token=Secret("of its next start"), freeze=freeze())
    node.routes.serve([replace(node.plan, boots=(again,))])
    assert [sign.token for sign in node.signs.batch() if sign.token == again.token] == []


@pytest.mark.parametrize("has_asked", [False, True])
def test_agents_have_time_to_come_to_a_network_that_is_served_late_or_again(node: Node, *, has_asked: bool) -> None:
    if has_asked:
        node.ask()
    node.routes.serve([])
    node.clock.wind(10 * ASKS_WITHIN_S)
    node.routes.serve([node.plan])
    node.clock.wind(QUESTION_S + PAUSE_MAX_S)
    assert not is_unheard(node), "it sat on the question that it asked before"
    node.clock.wind(ASKS_WITHIN_S)
    assert is_unheard(node)


def test_that_nobody_hears_is_its_gateways_to_say(node: Node) -> None:
    asked = freeze()
    node.wanted(asked)
    assert node.report("unheard", asked.id) == HTTPStatus.BAD_REQUEST


def test_what_a_system_asked_that_runs_no_more_is_answered(node: Node) -> None:
    waits = node.ask()
    assert waits.later is not None
    node.routes.serve([replace(node.plan, boots=(replace(node.boot, token=Secret("of its next start")),))])
    assert waits.later() == refusal(HTTPStatus.NOT_FOUND)


def test_what_was_reported_of_a_freeze_that_is_over_is_forgotten(node: Node) -> None:
    asked = freeze()
    node.wanted(asked)
    node.report("frozen", asked.id)
    armings = {(BootId(node.boot.id), node.boot.token)}
    node.signs.keep_only(armings, [asked.id])
    assert [stage for stage, _, _ in node.heard()] == ["frozen"]
    node.signs.keep_only(armings)
    assert node.heard() == []


def test_words_are_plain_and_few() -> None:
    assert parse_words(b"a" * 1000) == "a" * WORDS_MAX_CHARS
    assert parse_words(b"\x00\x1b]0;x\x07 /srv\r\n") == "]0;x  /srv"


def waiting_for(most: int, per_network: int = 100, *, clock: HandClock | None = None) -> Waiting:
    monotonic_s = (clock or HandClock()).monotonic_s
    return Waiting(most, per_network, monotonic_s=monotonic_s)


class Desk:
    """A server whose answers are not there until ``said`` is."""

    def __init__(self) -> None:
        self.said: str | None = None
        self.has_asked = threading.Event()
        self.server = HttpServer(GatewaySettings(http_workers_per_source=100, http_waiting=1), self.answer)
        wire = socket.create_server(("127.0.0.1", 0))
        self.port = wire.getsockname()[1]
        self.server.add(NETWORK, wire)
        self.server.start()

    def answer(self, _network_id: NetworkId, _request: Request) -> tuple[Response, None]:
        return text("nothing", later=self.look), None

    def look(self) -> Response | None:
        self.has_asked.set()
        return text(self.said) if self.said is not None else None

    def ask(self) -> socket.socket:
        wire = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        wire.sendall(b"GET / HTTP/1.0\r\n\r\n")
        # As busybox's nc does: what was asked is asked, and the answer still comes.
        wire.shutdown(socket.SHUT_WR)
        return wire

    def say(self, words: str) -> None:
        self.said = words
        self.server.look_again()


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    made.server.stop()


def heard(wire: socket.socket) -> bytes:
    got = b""
    while piece := wire.recv(4096):
        got += piece
    return got


def test_a_question_without_an_answer_waits_for_it(desk: Desk) -> None:
    with desk.ask() as wire:
        desk.say("now")
        assert heard(wire).endswith(b"\r\n\r\nnow")


def test_who_asks_again_waits_in_place_of_the_question_before() -> None:
    waiting, pairs, answers = waiting_for(1), [socket.socketpair() for _ in range(2)], list[Response]()
    for _, wire in pairs:
        waiting.add(
            (NETWORK, "10.0.0.1"), wire, text("", later=lambda: answers[0] if answers else None), is_open=lambda: True
        )
    assert heard(pairs[0][0]) == b""
    assert waiting.ready() == []
    answers.append(text("now"))
    assert waiting.ready() == [(pairs[1][1], text("now"))]
    assert waiting.ready() == []
    for pair in pairs:
        for wire in pair:
            wire.close()


def test_where_there_is_no_room_to_wait_the_answer_of_now_is_given() -> None:
    waiting, pairs = waiting_for(1), [socket.socketpair() for _ in range(2)]
    for number, (_, wire) in enumerate(pairs):
        waiting.add((NETWORK, f"10.0.0.{number}"), wire, text("nothing", later=lambda: None), is_open=lambda: True)
    assert heard(pairs[1][0]).endswith(b"nothing")
    waiting.drop(NETWORK)
    assert heard(pairs[0][0]) == b""
    for near, _ in pairs:
        near.close()


def asks(waiting: Waiting, *sources: tuple[NetworkId, str], is_open: bool = True) -> list[socket.socket]:
    """Ask from each source, and return the near ends of those that got an answer or were closed."""
    pairs = [socket.socketpair() for _ in sources]
    for source, (_, wire) in zip(sources, pairs, strict=True):
        waiting.add(source, wire, text("nothing", later=lambda: None), is_open=lambda: is_open)
    return [near for near, _ in pairs]


def test_a_network_takes_no_more_places_than_its_share() -> None:
    waiting, other = waiting_for(3, 2), NetworkId(new_id())
    places = asks(waiting, (NETWORK, "10.0.0.1"), (NETWORK, "10.0.0.2"), (NETWORK, "10.0.0.3"), (other, "10.0.0.1"))
    assert heard(places[2]).endswith(b"nothing")
    waiting.drop(NETWORK)
    assert [heard(places[0]), heard(places[1])] == [b"", b""]
    places[3].setblocking(False)
    with pytest.raises(BlockingIOError):
        places[3].recv(1)
    waiting.drop(other)
    for place in places:
        place.close()


def test_who_is_gone_makes_room_once_nobody_waits_that_long() -> None:
    clock = HandClock()
    waiting = waiting_for(1, clock=clock)
    (gone,) = asks(waiting, (NETWORK, "10.0.0.1"))
    clock.wind(EXPIRY_S - 1.0)
    (early,) = asks(waiting, (NETWORK, "10.0.0.2"))
    assert heard(early).endswith(b"nothing")
    clock.wind(1.0)
    (next_one,) = asks(waiting, (NETWORK, "10.0.0.2"))
    assert heard(gone) == b""
    waiting.drop(NETWORK)
    assert heard(next_one) == b""
    for place in (gone, early, next_one):
        place.close()


def test_nothing_waits_in_a_network_that_was_removed_as_it_asked() -> None:
    (place,) = asks(waiting_for(1), (NETWORK, "10.0.0.1"), is_open=False)
    assert heard(place) == b""
    place.close()


class SlowDesk(Desk):
    """A desk that thinks about a question before it lets it wait."""

    def __init__(self) -> None:
        self.is_thinking, self.may_go_on = threading.Event(), threading.Event()
        super().__init__()

    def answer(self, _network_id: NetworkId, _request: Request) -> tuple[Response, None]:
        self.is_thinking.set()
        assert self.may_go_on.wait(10)
        return text("nothing", later=self.look), None


def test_no_question_waits_in_a_network_that_was_made_again_as_it_asked() -> None:
    desk = SlowDesk()
    with desk.ask() as wire:
        assert desk.is_thinking.wait(10)
        desk.server.remove(NETWORK)
        desk.server.add(NETWORK, socket.create_server(("127.0.0.1", 0)))
        desk.may_go_on.set()
        assert heard(wire) == b""
    desk.server.stop()


def test_a_question_on_its_way_to_wait_as_the_server_stops_is_closed() -> None:
    desk = SlowDesk()
    with desk.ask() as wire:
        assert desk.is_thinking.wait(10)
        stopping = threading.Thread(target=desk.server.stop)
        stopping.start()
        while desk.server.has(NETWORK):
            assert stopping.is_alive()
        desk.may_go_on.set()
        assert heard(wire) == b""
        stopping.join(10)
        assert not stopping.is_alive()


def test_a_stopped_server_leaves_no_question_open() -> None:
    desk = Desk()
    with desk.ask() as wire:
        assert desk.has_asked.wait(10)
        desk.server.stop()
        desk.say("now")
        assert heard(wire) == b""
