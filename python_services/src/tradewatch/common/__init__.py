"""What every service uses: settings, logs, metrics, the HTTP server, the life cycle, events and the bus."""
