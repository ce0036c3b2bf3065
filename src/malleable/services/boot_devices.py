"""Boot devices: what a held node starts from the next time it is started by request."""

from malleable.domain.access import Verb
from malleable.domain.errors import Conflict
from malleable.domain.nodes import BootDevice, NodeState
from malleable.services.access import live_token, token_facts
from malleable.services.caller import Caller
from malleable.services.finding import find_node
from malleable.services.paces import Paces
from malleable.services.parts import Parts
from malleable.workflows.requests import record


class BootDevices:
    """Choices of those who hold nodes; a BMC hears of one when the node is started."""

    def __init__(self, parts: Parts, paces: Paces) -> None:
        self._parts, self._paces = parts, paces

    def boot_device_set(self, caller: Caller, ref: str, device: BootDevice) -> BootDevice:
        """Choose what the next start that is asked for (`on`, `cycle`) is from; the one after is from the network.

        It ends with the holder's time. Errors: NotFound, Forbidden; Conflict unless the node is allocated; TooMany.
        """
        with self._parts.store.transaction() as tx:
            node = find_node(tx, caller, "node_boot_device", ref)
            token = live_token(tx, caller, self._parts)
            held = {"state": NodeState.ALLOCATED, "project_id": node.project_id}
            if not tx.nodes.change(node.id, expect=held, boot_device=device):
                raise Conflict(
                    f"Node {node.name} is {node.state}; only of an allocated node a boot device is chosen.",
                    code="node-state",
                )
            self._paces.keep(tx, caller, node, Verb.BOOT_DEVICE)
            data = {"boot_device": device.value, **token_facts(token)}
            record(tx, self._parts.now(), "node.boot-device-chosen", node=node, actor_id=caller.user_id, data=data)
        return device
