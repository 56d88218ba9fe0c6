"""Pictures and texts → vectors."""
