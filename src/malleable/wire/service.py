"""What the service says of itself."""

from malleable.wire.shapes import Answer, Open


class VersionView(Answer):
    """Which program answers."""

    name: Open[str] = "malleable"
    version: Open[str]
    api: Open[str] = "v1"


class HealthView(Answer):
    """Whether the parts that an API server needs work; ``failing`` names the others and why."""

    status: Open[str]
    failing: Open[dict[str, str]] = {}
