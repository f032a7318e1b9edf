import tools.missing
