"""SQLAlchemy Core on SQLite or PostgreSQL: rows <-> domain values, no rules.

``upgrade`` (in ``store.migrate``) makes or migrates a database, ``open_store`` opens it.
"""

from malleable.store.sealing import KEY_BYTES, new_key
from malleable.store.store import SqlStore, open_store

__all__ = ["KEY_BYTES", "SqlStore", "new_key", "open_store"]
