"""Uplink drivers: how a gateway gets an interface on a network's VLAN."""
