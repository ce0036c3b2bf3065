"""Boot intents: what a node runs when its firmware asks, and how far it has come."""

from dataclasses import dataclass
from datetime import datetime

from malleable.domain.ids import AttachmentId, BootId, NetworkId, NodeId, TargetId
from malleable.domain.images import BootWay
from malleable.domain.secrets import Secret
from malleable.domain.seeds import Document


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


#: The signs of life of a boot, in the order they come.
BOOT_STAGES = ("script_fetched_at", "kernel_fetched_at", "metadata_fetched_at", "phoned_home_at", "finished_at")
