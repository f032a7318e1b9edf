"""Who may reach what: keys, tokens, names and origins, signatures, the pod's own token."""
