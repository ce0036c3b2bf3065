"""Every workflow, by name."""

from malleable.workflows import attach, enrol, networks, power, provision, release, repair, storage
from malleable.workflows.steps import Workflow

_ALL = (
    enrol.ENROL,
    provision.PROVISION,
    provision.BOOT,
    release.RELEASE,
    release.STOP,
    power.POWER,
    attach.ATTACH,
    attach.DETACH,
    storage.CREATE_DISK,
    storage.DELETE_DISK,
    storage.IMPORT_IMAGE,
    storage.DELETE_IMAGE,
    storage.RESTORE_TARGETS,
    repair.REPAIR_PORTS,
    networks.REMOVE_NETWORK,
)
WORKFLOWS: dict[str, Workflow] = {workflow.name: workflow for workflow in _ALL}
