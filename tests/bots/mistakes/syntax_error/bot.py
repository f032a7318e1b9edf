
def broken()
    pass
