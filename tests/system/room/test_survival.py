"""Parts are killed, silent or wrong under machines that run: nothing that runs is lost, nothing ends half done.

The tests share one room and its booted machines; each makes what it needs and does not find.
"""

import hashlib

import pytest
from tests.system.room.site import NETWORK, PROJECT, Site

from malleable.domain.errors import NotFound
from malleable.domain.ports import Session
from malleable.sim import rack
from malleable.sim.rack import FaultKind, NodeDescription
from malleable.wire.images import ImageRequest
from malleable.wire.nodes import PowerAction, ProvisionRequest
from malleable.wire.operations import OperationDetail, OperationView
from malleable.wiring.room.cli_calls import CommandFailed

pytestmark = [pytest.mark.room, pytest.mark.slow, pytest.mark.timeout(1200)]

BLANK_BYTES = 1 << 20
SHORT_UP_DEADLINE_S = 25


def of_the_system(site: Site, machine: NodeDescription) -> list[Session]:
    """List the sessions of a machine's system; its firmware's may still stand there, and goes when it times out."""
    return [session for session in site.sessions(machine) if session.alias]


def test_a_server_killed_in_mid_provision_goes_on_with_it_and_running_machines_notice_nothing(site: Site) -> None:
    running, fresh = site.beating(1), site.machine(2)
    sessions = of_the_system(site, running)
    rack.fault(site.room.name, fresh.name, FaultKind.BMC_SLOW, 2.0)
    provision = site.provision(fresh)
    site.await_step(provision, "power-off")
    site.kill()
    rack.clear_fault(site.room.name, fresh.name)
    site.await_beats(running, 2)
    site.start()
    site.await_console(fresh, "Linux version")
    site.kill()
    site.await_beats(running, 2)
    site.start()
    ended = site.succeeded(provision)
    assert max(step.attempts for step in ended.steps if step.name == "power-off") > 1
    assert (site.node(fresh).boot, site.node(running).boot) == ("up", "up")
    assert of_the_system(site, running) == sessions != []
    assert len(list(site.client.token_list(user="gateway"))) == 1, "each life of the server's gateway had its own"
    site.await_beats(fresh, 1)


def test_a_killed_target_daemon_gets_its_targets_back_and_the_machine_writes_on(site: Site) -> None:
    running = site.beating(1)
    site.kill_daemon("tgtd")
    site.await_beats(running, 3)
    assert len(site.sessions(running)) == 1
    restored = list(site.client.operation_list(kind="restore-targets"))
    assert restored[-1].state == "succeeded"
    assert "I/O error" not in site.console(running)


def test_a_killed_dnsmasq_is_replaced_and_machines_boot_by_its_successor(site: Site) -> None:
    running = site.beating(2)
    site.kill_daemon("dnsmasq")
    site.succeeded(site.client.node_power(running.name, PowerAction.CYCLE))
    site.await_console(running, "MALLEABLE-READY")
    (disk,) = [disk for disk in site.client.disk_list(project=PROJECT) if disk.node == running.name]
    # A disk made anew would run its user-data again, and have another serial number.
    assert "MALLEABLE-RUN begin" not in site.console(running)
    assert f"MALLEABLE-READY hostname={running.name} disk={disk.id.hex[-20:]}" in site.console(running)


def test_a_disk_moves_to_a_node_that_gave_its_own_up(site: Site) -> None:
    running, other = site.beating(1), site.machine(2)
    if site.node(other).boot != "up":
        site.beating(2)
    (disk,) = [disk.name for disk in site.client.disk_list(project=PROJECT) if disk.node == running.name]
    move = ("disk", "move", disk, "--project", PROJECT, "--node", other.name)
    with pytest.raises(CommandFailed, match="boots another disk already"):
        site.m2(*move)
    assert site.node(running).boot == "up", "a refused move stopped the machine"
    site.m2("node", "stop", other.name)
    site.m2(*move)
    assert (site.node(other).boot, site.node(running).boot) == ("up", "none")
    assert rack.status(site.room.name).power[running.name] == "off"
    (moved,) = [found for found in site.client.disk_list(project=PROJECT) if found.name == disk]
    assert moved.node == other.name
    site.await_console(other, f"disk={moved.id.hex[-20:]}")


def held(site: Site, number: int) -> NodeDescription:
    """Return a machine that the project holds, running or not."""
    machine = site.machine(number)
    return machine if site.node(machine).state == "allocated" else site.beating(number)


@pytest.fixture(scope="module")
def neglected(site: Site) -> OperationView:
    """Begin to give back a machine whose BMC never answers again.

    It takes a minute and a half until that is given up, so other tests that do not need the machine go on meanwhile.
    """
    machine = held(site, 2)
    rack.fault(site.room.name, machine.name, FaultKind.BMC_SILENT)
    return site.client.node_release(machine.name)


