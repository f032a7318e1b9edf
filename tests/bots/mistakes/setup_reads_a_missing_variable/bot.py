import os


def setup() -> None:
    print(os.environ["DEEPGRAM_API_KEY"])


async def bot(args: object) -> None: ...
