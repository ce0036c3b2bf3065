"""``python -m malleable.cli`` is ``m2``."""

from malleable.cli.main import run

run()
