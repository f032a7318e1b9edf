"""Every hook, each saying that it ran."""

import json
import os


def say(what):
    print(json.dumps({"said": what}), flush=True)


async def setup():
    say("setup ran")


def teardown():
    say("teardown ran")


def readyz():
    return json.loads(os.environ.get("READYZ", "true"))


def create_file_storage():
    say("create_file_storage ran")
    return "the storage"


async def bot(args):
    say(f"bot ran with {args.file_storage}")
