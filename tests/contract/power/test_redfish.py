"""What RedfishPower owes beyond the suite: one request each, no leak of credentials, few sessions, odd BMCs."""

import json
import logging
import socket
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest
from tests.contract.power.conftest import ADDRESS, MACHINE, Room, credentials, wire

from malleable.domain.errors import Busy, DriverError, Malformed, Refused, Unreachable
from malleable.domain.nodes import PowerState
from malleable.domain.ports import Bmc
from malleable.domain.scrubs import Scrub
from malleable.domain.secrets import Secret
from malleable.drivers.power.redfish import RedfishPower
from malleable.sim.bmcs import Override, SimMachine
from malleable.sim.faults import FaultKind, Faults
from malleable.sim.redfish import Reply, SimRedfish
from malleable.sim.redfish_tree import Quirk, RedfishTree

ON, OFF = PowerState.ON, PowerState.OFF
NAME = MACHINE.name


@pytest.fixture
def room() -> Room:
    return Room()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def face(room: Room, stack: ExitStack) -> SimRedfish:
    return wire(stack, room, ADDRESS)


@pytest.fixture
def bmc(face: SimRedfish) -> Bmc:
    return credentials(face.url)


def count(face: SimRedfish, method: str, word: str = "") -> int:
    return sum(1 for each, path in face.requests if each == method and word in path)


# One request each.


@pytest.mark.parametrize(
    ("kind", "error"),
    [(FaultKind.LOST_REPLY, Unreachable), (FaultKind.LOST_REQUEST, Unreachable), (FaultKind.BUSY, Busy)],
)
def test_reset_is_posted_exactly_once(
    redfish: RedfishPower, room: Room, face: SimRedfish, bmc: Bmc, kind: FaultKind, error: type[DriverError]
) -> None:
    room.faults.add("set", kind, times=None)
    with pytest.raises(error):
        redfish.set(bmc, ON)
    assert count(face, "POST", "Reset") == 1


def test_reset_is_posted_once_when_the_bmc_says_it_is_not_ready(
    redfish: RedfishPower, room: Room, face: SimRedfish, bmc: Bmc
) -> None:
    """sushy repeats what an iDRAC refuses with SYS518."""
    room.faults.add("set", FaultKind.BUSY, times=None, code="SYS518")
    with pytest.raises(Busy):
        redfish.set(bmc, ON)
    assert count(face, "POST", "Reset") == 1


def test_boot_override_is_sent_once_when_its_reply_is_lost(
    redfish: RedfishPower, room: Room, face: SimRedfish, bmc: Bmc
) -> None:
    room.faults.add("boot_from_network", FaultKind.LOST_REPLY, times=None)
    with pytest.raises(Unreachable):
        redfish.boot_from_network(bmc)
    assert count(face, "PATCH") == 1
    assert room.bmcs.view(NAME).override is Override.NETWORK


def test_a_silent_bmc_is_unreachable_in_time(room: Room, stack: ExitStack) -> None:
    over = threading.Event()
    faults = Faults(delay=lambda _seconds: over.wait(10))
    face = stack.enter_context(SimRedfish(room.bmcs, ADDRESS, faults=faults))
    stack.callback(over.set)
    redfish = RedfishPower(timeout_s=0.3)
    faults.add("set", FaultKind.SLOW, delay_s=10)
    with pytest.raises(Unreachable):
        redfish.set(credentials(face.url), ON)
    assert count(face, "POST", "Reset") == 1


# Sessions.


def test_one_login_serves_many_calls(redfish: RedfishPower, face: SimRedfish, bmc: Bmc) -> None:
    for _ in range(5):
        redfish.state(bmc)
    assert count(face, "POST", "Sessions") == 1
    assert face.open_sessions == 1
    redfish.close()
    assert face.open_sessions == 0


def test_an_ended_session_is_renewed(redfish: RedfishPower, face: SimRedfish, bmc: Bmc, room: Room) -> None:
    redfish.state(bmc)
    face.forget_sessions()
    redfish.set(bmc, ON)
    room.run_later()
    face.forget_sessions()
    assert redfish.state(bmc) is ON
    assert room.bmcs.view(NAME).power_ons == 1


