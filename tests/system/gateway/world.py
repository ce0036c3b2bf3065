"""A host with a machine room behind it and the internet before it, in two namespaces."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, Popen

from tests.system.gateway.bench import GatewayBench
from tests.system.gateway.host import eventually, inside, run

HOST, HOST_INSIDE = "203.0.113.1", "10.9.0.1"
INTERNET, BMC, ALLOWED, DENIED = "203.0.113.2", "10.9.0.5", "10.5.0.7", "10.5.1.7"
#: The same of IPv6; the world's name server is on the machine that is no business of nodes.
HOST6, INTERNET6, DENIED6 = "2001:db8::1", "2001:db8::2", "2001:db8:0:1::7"
NAMES = {
    "good.example": (INTERNET, INTERNET6), "allowed.example": (ALLOWED,), "bmc.example": (BMC,),
    "denied.example": (DENIED, DENIED6), "cloud.example": ("169.254.169.254",), "own.example": ("fd00:a::a",),
}  # fmt: skip
_SERVER = """
import http.server, socket
class Both(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
class Echo(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
        self.wfile.write(self.client_address[0].removeprefix("::ffff:").encode() + b" " + b"x" * 100000)
    def log_message(self, *_): pass
Both(("::", 80), Echo).serve_forever()
"""


@contextmanager
def world(bench: GatewayBench) -> Iterator[str]:
    """Make them, with a server in the world that tells who asked; yield the host's namespace."""
    host, far = f"{bench.fabric.room}h", f"{bench.fabric.room}w"
    servers: list[Popen[bytes]] = []
    try:
        for name in (host, far):
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "-n", host, "link", "add", "eth0", "type", "veth", "peer", "netns", far, "name", "eth0")
        for name in (host, far):
            inside(name, "ethtool", "-K", "eth0", "tx", "off")
            run("ip", "-n", name, "link", "set", "eth0", "up")
        for address in (HOST, HOST_INSIDE):
            run("ip", "-n", host, "addr", "add", f"{address}/24", "dev", "eth0")
        run("ip", "-n", host, "route", "add", "10.5.0.0/16", "via", BMC)
        run("ip", "-n", host, "route", "add", "default", "via", INTERNET)
        for address in (f"{INTERNET}/24", f"{BMC}/24", f"{ALLOWED}/32", f"{DENIED}/32"):
            run("ip", "-n", far, "addr", "add", address, "dev", "eth0")
        run("ip", "-n", host, "addr", "add", f"{HOST6}/64", "dev", "eth0", "nodad")
        run("ip", "-n", host, "-6", "route", "add", "default", "via", INTERNET6)
        for address in (f"{INTERNET6}/64", f"{DENIED6}/128"):
            run("ip", "-n", far, "addr", "add", address, "dev", "eth0", "nodad")
        for setting in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            inside(host, "sh", "-c", f"echo 1 >/proc/sys/net/{setting}")
        told = [f"--host-record={name},{','.join(addresses)}" for name, addresses in NAMES.items()]
        names = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", *told]
        for argv in (["python3", "-c", _SERVER], names):
            servers.append(Popen(["nsenter", f"--net=/run/netns/{far}", "--", *argv], stdout=DEVNULL, stderr=DEVNULL))
        for port in (":80 ", ":53 "):
            eventually(lambda port=port: port in inside(far, "ss", "-ltn"), "the world's servers listen")  # type: ignore[misc]
        yield host
    finally:
        for server in servers:
            server.kill()
            server.wait(10)
        for name in (host, far):
            if Path(f"/run/netns/{name}").exists():
                run("ip", "netns", "del", name)