def test_a_release_cuts_the_node_off_while_its_bmc_is_silent_and_frees_it_once_it_answers(
    site: Site, neglected: OperationView
) -> None:
    machine = site.beating(1)
    rack.fault(site.room.name, machine.name, FaultKind.BMC_SILENT)
    release = site.client.node_release(machine.name)
    waiting = site.await_step(release, "reset-boot", attempt=2)
    assert waiting.state in ("waiting", "running")
    assert site.node(machine).state == "releasing"
    assert not list(site.client.target_list(node=machine.name))
    assert rack.status(site.room.name).power[machine.name] == "on"
    rack.clear_fault(site.room.name, machine.name)
    assert_scrubbed(site.succeeded(release))
    assert (site.node(machine).state, site.node(machine).project) == ("free", None)


def assert_scrubbed(release: OperationDetail) -> None:
    """Everything was scrubbed; the machines of this room have neither drives of their own nor a TPM."""
    proof = {step.name: step.evidence for step in release.steps}
    assert proof["check-accounts"] == {"accounts": ["admin"], "unknown": []}
    assert proof["rotate-password"] == {"account": "admin", "password": "changed; the BMC took a login with it"}
    assert proof["reset-bios"]["in_force"] == "at the next power-on"
    assert "clear-tpm" not in proof
    assert "erase-disks" not in proof


def add_blank_image(site: Site) -> None:
    """Make an image known that holds nothing to boot."""
    content = bytes(BLANK_BYTES)
    image = site.client.image_create(
        ImageRequest(name="blank", sha256=hashlib.sha256(content).hexdigest(), size_bytes=BLANK_BYTES)
    )
    site.client.image_upload(str(image.id), iter([content]), BLANK_BYTES)
    site.succeeded(site.client.image_seal(str(image.id)))


def test_a_machine_that_does_not_come_up_is_freed_with_its_consoles_last_words(
    site: Site, neglected: OperationView, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = site.machine(1)
    if site.node(machine).state == "allocated":
        site.succeeded(site.client.node_release(machine.name))
    add_blank_image(site)
    site.stop()
    with monkeypatch.context() as short:
        short.setenv("M2D_WORKER__UP_DEADLINE_S", str(SHORT_UP_DEADLINE_S))
        site.start()
    wish = ProvisionRequest(project=PROJECT, network=NETWORK, image="blank", node=machine.name, disk_name="blank")
    failed = site.ended(site.client.provision(wish))
    site.stop()
    site.start()
    assert failed.state == "failed"
    assert failed.error is not None
    assert failed.error["code"] == "deadline"
    assert f"within {SHORT_UP_DEADLINE_S} s" in str(failed.error["message"])
    title, _, last_lines = str(failed.error["explanation"]).partition("\n")
    assert title == "The console's last lines:"
    assert any(word in last_lines for word in ("SeaBIOS", "iPXE", "SAN device")), last_lines
    assert "Could not open SAN device" not in last_lines, last_lines
    # Its system may have run, so it is given back like any other, and scrubbed.
    *_, following = site.client.operation_list(node=machine.name, kind="release")
    assert_scrubbed(site.succeeded(following))
    free = site.node(machine)
    assert (free.state, free.project, free.boot, free.power) == ("free", None, "none", "off")
    assert "blank" not in [disk.name for disk in site.client.disk_list(project=PROJECT)]
    assert not list(site.client.target_list(node=machine.name))


def enrol_in_vain(site: Site, machine: NodeDescription, *, password: str = "", address: str = "") -> OperationDetail:
    """Enrol a machine wrongly; it must fail and leave nothing."""
    failed = site.ended(site.client.node_enrol(site.enrolment(machine, password=password, address=address)))
    assert failed.state == "failed"
    assert failed.error is not None
    assert failed.error["fix"]
    with pytest.raises(NotFound):
        site.node(machine)
    return failed


def test_a_wrong_enrolment_is_told_and_leaves_no_node_behind(site: Site) -> None:
    machine = site.machine(3)
    wrong = enrol_in_vain(site, machine, password="wrong" * 4)
    assert wrong.error is not None
    assert wrong.error["code"] == "bmc-credentials"
    assert "wrong" * 4 not in wrong.model_dump_json()
    nowhere = enrol_in_vain(site, machine, address="http://127.0.0.1:9")
    assert nowhere.error is not None
    assert nowhere.error["code"] == "unreachable"
    assert "127.0.0.1:9" in str(nowhere.error["message"])
    site.succeeded(site.client.node_enrol(site.enrolment(machine)))
    assert site.node(machine).state == "free"


def test_a_bmc_that_stays_silent_quarantines_its_node_until_it_is_readmitted(
    site: Site, neglected: OperationView
) -> None:
    machine = site.machine(2)
    failed = site.ended(neglected)
    assert failed.state == "failed"
    assert failed.error is not None
    assert failed.error["code"] == "unreachable"
    kept = site.node(machine)
    assert kept.state == "quarantined"
    assert "could not be proven off; its ports are shut, no disk is presented to it" in kept.state_reason
    assert machine.bmc_url.removeprefix("http://") in kept.state_reason
    assert not list(site.client.target_list(node=machine.name))
    rack.clear_fault(site.room.name, machine.name)
    site.m2("node", "readmit", machine.name)
    assert site.node(machine).state == "free"
    assert rack.status(site.room.name).power[machine.name] == "off"
    assert not list(site.client.target_list(node=machine.name))
    assert site.m2("event", "verify")
