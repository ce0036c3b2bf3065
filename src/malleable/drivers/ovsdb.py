"""A client of Open vSwitch's two JSON-RPC servers: its database, and ovs-vswitchd's control socket.

Shared by the drivers that configure Open vSwitch. No thread, no replica of the database, nothing kept between
connections, so nothing to share between threads. Source: RFC 7047; docs/decisions/0005-ovsdb-and-sushy.md.
"""

import codecs
import json
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from select import POLLIN, poll
from types import TracebackType
from typing import Any, Self

from malleable.domain.errors import DriverError, Malformed, Refused, Unreachable

DATABASE = "Open_vSwitch"
RECEIVE_BYTES = 1 << 16
REPLY_MAX_CHARS = 64 << 20
WAIT_SHARE = 0.9  #: of the time left, so that the server's word that it waited too long still arrives

Row = Mapping[str, Any]
Operation = Mapping[str, Any]


class JsonRpc:
    """One connection to a JSON-RPC server of Open vSwitch, for use in a ``with`` statement by one thread.

    Errors of every method: Unreachable (no answer in time), Refused (the server may not be asked), Malformed.
    """

    def __init__(self, address: str, *, timeout_s: float) -> None:
        """Connect to "unix:/path" or "tcp:host:port"; all that is done on the connection ends within ``timeout_s``."""
        self.address = address
        self._deadline_s = time.monotonic() + timeout_s
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._received = ""
        self._calls = 0
        try:
            self._socket = _connect(address, timeout_s)
        except PermissionError as e:
            raise Refused(f"{address} does not let us in.", fix="Run as root or as a member of its group.") from e
        except OSError as e:
            raise Unreachable(f"Open vSwitch does not answer at {address}: {e}.", fix="Start Open vSwitch.") from e

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._socket.close()

    def call(self, method: str, *params: object) -> Mapping[str, Any]:
        """Ask once and return the answer."""
        self._calls += 1
        try:
            self._send({"method": method, "params": params, "id": self._calls})
            return self._receive()
        except OSError as e:
            raise Unreachable(f"Open vSwitch at {self.address} stopped answering: {e}.") from e
        except ValueError as e:
            raise Malformed(f"Open vSwitch at {self.address} does not speak JSON: {e}.") from e

    def left_s(self) -> float:
        """Return the time left. Errors: TimeoutError when there is none."""
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("timed out")
        return left_s

    def _send(self, message: Mapping[str, Any]) -> None:
        self._socket.settimeout(self.left_s())
        self._socket.sendall(json.dumps(message).encode())

    def _receive(self) -> Mapping[str, Any]:
        while True:
            message = self._next_message()
            if message.get("method") == "echo":
                self._send({"id": message.get("id"), "result": message.get("params"), "error": None})
            elif message.get("id") == self._calls and "method" not in message:
                return message

    def _next_message(self) -> Mapping[str, Any]:
        while True:
            self._received = self._received.lstrip()
            try:
                message, end = json.JSONDecoder().raw_decode(self._received)
            except json.JSONDecodeError:
                if self._received[:1] not in ("", "{") or len(self._received) > REPLY_MAX_CHARS:
                    raise
                self._receive_more()
                continue
            self._received = self._received[end:]
            if not isinstance(message, dict):
                raise json.JSONDecodeError("not an object", "", 0)
            return message

    def _receive_more(self) -> None:
        self._socket.settimeout(self.left_s())
        chunk = self._socket.recv(RECEIVE_BYTES)
        if not chunk:
            raise ConnectionResetError("the connection ended")
        self._received += self._decoder.decode(chunk)


class Ovsdb(JsonRpc):
    """One connection to a database; errors as of JsonRpc, and Refused for what the database refuses."""

    def transact(self, *operations: Operation) -> Sequence[Mapping[str, Any]]:
        """Do all operations in one transaction, or none; return one result for each."""
        reply = self.call("transact", DATABASE, *operations)
        results = reply.get("result")
        if reply.get("error") is not None or not isinstance(results, list):
            raise Refused(f"Open vSwitch at {self.address} refused: {reply.get('error')}.", code="ovsdb")
        for result in results:
            if isinstance(result, dict) and "error" in result:
                raise self._error(result)
        results = results[: len(operations)]  # an error at commit makes one more, and was raised above
        if len(results) < len(operations) or not all(isinstance(result, dict) for result in results):
            raise Malformed(f"Open vSwitch at {self.address} did not answer every operation.")
        return results

    def change(self, *operations: Operation) -> Sequence[Mapping[str, Any]]:
        """Do the operations in one transaction, then wait until ovs-vswitchd follows it.

        Without operations this proves that ovs-vswitchd lives and follows everything asked before.
        Errors: Unreachable also when it does not follow in time.
        """
        bump = {"op": "mutate", "table": DATABASE, "where": [], "mutations": [["next_cfg", "+=", 1]]}
        ask = {"op": "select", "table": DATABASE, "where": [], "columns": ["next_cfg"]}
        *results, _, asked = self.transact(*operations, bump, ask)
        rows = asked.get("rows")
        if not rows:
            raise Malformed(f"The database at {self.address} is empty.", fix="Run ovs-vsctl init once.")
        self._wait_for(int(rows[0]["next_cfg"]))
        return results

    def _wait_for(self, generation: int) -> None:
        self.transact(
            {
                "op": "wait",
                "timeout": max(1, int(self.left_s() * WAIT_SHARE * 1000)),
                "table": DATABASE,
                "where": [["cur_cfg", ">=", generation]],
                "columns": [],
                "until": "!=",
                "rows": [],
            }
        )

    def _error(self, result: Mapping[str, Any]) -> DriverError:
        if result["error"] == "timed out":
            return Unreachable(
                f"Open vSwitch at {self.address} did not follow the change in time.", fix="Start ovs-vswitchd."
            )
        return Refused(
            f"Open vSwitch at {self.address} refused: {result['error']}: {result.get('details', '')}.", code="ovsdb"
        )


