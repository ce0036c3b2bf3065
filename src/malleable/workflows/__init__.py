"""Durable workflows: the engine, and one file per verb."""
