"""The commands, one module each; main joins them."""
