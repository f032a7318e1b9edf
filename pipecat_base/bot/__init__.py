"""The only code that imports, calls and contains the user's bot.py."""
