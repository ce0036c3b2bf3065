"""Boot intents: what a node runs when its firmware asks, and how far it has come."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from malleable.domain.errors import Invalid
from malleable.domain.freezes import FreezeState
from malleable.domain.ids import AttachmentId, BootId, NetworkId, NodeId, OperationId, TargetId
from malleable.domain.images import BootWay
from malleable.domain.secrets import Secret
from malleable.domain.seeds import Document

#: No "$" (iPXE expands ${...}), no control characters; 1 KiB is half of what Linux takes.
_CMDLINE = re.compile(r"[A-Za-z0-9 _.,:;=/@%+~\"'()\[\]-]{0,1024}", re.ASCII)
_SSH_KEY = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{1,16384}")


def parse_cmdline(raw: str) -> str:
    """Accept a kernel's command line as a boot script can hold it. Errors: Invalid."""
    # These words end a command or begin a comment in an iPXE script.
    if not _CMDLINE.fullmatch(raw) or any(word in ("||", "&&", ";") or word.startswith("#") for word in raw.split(" ")):
        raise Invalid(
            f"The cmdline {raw[:80]!a} cannot be used.",
            fix="Use at most 1024 ASCII letters, digits, spaces and _ . , : ; = / @ % + ~ \" ' ( ) [ ] -; no lone ';'.",
        )
    return raw


def parse_ssh_key(raw: str) -> str:
    """Accept an SSH key, or whatever stands for one, as metadata can hold it: one line of text. Errors: Invalid."""
    if not _SSH_KEY.fullmatch(raw):
        raise Invalid(
            f"The SSH key {raw[:80]!a} cannot be used.",
            fix="Give one line of 1 to 16384 characters, as in ~/.ssh/id_ed25519.pub.",
        )
    return raw


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """A node's boot intent; one per node, removed at release. Without one the node gets nothing that runs."""

    id: BootId
    node_id: NodeId  #: unique
    network_id: NetworkId
    attachment_id: AttachmentId
    target_id: TargetId | None  #: None until the disk is presented
    way: BootWay
    hostname: str
    ssh_keys: tuple[str, ...] = ()
    documents: tuple[Document, ...] = ()  #: that its seed has
    has_seed_disk: bool = False  #: its system finds its seed on a small disk beside the one it boots
    token: Secret  #: for the metadata service of this boot; new at every power-on we order
    armed_at: datetime | None = None  #: since when the gateway shall serve it; None: not yet
    mac: str  #: of the NIC that boots
    script_fetched_at: datetime | None = None  #: the firmware asked for its boot script
    kernel_fetched_at: datetime | None = None  #: boot way "kernel" only
    metadata_fetched_at: datetime | None = None
    phoned_home_at: datetime | None = None
    has_hook: bool = False  #: its system is to report the end of its first-boot script
    finished_at: datetime | None = None  #: it reported that end
    exit_status: int | None = None  #: as reported; 0 is success
    finish_log: str = ""  #: the last lines of what the script wrote
    refusal: str = ""  #: why the gateway will never serve it
    hindrance: str = ""  #: why the gateway could not give its kernel or initrd once; it goes on trying
    agent_seen_at: datetime | None = None  #: its system has an agent, which asked what it is to do
    freeze_id: OperationId | None = None  #: what its system is to stop writing for; None: nothing, one at a time
    freeze_serial: str = ""  #: of the disk that is not written to meanwhile
    freeze_state: FreezeState | None = None
    frozen_at: datetime | None = None  #: when its system was heard to have stopped writing
    freeze_reason: str = ""  #: why that failed, in the system's own words


#: The signs of life of a boot, in the order they come.
BOOT_STAGES = (
    "script_fetched_at",
    "kernel_fetched_at",
    "metadata_fetched_at",
    "agent_seen_at",
    "phoned_home_at",
    "finished_at",
)
#: What a boot has where no freeze is asked for.
NO_FREEZE: Mapping[str, object] = {
    "freeze_id": None,
    "freeze_serial": "",
    "freeze_state": None,
    "frozen_at": None,
    "freeze_reason": "",
}
#: What the gateway tells of one that it does not serve, each with the field that says why.
BOOT_REASONS = {"refused": "refusal", "hindered": "hindrance"}
