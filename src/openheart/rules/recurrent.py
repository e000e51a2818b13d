"""Laws: recurrent."""
