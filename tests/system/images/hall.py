"""One machine and the services of its network, by hand: what a golden image must boot on.

Not the virtual machine room: no switch, no BMC, no control plane. An image that fails here is
itself at fault. Source of the settings: measured on Debian 12 (QEMU 7.2, iPXE 2019, tgt 1.0.85).
"""

import ctypes
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

from malleable.domain.nocloud import volume

GATEWAY = "10.0.0.1"
MAC = "52:54:00:00:00:0{}"
TARGET = "iqn.2026-01.test:disk"
INITIATOR = "iqn.2026-01.test:node"
SERIAL = "TESTDISK01"
TOKEN = "one-time-token"
CLONE_NEWNET = 0x40000000
POLL_S = 0.1
REPLY_BYTES = 4096
ASKED_S = 3.0
SILENT_S = 12.0


def run(*command: str) -> str:
    """Run a command to its end and return its output; a failure raises with what it wrote."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr or done.stdout}")
    return done.stdout


def wait_until(fact: Callable[[], bool], deadline_s: float, otherwise: Callable[[], str]) -> None:
    """Return once ``fact`` holds; after ``deadline_s`` fail with the text of ``otherwise``."""
    end = time.monotonic() + deadline_s
    pause = threading.Event()
    while not fact():
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline_s} s: {otherwise()}")
        pause.wait(POLL_S)


@dataclass(slots=True, kw_only=True)
class Answers:
    """What the gateway of the network says, and what the machine told it."""

    instance: str = "i-1"
    hostname: str = "node-under-test"
    user_data: str = ""
    public_key: str = "ssh-ed25519 AAAAtest someone@example"
    files: dict[str, Path | str] = field(default_factory=dict)
    phoned: list[dict[str, list[str]]] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    finished: list[tuple[str, str, str]] = field(default_factory=list)

    def meta_data(self) -> str:
        """Return the meta-data document of the metadata contract."""
        return f"instance-id: {self.instance}\nlocal-hostname: {self.hostname}\npublic-keys:\n  - {self.public_key}\n"

    def body(self, path: str) -> bytes | None:
        """Return what is served at ``path``, None when there is nothing."""
        documents: dict[str, Path | str] = {
            "/metadata/meta-data": self.meta_data(),
            "/metadata/user-data": self.user_data,
            **self.files,
        }
        document = documents.get(path)
        return document.encode() if isinstance(document, str) else document.read_bytes() if document else None


def _handler(answers: Answers) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # Secrets are told to programs of root alone: these can bind such a port.
            is_hidden = self.path == "/metadata/disks" and self.client_address[1] >= 1024
            body = None if is_hidden else answers.body(self.path)
            # The agent has a proof of its own.
            if self.path.startswith("/metadata/") and not self.path.startswith("/metadata/agent"):
                answers.tokens.append(self.headers.get("X-Malleable-Token"))
            self._reply(404 if body is None else 200, body or b"")

        def do_POST(self) -> None:
            form = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
            if self.path.startswith("/metadata/finish?"):
                answers.finished.append((self.path, self.headers["X-Malleable-Finish"], form))
            else:
                answers.phoned.append(parse_qs(form))
            self._reply(200, b"")

        def _reply(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    return Handler


@contextmanager
def namespace() -> Iterator[str]:
    """Make a network namespace with the gateway's address, and taps for two machines."""
    name = f"img-{secrets.token_hex(3)}"
    run("ip", "netns", "add", name)
    try:
        run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "-n", name, "link", "add", "net0", "type", "bridge", "forward_delay", "0")
        run("ip", "-n", name, "addr", "add", f"{GATEWAY}/24", "dev", "net0")
        run("ip", "-n", name, "addr", "add", "fd00:a::1/64", "dev", "net0", "nodad")
        run("ip", "-n", name, "link", "set", "net0", "up")
        for tap in ("tap0", "tap1"):
            run("ip", "-n", name, "tuntap", "add", tap, "mode", "tap")
            run("ip", "-n", name, "link", "set", tap, "master", "net0", "up")
        yield name
    finally:
        run("ip", "netns", "del", name)


