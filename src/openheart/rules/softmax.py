"""Laws: softmax."""
