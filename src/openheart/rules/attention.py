"""Laws: attention."""