def test_a_session_of_the_password_before_is_replaced_and_the_call_may_be_repeated(
    redfish: RedfishPower, face: SimRedfish, bmc: Bmc, room: Room
) -> None:
    """Another worker has changed the password meanwhile, and whether that was the end of it is not known."""
    either = replace(bmc, next_password=Secret("Another1Password"))
    assert redfish.state(either) is OFF
    room.bmcs.change_password(ADDRESS, Secret("Another1Password"))
    with pytest.raises(Busy):
        redfish.state(either)
    assert redfish.state(either) is OFF
    room.bmcs.change_password(ADDRESS, Secret("somebody else's"))
    with pytest.raises(Busy):
        redfish.state(either)
    with pytest.raises(Refused):
        redfish.state(either)


def test_a_session_that_is_replaced_is_ended(redfish: RedfishPower, face: SimRedfish, bmc: Bmc, room: Room) -> None:
    redfish.state(bmc)
    room.bmcs.change_password(ADDRESS, Secret("Another1Password"))
    assert redfish.state(replace(bmc, password=Secret("Another1Password"))) is OFF
    assert face.open_sessions == 1
    assert count(face, "POST", "Sessions") == 2


class Mute(SimRedfish):
    """Answers nothing to who logs out."""

    has_ended = threading.Event()

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Reply | None:
        if method == "DELETE":
            self.has_ended.wait(60)
        return super().answer(method, target, headers, body)


def test_bmcs_that_do_not_answer_keep_none_from_being_logged_out_of(room: Room, stack: ExitStack) -> None:
    redfish = RedfishPower(timeout_s=600.0)
    faces = []
    for number in range(4):
        room.bmcs.add(f"sim://{number}", SimMachine(name=f"m{number}"), username="admin", password=Secret("good"))
        kind = SimRedfish if number == 3 else Mute
        faces.append(stack.enter_context(kind(room.bmcs, f"sim://{number}")))
        redfish.state(credentials(faces[-1].url))
    try:
        redfish.close(within_s=1.0)
        assert [face.open_sessions for face in faces] == [1, 1, 1, 0]
    finally:
        Mute.has_ended.set()


def test_wrong_password_is_tried_once_for_each_call(redfish: RedfishPower, face: SimRedfish, bmc: Bmc) -> None:
    """Every try brings the account nearer to being locked."""
    with pytest.raises(Refused):
        redfish.state(replace(bmc, password=Secret("bad")))
    assert count(face, "POST", "Sessions") == 1
    assert count(face, "GET", "Systems") == 0


def test_sessions_are_bounded_and_the_oldest_is_ended(room: Room, stack: ExitStack) -> None:
    redfish = RedfishPower(timeout_s=5, sessions=2)
    faces = []
    for number in range(3):
        address = f"sim://{number}"
        room.bmcs.add(address, SimMachine(name=f"m{number}"), username="admin", password=Secret("good"))
        faces.append(wire(stack, room, address))
        redfish.state(credentials(faces[-1].url))
    assert [face.open_sessions for face in faces] == [0, 1, 1]
    assert redfish.state(credentials(faces[0].url)) is OFF
    redfish.close()


def test_threads_share_one_session_one_call_at_a_time(redfish: RedfishPower, face: SimRedfish, bmc: Bmc) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: redfish.state(bmc), range(40))) == {OFF}
    assert count(face, "POST", "Sessions") == 1


def test_a_bmc_held_by_another_call_is_busy(bmc: Bmc) -> None:
    redfish = RedfishPower(timeout_s=0.1)
    with redfish._sessions.open(bmc), pytest.raises(Busy):
        redfish.state(bmc)
    assert redfish.state(bmc) is OFF
    redfish.close()


# Addresses and secrets.


@pytest.mark.parametrize(
    "address",
    [
        "",
        "bmc.example",
        "ftp://bmc",
        "file:///etc/passwd",
        "http://",
        "http://user:hunter2@bmc",
        "https://bmc/redfish/v1",
        "http://bmc?x=hunter2",
        "http://bmc:notaport",
        "http://[::1",
    ],
)
def test_only_plain_http_urls_are_asked(redfish: RedfishPower, address: str) -> None:
    with pytest.raises(Refused) as caught:
        redfish.state(credentials(address))
    assert caught.value.code == "bmc-address"
    assert "hunter2" not in f"{caught.value}{caught.value.details}"


def test_credentials_are_never_logged(
    redfish: RedfishPower, room: Room, face: SimRedfish, caplog: pytest.LogCaptureFixture
) -> None:
    room.bmcs.change_password(ADDRESS, Secret("hunter2"))
    bmc = replace(credentials(face.url), password=Secret("hunter2"))
    with caplog.at_level(logging.DEBUG):
        redfish.inspect(bmc)
        redfish.set(bmc, ON)
        with pytest.raises(Refused) as caught:
            redfish.state(replace(bmc, password=Secret("hunter3")))
    assert caplog.records
    assert "hunter" not in caplog.text
    assert "hunter" not in f"{caught.value!r}{caught.value}"


