KEYS: dict[str, str] = {}
KEY = KEYS["OPENAI_API_KEY"]


async def bot(args: object) -> None: ...
