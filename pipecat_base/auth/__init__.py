"""Keys, tokens, signatures, origins: access control for routes."""
