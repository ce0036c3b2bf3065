"""A story told while it happens: chapters with their seconds, checks with their evidence, and a summary as JSON."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from malleable.domain.errors import MalleableError


class StoryFailed(MalleableError):
    """A check of the story failed."""

    code = "story-failed"


@dataclass(slots=True)
class Story:
    """Narrates on ``console`` and remembers everything for the summary."""

    console: Console
    chapters: list[dict[str, object]] = field(default_factory=list)
    checks: list[dict[str, object]] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)

    @contextmanager
    def chapter(self, title: str) -> Iterator[None]:
        """Tell a part, and how long it took."""
        self.console.print(f"\n[bold]{title}[/bold]")
        began_s = time.monotonic()
        try:
            yield
        finally:
            seconds = round(time.monotonic() - began_s, 2)
            self.chapters.append({"title": title, "seconds": seconds})
            self.console.print(f"  [dim]{seconds:.1f} s[/dim]", highlight=False)

    def say(self, text: str) -> None:
        """Tell something."""
        self.console.print(f"  {text}", highlight=False, soft_wrap=True)

    def check(self, what: str, is_true: bool, evidence: object) -> None:
        """Note whether something is so, with what shows it. Errors: StoryFailed when it is not."""
        self.checks.append({"check": what, "passed": is_true, "evidence": evidence})
        mark = "[green]✓[/green]" if is_true else "[red]✗[/red]"
        self.console.print(f"  {mark} {what}", highlight=False)
        if not is_true:
            raise StoryFailed(f"Not so: {what}.", fix=f"Evidence: {json.dumps(evidence, default=str)}")

    def summary(self) -> Mapping[str, object]:
        """Return all of it; ``passed`` only when something was checked and nothing failed."""
        passed = bool(self.checks) and all(check["passed"] for check in self.checks)
        return {"passed": passed, "checks": self.checks, "stages": self.chapters, **self.facts}

    def write(self, path: Path) -> None:
        """Write the summary to a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.summary(), indent=2, default=str) + "\n")
