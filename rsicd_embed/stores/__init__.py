"""Vector stores behind one interface: exact, nmslib, lancedb."""
