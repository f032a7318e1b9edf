"""An ordinary function, with the arguments' old names."""

from pipecatcloud.agent import DailySessionArguments, PipecatSessionArguments


def bot(args: PipecatSessionArguments):
    room = f" in {type(args).__name__}" if isinstance(args, DailySessionArguments) else ""
    print(f"{args.session_id} brought {args.body}{room}", flush=True)
