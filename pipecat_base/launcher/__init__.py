"""The main function of each process (launcher, worker, template), how its parts are put together, and reloads."""
