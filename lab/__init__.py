"""The lab: four systemd hosts on this machine, and what they need, made from package registries."""
