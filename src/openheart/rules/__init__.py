"""The rulebook: one law for each output of each operator."""
