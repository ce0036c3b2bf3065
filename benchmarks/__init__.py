"""What the product costs, measured: `python -m benchmarks` (`make bench`)."""
