"""The map page: tiles, pictures, what is kept of a store for them."""
