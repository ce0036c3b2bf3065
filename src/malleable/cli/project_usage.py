"""m2 project usage: what a project had of the disk storage, hour by hour."""

from datetime import UTC
from typing import TYPE_CHECKING

from malleable.cli.formats import size
from malleable.cli.options import ProjectArgument, Since, since
from malleable.cli.output import Column, show_list
from malleable.cli.session import Session

if TYPE_CHECKING:
    from malleable.wire.projects import UsageRecordView


def project_usage(session: Session, project: ProjectArgument, *, back: Since = "7d") -> None:
    """Show what a project had of the disk storage, a record for each hour: `--json` is for plots.

    "taken" is what the storage kept for it alone, without what is shared with images of others; sizes are what its
    disks (with their snapshots) and images may become. A record is made at some time of its hour, and once.
    """
    columns: list[Column[UsageRecordView]] = [
        Column(title="hour (UTC)", cell=lambda record: f"{record.at.astimezone(UTC):%Y-%m-%d %H:00}"),
        Column(title="taken", cell=_taken, is_number=True),
        Column(title="disk size", cell=lambda record: size(record.disk_bytes), is_number=True),
        Column(title="image size", cell=lambda record: size(record.image_bytes), is_number=True),
        Column(title="disks", cell=lambda record: str(record.disks), is_number=True),
        Column(title="snapshots", cell=lambda record: str(record.snapshots), is_number=True),
        Column(title="images", cell=lambda record: str(record.images), is_number=True),
    ]
    nothing = f"No record in {back}; one is made every hour."
    show_list(session, session.m2.usage_list(project, after=since(back)), columns, nothing=nothing)


def _taken(record: "UsageRecordView") -> str:
    return "?" if record.taken_bytes is None else size(record.taken_bytes)
