"""One daemon of a network: found again, started, and asked why it died."""

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from malleable.domain.errors import Unavailable
from malleable.gateway import process
from malleable.gateway.process import ProcessId

START_DEADLINE_S = 10.0
_POLL_S = 0.005
_LOG_LIMIT_BYTES = 1 << 20
_LOG_TAIL_BYTES = 600


class Daemon:
    """A process that outlives the gateway. Used by one thread at a time."""

    def __init__(
        self,
        *,
        name: str,
        argv: Sequence[str],
        pid_file: Path,
        log_file: Path,
        is_ready: Callable[[ProcessId, str], bool],
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Say how to start it; nothing is started.

        ``is_ready`` is asked again and again with the process and what it has said since it was started; it may raise
        Unavailable when the process will never serve.
        """
        self._name = name
        self._argv = tuple(argv)
        self._pid_file = pid_file
        self._log_file = log_file
        self._is_ready = is_ready
        self._env = env

    def find(self) -> ProcessId | None:
        """Find the running daemon, by whichever gateway it was started; None if there is none."""
        return process.recorded(self._pid_file)

    def ensure(self) -> ProcessId:
        """Adopt the running daemon or start one, and wait until it serves.

        Errors: Unavailable with the daemon's last words.
        """
        running = self.find()
        if running is not None:
            return running
        self.limit_log()
        since = self.log_bytes()
        started = process.spawn(self._argv, pid_file=self._pid_file, log=self._log_file, env=self._env)
        self.prove(started, lambda: self._is_ready(started, self.said(since)))
        return started

    def prove(self, running: ProcessId, is_so: Callable[[], bool]) -> None:
        """Wait until ``is_so``, with ``running`` alive; else end it.

        Errors: Unavailable with the daemon's last words, or what ``is_so`` raised.
        """
        try:
            self._wait(running, is_so)
        except Unavailable:
            process.kill(running)
            raise

    def signal(self, number: signal.Signals) -> None:
        """Signal the daemon if it runs."""
        running = self.find()
        if running is not None:
            process.send(running, number)

    def stop(self) -> None:
        """End the daemon at once; nothing to do if it does not run."""
        running = self.find()
        if running is not None:
            process.kill(running)
        self._pid_file.unlink(missing_ok=True)

    def log_bytes(self) -> int:
        """Return how long the daemon's log is."""
        try:
            return self._log_file.stat().st_size
        except FileNotFoundError:
            return 0

    def said(self, since: int) -> str:
        """Read what the daemon's log says from byte ``since`` on."""
        try:
            with self._log_file.open("rb") as log:
                log.seek(since)
                return log.read().decode(errors="replace")
        except FileNotFoundError:
            return ""

    def last_words(self) -> str:
        """Quote the end of the daemon's log."""
        lines = self.said(max(0, self.log_bytes() - _LOG_TAIL_BYTES)).splitlines()
        return " ".join(deque((line.strip() for line in lines if line.strip()), maxlen=2)) or "it said nothing."

    def limit_log(self) -> None:
        """Keep the end of the log, as an earlier one, once it has grown large: nodes decide how much is written."""
        size_bytes = self.log_bytes()
        if size_bytes > _LOG_LIMIT_BYTES:
            end = self.said(size_bytes - _LOG_LIMIT_BYTES)
            self._log_file.with_suffix(".log.1").write_text(end)
            # The daemon appends, so it goes on at the new end.
            os.truncate(self._log_file, 0)

    def _wait(self, running: ProcessId, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_DEADLINE_S
        while True:
            is_proven = is_so()
            if process.identify(running.pid) != running:
                raise Unavailable(f"{self._name} ended at once: {self.last_words()}", fix=self._advice())
            if is_proven:
                return
            if time.monotonic() > deadline:
                words = self.last_words()
                raise Unavailable(
                    f"{self._name} did not serve within {START_DEADLINE_S:g} s: {words}", fix=self._advice()
                )
            time.sleep(_POLL_S)

    def _advice(self) -> str:
        return f"Read {self._log_file}."
