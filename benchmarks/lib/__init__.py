"""What the benchmarks share: the networks, how time is taken, how a table is printed."""