# BMCs that answer oddly: one answer, given to every request.


@contextmanager
def answering(status: int, body: bytes, **headers: str) -> Iterator[tuple[str, list[bytes]]]:
    """Serve one answer for ever; yields the URL and the requests."""
    server = socket.create_server(("127.0.0.1", 0))
    requests: list[bytes] = []
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    answer = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode() + body

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                requests.append(connection.recv(65536))
                connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}", requests
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()


ROOT = {"Id": "R", "Systems": {"@odata.id": "/redfish/v1/Systems"}}


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (200, b"", Malformed),
        (200, b"<html>", Malformed),
        (200, b"[]", Malformed),
        (200, b'"text"', Malformed),
        (200, b"null", Malformed),
        (200, b"{}", Malformed),
        (200, json.dumps(ROOT).encode(), Refused),
        (200, json.dumps(ROOT | {"Members": 7}).encode(), Malformed),
        (200, json.dumps(ROOT | {"Members": []}).encode(), Refused),
        (204, b"", Malformed),
        (404, b"nothing", Refused),
        (418, b"{}", Refused),
        (429, b"{}", Busy),
        (500, b"[]", Malformed),
        (500, b"{}", Unreachable),
        (501, b"{}", Refused),
        (502, b"bad gateway", Unreachable),
        (503, b"{}", Busy),
    ],
)
def test_odd_answers_are_told_apart(redfish: RedfishPower, status: int, body: bytes, error: type[DriverError]) -> None:
    with answering(status, body) as (url, _), pytest.raises(error) as caught:
        redfish.inspect(credentials(url))
    assert type(caught.value) is error


def test_redirect_is_not_followed(redfish: RedfishPower) -> None:
    with answering(200, b"{}") as (other, stolen), answering(301, b"", Location=f"{other}/x") as (url, _):
        with pytest.raises(Refused) as caught:
            redfish.state(credentials(url))
        assert caught.value.code == "bmc-redirects"
        assert stolen == []


def test_link_to_another_host_is_not_followed(redfish: RedfishPower) -> None:
    with answering(200, b"{}") as (other, stolen):
        body = json.dumps(ROOT | {"Members": [{"@odata.id": f"{other}/redfish/v1/Systems/1"}]}).encode()
        with answering(200, body) as (url, _), pytest.raises(Malformed, match="another host"):
            redfish.state(credentials(url))
        assert stolen == []


def test_untrusted_certificate_is_refused(redfish: RedfishPower) -> None:
    """A port that speaks no TLS cannot show a trusted certificate either."""
    with answering(200, b"{}") as (url, _), pytest.raises(Refused) as caught:
        redfish.state(credentials(url.replace("http:", "https:")))
    assert caught.value.code == "bmc-certificate"
    assert caught.value.message.endswith(": WRONG_VERSION_NUMBER.")
    assert "M2D_REDFISH_VERIFY_TLS" in caught.value.fix


def test_what_is_no_redfish_service_is_told_to_be_none(redfish: RedfishPower) -> None:
    with answering(404, b"{}") as (url, _), pytest.raises(Refused) as caught:
        redfish.state(credentials(url))
    assert "HTTP 404" in caught.value.message
    assert "BMC" in caught.value.fix


