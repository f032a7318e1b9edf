"""The command line: ``init``, ``serve`` (the default), ``dev``, ``check``, ``doctor``, ``call``, and the rest."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from pipecat_base import __version__
from pipecat_base.bot.project import root, search_path
from pipecat_base.cli import output, runner_options, usage
from pipecat_base.config import environment, reference
from pipecat_base.config.container_env import is_service_link
from pipecat_base.config.env_file import NAME as ENV_FILE
from pipecat_base.config.env_file import EnvFile
from pipecat_base.config.settings import NAMES, Settings
from pipecat_base.errors import OTHER_EXIT_STATUSES, SettingsInvalid, StartupError, startup_errors
from pipecat_base.launcher.main import Process
from pipecat_base.server.paths import PHONES

OPTION_OF_VARIABLE = {
    "PIPECAT_BOT": "bot",
    "PORT": "port",
    "PIPECAT_HOST": "host",
    "PIPECAT_INSECURE": "insecure",
    "PIPECAT_DEFAULT_TRANSPORT": "transport",
}
DEFAULT_PORT = 8080
MAX_TAIL_SECONDS = 3600


def main(arguments: Sequence[str] | None = None, *, site: str | None = None) -> NoReturn:
    """Run a command; ``site`` has the launcher's packages, unless they are in the bot's environment."""
    sys.exit(output.ending_quietly(lambda: _run(arguments, site)))


def _run(arguments: Sequence[str] | None, site: str | None) -> int:
    options = _parser().parse_args(arguments)
    options.site = site
    environment.correct(NAMES)
    return _status(lambda: options.run(options))


def _status(command: Callable[[], int]) -> int:
    try:
        return command()
    except StartupError as error:
        print(error.report(), file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return 130


def serve(options: argparse.Namespace) -> int:
    return Process(options.site).serve(lambda: _settings(options))


def dev(options: argparse.Namespace) -> int:
    from pipecat_base.launcher.reload import HOST, Development

    watched = root(_file(options))
    development = Development(
        _file(options).parent if watched == Path(os.path.expanduser("~")) else watched,
        EnvFile(_folder(options)),
        reload=options.reload,
    )
    flow_file = None if options.flow is None else Path(options.flow).absolute()

    def find_settings() -> Settings:
        development.env_file.read()
        runner_options.require(options, environment.read())
        given = runner_options.variables(options)
        defaults = {"PIPECAT_HOST": HOST, "PIPECAT_LOG_LEVEL": "INFO", **_not_blank(environment.read())}
        variables = {**defaults, "PIPECAT_GATEWAY": "1", **{name: value for name, (value, _) in given.items()}}
        shown_as = {name: option for name, (_, option) in given.items()}
        settings = _settings(options, variables, development.env_file, shown_as)
        return dataclasses.replace(settings, flow_config=None if flow_file is None else _flow(flow_file))

    return Process(options.site).serve(find_settings, development)


def _flow(file: Path) -> str:
    try:
        flow = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SettingsInvalid([f"--flow: {file} cannot be read ({error.strerror})"]) from None
    except UnicodeDecodeError:
        raise SettingsInvalid([f"--flow: {file} is not UTF-8 text"]) from None
    if not flow.strip():
        raise SettingsInvalid([f"--flow: {file} is blank; write a flow into it (YAML or JSON)"])
    return flow


def _file(options: argparse.Namespace) -> Path:
    bot = getattr(options, "bot", None) or environment.read().get("PIPECAT_BOT") or "bot.py"
    return Path(os.path.abspath(bot))


def _folder(options: argparse.Namespace) -> Path:
    """The folder of ``.env``: the bot's, or the nearest above it in the project that has one."""
    file = _file(options)
    folders = map(Path, search_path(file, root(file)))
    return next((folder for folder in folders if (folder / ENV_FILE).exists()), file.parent)


def _not_blank(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if value.strip()}


def check(options: argparse.Namespace) -> NoReturn:
    from pipecat_base.cli.check import main as check_bot

    env_file = EnvFile(_folder(options)) if options.env_file else None

    def load() -> Settings:
        return _settings(options, env_file=env_file)

    _exit_at_once(lambda: check_bot(load, env_file, site=options.site, prints_json=options.json))


def init(options: argparse.Namespace) -> int:
    from pipecat_base.cli.init import main as write_project

    return write_project(options.folder)


