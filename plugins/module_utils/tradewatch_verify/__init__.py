"""The checks of verify.yml; the module platform_verify runs them."""
