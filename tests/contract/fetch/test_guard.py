"""Which addresses may be asked."""

import socket
from ipaddress import ip_network
from pathlib import Path

import pytest

from malleable.config import FetchSettings, OutsideSettings, Settings
from malleable.domain.errors import Invalid, MalleableError
from malleable.domain.urls import parse_url, shown_url
from malleable.drivers.fetch.guard import Guard
from malleable.wiring.outside import never_fetched

INSIDE = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "169.254.169.254",
    "172.31.255.255",
    "192.0.0.8",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:10.0.0.1",
    "::ffff:127.0.0.1",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "3fff::1",
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]
PUBLIC = ["1.1.1.1", "93.184.216.34", "2606:2800:220:1::1", "2a00:1450::1", "::ffff:1.1.1.1"]


def guard(*addresses: str, allow: tuple[str, ...] = (), deny: tuple[str, ...] = ()) -> Guard:
    return Guard(allow, resolve=lambda _host, _port: addresses, deny=[ip_network(cidr) for cidr in deny])


@pytest.mark.parametrize("address", INSIDE)
def test_nothing_inside_is_asked(address: str) -> None:
    for addresses in ([address], ["1.1.1.1", address]):
        with pytest.raises(MalleableError) as caught:
            guard(*addresses).addresses("mirror.example", 80)
        assert caught.value.code == "url-refused"
        assert address not in caught.value.public().message


@pytest.mark.parametrize("address", PUBLIC)
def test_the_public_internet_is_asked(address: str) -> None:
    assert guard(address).addresses("mirror.example", 80) == (address,)


def test_an_admin_allows_hosts_and_networks() -> None:
    assert guard("10.0.0.5", allow=("Mirror.example",)).addresses("mirror.EXAMPLE", 80)
    assert guard("10.0.0.5", allow=("10.0.0.0/24",)).addresses("other.example", 80)
    assert guard("::ffff:10.0.0.5", allow=("10.0.0.0/24",)).addresses("other.example", 80)
    with pytest.raises(MalleableError):
        guard("10.0.1.5", allow=("10.0.0.0/24", "mirror.example")).addresses("other.example", 80)


@pytest.mark.parametrize("address", ["93.184.216.34", "::ffff:93.184.216.34", "2a00:1450::1"])
def test_what_an_admin_denies_is_not_asked_whatever_is_allowed(address: str) -> None:
    """A site's inside may have public addresses."""
    deny, allow = ("93.184.0.0/16", "2a00:1450::/32"), ("mirror.example", "93.184.216.0/24")
    with pytest.raises(MalleableError) as caught:
        guard("1.1.1.1", address, allow=allow, deny=deny).addresses("mirror.example", 80)
    assert caught.value.code == "url-refused"
    assert guard("1.1.1.1", deny=deny).addresses("mirror.example", 80)


def test_the_settings_deny_what_they_deny_nodes_too(tmp_path: Path) -> None:
    settings = Settings(
        state_dir=tmp_path,
        fetch=FetchSettings(deny=("2a00:1450::/32",)),
        outside=OutsideSettings(deny=("93.184.0.0/16",)),
    )
    assert [str(net) for net in never_fetched(settings)] == ["2a00:1450::/32", "93.184.0.0/16"]
    with pytest.raises(Invalid, match="M2D_FETCH__DENY"):
        never_fetched(Settings(state_dir=tmp_path, fetch=FetchSettings(deny=("mirror.example",))))


@pytest.mark.parametrize("entry", ["10.0.0.0/33", "", "10.0.0.5/24", "300.1.1.1"])
def test_a_setting_that_is_none_is_told(entry: str) -> None:
    with pytest.raises(Invalid):
        Guard([entry])


@pytest.mark.parametrize(("number", "code"), [(socket.EAI_NONAME, "url-refused"), (socket.EAI_AGAIN, "unreachable")])
def test_a_name_that_is_not_found_reads_like_one_inside(number: int, code: str) -> None:
    def resolve(_host: str, _port: int) -> list[str]:
        raise socket.gaierror(number, "no")

    with pytest.raises(MalleableError) as caught:
        Guard(resolve=resolve).addresses("db.internal", 80)
    assert caught.value.code == code
    if code == "url-refused":
        with pytest.raises(MalleableError) as inside:
            guard("10.0.0.1").addresses("db.internal", 80)
        assert inside.value.public() == caught.value.public()


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "disk.img",
        "ftp://mirror.example/a",
        "file:///etc/passwd",
        "http://",
        "http:///a",
        "http://user@mirror.example/a",
        "http://:secret@mirror.example/a",
        "http://mirror.example:22/a",
        "http://mirror.example:x/a",
        "http://mirror.example:99999/a",
        "http://mirror.example/a b",
        "http://mirror.example\\@10.0.0.1/",
        "http://mirror.example/\r\nHost: x",
        "http://mirrör.example/a",
        "http://[::1/a",
        "http://mirror.example/" + "a" * 2000,
    ],
)
def test_what_is_no_url_of_the_web_is_refused(raw: str) -> None:
    with pytest.raises(Invalid):
        parse_url(raw)


def test_a_url_is_shown_without_what_opens_it() -> None:
    assert shown_url("https://mirror.example/a.img?signature=secret#x") == "https://mirror.example/a.img?…"
    assert shown_url("https://mirror.example/a.img") == "https://mirror.example/a.img"
