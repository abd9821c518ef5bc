"""watchdog-receiver: outside the cluster, tells people when the cluster's Watchdog alert has stopped coming."""
