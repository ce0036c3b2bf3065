"""Console logs become lines that a person can read."""

from pathlib import Path

from malleable.sim.rack import console


def test_only_what_was_said_since_the_power_came_on(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    log.write_bytes(b"login: \n")
    offset = console.size_bytes(log)
    with log.open("ab") as file:
        file.write(b"iPXE\r\nready\r\n")

    assert console.lines_since(log, offset, limit=10) == ["iPXE", "ready"]


def test_what_firmware_paints_with_is_gone(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    log.write_bytes(b"\x1bc\x1b[?7l\x1b[2J\x1b[0mSeaBIOS\x1b[01;00H\x00\n\x1b(BBoot\xff\n\n   \n")

    assert console.lines_since(log, 0, limit=10) == ["SeaBIOS", "Boot\ufffd"]


def test_the_newest_lines_win(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    log.write_text("".join(f"line {number}\n" for number in range(300)))

    assert console.lines_since(log, 0, limit=2) == ["line 298", "line 299"]


def test_a_log_that_grew_for_days_is_not_read_whole(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    log.write_bytes(b"old\n" + b"x" * console.MAX_READ_BYTES + b"\nnew\n")

    assert console.lines_since(log, 0, limit=10**9)[-1] == "new"
    assert "old" not in console.lines_since(log, 0, limit=10**9)


def test_a_node_that_never_ran_has_said_nothing(tmp_path: Path) -> None:
    assert console.size_bytes(tmp_path / "none") == 0
    assert console.lines_since(tmp_path / "none", 0, limit=10) == ()
