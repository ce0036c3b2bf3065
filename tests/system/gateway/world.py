"""A host with a machine room behind it and the internet before it, in two namespaces."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, Popen

from tests.system.gateway.bench import GatewayBench
from tests.system.gateway.host import eventually, inside, run

HOST, HOST_INSIDE = "203.0.113.1", "10.9.0.1"
INTERNET, BMC, ALLOWED, DENIED = "203.0.113.2", "10.9.0.5", "10.5.0.7", "10.5.1.7"
_SERVER = """
import http.server
class Echo(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
        self.wfile.write(self.client_address[0].encode() + b" " + b"x" * 100000)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("", 80), Echo).serve_forever()
"""


@contextmanager
def world(bench: GatewayBench) -> Iterator[str]:
    """Make them, with a server in the world that tells who asked; yield the host's namespace."""
    host, far = f"{bench.fabric.room}h", f"{bench.fabric.room}w"
    server = None
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
        inside(host, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
        server = Popen(["nsenter", f"--net=/run/netns/{far}", "--", "python3", "-c", _SERVER], stdout=DEVNULL)
        eventually(lambda: ":80 " in inside(far, "ss", "-ltn"), "the world's server listens")
        yield host
    finally:
        if server is not None:
            server.kill()
            server.wait(10)
        for name in (host, far):
            if Path(f"/run/netns/{name}").exists():
                run("ip", "netns", "del", name)
