"""The sandbox in which programs read uploads."""

from pathlib import Path

from tests.contract.engine.conftest import Until

from malleable.drivers.convert.sandbox import running, sandbox

TRIES = 60
until = Until()


def of(source: Path) -> list[str]:
    """Find the processes that were begun for a file."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0") if folder.name.isdigit() else []
        except OSError:  # it has ended
            continue
        if str(source).encode() in words:
            found.append(folder.name)
    return found


def test_what_is_ended_while_it_begins_leaves_no_process(tmp_path: Path) -> None:
    source = tmp_path / "upload"
    source.write_bytes(b"content")
    for number in range(TRIES):
        with running([*sandbox(source, 60), "sleep", "600"]):
            sum(range(number * 5000))  # another moment of its beginning each time
    until(lambda: not of(source), seconds=20.0)


def test_what_ends_by_itself_has_its_own_exit_code(tmp_path: Path) -> None:
    source = tmp_path / "upload"
    source.write_bytes(b"content")
    with running([*sandbox(source, 60), "cat", "/source"]) as run:
        assert run.communicate()[0] == b"content"
    assert run.returncode == 0