@contextmanager
def process(*command: str, log: Path, env: dict[str, str] | None = None) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a daemon while the block runs; kill it at the end. Its output goes to ``log``."""
    with log.open("ab") as output:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env)
    try:
        yield child
    finally:
        child.kill()
        child.wait(timeout=10)


@contextmanager
def web(netns: str, answers: Answers) -> Iterator[None]:
    """Serve ``answers`` on port 80 inside the namespace.

    Only a fresh thread enters the namespace and ends; the socket it made stays there.
    """
    server: list[ThreadingHTTPServer] = []

    def listen() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        handle = os.open(f"/run/netns/{netns}", os.O_RDONLY)
        assert libc.setns(handle, CLONE_NEWNET) == 0
        os.close(handle)
        server.append(ThreadingHTTPServer((GATEWAY, 80), _handler(answers)))

    entering = threading.Thread(target=listen)
    entering.start()
    entering.join()
    serving = threading.Thread(target=server[0].serve_forever)
    serving.start()
    try:
        yield
    finally:
        server[0].shutdown()
        server[0].server_close()
        serving.join()


@dataclass(slots=True, kw_only=True)
class Portal:
    """A tgtd with one disk behind CHAP, in a namespace."""

    netns: str
    disk: Path
    control: Path
    log: Path
    secret: str = field(default_factory=lambda: secrets.token_hex(8))
    child: "subprocess.Popen[bytes] | None" = None

    def env(self) -> dict[str, str]:
        return {**os.environ, "TGT_IPC_SOCKET": str(self.control)}

    def admin(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = ["tgtadm", "-C", "0", "--lld", "iscsi", *arguments]
        return subprocess.run(command, env=self.env(), capture_output=True, text=True, timeout=20)

    def start(self) -> None:
        """Start tgtd and give it the target; also after a kill."""
        with self.log.open("ab") as output:
            self.child = subprocess.Popen(
                ["ip", "netns", "exec", self.netns, "tgtd", "-f", "-C", "0", "--iscsi", f"portal={GATEWAY}:3260"],
                env=self.env(),
                stdout=output,
                stderr=output,
            )
        show = ("--op", "show", "--mode", "target")
        wait_until(lambda: self.admin(*show).returncode == 0, 10, self.log.read_text)
        tid = ("--tid", "1")
        for arguments in (
            ("--op", "new", "--mode", "target", *tid, "-T", TARGET),
            ("--op", "new", "--mode", "logicalunit", *tid, "--lun", "1", "-b", str(self.disk)),
            ("--op", "update", "--mode", "logicalunit", *tid, "--lun", "1", "--params", f"scsi_sn={SERIAL}"),
            # A seed's disk beside it: the system boots as without.
            ("--op", "new", "--mode", "logicalunit", *tid, "--lun", "2", "-b", str(self._seed())),
            ("--op", "update", "--mode", "logicalunit", *tid, "--lun", "2", "--params", "readonly=1"),
            ("--op", "new", "--mode", "account", "--user", "node", "--password", self.secret),
            ("--op", "bind", "--mode", "account", *tid, "--user", "node"),
            ("--op", "bind", "--mode", "target", *tid, "-I", "ALL"),
        ):
            self.change(*arguments)

    def change(self, *arguments: str) -> None:
        """Have tgtd do something. Errors: AssertionError."""
        done = self.admin(*arguments)
        assert done.returncode == 0, done.stderr

    def add(self, tid: int, iqn: str, disk: Path) -> None:
        """Present one more disk, by the same secret."""
        target = ("--tid", str(tid))
        for arguments in (
            ("--op", "new", "--mode", "target", *target, "-T", iqn),
            ("--op", "new", "--mode", "logicalunit", *target, "--lun", "1", "-b", str(disk)),
            ("--op", "bind", "--mode", "account", *target, "--user", "node"),
            ("--op", "bind", "--mode", "target", *target, "-I", "ALL"),
        ):
            self.change(*arguments)

    def _seed(self) -> Path:
        file = self.control.with_suffix(".seed")
        file.write_bytes(volume({"meta-data": b"instance-id: i-1\n", "user-data": b""}))
        return file

    def kill(self) -> None:
        """End tgtd at once; on SIGTERM it lives on while it has targets."""
        if self.child is not None:
            self.child.send_signal(signal.SIGKILL)
            self.child.wait(timeout=10)
            Path(f"{self.control}.0").unlink(missing_ok=True)

    def sessions(self, tid: int = 1) -> int:
        """Return how many initiator sessions the target has now."""
        return self.admin("--op", "show", "--mode", "conn", "--tid", str(tid)).stdout.count("Session:")


def drain(wire: socket.socket) -> None:
    """Take what the console sent: QEMU's serial port stops when a few hundred bytes lie unread."""
    with suppress(BlockingIOError):
        while wire.recv(REPLY_BYTES, socket.MSG_DONTWAIT):
            pass


