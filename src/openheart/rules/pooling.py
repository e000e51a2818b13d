"""Laws: pooling."""
