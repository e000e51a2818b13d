"""Laws: pointwise."""
