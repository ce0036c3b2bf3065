"""The readers of benchmarks ask for what they were told, and take nothing but success for an answer."""

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.initiator import Reads
from benchmarks.lean import DiskReader, file_rate, pace

BLOCK, BLOCKS = 4096, 7
READS = Reads(count=5, depth=2, step_bytes=3 * BLOCK)
NOP_IN = struct.pack(">BBHIQIIIIIQI", 0x20, 0x80, 0, 0, 0, 0, 0xFFFFFFFF, 41, 70, 200, 0, 0)
GOOD = 0


def data_in(status: int) -> bytes:
    return struct.pack(">BBBBI", 0x25, 0x81, 0, status, BLOCK) + bytes(40 + BLOCK)


@pytest.fixture
def wires() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        yield near, far


def test_a_disk_is_asked_for_every_block_in_order_with_the_numbers_that_are_next(
    wires: tuple[socket.socket, socket.socket],
) -> None:
    near, far = wires
    far.sendall(NOP_IN + READS.count * data_in(GOOD))
    assert pace(DiskReader(near, 1, BLOCKS * BLOCK, READS), READS) > 0
    asked = far.recv(48 * (1 + READS.count), socket.MSG_WAITALL)[48:]
    commands = [struct.unpack(">16xIIIIBxQIxx", asked[at : at + 48]) for at in range(0, len(asked), 48)]
    assert [place * 512 // BLOCK for *_, place, _ in commands] == [0, 3, 6, 2, 5]
    assert [number for _, _, number, *_ in commands] == [70, 71, 72, 73, 74]
    assert {(length, sectors) for _, length, _, _, _, _, sectors in commands} == {(BLOCK, BLOCK // 512)}


def test_an_answer_in_pieces_counts_once_it_is_whole(wires: tuple[socket.socket, socket.socket]) -> None:
    near, far = wires
    answers = 2 * data_in(GOOD)
    far.sendall(NOP_IN + answers[:100])
    reader = DiskReader(near, 1, BLOCKS * BLOCK, READS)
    assert reader.answers() == 0
    far.sendall(answers[100:5000])
    assert reader.answers() == 1
    far.sendall(answers[5000:])
    assert reader.answers() == 1


def test_a_disk_that_says_check_condition_or_nothing_more_is_told(wires: tuple[socket.socket, socket.socket]) -> None:
    near, far = wires
    far.sendall(NOP_IN + data_in(GOOD) + data_in(2))
    reader = DiskReader(near, 1, BLOCKS * BLOCK, READS)
    with pytest.raises(RuntimeError, match="did not succeed"):
        reader.answers()
    far.shutdown(socket.SHUT_WR)
    with pytest.raises(RuntimeError, match="closed"):
        reader.answers()


def test_a_file_that_ends_amid_a_block_is_told(tmp_path: Path) -> None:
    file = tmp_path / "disk"
    file.write_bytes(bytes(BLOCKS * BLOCK))
    assert file_rate(str(file), READS) > 0
    file.write_bytes(bytes(BLOCKS * BLOCK - 512))
    with pytest.raises(RuntimeError, match="did not succeed"):
        file_rate(str(file), Reads(count=7, depth=2, step_bytes=BLOCK))
