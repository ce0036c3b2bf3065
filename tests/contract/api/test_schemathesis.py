"""Requests made up from the OpenAPI document, good and bad: never a 500, and answers as the document says."""

from itertools import cycle
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance
from tests.contract.api.serving import served
from tests.contract.api.site import Site

from malleable.api.app import close_streams
from malleable.api.document import document

SCHEMA = schemathesis.openapi.from_dict(document())
OPERATIONS: list[Any] = [result.ok() for result in SCHEMA.get_all_operations()]  # type: ignore[union-attr]
POSITIVE, NEGATIVE = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
CHECKS = [not_a_server_error, status_code_conformance, response_schema_conformance]
EXAMPLES = 8
#: Two of three requests are aimed at something that is there.
AIMED = cycle((True, True, False))


def _aim(site: Site, case: Any) -> None:
    """Put what the site has into the path, so that requests get past "not found"."""
    known = {
        "node": "held",
        "nic": "nic0",
        "bond": "bond0",
        "project": "alpha",
        "user": "reader",
        "switch": "tor1",
        "port": "p1",
        "fabric": "default",
        "network": site.ids["network:alpha"],
        "image": "alpha-new",
        "image_id": site.ids["image"],
        "disk": site.ids["spare:alpha"],
        "attachment": site.ids["attachment:alpha"],
        "operation": site.ids["operation"],
        "token": site.ids["token:reader"],
        "snapshot": site.ids["snapshot:alpha"],
        "reservation": "kept",
        "grant": site.ids["grant:lent"],
        "chain": f"project:{site.ids['alpha']}",
        "key": "ann",
        "offer": site.ids["disk_offer"],
        "signer": site.ids["signer"],
        "permit": site.ids["held"],  # the site has no permit, and no boot
        "boot_id": site.ids["held"],
        "name": "vmlinuz",
    }
    if "reservation" in (case.path_parameters or {}):
        known["network"] = site.ids["network:lent"]
    if next(AIMED):
        for name in case.path_parameters or {}:
            case.path_parameters[name] = str(known[name])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("caller", "mode"), [("admin", POSITIVE), ("admin", NEGATIVE), ("member", POSITIVE), ("gateway", POSITIVE)]
)
def test_no_request_makes_the_server_fail(caller: str, mode: GenerationMode, small_site: Site) -> None:
    headers = {"Authorization": f"Bearer {small_site.tokens[caller]}"}
    with served(small_site) as url:
        close_streams(small_site.app)  # long polls answer at once
        for operation in OPERATIONS:
            if mode is NEGATIVE and not (operation.body or operation.query):
                continue  # nothing in it can be wrong

            @settings(
                max_examples=EXAMPLES,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.explicit, Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def check(case: Any) -> None:
                _aim(small_site, case)
                response = case.call(base_url=url, headers=headers)
                case.validate_response(response, checks=CHECKS, headers=headers)

            check()
