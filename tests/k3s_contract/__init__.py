"""What the roles rely on in k3s; it passes on the stand-in and on the real one."""
