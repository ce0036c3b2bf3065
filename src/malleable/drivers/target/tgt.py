"""Present disks over iSCSI with tgtd, one daemon or several per network.

The driver keeps no process: the gateway runs each daemon inside its network's namespace, as root, with a
control socket that the worker finds by path (``socket_of``). What it expects to be running:

    TGT_IPC_SOCKET=<dir>/tgtd  CEPH_ARGS=--rbd_non_blocking_aio=false  nsenter --net=/run/netns/<name>  chrt --batch 0
        tgtd -f -C <n> -t 1 --iscsi portal=127.0.0.1:<3260+n>
    tgtadm -C <n> --mode target --op new --tid 268435456 --targetname iqn.2026-11.org.malleable:nobody
    tgtadm -C <n> --mode portal --op new --param portal=<address>:<3260+n>

``nsenter`` and not ``ip netns exec``: the latter gives the daemon mounts of its own, so that it would not see a pool
that is mounted later, and keep one alive that is unmounted (measured where the root mount is private).
tgtd makes ``<dir>/tgtd.<n>`` (107 characters at most) and ``<dir>/tgtd.<n>.lock``; ``socket_of`` returns the
former of daemon 0, and the others' are found beside it. ``-t 1``: one thread per LUN is the fastest and the only number
that holds a thousand LUNs. Who supervises tgtd may delete the lock file only once the process is reaped: it is the
proof that no session is alive. SIGTERM does not end a tgtd that has targets; SIGKILL loses nothing that was
acknowledged as flushed.

tgtd keeps no state, and neither does this driver: a target's number (tid) is a digest of all that was asked of it, so
that "is it there, exactly so" needs no memory, and a target made anew never has the number of an old one. That
matters: a login that passed CHAP but was never finished is bound to a number only, not to a name.
"""

import contextlib
import hashlib
import ipaddress
import os
import re
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from malleable.domain.errors import Busy, DriverError, Refused, Unreachable
from malleable.domain.gateways import held_note
from malleable.domain.ids import NetworkId
from malleable.domain.portals import Redirect
from malleable.domain.ports import DiskHandle, Export, Session
from malleable.drivers.target import tgt_process
from malleable.drivers.target.tgt_control import Denial, Denied, Mode, Op, TgtControl, TgtTarget

#: tgtd's default of 8 KiB segments costs a factor of 2.5 in writes (measured, 256 KiB writes to a file)
LOGIN_PARAMETERS = (
    "MaxRecvDataSegmentLength=262144",
    "MaxXmitDataSegmentLength=262144",
    "FirstBurstLength=262144",
    "MaxBurstLength=1048576",
    "InitialR2T=No",
    "ImmediateData=Yes",
    "MaxOutstandingR2T=8",
)
VENDOR = "MALLEABL"  #: 8 characters, SPC-4 §6.6.2
PRODUCT = "disk"
SHUT_AFTER_S = 0.01
GIVE_UP_AFTER_S = 5.0
POLL_S = 0.001
#: 28 bits: tgtd puts the number into a 64-bit NAA designator whose top nibble is its type
TID_BITS = 28
TID_ATTEMPTS = 3
_IQN = re.compile(r"iqn\.[A-Za-z0-9.:-]{1,219}", re.ASCII)
#: parameters are comma-joined: a comma in a value would be one more parameter
_PLAIN = re.compile(r"[A-Za-z0-9._:-]{1,36}", re.ASCII)
_PATH = re.compile(r"/[A-Za-z0-9._:/@+~=-]{1,1000}", re.ASCII)
_RBD = re.compile(r"[A-Za-z0-9._-]{1,100}/[A-Za-z0-9._-]{1,100}(@[A-Za-z0-9._-]{1,100})?", re.ASCII)


class _NoCeph(Unreachable):
    """tgtd has no connection to Ceph: nothing was made."""


