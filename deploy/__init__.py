"""Container, compose, Prometheus, Grafana, systemd: files, and what makes the dashboards."""
