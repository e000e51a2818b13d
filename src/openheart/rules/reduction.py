"""Laws: reduction."""
