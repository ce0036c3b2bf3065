"""What the service says of itself."""

from malleable.wire.shapes import Answer


class VersionView(Answer):
    """Which program answers."""

    name: str = "malleable"
    version: str
    api: str = "v1"


class HealthView(Answer):
    """Whether the parts that an API server needs work; ``failing`` names the others and why."""

    status: str
    failing: dict[str, str] = {}
