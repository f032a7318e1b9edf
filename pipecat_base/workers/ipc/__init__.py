"""What the launcher's processes say to each other: every message in one file, over a socket that passes descriptors."""
