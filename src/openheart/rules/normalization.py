"""Laws: normalization."""
