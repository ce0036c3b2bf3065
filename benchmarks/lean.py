"""Readers that take little of the processor: of a file, and of an iSCSI disk.

Where a reader shares its cores with what it measures, its own cost counts as much. So both prepare what they will ask
before the clock starts, ask for as many blocks as were answered, in one system call, and look at all answers of one
call at once. Both have the same loop, and read the same blocks in the same order.
"""

import contextlib
import ctypes
import mmap
import os
import socket
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tests.contract.targets.initiator import Initiator
from tests.contract.targets.room import TgtRoom

from benchmarks.initiator import Reads
from malleable.domain.ports import Export

SECTOR_BYTES = 512
PATIENCE_S = 60
_WORD_BYTES = 8


class Reader(Protocol):
    """What is told how many reads to ask for, and says how many were answered."""

    def ask(self, first: int, end: int) -> None:
        """Ask for the reads from number ``first`` to ``end``."""

    def answers(self) -> int:
        """Wait for answers; return how many came whole. Errors: RuntimeError if one is no success."""


def pace(reader: Reader, reads: Reads) -> float:
    """Keep ``reads.depth`` reads under way until all are answered; return reads a second.

    Errors: RuntimeError when a read fails; OSError when a disk says nothing for 60 s.
    """
    asked, answered = min(reads.depth, reads.count), 0
    began_s = time.perf_counter()
    reader.ask(0, asked)
    while answered < reads.count:
        count = reader.answers()
        answered += count
        if more := min(count, reads.count - asked):
            reader.ask(asked, asked + more)
            asked += more
    return reads.count / (time.perf_counter() - began_s)


def _expect(found: Sequence[int], each: int) -> None:
    if found != [each] * len(found):
        raise RuntimeError(f"a read did not succeed: {found}, not {each} each")


# -- a file -----------------------------------------------------------------------------------------------------------

_IOCB = struct.Struct("@QIIHhIQQqQQ")  #: struct iocb of linux/aio_abi.h, IOCB_CMD_PREAD being 0
_EVENT_WORDS = 4  #: struct io_event: data, obj, res, res2


class FileReader:
    """Reads past the page cache with Linux' own asynchronous I/O."""

    def __init__(self, path: str, reads: Reads) -> None:
        self._lib, self._depth, self._size_bytes = ctypes.CDLL("libaio.so.1"), reads.depth, reads.size_bytes
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
        self._memory = mmap.mmap(-1, reads.depth * reads.size_bytes)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        wishes = bytearray()
        for number, place in enumerate(reads.places(Path(path).stat().st_size)):
            buffer = start + number % reads.depth * reads.size_bytes
            wishes += _IOCB.pack(0, 0, 0, 0, 0, self._fd, buffer, reads.size_bytes, place, 0, 0)
        self._wishes = (ctypes.c_char * len(wishes)).from_buffer(wishes)
        first = ctypes.addressof(self._wishes)
        self._pointers = (ctypes.c_uint64 * reads.count)(*range(first, first + len(wishes), _IOCB.size))
        self._events = (ctypes.c_int64 * (_EVENT_WORDS * reads.depth))()
        self._context = ctypes.c_void_p()
        if self._lib.io_setup(reads.depth, ctypes.byref(self._context)):
            raise OSError("io_setup failed: raise fs.aio-max-nr")

    def ask(self, first: int, end: int) -> None:
        pointers = ctypes.byref(self._pointers, first * _WORD_BYTES)
        taken = self._lib.io_submit(self._context, ctypes.c_long(end - first), pointers)
        _expect([taken], end - first)

    def answers(self) -> int:
        least, most = ctypes.c_long(1), ctypes.c_long(self._depth)
        count = int(self._lib.io_getevents(self._context, least, most, self._events, None))
        _expect(self._events[2 : _EVENT_WORDS * count : _EVENT_WORDS], self._size_bytes)
        return count

    def close(self) -> None:
        self._lib.io_destroy(self._context)
        os.close(self._fd)


