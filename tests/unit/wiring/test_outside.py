"""What the settings say of the way outside."""

from ipaddress import IPv4Address, ip_address, ip_network

import pytest

from malleable.config import OutsideSettings, Settings
from malleable.domain.errors import Invalid
from malleable.gateway.outside_rules import hidden
from malleable.wiring.outside import outside_of


def _told(**told: object) -> Settings:
    return Settings(outside=OutsideSettings.model_validate(told))


@pytest.mark.parametrize(
    "address", ["127.0.0.53", "::1", "fe80::1", "0.0.0.0", "224.0.0.1", "dns.example", "9.9.9.9/32"]
)
def test_a_name_server_that_no_namespace_reaches_is_refused(address: str) -> None:
    with pytest.raises(Invalid, match="M2D_OUTSIDE__DNS"):
        outside_of(_told(dns=[address], ipv6=True))


def test_a_name_server_of_ipv6_takes_ipv6_outside() -> None:
    with pytest.raises(Invalid, match="needs IPv6") as refused:
        outside_of(_told(dns=["2001:db8::53"]))
    assert "M2D_OUTSIDE__IPV6" in refused.value.fix
    assert outside_of(_told(dns=["10.0.0.53"])).dns == (IPv4Address("10.0.0.53"),)


def test_what_is_hidden_is_what_no_node_reaches() -> None:
    told = outside_of(
        _told(allow=["10.5.0.0/16", "fd00:5::/32"], deny=["10.5.1.0/24", "192.0.2.0/24", "2001:db8::/64"])
    )
    subnets = hidden(told)

    def is_hidden(raw: str) -> bool:
        return any(ip_address(raw) in subnet for subnet in subnets)

    for raw in ("10.4.255.255", "10.6.0.0", "10.5.1.7", "192.0.2.1", "169.254.169.254", "127.0.0.1", "fd00:a::1", "::1",
                "::ffff:10.0.0.1", "fe80::1", "ff02::1", "2002:a00::1", "2001:db8::7"):  # fmt: skip
        assert is_hidden(raw), raw
    for raw in ("10.5.0.7", "10.5.2.0", "9.9.9.9", "2620:fe::fe", "fd00:5::1", "2001:db8:0:1::7"):
        assert not is_hidden(raw), raw
    assert ip_network("0.0.0.0/8") in subnets
