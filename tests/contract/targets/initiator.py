"""A real iSCSI initiator in this process: Debian's libiscsi by ctypes, in a network namespace of choice."""

import ctypes
import os
import select
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from malleable.domain.secrets import Secret

CLONE_NEWNET = 0x40000000
SESSION_NORMAL = 2
SECTOR_BYTES = 512
TIMEOUT_S = 5
PATIENT_TIMEOUT_S = 120


class LoginFailed(Exception):
    """The target did not let us in."""


class IoFailed(Exception):
    """A command on a session failed."""


_VOID = ctypes.c_void_p
_TEXT = ctypes.c_char_p
_INT = ctypes.c_int
_CALLBACK = ctypes.CFUNCTYPE(None, _VOID, _INT, _VOID, _VOID)
_IGNORE = _CALLBACK(lambda *_: None)


class _Data(ctypes.Structure):
    _fields_ = [("size", ctypes.c_int), ("data", ctypes.POINTER(ctypes.c_ubyte))]


class _Task(ctypes.Structure):
    """The head of libiscsi's struct scsi_task (scsi-lowlevel.h, libiscsi 1.19)."""

    _fields_ = [
        ("status", _INT),
        ("cdb_size", _INT),
        ("xfer_dir", _INT),
        ("expxferlen", _INT),
        ("cdb", ctypes.c_ubyte * 16),
        ("residual_status", _INT),
        ("residual", ctypes.c_size_t),
        ("sense", _INT * 4),
        ("datain", _Data),
    ]


class _Piece(ctypes.Structure):
    """libiscsi's struct unmap_list: the first block of what is not needed any more, and how many."""

    _fields_ = [("lba", ctypes.c_uint64), ("num", ctypes.c_uint32)]


def _library() -> ctypes.CDLL:
    lib = ctypes.CDLL("libiscsi.so.7", use_errno=True)
    lib.iscsi_create_context.restype = _VOID
    lib.iscsi_create_context.argtypes = [_TEXT]
    lib.iscsi_get_error.restype = _TEXT
    for name, arguments in {
        "iscsi_get_error": [_VOID],
        "iscsi_destroy_context": [_VOID],
        "iscsi_set_targetname": [_VOID, _TEXT],
        "iscsi_set_session_type": [_VOID, _INT],
        "iscsi_set_initiator_username_pwd": [_VOID, _TEXT, _TEXT],
        "iscsi_set_noautoreconnect": [_VOID, _INT],
        "iscsi_set_reconnect_max_retries": [_VOID, _INT],
        "iscsi_set_no_ua_on_reconnect": [_VOID, _INT],
        "iscsi_set_timeout": [_VOID, _INT],
        "iscsi_full_connect_sync": [_VOID, _TEXT, _INT],
        "iscsi_logout_sync": [_VOID],
        "iscsi_service": [_VOID, _INT],
        "iscsi_get_fd": [_VOID],
        "scsi_free_scsi_task": [_VOID],
    }.items():
        getattr(lib, name).argtypes = arguments
    for name, arguments in {
        "iscsi_read16_sync": [_VOID, _INT, ctypes.c_uint64, ctypes.c_uint32, *[_INT] * 6],
        "iscsi_read16_task": [_VOID, _INT, ctypes.c_uint64, ctypes.c_uint32, *[_INT] * 6, _CALLBACK, _VOID],
        "iscsi_write16_sync": [_VOID, _INT, ctypes.c_uint64, _VOID, ctypes.c_uint32, *[_INT] * 6],
        "iscsi_synchronizecache16_sync": [_VOID, _INT, ctypes.c_uint64, ctypes.c_uint32, _INT, _INT],
        "iscsi_unmap_sync": [_VOID, _INT, _INT, _INT, ctypes.POINTER(_Piece), _INT],
    }.items():
        getattr(lib, name).argtypes = arguments
        getattr(lib, name).restype = ctypes.POINTER(_Task)
    return lib


