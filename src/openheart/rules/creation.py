"""Laws: creation."""
