"""The BMC's end of a WebSocket: what is typed comes in, and nothing goes out. Source: RFC 6455, by the library."""

import socket
from collections.abc import Callable, Mapping
from contextlib import suppress

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

_DATA = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)
READ_BYTES = 4096


def serve(connection: socket.socket, path: str, headers: Mapping[str, str], type_in: Callable[[bytes], None]) -> None:
    """Take over a connection whose request for a WebSocket was read; end it, and return."""
    try:
        _converse(connection, path, headers, type_in)
    finally:
        with suppress(OSError):  # the other end has gone already
            connection.shutdown(socket.SHUT_RDWR)  # it waits for just this, RFC 6455 §7.1.1


def _converse(
    connection: socket.socket, path: str, headers: Mapping[str, str], type_in: Callable[[bytes], None]
) -> None:
    protocol = ServerProtocol()
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    protocol.receive_data(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode())
    data = b"-"
    while data:
        for event in protocol.events_received():
            if isinstance(event, Request):
                protocol.send_response(protocol.accept(event))
            elif isinstance(event, Frame) and event.opcode in _DATA:
                type_in(bytes(event.data))
        for piece in protocol.data_to_send():
            if not piece:
                return
            connection.sendall(piece)
        data = connection.recv(READ_BYTES)
        if data:
            protocol.receive_data(data)
