"""Tells which types its arguments satisfy, as bots test for them."""

import json

try:
    from pipecat.runner import types as runner
except ImportError:
    runner = None


async def bot(args):
    try:
        # Inside the function, as many bots do.
        from pipecatcloud import agent as cloud
    except ImportError:
        cloud = None
    wanted = {
        "runner": ("RunnerArguments", "DailyRunnerArguments", "WebSocketRunnerArguments", "SmallWebRTCRunnerArguments"),
        "cloud": ("PipecatSessionArguments", "DailySessionArguments", "WebSocketSessionArguments", "SessionArguments"),
    }
    modules = {"runner": runner, "cloud": cloud}
    satisfied = [
        name
        for module, names in wanted.items()
        for name in names
        if modules[module] is not None and isinstance(args, getattr(modules[module], name))
    ]
    said = {
        "said": True,
        "satisfied": satisfied,
        "name": type(args).__name__,
        "module": type(args).__module__,
        "session_id": args.session_id,
        "body": args.body,
        "file_storage": args.file_storage,
        "flow_config": args.flow_config,
        "handle": [args.handle_sigint, args.handle_sigterm],
        "room": [getattr(args, "room_url", None), getattr(args, "token", None)],
        "transport_type": getattr(args, "transport_type", "absent"),
    }
    print(json.dumps(said), flush=True)
