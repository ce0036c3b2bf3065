"""What is scrubbed of a node before somebody else gets it."""

from starlette.requests import Request
from starlette.responses import Response

from malleable.api.calls import call_of, edge_of, ok
from malleable.api.routing import guarded
from malleable.domain.scrubs import Scrub
from malleable.services.scrubs import ScrubLine
from malleable.wire.scrubs import ScrubPolicyView, ScrubRequest, ScrubView

routes = guarded("nodes", prefix="/v1/nodes/{node}/scrubs")


def policy_view(lines: tuple[ScrubLine, ...]) -> ScrubPolicyView:
    """Show a policy."""
    return ScrubPolicyView(
        items=tuple(
            ScrubView(scrub=line.scrub, demand=line.demand, own=line.own, site=line.site, is_able=line.is_able)
            for line in lines
        )
    )


@routes.get("", response_model=ScrubPolicyView)
def scrub_get(request: Request, node: str) -> Response:
    """Tell what is scrubbed of a node, and what its BMC can do; for operators."""
    call = call_of(request)
    return ok(policy_view(call.services.scrubs.scrub_get(call.caller, node)), call)


@routes.put("", response_model=ScrubPolicyView)
async def scrub_set(request: Request, node: str, body: ScrubRequest) -> Response:
    """Change what is scrubbed of a node; what is to be required is looked for on its BMC. For operators."""
    call = call_of(request)
    changes = {Scrub(name): demand for name, demand in body.model_dump(exclude_unset=True).items()}
    scrubs = call.services.scrubs
    return ok(policy_view(await edge_of(request).on_device(lambda: scrubs.scrub_set(call.caller, node, changes))), call)
