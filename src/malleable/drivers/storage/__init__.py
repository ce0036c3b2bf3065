"""Pools of golden images and clones: one file per kind of pool."""
