"""Networks are not where the gateway has addresses of its own."""

from dataclasses import replace
from ipaddress import ip_network

import pytest
from tests.contract.api.site import Site, later

from malleable.domain.errors import Invalid
from malleable.domain.ids import TokenId, UserId, new_id
from malleable.domain.networks import NetworkKind
from malleable.domain.projects import Role
from malleable.services.all import make_services
from malleable.services.caller import Caller
from malleable.services.networks import NetworkWish

ADMIN = Caller(
    user_id=UserId(new_id()), name="admin", site_role=Role.ADMIN, token_id=TokenId(new_id()), expires_at=later(3600)
)
WISH = NetworkWish(name="lab", project="alpha", cidr="10.9.7.0/24", fabric="default", kind=NetworkKind.TENANT)


@pytest.mark.parametrize(("cidr", "cidr6"), [("10.9.7.0/24", ""), ("10.9.0.0/16", ""), ("", "fd00:9::/64")])
def test_a_subnet_that_overlaps_the_gateways_own_is_refused(cidr: str, cidr6: str, small_site: Site) -> None:
    own = (ip_network("10.9.0.0/16"), ip_network("fd00:9::/48"))
    services = make_services(replace(small_site.services.parts, own_subnets=own))
    with pytest.raises(Invalid) as refused:
        services.networks.network_create(ADMIN, replace(WISH, cidr=cidr, cidr6=cidr6))
    assert refused.value.code == "subnet-taken"
