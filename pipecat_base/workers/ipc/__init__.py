"""Messages between processes, over a socket that passes descriptors."""
