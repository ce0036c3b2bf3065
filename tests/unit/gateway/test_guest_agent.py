"""The agent of the golden images, as it is, in a system of files: what it freezes, believes and reports.

Its clock goes on only while it waits itself; no filesystem is frozen, and nobody need be root.
"""

import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from malleable.domain.freezes import agent_proof
from malleable.domain.secrets import Secret

AGENT = Path(__file__).parents[3] / "images/guest/agent"
SECRET = Secret("of-the-disk")
SHELLS = [pytest.param(["/bin/sh"], id="sh")]
if found := shutil.which("busybox"):
    SHELLS.append(pytest.param([found, "sh"], id="busybox"))

#: What the agent runs in place of busybox, in the folder of the system.
BUSYBOX = """#!/bin/sh
cd ROOT || exit
applet=$1
shift
forward() {
    read -r now _ <proc/uptime
    echo "$((now + $1)) 0" >proc/next && mv proc/next proc/uptime
}
fsfreeze() {
    read -r now _ <proc/uptime
    mark=frozen/$(echo "$2" | tr / _)
    if [ "$1" = --freeze ]; then
        [ ! -e "$mark" ] || return 1
        [ ! -e before-freeze ] || . ./before-freeze
        echo "$now freeze $2" >>log
        : >"$mark"
        [ ! -e after-freeze ] || . ./after-freeze
    elif ! rm "$mark"; then
        echo "not frozen $2"
        return 1
    else
        echo "$now thaw $2" >>log
    fi
}
nc() {
    tr -d '\\r' >request
    { read -r method question _ && read -r _ proof && read -r _ && read -r _; read -r body; } <request
    echo "$method ${question#*\\?} $proof $body" >>log
    answer=ok
    if [ "$method" = GET ]; then
        if ! [ -s answers ]; then
            kill "$(cat pid)"
            exit
        fi
        read -r answer <answers
        tail -n +2 answers >rest && mv rest answers
    fi
    case $answer in
        silence) forward "$LIMIT_S" ;;
        503) printf 'HTTP/1.1 503 Busy\\r\\n\\r\\nbusy\\n' ;;
        *) printf 'HTTP/1.1 200 OK\\r\\nContent-Type: text/plain\\r\\n\\r\\n%s\\n' "$answer" ;;
    esac
}
case $applet in
    sleep) if [ "$PPID" = "$(cat pid)" ]; then forward "$1"; else sleep 0.02; fi ;;
    timeout)
        export LIMIT_S="$1"
        shift
        exec "$@"
        ;;
    sync) ;;
    fsfreeze | nc) "$applet" "$@" ;;
    *) exec "$applet" "$@" ;;
esac
"""


def told(word: str, freeze: str, *serial: str) -> str:
    """Write what the gateway says."""
    return " ".join([word, freeze, agent_proof(SECRET, word, freeze, *serial), *serial])


FREEZE, THAW = told("freeze", "one", "DISK0001"), told("thaw", "one")
LATE = "it was not told to go on in time"
CHANGED = "something was mounted or unmounted meanwhile"