def test_proxies_of_the_environment_are_not_used(
    redfish: RedfishPower, bmc: Bmc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert redfish.state(bmc) is OFF


# What BMCs lack.


@pytest.mark.parametrize("quirk", [Quirk.NO_MEDIA, Quirk.NO_CONSOLE])
def test_lacking_parts_are_tolerated(redfish: RedfishPower, room: Room, stack: ExitStack, quirk: Quirk) -> None:
    bmc = credentials(wire(stack, room, ADDRESS, quirk).url)
    redfish.boot_from_network(bmc)
    redfish.reset_boot(bmc)
    assert redfish.console_tail(bmc, 5) == ""
    assert room.bmcs.view(NAME).override is Override.NONE


def test_a_console_that_cannot_be_typed_at_is_told_and_nobody_elses_is(
    redfish: RedfishPower, room: Room, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    bmc = credentials(wire(stack, room, ADDRESS, Quirk.NO_CONSOLE).url)
    with pytest.raises(Refused) as caught:
        redfish.console_write(bmc, b"secret", within_s=20.0)
    assert caught.value.code == "no-console-input"
    face = wire(stack, room, ADDRESS)
    other = wire(stack, room, ADDRESS).url
    for path, error in ((f"{other}/redfish/v1/Systems/{NAME}/SerialConsole", Malformed), ("/elsewhere", Refused)):
        socket_ = {"ConsoleURI": path, "Interactive": True, "ServiceEnabled": True}
        monkeypatch.setattr(RedfishTree, "_serial", lambda *_, it=socket_: {"SerialConsole": {"WebSocket": it}})
        with pytest.raises(error):
            redfish.console_write(credentials(face.url), b"secret", within_s=20.0)
    assert room.bmcs.console(NAME) == []


def test_a_broken_part_that_is_about_scrubs_alone_hides_nothing_else(
    redfish: RedfishPower, room: Room, stack: ExitStack
) -> None:
    bmc = credentials(wire(stack, room, ADDRESS, Quirk.BROKEN_STORAGE).url)
    seen = redfish.inspect(bmc)
    assert seen.nics == MACHINE.nics
    assert seen.can_scrub == tuple(scrub for scrub in Scrub if scrub is not Scrub.DISKS)
    with pytest.raises(Malformed):
        redfish.drives(bmc)


def test_what_a_bmc_is_too_busy_to_tell_is_worth_a_try(redfish: RedfishPower, room: Room, stack: ExitStack) -> None:
    seen = redfish.inspect(credentials(wire(stack, room, ADDRESS, Quirk.BUSY_BIOS).url))
    assert seen.can_scrub == tuple(Scrub)


def test_a_new_password_is_never_logged(
    redfish: RedfishPower, room: Room, face: SimRedfish, bmc: Bmc, caplog: pytest.LogCaptureFixture
) -> None:
    new = Secret("hunter2hunter2")
    with caplog.at_level(logging.DEBUG):
        redfish.set_password(bmc, new)
        with pytest.raises(Refused) as caught:
            redfish.set_password(replace(bmc, password=new), Secret("hunter3"))
    assert room.bmcs.accepts(ADDRESS, new)
    assert count(face, "PATCH") == 2
    assert "hunter" not in f"{caplog.text}{caught.value!r}{caught.value}"


def test_a_bmc_that_quotes_the_password_it_refuses_does_not_have_it_repeated(
    redfish: RedfishPower, room: Room, face: SimRedfish, bmc: Bmc, monkeypatch: pytest.MonkeyPatch
) -> None:
    def quote(_bmc: Bmc, _name: str, password: Secret) -> None:
        raise Refused(f"The value {password.reveal()!r} is too short.", code="password-refused")

    monkeypatch.setattr(room.bmcs, "take_password", quote)
    with pytest.raises(Refused, match="is too short") as caught:
        redfish.set_password(bmc, Secret("hunter2hunter2"))
    assert "hunter2" not in str(caught.value)


def test_standing_override_where_once_is_unknown(redfish: RedfishPower, room: Room, stack: ExitStack) -> None:
    bmc = credentials(wire(stack, room, ADDRESS, Quirk.NO_ONCE).url)
    redfish.boot_from_network(bmc)
    assert room.bmcs.view(NAME).is_standing


def test_own_disk_where_the_override_cannot_be_disabled(redfish: RedfishPower, room: Room, stack: ExitStack) -> None:
    bmc = credentials(wire(stack, room, ADDRESS, Quirk.NO_DISABLED).url)
    redfish.boot_from_network(bmc)
    redfish.reset_boot(bmc)
    assert room.bmcs.view(NAME).override is Override.DISK


def test_power_on_its_way_is_not_asked_again() -> None:
    """PoweringOn counts as on; PoweringOff may hang, so OFF is asked once more."""
    system = {"Id": "1", "PowerState": "PoweringOn", "Members": [{"@odata.id": "/redfish/v1/Systems/1"}]}
    action = {"target": "/redfish/v1/reset", "ResetType@Redfish.AllowableValues": ["On", "ForceOff"]}
    body = json.dumps(ROOT | system | {"Actions": {"#ComputerSystem.Reset": action}}).encode()
    redfish = RedfishPower(timeout_s=5)
    with answering(200, body) as (url, requests):
        redfish.set(credentials(url), ON)
        assert not [each for each in requests if each.startswith(b"POST /redfish/v1/reset")]
        redfish.set(credentials(url), OFF)
        assert len([each for each in requests if each.startswith(b"POST /redfish/v1/reset")]) == 1
