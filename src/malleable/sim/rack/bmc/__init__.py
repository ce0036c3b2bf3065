"""The room's BMCs: one process, one Redfish listener per node, built on sushy-tools 2.2."""
