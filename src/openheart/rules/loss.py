"""Laws: loss."""
