"""Simulated devices with fault knobs: shipped code, held to the same contract suites as the real drivers."""
