"""Every workflow, by name."""

from dataclasses import replace

from malleable.domain.scrubs import SITE_DEFAULT, SiteScrubs
from malleable.workflows import (
    attach,
    booting,
    collect,
    copy,
    data_disks,
    disk_batch,
    enrol,
    fetch,
    flatten,
    grants,
    guard,
    importing,
    networks,
    power,
    provision,
    quarantine,
    release,
    repair,
    snapshots,
    storage,
    weaving,
)
from malleable.workflows.steps import Step, Workflow

_ALL = (
    enrol.ENROL,
    provision.PROVISION,
    provision.BOOT,
    release.RELEASE,
    release.STOP,
    release.RETIRE,
    quarantine.ISOLATE,
    power.POWER,
    attach.ATTACH,
    attach.DETACH,
    data_disks.ATTACH_DISK,
    data_disks.DETACH_DISK,
    storage.CREATE_DISK,
    disk_batch.CREATE_DISKS,
    storage.DELETE_DISK,
    importing.IMPORT_IMAGE,
    fetch.FETCH_IMAGE,
    copy.COPY_IMAGE,
    storage.DELETE_IMAGE,
    storage.RESTORE_TARGETS,
    snapshots.SNAPSHOT_DISK,
    snapshots.DELETE_SNAPSHOT,
    snapshots.ROLL_BACK_DISK,
    snapshots.GROW_DISK,
    flatten.FLATTEN_DISK,
    snapshots.PROMOTE_SNAPSHOT,
    repair.REPAIR_PORTS,
    repair.REBUILD_SWITCH,
    weaving.WEAVE_TUNNELS,
    networks.REMOVE_NETWORK,
    grants.REVOKE_GRANT,
    guard.GUARD_NETWORK,
    collect.COLLECT_POOL,
)
WORKFLOWS: dict[str, Workflow] = {workflow.name: workflow for workflow in _ALL}


def workflows(
    *, up_deadline_s: float, scrubs: SiteScrubs = SITE_DEFAULT, threads: int | None = None
) -> dict[str, Workflow]:
    """Return every workflow; machines get ``up_deadline_s`` from power-on to the proof that their system runs.

    ``scrubs``: what is done to a machine before another gets it, also when its provision was undone. ``threads``: of
    the worker, of which downloads leave half; None: as many as it takes for the most downloads.
    """

    def timed(step: Step) -> Step:
        return booting.up_within(step, up_deadline_s) if step.name == booting.AWAIT_UP.name else step

    made = {
        name: replace(workflow, steps=tuple(timed(step) for step in workflow.steps))
        for name, workflow in WORKFLOWS.items()
    }
    on_undone = provision.undone(release.scrub_before_free(scrubs))
    made["provision"] = replace(made["provision"], on_undone=on_undone)
    if threads is not None:
        made["fetch-image"] = fetch.fetch_image(threads)
    return made
