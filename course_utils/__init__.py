"""Tools of the course on how neural networks are initialized."""
