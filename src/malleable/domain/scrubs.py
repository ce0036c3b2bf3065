"""Scrubs: what is done to a machine between two holders beyond isolating it, and how much each matters."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Scrub(StrEnum):
    """What can be scrubbed through a BMC, in the order in which it is done."""

    DISKS = "disks"  #: the local disks are erased by themselves
    ACCOUNTS = "accounts"  #: the BMC has no account that nobody knows of
    PASSWORD = "password"  #: the password of our account there is a new one
    BIOS = "bios"  #: the firmware's settings are the maker's defaults
    TPM = "tpm"  #: what its owner kept in the TPM is gone


class Demand(StrEnum):
    """How much a scrub matters."""

    SKIP = "skip"  #: it is not done
    TRY = "best-effort"  #: done where the BMC can; what fails is noted, and the node is freed all the same
    REQUIRED = "required"  #: a node of which it is not proven is quarantined


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrubPolicy:
    """How much each scrub matters; of a node, None: as the site says."""

    accounts: Demand | None = None
    password: Demand | None = None
    bios: Demand | None = None
    tpm: Demand | None = None
    disks: Demand | None = None

    def demand(self, scrub: Scrub, site: "ScrubPolicy") -> Demand:
        """Say how much a scrub matters to a node of this policy."""
        own: Demand | None = getattr(self, scrub.value)
        return own or getattr(site, scrub.value) or Demand.SKIP


AS_THE_SITE = ScrubPolicy()
_HARMLESS = ScrubPolicy(accounts=Demand.TRY, tpm=Demand.TRY)


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteScrubs:
    """What the site says of scrubs: how much each matters where a node says nothing.

    By default what harms nobody who did not ask for it: a look, and a TPM that no system of ours keeps anything in.
    Settings, the password and local disks may be the operator's own work; they wait for a word.
    """

    policy: ScrubPolicy = _HARMLESS
    known_accounts: tuple[str, ...] = ()  #: that a BMC may have beside the one we use

    def plan(self, own: ScrubPolicy, able: Collection[Scrub]) -> Mapping[Scrub, Demand]:
        """Choose what to do to a node: what is required, and what is worth a try where the BMC is ``able``."""
        demands = {scrub: own.demand(scrub, self.policy) for scrub in Scrub}
        return {
            scrub: demand
            for scrub, demand in demands.items()
            if demand is Demand.REQUIRED or (demand is Demand.TRY and scrub in able)
        }


SITE_DEFAULT = SiteScrubs()
