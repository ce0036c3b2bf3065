"""Disk targets: one file per kind of target daemon."""
