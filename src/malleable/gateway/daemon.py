"""One daemon of a network: found again, started, and asked why it died."""

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
        is_ready: Callable[[ProcessId], bool],
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Say how to start it and how to know that it serves; nothing is started."""
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
        self._limit_log()
        started = process.spawn(self._argv, pid_file=self._pid_file, log=self._log_file, env=self._env)
        self._wait_until_ready(started)
        return started

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

    def last_words(self) -> str:
        """Quote the end of the daemon's log."""
        try:
            lines = self._log_file.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").splitlines()
        except FileNotFoundError:
            return "it said nothing."
        return " ".join(deque((line.strip() for line in lines if line.strip()), maxlen=2)) or "it said nothing."

    def _wait_until_ready(self, started: ProcessId) -> None:
        deadline = time.monotonic() + START_DEADLINE_S
        while not self._is_ready(started):
            if process.identify(started.pid) != started:
                process.reap(started.pid)
                raise Unavailable(f"{self._name} ended at once: {self.last_words()}", fix=self._advice())
            if time.monotonic() > deadline:
                process.kill(started)
                raise Unavailable(f"{self._name} did not serve within {START_DEADLINE_S:g} s.", fix=self._advice())
            time.sleep(_POLL_S)

    def _advice(self) -> str:
        return f"Read {self._log_file}."

    def _limit_log(self) -> None:
        """Keep one earlier log when the present one has grown large."""
        if self._log_file.exists() and self._log_file.stat().st_size > _LOG_LIMIT_BYTES:
            self._log_file.replace(self._log_file.with_suffix(".log.1"))
