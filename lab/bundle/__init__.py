"""What the lab builds from package registries, cached by content below the artifact cache."""
