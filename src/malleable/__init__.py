"""Malleable: hand any physical machine to any tenant in under a minute, and take it back safely."""
