def create_file_storage():
    raise OSError("no bucket")


async def bot(args): ...
