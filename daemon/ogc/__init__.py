"""OGC API - Features, and a QGIS project on it."""
