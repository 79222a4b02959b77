"""A STAC API of the images behind the maps."""
