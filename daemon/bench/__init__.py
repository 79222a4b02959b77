"""Measurements: ``millesimed bench``."""
