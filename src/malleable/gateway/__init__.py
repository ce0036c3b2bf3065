"""The process beside the nodes: DHCP, boot scripts, metadata and disk portals, one namespace per network."""
