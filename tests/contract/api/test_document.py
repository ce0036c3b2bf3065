"""The OpenAPI document: checked in, and true."""

from pathlib import Path

import malleable.api
from malleable.api.document import document, text

CHECKED_IN = Path(malleable.api.__file__).with_name("openapi.json")


def test_checked_in_document_is_what_the_routes_say() -> None:
    assert CHECKED_IN.read_text() == text(document()), (
        "run: python -m malleable.api.document > src/malleable/api/openapi.json"
    )


def test_every_operation_is_named_and_documented() -> None:
    operations = [operation for methods in document()["paths"].values() for operation in methods.values()]
    assert all(operation["description"] for operation in operations)
    ids = [operation["operationId"] for operation in operations]
    assert len(ids) == len(set(ids))