def file_rate(path: str, reads: Reads) -> float:
    """Read a file past the page cache; return reads a second. Errors: OSError, RuntimeError for a failed read."""
    with contextlib.closing(FileReader(path, reads)) as reader:
        return pace(reader, reads)


# -- an iSCSI disk ----------------------------------------------------------------------------------------------------

#: RFC 7143: 11.18 NOP-Out, immediate, so without a number of its own; 11.3 SCSI Command with READ(16) of SBC-3
_NOP = struct.pack(">BBHIQIIIIQQ", 0x40, 0x80, 0, 0, 0, 0, 0xFFFFFFFF, 0, 0, 0, 0)
_READ = struct.Struct(">BBHIHHIIIIIBBQIBB")
_NOP_IN, _COMMAND, _READ_SIMPLE, _READ_16 = 0x20, 0x01, 0xC1, 0x88
#: 11.7: the first eight bytes of a Data-In that is the whole answer and says GOOD
_DATA_IN, _FINAL_WITH_STATUS = 0x25, 0x81
_HEADER_BYTES = 48
_NUMBERS = slice(24, 32)  #: StatSN and ExpCmdSN of an answer


class DiskReader:
    """Reads over a connection that is logged in, which is its own from now on."""

    def __init__(self, wire: socket.socket, lun: int, size_bytes: int, reads: Reads) -> None:
        self._wire = wire
        self._answer_bytes = _HEADER_BYTES + reads.size_bytes
        self._good = int.from_bytes(struct.pack(">BBHI", _DATA_IN, _FINAL_WITH_STATUS, 0, reads.size_bytes), "little")
        self._wishes = memoryview(_commands(_numbers(wire), lun, size_bytes, reads))
        self._room = bytearray(reads.depth * self._answer_bytes)
        self._free, self._words, self._kept = memoryview(self._room), memoryview(self._room).cast("Q"), 0

    def ask(self, first: int, end: int) -> None:
        self._wire.sendall(self._wishes[first * _HEADER_BYTES : end * _HEADER_BYTES])

    def answers(self) -> int:
        came = self._wire.recv_into(self._free[self._kept :])
        if not came:
            raise RuntimeError("the target closed the connection")
        filled = self._kept + came
        count, self._kept = divmod(filled, self._answer_bytes)
        whole = count * self._answer_bytes
        _expect(self._words[: whole // _WORD_BYTES : self._answer_bytes // _WORD_BYTES].tolist(), self._good)
        self._free[: self._kept] = self._free[whole:filled]
        return count


def _numbers(wire: socket.socket) -> tuple[int, int]:
    """Ask the target which numbers come next; return its own and a command's."""
    wire.sendall(_NOP)
    answer = wire.recv(_HEADER_BYTES, socket.MSG_WAITALL)
    _expect([answer[0]], _NOP_IN)
    status, command = struct.unpack(">II", answer[_NUMBERS])
    return status + 1, command


def _commands(numbers: tuple[int, int], lun: int, size_bytes: int, reads: Reads) -> bytearray:
    status, command = numbers
    length, wishes = reads.size_bytes, bytearray()
    for number, place in enumerate(reads.places(size_bytes)):
        task = (number, length, command + number, status + max(0, number - reads.depth))
        blocks = (_READ_16, 0, place // SECTOR_BYTES, length // SECTOR_BYTES, 0, 0)
        wishes += _READ.pack(_COMMAND, _READ_SIMPLE, 0, 0, lun, 0, 0, *task, *blocks)
    return wishes


def iscsi_rate(room: TgtRoom, export: Export, size_bytes: int, reads: Reads) -> float:
    """Read an exported disk as its node would, from inside the network; return reads a second, the login left out.

    Errors: LoginFailed; RuntimeError for a failed read; OSError without an answer for 60 s.
    """
    session = Initiator(name="iqn.2026-11.org.malleable:node:bench", iqn=export.iqn, lun=export.lun)
    with contextlib.closing(session):
        session.login(room.namespace, export.initiator_address, (export.chap_username, export.chap_password))
        with session.wire() as wire:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", PATIENCE_S, 0))
            return pace(DiskReader(wire, export.lun, size_bytes, reads), reads)
