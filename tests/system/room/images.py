"""Where `make tiny` puts what these tests boot."""

from pathlib import Path

TINY = Path(__file__).parents[3] / "build" / "images" / "tiny.json"
