"""Publication to the Géoplateforme (API Entrepôt)."""
