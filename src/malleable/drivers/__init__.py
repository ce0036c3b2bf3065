"""What speaks to devices: one folder per port of the domain, one file or folder per kind of device."""
