from pathlib import Path

from malleable.cli.reference import reference

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "cli.md"


def test_the_reference_says_what_the_commands_are() -> None:
    assert PAGE.read_text() == reference(), "run: python -m malleable.cli.reference > docs/reference/cli.md"