def answer_to(text: str, user: str, password: str) -> str:
    """Return what a person enters at the end of this console text; an empty line asks for a fresh prompt."""
    question = text.rstrip(" ")
    return user if question.endswith("login:") else password if question.endswith("Password:") else ""


@dataclass(slots=True, kw_only=True)
class Machine:
    """A QEMU process and its serial console."""

    child: "subprocess.Popen[bytes]"
    console: Path
    keyboard: Path
    monitor: Path

    def text(self) -> str:
        return self.console.read_text(errors="replace") if self.console.exists() else ""

    def wait_for(self, words: str, deadline_s: float) -> None:
        """Return once ``words`` are on the console; fail at once when the machine ended or gave up."""

        def is_decided() -> bool:
            return words in self.text() or "MALLEABLE-FAILED" in self.text() or self.ended()

        wait_until(is_decided, deadline_s, lambda: f"{words!r} in\n{self.tail()}")
        assert words in self.text(), f"the machine failed before {words!r}:\n{self.tail()}"

    def ended(self) -> bool:
        return self.child.poll() is not None

    def tail(self) -> str:
        return self.text()[-4000:]

    def log_in(self, user: str, password: str, prompt: str, deadline_s: float) -> None:
        """Answer the console's questions until ``prompt`` stands there.

        A question is answered when it stands for ``ASKED_S``, and again when it still stands: login(1)
        discards what comes between its asking and its reading, and nothing shows when it reads. No
        question for ``SILENT_S`` gets an empty line; sooner, it would answer one that is yet to come.
        """
        seen, since = "", time.monotonic()

        def is_in() -> bool:
            nonlocal seen, since
            drain(wire)
            text, now = self.text(), time.monotonic()
            answer = answer_to(text, user, password)
            if text != seen:
                seen, since = text, now
            elif now - since > (ASKED_S if answer else SILENT_S):
                wire.sendall(f"{answer}\r".encode())
                since = now
            return prompt in text

        # One connection for all answers: QEMU drops what its serial port has not taken when one closes.
        with socket.socket(socket.AF_UNIX) as wire:
            wire.connect(str(self.keyboard))
            wait_until(is_in, deadline_s, self.tail)

    def press_power_button(self) -> None:
        """Ask for a graceful end, as a BMC's GracefulShutdown does."""
        with socket.socket(socket.AF_UNIX) as wire:
            wire.connect(str(self.monitor))
            wire.recv(REPLY_BYTES)
            for order in ("qmp_capabilities", "system_powerdown"):
                wire.sendall(json.dumps({"execute": order}).encode())
                wire.recv(REPLY_BYTES)


