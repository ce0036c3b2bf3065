"""What is scrubbed of a node before somebody else gets it. All of it is the provider's to read."""

from malleable.domain.scrubs import Demand, Scrub
from malleable.wire.shapes import Answer, Request


class ScrubRequest(Request):
    """A node's own policy: null leaves a kind to the site, what is left out stays as it is."""

    accounts: Demand | None = None
    password: Demand | None = None
    bios: Demand | None = None
    tpm: Demand | None = None
    disks: Demand | None = None


class ScrubView(Answer):
    """One kind of scrub. ``demand`` counts: the node's ``own``, else the ``site``'s."""

    scrub: Scrub
    demand: Demand
    own: Demand | None
    site: Demand
    is_able: bool  #: whether the BMC could do it when it was looked at last


class ScrubPolicyView(Answer):
    """Every kind, in the order in which a release does them."""

    items: tuple[ScrubView, ...]
