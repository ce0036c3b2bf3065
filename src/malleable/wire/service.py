"""What the service says of itself."""

from malleable.wire.shapes import Answer, Open


class VersionView(Answer):
    """Which program answers."""

    name: Open[str] = "malleable"
    version: Open[str]
    api: Open[str] = "v1"


class HealthView(Answer):
    """Whether the parts that an API server needs work, and what is wrong elsewhere: each by what it is, and why.

    ``status`` is ok, warning or failing.
    """

    status: Open[str]
    failing: Open[dict[str, str]] = {}
    warnings: Open[dict[str, str]] = {}
