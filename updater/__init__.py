"""The map: the DuckDB store, import, planning a patch, topology, history, alerts, export.

This room knows no broker and no pixels. Planning, generalising, legal status and the alert life
cycle are functions of values; only ``store`` and the modules built on it touch a file.
"""
