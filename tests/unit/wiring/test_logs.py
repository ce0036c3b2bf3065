"""A server's log: one JSON object per line, whoever writes it."""

import json
import logging

import pytest
import structlog

from malleable.wiring import logs


def test_every_line_is_json_where_no_terminal_reads_it(capsys: pytest.CaptureFixture[str]) -> None:
    structlog.reset_defaults()
    try:
        logs.configure("info")
        structlog.get_logger().warning("ours", switch="tor1")
        logging.getLogger("a.library").warning("theirs %s", "told")
        logging.getLogger("a.library").info("too much")
        lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    finally:
        structlog.reset_defaults()
        logging.basicConfig(level=logging.WARNING, force=True)
    assert [(line["event"], line["level"]) for line in lines] == [("ours", "warning"), ("theirs told", "warning")]
    assert lines[1]["logger"] == "a.library"
    assert all("timestamp" in line for line in lines)
