"""Image encoders, one architecture a file."""
