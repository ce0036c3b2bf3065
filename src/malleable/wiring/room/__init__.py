"""The main job in a virtual machine room of QEMU nodes, told live."""
