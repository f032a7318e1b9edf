from json import loads


async def run_bot(transport): ...


def main(): ...
