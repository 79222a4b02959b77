"""Container, compose, Prometheus, Grafana, systemd: files, no code."""
