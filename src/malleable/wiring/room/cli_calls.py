"""The ordinary `m2` command, run for the story: shown, executed, and its JSON read."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from malleable.domain.errors import MalleableError
from malleable.domain.secrets import Secret
from malleable.wiring.story import Story


class CommandFailed(MalleableError):
    """A command of the story failed."""

    code = "command-failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class M2:
    """`m2` for one person."""

    story: Story
    url: str
    token: Secret

    def run(self, *words: str, given: str | None = None) -> Any:
        """Run a command and return its JSON answer. Errors: CommandFailed, with what it said."""
        process = self.start(*words, has_input=given is not None)
        out, err = process.communicate(given)
        if process.returncode != 0:
            raise CommandFailed(f"m2 {' '.join(words)}: {err.strip() or out.strip()}")
        return json.loads(out) if out.strip() else None

    def start(self, *words: str, has_input: bool = False) -> "subprocess.Popen[str]":
        """Start a command; the caller waits for it."""
        self.story.say(f"[cyan]$ m2 {' '.join(words)}[/cyan]")
        return subprocess.Popen(
            [sys.executable, "-m", "malleable.cli", "--json", *words],
            env={**os.environ, "M2_URL": self.url, "M2_TOKEN": self.token.reveal()},
            stdin=subprocess.PIPE if has_input else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
