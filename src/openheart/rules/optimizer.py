"""Laws: optimizer."""
