"""Switches through Ansible: one role and one dialect for each network operating system."""
