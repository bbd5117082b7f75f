"""Foreign map formats, one module each: text or bytes of another tool <-> Manifest."""
