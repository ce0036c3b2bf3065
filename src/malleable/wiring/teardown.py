"""Taking away what a server made on its host."""

from malleable.client import Client
from malleable.config import Settings
from malleable.domain.errors import Invalid
from malleable.drivers.storage.file_pool import FilePool
from malleable.gateway.gateway import Gateway
from malleable.gateway.layout import known_networks
from malleable.wiring.assembly import gateway_settings, real_drivers
from malleable.wiring.clock import SystemClock
from malleable.wiring.root import require_root
from malleable.wiring.serve import uplink


def teardown(settings: Settings) -> None:
    """Remove the gateway's namespaces and daemons and unmount the pool; disks and database stay."""
    teardown_gateway(settings)
    unmount_pool(settings)


def teardown_gateway(settings: Settings) -> None:
    """Remove the gateway's namespaces and daemons. Errors: Invalid when it served and its uplink is not set."""
    require_root("Taking things down")
    gateway = gateway_settings(settings)
    if not settings.uplink.ovsdb:
        if known_networks(gateway.run_dir):
            raise Invalid(
                "A gateway served networks here, and its uplink is not set.",
                fix="Set M2D_UPLINK__OVSDB (and __BRIDGE, __NETNS) as it had them: its ports have to be taken off it.",
            )
        return
    # The gateway asks nobody what to remove: it knows what it made. The address is never called.
    Gateway(Client("http://127.0.0.1:9"), uplink(settings.uplink), gateway, SystemClock()).teardown()


def unmount_pool(settings: Settings) -> None:
    """Unmount the pool, or end its storage daemon. Errors: Busy.

    Whoever holds it open in a mount namespace of its own must have ended.
    """
    disks = real_drivers(settings).disks
    if isinstance(disks, FilePool):
        disks.close()
