import time

print("importing", flush=True)
time.sleep(60)


async def bot(args): ...