def doctor(options: argparse.Namespace) -> NoReturn:
    from pipecat_base.cli.doctor import main as examine

    def load(variables: Mapping[str, str], env_file: EnvFile) -> Settings:
        return _settings(options, variables, env_file)

    env_file = EnvFile(_folder(options))
    _exit_at_once(lambda: examine(env_file, load, site=options.site, prints_json=options.json))


def _exit_at_once(command: Callable[[], int]) -> NoReturn:
    """Exit without waiting for threads: the bot's may never end, nor may a check in the system's resolver."""
    os._exit(output.ending_quietly(lambda: _status(command)))


def call(options: argparse.Namespace) -> int:
    from pipecat_base.cli.call import main as place_calls

    env_file = EnvFile(_folder(options))
    env_file.read()
    name = f"{env_file.names['PORT']}: PORT" if "PORT" in env_file.names else "PORT"
    given = environment.read().get("PORT", "").strip()
    if not given or is_service_link("PORT", given):
        given = str(DEFAULT_PORT)
    if "port" in options:
        name, given = "--port", options.port
    if not given.isdecimal() or not 0 < int(given) < 65536:
        raise SettingsInvalid([f"{name}: {json.dumps(given)} is not a port (1–65535)"])
    return place_calls(options, int(given))


def token(options: argparse.Namespace) -> int:
    from pipecat_base.auth.tokens import Tokens

    secret = _settings(options).websockets.secret
    if secret is None:
        raise SettingsInvalid(["PIPECAT_WEBSOCKET_SECRET: not set; give it the value that the server has"])
    if options.lifetime <= 0:
        raise SettingsInvalid([f"--lifetime: {options.lifetime} is not a number of seconds (more than 0)"])
    print(Tokens(secret).mint(options.lifetime))
    return 0


def print_settings(options: argparse.Namespace) -> int:
    print(reference.as_json() if options.format == "json" else reference.markdown())
    return 0


def print_errors(options: argparse.Namespace) -> int:
    rows = exit_statuses()
    if options.format == "json":
        print(json.dumps([{"status": s, "code": c, "meaning": m} for s, c, m in rows], indent=2))
        return 0
    print("| status | code | meaning |\n|---|---|---|")
    for status, code, meaning in rows:
        print(f"| {status} | {f'`{code}`' if code else '-'} | {meaning} |")
    return 0


def exit_statuses() -> list[tuple[int, str, str]]:
    """Status, code and meaning of each; the code is empty unless it is a startup error's."""
    rows = [(error.exit_status, error.code, error.meaning) for error in startup_errors()]
    rows += [(status, "", meaning) for status, meaning in OTHER_EXIT_STATUSES.items()]
    return sorted(rows)


def commands() -> dict[str, argparse.ArgumentParser]:
    """The parser of each command, for the documentation."""
    (found,) = (action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))
    return dict(found.choices)


def _settings(
    options: argparse.Namespace,
    variables: Mapping[str, str] | None = None,
    env_file: EnvFile | None = None,
    shown: Mapping[str, str] | None = None,
) -> Settings:
    variables = dict(environment.read() if variables is None else variables)
    shown_as = {name: f"{where}: {name}" for name, where in env_file.names.items()} if env_file is not None else {}
    shown_as |= shown or {}
    for variable, option in OPTION_OF_VARIABLE.items():
        if option in options:
            variables[variable] = str(getattr(options, option))
            shown_as[variable] = f"--{option}"
    settings = Settings.load(variables, shown_as=shown_as)
    if env_file is None:
        return settings
    return dataclasses.replace(settings, warnings=(*env_file.warnings, *settings.warnings))