@dataclass(slots=True, kw_only=True)
class Hall:
    """The network, its services and the place for files of one test."""

    netns: str
    place: Path
    answers: Answers
    portal: Portal

    def boot_script(self, way: str, cmdline: str) -> str:
        """Return the iPXE script of a boot way, ``san`` or ``kernel``."""
        name = f"set initiator-iqn {INITIATOR}-${{mac:hexhyp}}\n"
        login = f"{name}set username node\nset password {self.portal.secret}\nset keep-san 1\n"
        disk = f"iscsi:{GATEWAY}:::1:{TARGET}"
        if way == "san":
            return f"#!ipxe\n{login}sanboot {disk}\n"
        kernel = f"kernel http://{GATEWAY}/vmlinuz {cmdline} malleable.token={TOKEN} initrd=initrd\n"
        return f"#!ipxe\n{login}sanhook {disk}\n{kernel}initrd http://{GATEWAY}/initrd\nboot\n"

    @contextmanager
    def machine(self, firmware: str, memory_mib: int = 512, number: int = 0) -> Iterator[Machine]:
        """Power machine 0 or 1 on, with ``bios`` or ``uefi`` firmware; power it off after the block."""
        boot = secrets.token_hex(2)
        console, keyboard, monitor = (self.place / f"{part}-{boot}" for part in ("console", "keyboard", "qmp"))
        command = [
            *("ip", "netns", "exec", self.netns, "qemu-system-x86_64"),
            *("-accel", "tcg,thread=multi,tb-size=128", "-cpu", "max", "-m", str(memory_mib)),
            *("-display", "none", "-nodefaults", "-device", "virtio-rng-pci"),
            *("-chardev", f"socket,id=s,path={keyboard},server=on,wait=off,logfile={console}"),
            *("-serial", "chardev:s"),
            *("-qmp", f"unix:{monitor},server=on,wait=off"),
            # vnet_hdr=off: otherwise TCP waits for checksums that nobody fills in.
            *("-netdev", f"tap,id=n,ifname=tap{number},script=no,downscript=no,vnet_hdr=off"),
            *("-device", f"virtio-net-pci,netdev=n,mac={MAC.format(number)},bootindex=1"),
            *self.firmware(firmware),
        ]
        with process(*command, log=self.place / "qemu.log") as child:
            yield Machine(child=child, console=console, keyboard=keyboard, monitor=monitor)

    def firmware(self, kind: str) -> tuple[str, ...]:
        """Return QEMU's arguments for a firmware; UEFI gets its own copy of the variables."""
        if kind == "bios":
            return ("-machine", "q35,graphics=off")
        code, variables = "/usr/share/OVMF/OVMF_CODE_4M.fd", self.place / "vars.fd"
        shutil.copy("/usr/share/OVMF/OVMF_VARS_4M.fd", variables)
        return (
            *("-machine", "q35", "-drive", f"if=pflash,format=raw,readonly=on,file={code}"),
            *("-drive", f"if=pflash,format=raw,file={variables}"),
        )


def _dnsmasq(netns: str, place: Path) -> tuple[str, ...]:
    return (
        *("ip", "netns", "exec", netns, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0"),
        *("--interface=net0", "--bind-interfaces", "--except-interface=lo", "--pid-file=", "--no-ping"),
        *("--user=root", f"--dhcp-leasefile={place / 'leases'}", "--dhcp-range=10.0.0.50,10.0.0.99,1h"),
        # An advertisement and option 175.176 end iPXE's waits for IPv6 and ProxyDHCP: 16 s less.
        *("--enable-ra", "--dhcp-range=fd00:a::,ra-only", "--ra-param=net0,0,0", "--dhcp-option=encap:175,176,1b"),
        *("--dhcp-match=set:ipxe,175", f"--dhcp-boot=tag:ipxe,http://{GATEWAY}/boot.ipxe"),
    )


@contextmanager
def hall(place: Path, disk: Path) -> Iterator[Hall]:
    """Open a namespace with address service, web and portal for ``disk``; leave no trace of it."""
    with ExitStack() as stack:
        netns = stack.enter_context(namespace())
        answers = Answers()
        portal = Portal(netns=netns, disk=disk, control=place / "tgt", log=place / "tgtd.log")
        stack.enter_context(web(netns, answers))
        stack.enter_context(process(*_dnsmasq(netns, place), log=place / "dnsmasq.log"))
        stack.callback(portal.kill)
        portal.start()
        yield Hall(netns=netns, place=place, answers=answers, portal=portal)
