"""Who is admitted, what runs, how it ended. Knows neither routes nor the bot."""
