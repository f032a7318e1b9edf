import json

import nonexistent_package.client


async def bot(args): ...
