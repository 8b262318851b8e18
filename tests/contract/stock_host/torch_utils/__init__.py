"""Stand-in; see dnnlib."""
