"""A storage daemon's monitor, asked with QEMU's own client for its protocol (QMP); one client at a time."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from qemu.qmp import ConnectError, ExecuteError, QMPClient, QMPError

from malleable.domain.errors import Refused, Unreachable

ANSWER_S = 30.0
CONNECT_TRIES = 5
T = TypeVar("T")


class Denied(Refused):
    """The daemon said no."""


class Monitor:
    """One conversation. Used by one thread."""

    def __init__(self, socket: Path) -> None:
        """Do no I/O: entering it connects."""
        self._socket = socket
        self._client = QMPClient("malleable")
        self._runner = asyncio.Runner()

    def __enter__(self) -> "Monitor":
        """Connect. Errors: Unreachable."""
        try:
            for _ in range(CONNECT_TRIES - 1):
                # What a job has come to may be told before the greeting, which the client takes for nonsense.
                with suppress(ConnectError):
                    self._wait(self._client.connect(str(self._socket)))
                    return self
            self._wait(self._client.connect(str(self._socket)))
        except ConnectError as e:
            self._runner.close()
            raise _gone(e) from e
        except BaseException:
            self._runner.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        try:
            self._wait(self._client.disconnect())
        except (QMPError, EOFError, OSError, Unreachable):
            return  # it ended meanwhile: whoever asked was told so
        finally:
            self._runner.close()

    def end(self, command: str, job: str) -> None:
        """Have a job end by ``job-cancel`` or ``job-finalize``; nothing to do if it has ended."""
        with suppress(Denied):
            self.ask(command, id=job)

    def ask(self, command: str, **arguments: object) -> Any:
        """Have a command done and return its answer. Errors: Denied, Unreachable."""
        said = {name.replace("_", "-"): value for name, value in arguments.items()}
        try:
            return self._wait(self._client.execute(command, said))
        except ExecuteError as e:
            is_full = "No space left" in str(e)
            code = "pool-full" if is_full else "pool-broken"
            raise Denied(f"The storage daemon refused {command}: {e}.", code=code) from e
        except (QMPError, EOFError, OSError) as e:
            raise _gone(e) from e

    def _wait(self, work: Awaitable[T]) -> T:
        async def within() -> T:
            return await asyncio.wait_for(work, ANSWER_S)

        try:
            return self._runner.run(within())
        except TimeoutError as e:
            raise Unreachable("The storage daemon does not answer.", fix="Look at the pool's disk.") from e


def _gone(error: Exception) -> Unreachable:
    return Unreachable(f"The storage daemon is gone: {error}.", fix="It is started anew by the next call.")
