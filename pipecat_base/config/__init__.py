"""Settings, the environment, .env files and suggestions for misspelled names."""
