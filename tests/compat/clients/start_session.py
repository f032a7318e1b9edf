"""A user's program: ``start_session.py AGENT KEY PARAMS`` starts a session with Pipecat Cloud's SDK."""

import asyncio
import json
import sys

from pipecatcloud.exception import AgentStartError
from pipecatcloud.session import Session, SessionParams

agent, key, params = sys.argv[1:]
try:
    print(json.dumps({"result": asyncio.run(Session(agent, key, SessionParams(**json.loads(params))).start())}))
except AgentStartError as error:
    print(json.dumps({"code": error.error_code, "text": str(error)}))
