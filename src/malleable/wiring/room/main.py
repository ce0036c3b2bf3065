"""`m2d room-demo`: build the room, tell the story, leave it running or take it down."""

import time
from pathlib import Path

from rich.console import Console

from malleable.domain.errors import Invalid, MalleableError, Unavailable
from malleable.wiring.room.hall import Hall
from malleable.wiring.room.story import RoomStory
from malleable.wiring.root import require_root
from malleable.wiring.story import Story

NODES = 4
MEMORY_MIB = 1024


def hall_of(name: str) -> Hall:
    """Say where a named demo lives; two of different names run side by side."""
    return Hall(name=name, state_dir=Path(f"/var/lib/malleable-{name}"), run_dir=Path(f"/run/malleable-{name}"))


def play(name: str, image: str, images: Path, summary: Path, *, is_kept: bool) -> int:
    """Tell the whole story; return 0 when every check passed, else 1. The summary is written either way."""
    require_root("The virtual machine room")
    if not (images / f"{image}.json").exists():
        raise Invalid(f"There is no image {image} in {images}.", fix="Run `make images`.")
    story, hall, began_s = Story(Console()), hall_of(name), time.monotonic()
    if hall.url() is not None:
        raise Unavailable(f"The room {name} is up already.", fix="Go on with it, or run `make demo-down` first.")
    try:
        _tell(story, hall, image, images, is_kept=is_kept)
    except MalleableError as e:
        story.checks.append({"check": "the story goes on to its end", "passed": False, "evidence": str(e)})
        story.console.print(f"\n[red]{e.message}[/red]\n{e.fix}", highlight=False)
        story.facts["server_log"] = hall.last_words().splitlines()
    finally:
        if not is_kept:
            _take_down(story, hall)
        story.facts["seconds"] = round(time.monotonic() - began_s, 1)
        story.write(summary)
    passed = bool(story.summary()["passed"])
    verdict = "[green]passed[/green]" if passed else "[red]failed[/red]"
    story.console.print(
        f"\n{sum(bool(c['passed']) for c in story.checks)} of {len(story.checks)} checks {verdict} "
        f"in {story.facts['seconds']} s; all evidence in {summary}",
        highlight=False,
    )
    return 0 if passed else 1


def _tell(story: Story, hall: Hall, image: str, images: Path, *, is_kept: bool) -> None:
    with story.chapter(f"A virtual machine room of {NODES} machines, and m2d serve on its defaults"):
        room = hall.room(NODES, MEMORY_MIB)
        told = RoomStory(story, hall, room, images, image)
        story.say(f"server at {told.url}")
    with story.chapter("The operator's first day"):
        told.furnish()
    with story.chapter("Two tenants boot at once from one golden image, diskless, each in its own network"):
        told.provision_both()
    with story.chapter("They cannot reach each other, nor each other's storage"):
        told.check_isolation()
    with story.chapter("Alice gives her machine back and resumes her disk on another"):
        told.move_alice()
    with story.chapter("What happened, step by step"):
        told.show_timelines()
        told.verify_events()
    if is_kept:
        told.say_how_to_go_on()


def _take_down(story: Story, hall: Hall) -> None:
    with story.chapter("Everything is taken down"):
        troubles = list(hall.remove())
        story.checks.append({"check": "nothing is left", "passed": not troubles, "evidence": troubles})
        for trouble in troubles:
            story.say(f"[red]{trouble}[/red]")
