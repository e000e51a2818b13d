"""Laws: views."""
