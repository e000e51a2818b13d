"""Laws: random."""
