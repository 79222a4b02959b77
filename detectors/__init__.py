"""Pixels to regions: reading, grid, registration, radiometry, masks, detectors, vectorising.

This room knows no map database and no broker. A previous map reaches it as a raster of cover
classes on the scene's grid (``detectors.types.MapLabels``).
"""
