"""Laws: convolution."""
