"""Drivers that read files from the web."""
