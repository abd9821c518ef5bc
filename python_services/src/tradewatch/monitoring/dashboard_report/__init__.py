"""dashboard-report: Grafana's dashboard JSON as a page with plots, and as one file to mail."""
