"""What people and programs get from m2: tables, JSON, errors, exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import typer
from tests.unit.cli.desk import STEPS, URL, Desk, Turn, ago, id_of, node, operation, problem
from typer.testing import CliRunner

from malleable.cli.main import app
from malleable.cli.settings import load_logins

OPERATION = id_of(77)
WHO = {
    "user": {"id": id_of(5), "name": "ann", "site_role": None, "created_at": ago(5)},
    "site_role": None,
    "memberships": [{"project_id": id_of(50), "project": "blue", "role": "member"}],
    "token": {
        "id": id_of(6),
        "user_id": id_of(5),
        "user": "ann",
        "name": "m2 login",
        "project_id": None,
        "project": None,
        "is_read_only": False,
        "expires_at": ago(-43200),
        "revoked_at": None,
        "created_at": ago(5),
    },
}
ISSUED = {"id": id_of(6), "token": "s3cret", "expires_at": ago(-43200), "user": WHO["user"]}


def every_command(app: typer.Typer, *words: str) -> list[tuple[str, ...]]:
    """Name every command there is."""
    found = [(*words, str(command.name)) for command in app.registered_commands]
    for noun in app.registered_groups:
        assert noun.typer_instance is not None
        found += every_command(noun.typer_instance, *words, str(noun.name))
    return found


@pytest.mark.parametrize("words", every_command(app), ids=" ".join)
def test_every_command_explains_itself_and_takes_the_common_options(words: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    for option in ("--json", "--project", "--url", "--cacert"):
        assert option in shown.stdout
    assert (
        "password"
        not in shown.stdout.replace("--password-file", "").replace("--old-password-file", "").split("--")[1:2]
    )


def test_help_loads_no_client() -> None:
    code = (
        "import sys; from malleable.cli.main import app\n"
        "try: app(['node', 'list', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'httpx', 'malleable.client', 'malleable.wire'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.splitlines()[-1] == "[]"


def test_a_table_has_names_and_no_ids(desk: Desk) -> None:
    held = node(2, state="allocated", project="blue", project_id=id_of(50))
    desk.answers["GET /v1/nodes"] = [node(1), held]
    ran = desk.m2("node", "list")
    assert ran.code == 0
    assert [line.split()[:4] for line in ran.out.splitlines()] == [
        ["NAME", "STATE", "FOR", "PROJECT"],
        ["node-01", "free", "60", "min"],
        ["node-02", "allocated", "60", "min"],
    ]
    assert "blue" in ran.out
    assert id_of(1)[:18] not in ran.out


def test_json_is_what_the_api_said(desk: Desk) -> None:
    desk.answers["GET /v1/nodes"] = [node(1)]
    (shown,) = json.loads(desk.m2("node", "list", "--json").out)
    assert {**shown, "state_since": "", "power_seen_at": "", "created_at": ""} == {
        **node(1),
        "state_since": "",
        "power_seen_at": "",
        "created_at": "",
    }


def test_options_may_stand_before_the_command_too(desk: Desk) -> None:
    desk.answers["GET /v1/nodes"] = [node(1)]
    assert desk.m2("--json", "--project", "blue", "node", "list").json == desk.m2("node", "list", "--json").json
    assert desk.requests[0].url.params["project"] == "blue"


@pytest.mark.parametrize("words", ["--project blue node list", "node list --project blue", "-p red node list -p blue"])
def test_what_is_typed_goes_before_the_environment(desk: Desk, words: str) -> None:
    desk.answers["GET /v1/nodes"] = []
    assert desk.m2(*words.split(), environment={"M2_PROJECT": "green", "M2_URL": URL}).code == 0
    assert desk.requests[0].url.params["project"] == "blue"


def test_free_nodes_are_listed_whatever_the_project_for_they_are_nobodys(desk: Desk) -> None:
    desk.answers["GET /v1/nodes"] = [node(1)]
    assert "node-01" in desk.m2("-p", "blue", "node", "list", "--state", "free").out
    assert "project" not in desk.requests[0].url.params
    desk.answers["GET /v1/nodes"] = []
    assert "blue holds no such node" in desk.m2("-p", "blue", "node", "list", "--state", "allocated").err
    assert desk.requests[-1].url.params["project"] == "blue"


def test_the_environment_names_server_project_and_token(desk: Desk) -> None:
    desk.answers["GET /v1/nodes"] = []
    desk.m2("node", "list", environment={"M2_URL": "https://far", "M2_PROJECT": "blue", "M2_TOKEN": "t9"})
    (request,) = desk.requests
    assert (request.url.host, request.url.params["project"]) == ("far", "blue")
    assert request.headers["Authorization"] == "Bearer t9"


def test_an_empty_list_says_what_to_do_and_keeps_output_empty(desk: Desk) -> None:
    desk.answers["GET /v1/networks"] = []
    ran = desk.m2("network", "list")
    assert (ran.code, ran.out) == (0, "")
    assert "m2 network create" in ran.err
    assert desk.m2("network", "list", "--json").json == []


def test_an_error_is_one_line_and_one_line_of_advice(desk: Desk) -> None:
    desk.answers["GET /v1/nodes/node-09"] = problem(404, "not-found", "There is no node node-09.", "Look at the list.")
    ran = desk.m2("node", "show", "node-09")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.splitlines() == ["error: There is no node node-09.", "fix: Look at the list."]


def test_an_error_for_programs_is_json(desk: Desk) -> None:
    desk.answers["GET /v1/nodes/node-09"] = problem(404, "not-found", "There is no node node-09.")
    ran = desk.m2("node", "show", "node-09", "--json")
    assert json.loads(ran.err)["code"] == "not-found"
    assert ran.out == ""


def test_no_server_says_how_to_start_one(desk: Desk) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    desk.answers["GET /v1/nodes"] = refuse
    ran = desk.m2("node", "list")
    assert ran.code == 1
    assert "Nothing answers at http://127.0.0.1:8642." in ran.err
    assert "m2d serve" in ran.err


def test_no_login_says_how_to_log_in(desk: Desk) -> None:
    desk.answers["GET /v1/nodes"] = problem(401, "unauthenticated", "This needs a valid token.")
    assert "fix: Log in with `m2 login`." in desk.m2("node", "list").err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("provision", "--network", "lab"), "--image or --disk"),
        (("provision", "--network", "lab", "--image", "a", "--disk", "b"), "--image or --disk"),
        (("provision", "--network", "lab", "--disk", "b", "--disk-size", "20G"), "--disk-size"),
        (("provision", "--network", "lab", "--image", "a", "--hostname", "No_Good"), "hostname"),
        (("provision", "--network", "lab", "--image", "a", "--disk-size", "big"), "20G"),
        (("network", "create", "../x"), "a-z"),
        (("network", "create", "x", "--cidr", "10.0.0.1/8"), "10.0.0.0/24"),
        (("node", "maintenance", "n"), "--reason"),
        (("node", "maintenance", "n", "--end", "--reason", "x"), "--end"),
        (("node", "enrol", "n", "--bmc", "https://x", "--wire", "nonsense"), "MAC=SWITCH/PORT"),
        (("node", "enrol", "n", "--bmc", "https://x", "--user", "root"), "--password-file"),
        (("disk", "delete", "d"), "--yes"),
        (("node", "rm", "n"), "--yes"),
        (("project", "rm", "p"), "--yes"),
        (("network", "rm", "x"), "--yes"),
        (("switch", "rm", "tor1"), "--yes"),
        (("project", "member", "set", "p", "u", "--role", "admin"), "'member', 'reader'"),
        (("event", "list", "--since", "yesterday"), "12h"),
        (("image", "import", "/nowhere/x.raw", "--golden"), "/nowhere/x.raw"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_senseless_command_line_is_told_before_anything_is_sent(
    desk: Desk, words: tuple[str, ...], told: str
) -> None:
    ran = desk.m2(*words)
    assert ran.code in (1, 2)
    assert told in ran.err
    assert "Traceback" not in ran.err
    assert desk.requests == []


def test_unknown_commands_and_options_are_usage_errors(desk: Desk) -> None:
    assert desk.m2("nod", "list").code == 2
    assert desk.m2("node", "list", "--nope").code == 2
    assert desk.m2("node", "list", "--state", "gone").code == 2


def test_login_keeps_the_token_and_uses_it(desk: Desk) -> None:
    desk.answers |= {"POST /v1/login": ISSUED, "GET /v1/whoami": WHO, "GET /v1/nodes": []}
    ran = desk.m2("login", "ann", "--password-file", "-", typed="correct horse\n")
    assert ran.code == 0, ran.err
    assert desk.sent("POST /v1/login")["password"] == "correct horse"
    assert "s3cret" not in ran.out + ran.err
    kept = load_logins(desk.config)
    assert (kept.current, kept.servers[URL].token, kept.servers[URL].user) == (URL, "s3cret", "ann")
    desk.m2("node", "list")
    assert desk.requests[-1].headers["Authorization"] == "Bearer s3cret"


def test_login_sends_no_old_token_and_keeps_none_when_refused(desk: Desk) -> None:
    desk.answers["POST /v1/login"] = problem(401, "wrong-password", "User name or password is wrong.")
    ran = desk.m2("login", "ann", "--password-file", "-", typed="no\n", environment={"M2_TOKEN": "old"})
    assert ran.code == 1
    assert "Authorization" not in desk.requests[0].headers
    assert not desk.config.exists()


def test_login_warns_before_a_password_travels_unencrypted(desk: Desk) -> None:
    desk.answers |= {"POST /v1/login": ISSUED, "GET /v1/whoami": WHO}
    ran = desk.m2("login", "ann", "--password-file", "-", "--url", "http://far:8080", typed="x\n")
    assert "not encrypted" in ran.err


def test_logout_revokes_and_forgets(desk: Desk) -> None:
    desk.answers |= {"POST /v1/login": ISSUED, "GET /v1/whoami": WHO, f"DELETE /v1/tokens/{id_of(6)}": None}
    desk.m2("login", "ann", "--password-file", "-", typed="x\n")
    assert desk.m2("logout").code == 0
    assert desk.requests[-1].method == "DELETE"
    assert load_logins(desk.config).servers == {}


def test_logout_revokes_what_the_login_kept_and_no_token_of_the_environment(desk: Desk) -> None:
    desk.answers |= {"POST /v1/login": ISSUED, "GET /v1/whoami": WHO, f"DELETE /v1/tokens/{id_of(6)}": None}
    desk.m2("login", "ann", "--password-file", "-", typed="x\n")
    ran = desk.m2("logout", environment={"M2_TOKEN": "robot"})
    assert [request.headers["Authorization"] for request in desk.requests[-2:]] == ["Bearer s3cret"] * 2
    assert desk.requests[-1].method == "DELETE"
    assert "M2_TOKEN is set" in ran.err


def test_a_password_file_gives_its_first_line(desk: Desk, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("pass word \nmore\n")
    desk.answers["POST /v1/users"] = WHO["user"]
    desk.m2("user", "create", "ann", "--password-file", str(file))
    assert desk.sent("POST /v1/users")["password"] == "pass word "


def test_a_slow_command_shows_its_steps_and_what_dominated(desk: Desk) -> None:
    looks = [operation("running", steps=STEPS[:2]), operation("waiting", reason="no login yet", steps=STEPS[:4])]
    desk.answers |= {
        "POST /v1/provisions": operation("pending"),
        f"GET /v1/operations/{OPERATION}": [Turn(look) for look in [*looks, operation(steps=STEPS)]],
        "GET /v1/attachments": [],
        "GET /v1/targets": [],
    }
    ran = desk.m2("provision", "--image", "tiny", "--network", "lab")
    assert ran.code == 0
    assert ran.out.splitlines() == [
        "   0.03 s  clone-disk",
        "    2.1 s  power-off",
        "    0.4 s  set-ports  the switch was busy (2 attempts)",
        "    4.0 s  power-on",
        "           await-boot: no login yet",
        "   33.0 s  await-boot",
        "provision node-01 done in 40.0 s, mostly await-boot, 33.0 s (82%).",
    ]


def test_a_slow_command_for_programs_prints_the_end_alone(desk: Desk) -> None:
    desk.answers |= {
        "POST /v1/provisions": operation("pending"),
        f"GET /v1/operations/{OPERATION}": operation(steps=STEPS),
    }
    ran = desk.m2("provision", "--image", "tiny", "--network", "lab", "--json")
    shown = json.loads(ran.out)
    assert (shown["state"], len(shown["steps"])) == ("succeeded", 5)
    assert ran.err == ""


def test_no_wait_returns_the_id_at_once(desk: Desk) -> None:
    desk.answers["POST /v1/nodes/node-01/release"] = operation("pending", kind="release")
    ran = desk.m2("node", "release", "node-01", "--no-wait")
    assert (ran.code, ran.out.strip()) == (0, OPERATION)
    assert f"m2 operation watch {OPERATION}" in ran.err
    assert len(desk.requests) == 1


def test_a_failed_operation_is_told_with_its_fix(desk: Desk) -> None:
    error = {"code": "refused", "message": "The BMC refused the password.", "fix": "Correct it.", "details": {}}
    desk.answers |= {
        "POST /v1/nodes/node-01/release": operation("pending", kind="release"),
        f"GET /v1/operations/{OPERATION}": operation("failed", kind="release", error=error),
    }
    ran = desk.m2("node", "release", "node-01")
    assert ran.code == 1
    assert ran.err.splitlines() == [
        "error: release node-01 failed and was undone after 40.0 s: The BMC refused the password.",
        "fix: Correct it.",
    ]
    assert desk.m2("node", "release", "node-01", "--json").code == 1


def test_a_parked_operation_says_how_to_resume(desk: Desk) -> None:
    parked = operation("needs-operator", reason="This version does not know the step.")
    desk.answers[f"GET /v1/operations/{OPERATION}"] = parked
    ran = desk.m2("operation", "watch", OPERATION)
    assert ran.code == 1
    assert "does not know the step" in ran.err
    assert f"m2 operation resume {OPERATION}" in ran.err


def test_ctrl_c_detaches_and_says_how_to_go_on(desk: Desk) -> None:
    def interrupt(request: httpx.Request) -> object:
        raise KeyboardInterrupt

    desk.answers |= {
        "POST /v1/nodes/node-01/release": operation("pending"),
        f"GET /v1/operations/{OPERATION}": interrupt,
    }
    ran = desk.m2("node", "release", "node-01")
    assert ran.code == 130
    assert "the operation goes on" in ran.err
    assert f"m2 operation watch {OPERATION}" in ran.err
    assert f"m2 operation cancel {OPERATION}" in ran.err
    assert all("cancel" not in request.url.path for request in desk.requests)


def test_cancel_ends_well_when_undone(desk: Desk) -> None:
    desk.answers |= {
        f"POST /v1/operations/{OPERATION}/cancel": operation("undoing"),
        f"GET /v1/operations/{OPERATION}": operation("cancelled"),
    }
    ran = desk.m2("operation", "cancel", OPERATION)
    assert ran.code == 0
    assert "is undone" in ran.out


@pytest.mark.parametrize("ref", [OPERATION, OPERATION[-8:], OPERATION[-3:].upper(), "node-01"])
def test_an_operation_is_named_by_id_end_or_node(desk: Desk, ref: str) -> None:
    desk.answers |= {
        "GET /v1/operations": [operation(id=id_of(76)), operation()],
        f"GET /v1/operations/{OPERATION}": operation(steps=STEPS),
    }
    ran = desk.m2("operation", "show", ref)
    assert ran.code == 0, ran.err
    assert "█" in ran.out


def test_the_timeline_of_a_node_is_its_latest_operations(desk: Desk) -> None:
    desk.answers |= {
        "GET /v1/operations": [operation(id=id_of(76)), operation()],
        f"GET /v1/operations/{OPERATION}": operation(steps=STEPS),
    }
    ran = desk.m2("node", "timeline", "node-01", "-n", "1")
    assert ran.out.count("await-boot  ") == 1


def test_the_console_is_cleaned_of_what_drives_terminals(desk: Desk) -> None:
    desk.answers["GET /v1/nodes/node-01/console"] = {"text": "login:\x1b]0;owned\x07 \x1b[31m"}
    assert desk.m2("node", "console", "node-01").out == "login:]0;owned [31m\n"
    assert "\x1b" in desk.m2("node", "console", "node-01", "--raw").out


def test_markup_of_strangers_stays_text(desk: Desk) -> None:
    desk.answers["GET /v1/nodes"] = [node(1, state_reason="[red]boom[/red] :smile: \x1b[31m")]
    assert "[red]boom[/red] :smile: [31m" in desk.m2("node", "list").out


def test_ssh_keys_are_sent_and_private_ones_never(desk: Desk, tmp_path: Path) -> None:
    public, private = tmp_path / "id.pub", tmp_path / "id"
    public.write_text("ssh-ed25519 AAAA ann@lab\n\n")
    private.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nsecret\n")
    desk.answers["POST /v1/provisions"] = operation("pending")
    words = ("provision", "--image", "tiny", "--network", "lab", "--no-wait", "--ssh-key")
    assert desk.m2(*words, str(public)).code == 0
    assert desk.sent("POST /v1/provisions")["ssh_keys"] == ["ssh-ed25519 AAAA ann@lab"]
    before = len(desk.requests)
    assert desk.m2(*words, str(private)).code == 2
    assert len(desk.requests) == before


def test_a_pipe_gets_whole_lines(desk: Desk) -> None:
    desk.answers["GET /v1/nodes"] = [node(1, state_reason="long words " * 30)]
    assert len(desk.m2("node", "list").out.splitlines()) == 2


def test_the_installed_program_answers_without_a_server(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path),
        "M2_URL": "http://127.0.0.1:9",
    }
    words = [sys.executable, "-m", "malleable.cli", "node", "list"]
    ran = subprocess.run(words, capture_output=True, text=True, env=environment, check=False, timeout=60)
    assert ran.returncode == 1
    assert ran.stderr.startswith("error: Nothing answers at http://127.0.0.1:9.\nfix: ")
