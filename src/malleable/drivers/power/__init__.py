"""Power drivers."""