def forget_flows(database: str, *, timeout_s: float) -> bool:
    """Empty ovs-vswitchd's cache of forwarding decisions, so that no frame follows the old configuration any more.

    Without this a change that ovs-vswitchd confirmed still lets frames of flows already known pass: for 57 ms
    with 20,000 flows on Open vSwitch 3.1. False when its control socket, beside the database's, cannot be reached.
    """
    try:
        ask_vswitchd(database, "revalidator/purge", timeout_s=timeout_s)
    except DriverError:
        return False
    return True


def ask_vswitchd(database: str, command: str, *words: str, timeout_s: float) -> str:
    """Give ovs-vswitchd a command over its control socket, beside the database's; return what it says.

    Errors: Unreachable when there is none that answers; Refused in its words.
    """
    for control in _controls(database):
        try:
            with JsonRpc(f"unix:{control}", timeout_s=timeout_s) as rpc:
                reply = rpc.call(command, *words)
        except DriverError:
            continue  # the file of one that was killed; or not ours to use
        if reply.get("error") is not None:
            raise Refused(f"Open vSwitch at {database} refused {command}: {str(reply['error']).strip()}")
        return str(reply.get("result") or "")
    raise _no_vswitchd(database)


@contextmanager
def hold_on(database: str, *, timeout_s: float) -> Iterator[Callable[[float], bool]]:
    """Keep a connection to ovs-vswitchd; yield what waits so many seconds for its end, and says whether it came.

    Errors: Unreachable when there is none that answers.
    """
    for control in _controls(database):
        try:
            life = _connect(f"unix:{control}", timeout_s)
        except OSError:
            continue  # the file of one that was killed; or not ours to use
        with life:
            yield partial(_has_ended, life)
        return
    raise _no_vswitchd(database)


def _has_ended(life: socket.socket, wait_s: float) -> bool:
    end = poll()  # not select: a server may have more than 1,024 files open
    end.register(life, POLLIN)
    return bool(end.poll(max(0.0, wait_s) * 1000))


def _controls(database: str) -> Iterable[Path]:
    """List the control sockets of ovs-vswitchd beside a database's; some are of those that were killed."""
    kind, _, path = database.partition(":")
    return Path(path).parent.glob("ovs-vswitchd*.ctl") if kind == "unix" else ()


def _no_vswitchd(database: str) -> Unreachable:
    return Unreachable(
        f"The control socket of ovs-vswitchd does not answer beside {database}.", fix="Start ovs-vswitchd."
    )


def _connect(address: str, timeout_s: float) -> socket.socket:
    kind, _, rest = address.partition(":")
    if kind == "unix" and rest.startswith("/"):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(timeout_s)
        try:
            connection.connect(rest)
        except OSError:
            connection.close()
            raise
        return connection
    host, _, port = rest.rpartition(":")
    if kind == "tcp" and host and port.isascii() and port.isdigit() and 0 < int(port) < 65536:
        return socket.create_connection((host.removeprefix("[").removesuffix("]"), int(port)), timeout=timeout_s)
    raise Refused(
        f"{address!a} is not the address of an Open vSwitch database.",
        fix='Write "unix:/run/openvswitch/db.sock" or "tcp:host:6640".',
        code="bad-address",
    )


def members(value: object) -> tuple[Any, ...]:
    """Return the elements of an OVSDB set, which has one written bare; references as their UUID's text."""
    if isinstance(value, list) and len(value) == 2 and value[0] == "set":
        return tuple(_atom(element) for element in value[1])
    return (_atom(value),)


def _atom(value: object) -> object:
    if isinstance(value, list) and len(value) == 2 and value[0] == "uuid":
        return value[1]
    return value


def to_set(values: Sequence[object]) -> list[object]:
    """Write an OVSDB set."""
    return ["set", list(values)]


def select(table: str, column: str, value: object, columns: Sequence[str]) -> Operation:
    """Ask for the rows of ``table`` in which ``column`` is ``value``."""
    return {"op": "select", "table": table, "where": [[column, "==", value]], "columns": list(columns)}
