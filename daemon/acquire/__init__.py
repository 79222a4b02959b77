"""Where acquisitions come from: watchers, their protocols, what they fetch."""