class TgtTargets:
    """``Targets`` on tgtd 1.0.85 or later."""

    def __init__(
        self,
        socket_of: Callable[[NetworkId], Path],
        *,
        timeout_s: float = 5.0,
        shut_out: Callable[[DiskHandle], object] = lambda _: None,
        monotonic_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Find the control socket of each network's daemon 0 by ``socket_of``; wait ``timeout_s`` for one answer.

        ``shut_out`` takes a disk in Ceph from whoever had it last, before tgtd opens it.
        """
        self._socket_of = socket_of
        self._shut_out = shut_out
        self._timeout_s = timeout_s
        self._monotonic_s = monotonic_s
        self._sleep = sleep
        self._guard = threading.Lock()
        self._locks: dict[NetworkId, threading.Lock] = {}

    def _control(self, network_id: NetworkId, daemon: int = 0) -> TgtControl:
        return TgtControl(self._socket_of(network_id).with_suffix(f".{daemon}"), self._timeout_s)

    def _controls(self, network_id: NetworkId) -> Sequence[TgtControl]:
        """Find every daemon that ever ran for a network, by its lock; the first when none did."""
        first = self._socket_of(network_id)
        locks = first.parent.glob(f"{first.stem}.*.lock")
        found = [TgtControl(lock.with_suffix(""), self._timeout_s) for lock in sorted(locks)]
        return found or [TgtControl(first, self._timeout_s)]

    def _lock(self, network_id: NetworkId) -> threading.Lock:
        """Give the network's lock: a target is made in many requests, and half of one must not be seen."""
        with self._guard:
            return self._locks.setdefault(network_id, threading.Lock())

    def export(self, export: Export) -> None:
        """Do as ``Targets.export``. About 0.6 ms; a target of this name that is half made or other is made anew."""
        _refuse_nonsense(export)
        with self._lock(export.network_id):
            self._present(self._control(export.network_id, export.daemon), export, None)
            self._present_redirect(export)

    def _present_redirect(self, export: Export) -> None:
        if export.redirect is not None:
            control = self._control(export.network_id, export.redirect.daemon)
            self._present(control, export, export.redirect)

    def _present(self, control: TgtControl, export: Export, redirect: Redirect | None) -> None:
        """Have one daemon present the disk, or send who asks for it on; nothing to do if it does so already."""
        tids = [_tid(export, redirect, attempt) for attempt in range(TID_ATTEMPTS)]
        for tid in tids:
            is_made = self._make(control, tid, export) if redirect is None else _send_on(control, tid, export, redirect)
            if is_made:
                return
            mine = control.targets(export.iqn)
            if any(t.tid in tids and _is_complete(control, t, export, redirect) for t in mine):
                return
            for target in mine:
                self._remove(control, target)
        raise Busy(f"tgtd has no free number for {export.iqn}.")

    def _make(self, control: TgtControl, tid: int, export: Export) -> bool:
        """Make a target, the address last: until then nobody may log in. False: its name or number is taken.

        To open a disk may take seconds. Who is sent here meanwhile is told to try again: "not found" is final to a
        system that starts.
        """
        try:
            control.call(Mode.TARGET, Op.NEW, tid=tid, parameters=f"targetname={export.iqn}")
        except Denied as e:
            if e.number == Denial.TARGET_EXISTS:
                return False
            raise
        if export.redirect is not None:
            control.call(Mode.TARGET, Op.UPDATE, tid=tid, parameters="state=offline")
            with contextlib.suppress(Unreachable):  # told once the disk is presented
                self._present_redirect(export)
        if not export.is_read_only:
            self._take(control, tid, export)
        try:
            for parameter in LOGIN_PARAMETERS:
                control.call(Mode.TARGET, Op.UPDATE, tid=tid, parameters=parameter)
            _add_lun(control, tid, export)
            if export.seed:
                _add_seed(control, tid, export)
            _add_account(control, export)
            control.call(Mode.ACCOUNT, Op.BIND, tid=tid, parameters=f"user={export.chap_username}")
            control.call(Mode.TARGET, Op.BIND, tid=tid, parameters=f"initiator-address={export.initiator_address}")
            if export.redirect is not None:
                control.call(Mode.TARGET, Op.UPDATE, tid=tid, parameters="state=ready")
        except (Refused, _NoCeph):
            _give_up(control, tid, export)
            raise
        return True

    def _take(self, control: TgtControl, tid: int, export: Export) -> None:
        """Take a disk in Ceph from its last user. While Ceph is away tgtd must not try: it would serve nobody."""
        if export.handle.store == "rbd":
            try:
                self._shut_out(export.handle)
            except DriverError:
                _give_up(control, tid, export)
                raise

    def revoke(self, network_id: NetworkId, iqn: str) -> None:
        """Do as ``Targets.revoke``.

        The proof of zero sessions is tgtd's own: it removes a target only while no session is on it. A daemon that is
        held because the pool is nearly full is woken: room is made by taking disks away.
        """
        with self._lock(network_id):
            for control in self._controls(network_id):
                _wake(control)
                try:
                    for target in control.targets(iqn):
                        self._remove(control, target)
                except Unreachable as e:
                    if e.code != "portal-down" or tgt_process.owner(control.path) is not None:
                        raise
                _seed_file(control, iqn).unlink(missing_ok=True)

    def _remove(self, control: TgtControl, target: TgtTarget) -> None:
        """Close the target to new logins, kill its sessions, remove it, and its account last.

        A target without an account asks for no CHAP at all, so the account stays while the target does. A crash
        before the end leaves an account that opens nothing.
        """
        tid = target.tid
        _call(control, Mode.TARGET, Op.UPDATE, tid=tid, parameters="state=offline", unless={Denial.NO_TARGET})
        accounts = [user for user in target.accounts if _is_bound(control, tid, user)]
        self._kill_and_delete(control, target)
        for user in accounts:
            _call(control, Mode.ACCOUNT, Op.DELETE, parameters=f"user={user}", unless={Denial.NO_USER})

    def _kill_and_delete(self, control: TgtControl, target: TgtTarget) -> None:
        begun_s = self._monotonic_s()
        while (peers := _kill(control, target.tid)) is not None:
            waited_s = self._monotonic_s() - begun_s
            if waited_s > GIVE_UP_AFTER_S:
                raise Busy(
                    f"Target {target.iqn} has a session or a command that does not end.",
                    fix="Look at the pool's health; restarting the network's portal ends every session.",
                )
            if waited_s > SHUT_AFTER_S and (pid := tgt_process.owner(control.path)):
                tgt_process.shut_connections(pid, peers)
            self._sleep(POLL_S)

    def sessions(self, network_id: NetworkId, iqn: str) -> Sequence[Session]:
        """Do as ``Targets.sessions``.

        The number is tgtd's TSIH: one counter for all targets of a daemon. It restarts with the daemon, and after
        65,535 logins it begins again at the lowest free number; the order stays that of the logins.
        """
        found: list[Session] = []
        away: Unreachable | None = None
        for control in self._controls(network_id):
            try:
                found += [session for target in control.targets(iqn) for session in target.nexuses]
            except Unreachable as e:
                away = e
        if away is not None and not found:  # it may be the one that has them
            raise away
        return found

    def list(self, network_id: NetworkId, daemons: Collection[int] | None = None) -> frozenset[str]:
        """Do as ``Targets.list``."""
        if daemons is None:
            controls = self._controls(network_id)
        else:
            controls = [self._control(network_id, daemon) for daemon in daemons]
        return frozenset(name for control in controls for name in control.names())


def _give_up(control: TgtControl, tid: int, export: Export) -> None:
    """Remove a target that cannot be made whole. What others are sent to stays, offline, and keeps no disk open."""
    if export.redirect is None:
        _call(control, Mode.TARGET, Op.DELETE, tid=tid, unless={Denial.NO_TARGET})
        return
    for lun in (export.lun, export.lun + 1):
        _call(control, Mode.DEVICE, Op.DELETE, tid=tid, lun=lun, unless={Denial.NO_TARGET, Denial.NO_LUN})


def _wake(control: TgtControl) -> None:
    """Let a daemon that is held go on, until the next look of who holds it."""
    pid = tgt_process.owner(control.path) if held_note(control.path).exists() else None
    if pid is not None:
        tgt_process.wake(pid)


def _tid(export: Export, redirect: Redirect | None, attempt: int) -> int:
    """Number a target by all that was asked of it; the next ``attempt`` is for when the number is another's."""
    asked = (
        export.iqn,
        export.lun,
        export.serial,
        export.handle,
        export.chap_username,
        export.chap_password.reveal(),
        export.initiator_address,
        export.size_bytes,
        export.is_read_only,
        bool(export.seed),
        redirect,
        attempt,
    )
    digest = hashlib.sha256(repr(asked).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> (32 - TID_BITS) or 1


def _send_on(control: TgtControl, tid: int, export: Export, redirect: Redirect) -> bool:
    """Make a target that sends every login on; without an address nobody may log in to it. False: as ``_make``.

    tgtd does so before it asks who it is. Who is sent to its own address it takes for arrived.
    """
    try:
        control.call(Mode.TARGET, Op.NEW, tid=tid, parameters=f"targetname={export.iqn}")
    except Denied as e:
        if e.number == Denial.TARGET_EXISTS:
            return False
        raise
    for parameter in _sending_on(redirect):
        control.call(Mode.TARGET, Op.UPDATE, tid=tid, parameters=parameter)
    return True


def _sending_on(redirect: Redirect) -> Sequence[str]:
    return (
        f"RedirectAddress={redirect.address}",
        f"RedirectPort={redirect.port}",
        "RedirectReason=Temporary",
    )


def _is_complete(control: TgtControl, target: TgtTarget, export: Export, redirect: Redirect | None) -> bool:
    if redirect is not None:
        shown = control.call(Mode.TARGET, Op.SHOW, tid=target.tid)
        return shown.splitlines() == list(_sending_on(redirect))
    luns = {export.lun, export.lun + 1} if export.seed else {export.lun}
    return target.is_ready and target.addresses == (export.initiator_address,) and luns <= set(target.luns)


def _add_seed(control: TgtControl, tid: int, export: Export) -> None:
    """Keep the seed beside the daemon's socket, where root alone reads it, and present it read only."""
    file = _seed_file(control, export.iqn)
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(export.seed)
    handle, serial = DiskHandle(path=str(file)), f"seed-{export.serial}"[:20]
    _add_lun(control, tid, replace(export, lun=export.lun + 1, handle=handle, serial=serial, is_read_only=True))


def _seed_file(control: TgtControl, iqn: str) -> Path:
    """Name a target's seed by what nobody can make a path of."""
    return control.path.with_name(f"seed-{hashlib.sha256(iqn.encode()).hexdigest()[:32]}")


def _add_lun(control: TgtControl, tid: int, export: Export) -> None:
    try:
        control.call(Mode.DEVICE, Op.NEW, tid=tid, lun=export.lun, parameters=_backing(export.handle))
    except Denied as e:
        raise _cannot_open(export, e) from e
    except Unreachable as e:
        if export.handle.store != "rbd" or e.code != Unreachable.code:
            raise
        raise Unreachable(
            f"tgtd did not answer while it opened {export.handle.path} in Ceph, as {export.handle.config} says.",
            fix="Let the network's namespace reach Ceph's monitors and OSDs; read tgtd's log.",
        ) from e
    # The initiator's best identifier (128-bit NAA) is made of scsi_id's hexadecimal digits.
    identity = f"vendor_id={VENDOR},product_id={PRODUCT},scsi_sn={export.serial}"
    identity += f",scsi_id={export.serial.replace('-', '')},thin_provisioning=1"
    if export.is_read_only:
        identity += ",readonly=1"
    control.call(Mode.DEVICE, Op.UPDATE, tid=tid, lun=export.lun, parameters=identity)


def _backing(handle: DiskHandle) -> str:
    """Say what a disk's bytes are to tgtd. A cephx key never goes this way: tgtd writes these options into its log."""
    if handle.store == "rbd":
        return f"path={handle.path},bstype=rbd,bsopts=conf={handle.config};id={handle.user}"
    # Never bstype=aio: it acknowledges SYNCHRONIZE CACHE without a flush (strace; unchanged in 1.0.97).
    return f"path={handle.path},bstype=rdwr" + (",bsoflags=direct" if handle.direct else "")


def _cannot_open(export: Export, error: Denied) -> DriverError:
    """Tell a disk that is not there from a Ceph that is not: only the latter may come back."""
    handle = export.handle
    if handle.store == "rbd" and error.number == Denial.UNKNOWN:
        return _NoCeph(
            f"tgtd cannot connect to Ceph as client.{handle.user}, as {handle.config} says.",
            fix="Install tgt-rbd, keep that user's keyring on this host, and let the network's namespace reach Ceph.",
        )
    if handle.store == "rbd" and not export.is_read_only:  # it is there: it was taken from its last user just now
        return Refused(
            f"tgtd may not open {handle.path} as client.{handle.user}.",
            code="pool-credentials",
            fix="Give that user the rights in docs/howto/ceph.md.",
        )
    return Refused(f"tgtd cannot open {handle.path}.", code="no-such-disk", fix="Read tgtd's log.")


def _add_account(control: TgtControl, export: Export) -> None:
    user = export.chap_username
    account = f"user={user},password={export.chap_password.reveal()}"
    try:
        control.call(Mode.ACCOUNT, Op.NEW, parameters=account)
    except Denied as e:
        if e.number != Denial.USER_EXISTS:
            raise
        # Deleting a bound account would leave its target without any, and open to all who reach it.
        if any(user in t.accounts for t in control.targets()):
            raise Refused(f"The CHAP user name {user} is another target's.", code="bad-export") from e
        control.call(Mode.ACCOUNT, Op.DELETE, parameters=f"user={user}")
        control.call(Mode.ACCOUNT, Op.NEW, parameters=account)


def _is_bound(control: TgtControl, tid: int, user: str) -> bool:
    """Prove that an account is this target's: names in tgtd's listing may be words of the tenant."""
    try:
        control.call(Mode.ACCOUNT, Op.BIND, tid=tid, parameters=f"user={user}")
    except Denied as e:
        return e.number == Denial.USER_EXISTS
    return False


def _kill(control: TgtControl, tid: int) -> set[str] | None:
    """Kill every connection and remove the target; None once it is gone, else the peers that are still there."""
    dead = {Denial.NO_TARGET, Denial.NO_SESSION, Denial.NO_CONNECTION}
    peers: set[str] = set()
    try:
        numbers, peers = control.connections(tid)
        for session, connection in numbers:
            _call(control, Mode.CONNECTION, Op.DELETE, tid=tid, sid=session, cid=connection, unless=dead)
        control.call(Mode.TARGET, Op.DELETE, tid=tid)
    except Denied as e:
        if e.number in (Denial.TARGET_ACTIVE, Denial.LUN_ACTIVE):
            return peers
        if e.number != Denial.NO_TARGET:
            raise
    return None


def _call(
    control: TgtControl,
    mode: Mode,
    op: Op,
    *,
    unless: set[Denial],
    tid: int = 0,
    parameters: str = "",
    sid: int = 0,
    cid: int = 0,
    lun: int = 0,
) -> None:
    """Make a request whose refusal for one of the reasons ``unless`` means that it is done already."""
    try:
        control.call(mode, op, tid=tid, parameters=parameters, sid=sid, cid=cid, lun=lun)
    except Denied as e:
        if e.number not in unless:
            raise


def _refuse_nonsense(export: Export) -> None:
    """Refuse what tgtd would take for something else: "ALL", a netmask, a comma, an empty name."""
    try:
        ipaddress.IPv4Address(export.initiator_address)
    except ValueError as e:
        raise Refused(f"{export.initiator_address!a} is not one IPv4 address.", code="bad-export") from e
    plain = {
        "iqn": bool(_IQN.fullmatch(export.iqn)),
        "lun": export.lun > 0,
        "serial": bool(_PLAIN.fullmatch(export.serial)),
        **_plain_handle(export.handle),
        "CHAP user name": bool(_PLAIN.fullmatch(export.chap_username)),
        "CHAP secret": bool(_PLAIN.fullmatch(export.chap_password.reveal())),
    }
    for what, is_plain in plain.items():
        if not is_plain:
            raise Refused(f"The {what} has characters that tgtd cannot take.", code="bad-export")


def _plain_handle(handle: DiskHandle) -> Mapping[str, bool]:
    if handle.store == "file":
        return {"path": bool(_PATH.fullmatch(handle.path))}
    return {
        # tgt-rbd takes what follows the first slash for the image's name: it knows no namespaces.
        "name in Ceph": bool(_RBD.fullmatch(handle.path)),
        "path of Ceph's configuration": bool(_PATH.fullmatch(handle.config)),
        "Ceph user": bool(_PLAIN.fullmatch(handle.user)),
    }
