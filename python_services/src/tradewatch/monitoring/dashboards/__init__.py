"""The two dashboards as code. Making them needs `grafana-foundation-sdk`, which the services' image does not have."""
