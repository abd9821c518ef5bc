"""anomaly-detector: which of the key series are not as they usually are, and which of them moved most."""