def within(namespace: str, work: Callable[[], None]) -> None:
    """Run ``work`` in a thread of its own that is inside a network namespace; sockets made there stay there."""
    errors: list[Exception] = []

    def run() -> None:
        fd = os.open(Path("/run/netns") / namespace, os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
            work()
        except (OSError, LoginFailed) as e:
            errors.append(e)
        finally:
            os.close(fd)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


class Initiator:
    """One session to one LUN. Failures are LoginFailed and IoFailed.

    Nothing is repeated or reconnected, unless ``is_patient``: then it is as an operating system with a long replacement
    timeout, which logs in anew for ever and repeats what was under way; from a thread that is inside the namespace.
    """

    def __init__(self, *, name: str, iqn: str, lun: int, is_patient: bool = False) -> None:
        """Prepare a session; ``login`` opens it."""
        self._lib = _library()
        self._lun = lun
        self._context = self._lib.iscsi_create_context(name.encode())
        self._lib.iscsi_set_targetname(self._context, iqn.encode())
        self._lib.iscsi_set_session_type(self._context, SESSION_NORMAL)
        self._lib.iscsi_set_noautoreconnect(self._context, 0 if is_patient else 1)
        self._lib.iscsi_set_reconnect_max_retries(self._context, -1)
        # "Unit attention: power on" after a reconnect is repeated past by every operating system, too.
        self._lib.iscsi_set_no_ua_on_reconnect(self._context, 1)
        self._lib.iscsi_set_timeout(self._context, PATIENT_TIMEOUT_S if is_patient else TIMEOUT_S)

    def login(self, namespace: str, portal: str, chap: tuple[str, Secret] | None) -> None:
        """Log in from inside a network namespace."""
        if chap:
            self._lib.iscsi_set_initiator_username_pwd(self._context, chap[0].encode(), chap[1].reveal().encode())
        within(namespace, lambda: self._connect(portal))

    def _connect(self, portal: str) -> None:
        # With it goes the first command after a login, answered "unit attention: power on", as SAM-5 wants.
        if self._lib.iscsi_full_connect_sync(self._context, portal.encode(), self._lun) != 0:
            raise LoginFailed(self._lib.iscsi_get_error(self._context).decode())

    def read(self, offset: int, length: int) -> bytes:
        """Read whole sectors."""
        task = self._lib.iscsi_read16_sync(
            self._context, self._lun, offset // SECTOR_BYTES, length, SECTOR_BYTES, 0, 0, 0, 0, 0
        )
        return self._finish(task)

    def write(self, offset: int, data: bytes) -> None:
        """Write whole sectors."""
        buffer = ctypes.create_string_buffer(data, len(data))
        task = self._lib.iscsi_write16_sync(
            self._context, self._lun, offset // SECTOR_BYTES, buffer, len(data), SECTOR_BYTES, 0, 0, 0, 0, 0
        )
        self._finish(task)

    def flush(self) -> None:
        """Have the disk made durable."""
        self._finish(self._lib.iscsi_synchronizecache16_sync(self._context, self._lun, 0, 0, 0, 0))

    def discard(self, offset: int, length: int) -> None:
        """Say that whole sectors are not needed any more (UNMAP)."""
        piece = _Piece(offset // SECTOR_BYTES, length // SECTOR_BYTES)
        self._finish(self._lib.iscsi_unmap_sync(self._context, self._lun, 0, 0, ctypes.byref(piece), 1))

    def _finish(self, task: "ctypes._Pointer[_Task]") -> bytes:
        if not task:
            raise IoFailed(self._lib.iscsi_get_error(self._context).decode())
        try:
            if task.contents.status != 0:
                raise IoFailed(f"SCSI status {task.contents.status:#x}")
            return ctypes.string_at(task.contents.datain.data, task.contents.datain.size)
        finally:
            self._lib.scsi_free_scsi_task(task)

    def ask_without_listening(self, megabytes: int) -> None:
        """Send many reads and never take an answer, as a node that lost its power amid them."""
        for number in range(megabytes):
            self._lib.iscsi_read16_task(
                self._context, self._lun, number * 2048, 1 << 20, SECTOR_BYTES, 0, 0, 0, 0, 0, _IGNORE, None
            )
        for _ in range(megabytes):
            self._lib.iscsi_service(self._context, select.POLLOUT)

    def wire(self) -> socket.socket:
        """Hand out the connection, to be spoken by the caller alone from now on; ``close`` ends it all the same."""
        wire = socket.socket(fileno=os.dup(self._lib.iscsi_get_fd(self._context)))
        wire.setblocking(True)
        return wire

    def logout(self) -> None:
        """End the session in order."""
        self._lib.iscsi_logout_sync(self._context)

    def close(self) -> None:
        """Drop the session without a word, as a power cut would."""
        self._lib.iscsi_destroy_context(self._context)