def _parser() -> argparse.ArgumentParser:
    # Parser-level defaults would override options given before the subcommand.
    parser = argparse.ArgumentParser(
        prog="pipecat-base",
        description=usage.GENERAL.description,
        argument_default=argparse.SUPPRESS,
        epilog=usage.epilog(usage.GENERAL),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"pipecat-base {__version__}")
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--bot", metavar="PATH", help="the bot's file (PIPECAT_BOT; bot.py)")
    common.add_argument("--host", help="address to listen on (PIPECAT_HOST; 0.0.0.0, for dev 127.0.0.1)")
    common.add_argument("--port", help="TCP port to listen on (PORT; 8080)")
    common.add_argument(
        "--insecure",
        action="store_true",
        help="let other machines reach a gateway without keys (PIPECAT_INSECURE)",
    )
    for action in common._actions:
        parser._add_action(action)
    parser.set_defaults(run=serve)
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")

    starter = _command(commands, "init", init)
    starter.add_argument(
        "folder",
        metavar="FOLDER",
        nargs="?",
        default=".",
        help="the project's folder; created if needed (the current folder)",
    )
    _command(commands, "serve", serve, common)
    developer = _command(commands, "dev", dev, common)
    developer.add_argument("--reload", action="store_true", default=False, help="reload the bot when it changes")
    developer.add_argument(
        "-t",
        "--transport",
        metavar="NAME",
        default=argparse.SUPPRESS,
        help="transport of a POST /start that names none (PIPECAT_DEFAULT_TRANSPORT; webrtc)",
    )
    developer.add_argument(
        "--flow", metavar="FILE", default=None, help="flow config of every session that brings none (args.flow_config)"
    )
    runner_options.add(developer)

    checker = _command(commands, "check", check, common)
    checker.add_argument("--json", action="store_true", help="print one JSON object")
    checker.add_argument(
        "--no-env-file",
        dest="env_file",
        action="store_false",
        default=True,
        help="do not read .env (serve never reads it)",
    )

    examiner = _command(commands, "doctor", doctor, common)
    examiner.add_argument("--json", action="store_true", help="print one JSON object")

    caller = _command(commands, "call", call)
    caller.add_argument(
        "wav", nargs="?", default=None, metavar="FILE.wav", help="the caller's speech: a WAV file of 16-bit PCM"
    )
    caller.add_argument("--scenario", metavar="FILE.toml", help="play several recordings instead, each at its time")
    caller.add_argument(
        "--webrtc", action="store_true", help="call over WebRTC, as a browser does, and not as a phone provider"
    )
    caller.add_argument("--provider", choices=PHONES, help="the phone provider (twilio)")
    caller.add_argument("--from", dest="caller", metavar="NUMBER", help="the caller's number")
    caller.add_argument("--to", dest="called", metavar="NUMBER", help="the called number")
    caller.add_argument("--body", metavar="JSON|@FILE", help="the session's body")
    caller.add_argument("--key", help="a gateway's API key; the session is requested with POST /start")
    caller.add_argument(
        "--url",
        help="the bot's address (ws://127.0.0.1:PORT/ws; with --webrtc http://127.0.0.1:PORT/api/offer), or a"
        " gateway's: http://host:port",
    )
    caller.add_argument("--port", default=argparse.SUPPRESS, help="the bot's port on this machine (PORT; 8080)")
    caller.add_argument("--calls", type=_count, default=1, metavar="N", help="how many calls at once (%(default)s)")
    caller.add_argument(
        "--tail",
        type=_seconds,
        metavar="SECONDS",
        help="how long to listen after the caller's last word (until the bot has answered; 1 s with an echo)",
    )
    caller.add_argument("--out", metavar="FILE.wav", help="file for the audio that arrives (FILE.reply.wav)")
    caller.add_argument(
        "--plot", metavar="FILE.svg", help="file for a plot of the call: levels of both sides, and latencies"
    )
    caller.add_argument("--json", action="store_true", help="print one JSON object")

    minter = _command(commands, "token", token, common)
    minter.add_argument(
        "--lifetime", type=int, default=300, metavar="SECONDS", help="how long the token is valid (%(default)s)"
    )

    for name, command in (("settings", print_settings), ("errors", print_errors)):
        printer = _command(commands, name, command)
        printer.add_argument("--format", choices=("markdown", "json"), default="markdown", help="(%(default)s)")
    return parser


def _count(value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value} is not a whole number (1 or more)")
    return int(value)


def _seconds(value: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= float(value) <= MAX_TAIL_SECONDS:
            return float(value)
    raise argparse.ArgumentTypeError(f"{value} is not a number of seconds (0 to {MAX_TAIL_SECONDS})")


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    *parents: argparse.ArgumentParser,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        parents=parents,
        help=usage.COMMANDS[name].summary,
        description=usage.COMMANDS[name].description,
        epilog=usage.epilog(usage.COMMANDS[name]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser
