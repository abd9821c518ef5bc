"""alert-notifier: takes alerts from Alertmanager, keeps them, and tells people until each is told."""
