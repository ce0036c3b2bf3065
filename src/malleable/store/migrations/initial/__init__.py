"""The first schema, a frozen copy of what ``store.schema`` was; never edit it after a release."""

from malleable.store.migrations.initial import fabric, machines, operations, people, storage
from malleable.store.migrations.initial.columns import metadata

__all__ = ["fabric", "machines", "metadata", "operations", "people", "storage"]
