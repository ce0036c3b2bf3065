"""The OpenAPI document; ``python -m malleable.api.document`` prints it, and a test holds the checked-in copy equal."""

import json
import sys
from collections.abc import Mapping
from typing import Any

from malleable.api.app import bare_app

#: Of the API, not of the program: it changes when clients must.
API_VERSION = "1"
_OPEN = {"/v1/", "/v1/health", "/v1/login"}


def document() -> dict[str, Any]:
    """Make the document, with what the framework cannot know: tokens and idempotency keys."""
    made = bare_app(API_VERSION).openapi()
    made["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for path, methods in made["paths"].items():
        for method, operation in methods.items():
            if path not in _OPEN:
                operation["security"] = [{"token": []}]
            if method == "post" and path not in _OPEN:
                operation.setdefault("parameters", []).append(_IDEMPOTENCY_KEY)
    return made


def text(made: Mapping[str, Any]) -> str:
    """Write the document as it is checked in."""
    return json.dumps(made, indent=1, sort_keys=True) + "\n"


_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Send the same key again to get the first answer again instead of doing it twice; kept for a day.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[!-~]+$"},
}

if __name__ == "__main__":
    sys.stdout.write(text(document()))