class System:
    """A system whose disk has two filesystems, / and /srv."""

    def __init__(self, root: Path, shell: list[str]) -> None:
        self.root = root
        for device, number in (("sda", "8:0"), ("sda1", "8:1"), ("sda2", "8:2"), ("sda3", "8:3")):
            self.write(f"sys/class/block/{device}/dev", number)
            self.write(f"sys/class/block/sda/{device}/dev", number)
        self.write("sys/block/sda/device/vpd_pg80", "????DISK0001")
        self.write("sys/firmware/ibft/target0/ip-addr", "10.0.0.1")
        self.write("sys/firmware/ibft/target0/chap-secret", SECRET.reveal())
        self.write("proc/uptime", "100 0")
        self.write("proc/self/mountinfo", mount("8:1", "/") + mount("8:2", "/srv") + mount("0:5", "/proc"))
        self.write("run/malleable/agent/busybox", BUSYBOX.replace("ROOT", str(root))).chmod(0o755)
        (root / "frozen").mkdir()
        script = AGENT.read_text()
        for place in ("/sys/", "/proc/", "/run/malleable/", "/etc/malleable/"):
            script = script.replace(place, f"{root}{place}")
        self._command = [*shell, str(self.write("agent", script)), "in-memory"]

    def write(self, name: str, content: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n" if "\n" not in content else content)
        return path

    def hook(self, content: str) -> None:
        hook = self.write("etc/malleable/freeze.d/hook", f"#!/bin/sh\ncd {self.root}\n{content}\n")
        hook.chmod(0o755)

    def begin(self, *answers: str) -> subprocess.Popen[str]:
        self.write("answers", "".join(f"{answer}\n" for answer in answers))
        begins = ["/bin/sh", "-c", f'echo $$ >{self.root}/pid; exec "$@"', "begin", *self._command]
        return subprocess.Popen(begins, stdout=subprocess.PIPE, text=True)

    def run(self, *answers: str) -> list[str]:
        """Give the agent these answers, end it once it asks for more; list what it reported."""
        with self.begin(*answers) as agent:
            agent.communicate(timeout=60)
        return self.reports()

    def log(self) -> list[str]:
        path = self.root / "log"
        return path.read_text().splitlines() if path.exists() else []

    def reports(self) -> list[str]:
        """List the reports without what proves them, which must be right."""
        reports = []
        for line in self.log():
            if line.startswith("POST state="):
                _, query, proof, words = line.split(" ", 3)
                state, freeze = query.removeprefix("state=").split("&freeze=")
                assert proof == agent_proof(SECRET, state, freeze)
                reports.append(f"{state} {freeze} {words}".strip())
        return reports

    def did(self, what: str) -> list[tuple[int, str]]:
        """List when what was frozen, or thawed."""
        lines = [line.split(" ") for line in self.log()]
        return [(int(line[0]), line[2]) for line in lines if line[1:2] == [what]]

    def frozen(self) -> list[str]:
        return sorted(mark.name for mark in (self.root / "frozen").iterdir())


def mount(number: str, point: str) -> str:
    return f"21 1 {number} / {point} rw,relatime shared:1 - ext4 /dev/any rw\n"


@pytest.fixture(params=SHELLS)
def system(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[System]:
    made = System(tmp_path, request.param)
    yield made
    assert made.frozen() == []


def test_it_reports_that_it_went_on_before_the_hooks_are_run(system: System) -> None:
    system.hook('echo "- hook $1" >>log')
    assert system.run(FREEZE, THAW) == ["frozen one", "thawed one"]
    steps = [line.split(" ")[1:] for line in system.log() if not line.startswith("GET")]
    assert [" ".join(step[:2]) if "state" not in step[0] else step[0].split("&")[0] for step in steps] == [
        "hook freeze",
        "freeze /srv",
        "freeze /",
        "state=frozen",
        "thaw /",
        "thaw /srv",
        "state=thawed",
        "hook thaw",
    ]


@pytest.mark.parametrize(
    "end",
    [
        "silence",
        "503",
        "none",
        "nonsense",
        told("freeze", "two", "DISK0001"),
        told("thaw", "two"),
        THAW[:-1] + "!",
        "thaw one",
    ],
)
def test_what_is_not_told_to_go_on_is_no_proof(system: System, end: str) -> None:
    assert system.run(FREEZE, end) == ["frozen one", f"unfrozen one {LATE}"]


@pytest.mark.parametrize("false", ["freeze one DISK0001", FREEZE.replace("DISK0001", "DISK0002"), f"freeze {THAW[5:]}"])
def test_who_does_not_know_the_secret_freezes_nothing(system: System, false: str) -> None:
    assert system.run(false, false, "none") == []
    assert system.did("freeze") == []


def test_what_was_told_once_freezes_nothing_again(system: System) -> None:
    system.run(FREEZE, THAW, "none", FREEZE, FREEZE)
    assert system.run(FREEZE, THAW) == ["frozen one", "thawed one"], "nor once the agent was begun anew"


def test_it_lets_the_system_work_between_two_freezes(system: System) -> None:
    two = told("freeze", "two", "DISK0001")
    reports = system.run(FREEZE, THAW, two, two, told("thaw", "two"))
    assert reports == ["frozen one", "thawed one", "frozen two", "thawed two"]
    assert system.did("freeze")[2][0] - system.did("thaw")[1][0] >= 10


def test_what_froze_and_was_ended_is_thawed(system: System) -> None:
    system.write("after-freeze", "kill -KILL $$")
    assert system.run(FREEZE, THAW) == ["unfrozen one /srv cannot be frozen"]
    assert [point for _, point in system.did("thaw")] == ["/srv"]


def test_what_somebody_else_froze_stays_so(system: System) -> None:
    others = system.write("frozen/_", "")
    assert system.run(FREEZE, THAW) == ["unfrozen one / cannot be frozen"]
    assert system.frozen() == ["_"]
    others.unlink()


def test_what_freezes_after_the_agent_was_killed_is_thawed(system: System) -> None:
    system.write("before-freeze", 'echo "freezing $2"; while [ "$2" = / ] && [ ! -e go ]; do sleep 0.02; done\n')
    with system.begin(FREEZE) as agent:
        assert agent.stdout is not None
        assert [agent.stdout.readline() for _ in range(2)] == ["freezing /srv\n", "freezing /\n"]
        agent.send_signal(signal.SIGKILL)
        agent.wait(60)
        system.write("proc/uptime", "1000 0")
        assert agent.stdout.readline() == "not frozen /\n"
        system.write("go", "")
        agent.stdout.read()  # until all of it has ended
    assert sorted(point for _, point in system.did("thaw")) == ["/", "/srv"]


def test_what_hooks_mount_is_frozen_too(system: System) -> None:
    line = mount("8:3", "/late").strip()
    system.hook(f'[ "$1" = thaw ] || echo "{line}" >>proc/self/mountinfo')
    assert system.run(FREEZE, THAW) == ["frozen one", "thawed one"]
    assert [point for _, point in system.did("freeze")] == ["/late", "/srv", "/"]


@pytest.mark.parametrize("moment", ["before-freeze", "after-freeze"])
def test_what_is_mounted_while_it_freezes_makes_it_none(system: System, moment: str) -> None:
    system.write(moment, f'[ "$2" = /srv ] || echo "{mount("8:3", "/late").strip()}" >>proc/self/mountinfo')
    assert system.run(FREEZE, THAW) == [f"unfrozen one {CHANGED}"]
