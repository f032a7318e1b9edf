bot = None
