"""A server that is told to end ends within seconds, whatever the devices do; its work goes on elsewhere."""

import time
from pathlib import Path

from tests.system.serve import program
from tests.system.serve.bmc import PASSWORD, WAIT_S, bmc
from tests.system.serve.conftest import Place

from malleable.client import Client
from malleable.domain.secrets import Secret
from malleable.wire.nodes import BmcRequest, NodeRequest
from malleable.wire.users import LoginRequest

ENDS_WITHIN_S = 5.0


def test_a_worker_leaves_a_silent_bmc_behind_and_another_goes_on(place: Place, tmp_path: Path) -> None:
    settings = place.settings()
    with (
        program.running(tmp_path / "api", "api", settings=settings) as api,
        program.running(tmp_path / "worker", "worker", settings=settings) as worker,
        bmc() as face,
    ):
        url = program.await_url(place.run_dir, api)
        password = (place.state_dir / "admin-password").read_text().strip()
        with Client(url, Secret(Client(url).login(LoginRequest(username="admin", password=password)).token)) as client:
            request = BmcRequest(address=face.url, username="root", password=PASSWORD.reveal())
            enrolment = client.node_enrol(NodeRequest(name="m1", bmc=request))
            assert face.asked.wait(WAIT_S), worker.said()
            told_s = time.monotonic()
            assert worker.end() == 0, worker.said()
            assert time.monotonic() - told_s < ENDS_WITHIN_S
            assert "a device does not answer" in worker.said()
            face.may_answer.set()
            with program.running(tmp_path / "other", "worker", settings=settings) as other:
                ended = client.operation_wait(enrolment.id, timeout_s=WAIT_S)
                assert face.open_sessions == 1
                assert other.end() == 0, other.said()
                assert face.open_sessions == 0, "a BMC has room for a few sessions"
    assert ended.state == "succeeded", ended
    assert [step.attempts for step in ended.steps if step.name == "inspect"] == [2]
