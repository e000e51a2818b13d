"""Laws: indexing."""
