"""What pipecat's own log lines may show: their words, and of their values those that are known to be no caller's.

pipecat logs phone numbers, custom parameters, bodies, messages and room tokens, at every level, in some three hundred
places that change with each version. So no list of lines is kept here but one of expressions: a line's own source says
which parts of it are text and which are values. From the first value on that is not listed, the line shows the names
of its values in their place::

    Parsed - Type: twilio, Data: <call_data>

What is not found (no source beside it, a line that is no literal) is not shown: a new version may lose detail, but
tells nothing.
"""

from __future__ import annotations

import ast
import linecache
import re
import textwrap
from functools import lru_cache
from typing import TYPE_CHECKING

from pipecat_base.logs.escaping import LONGEST_LINE, logged

if TYPE_CHECKING:
    from loguru import Record

MODULES = (
    "pipecat.runner.",
    "pipecat.transports.",
    "pipecat.serializers.",
    "pipecat.processors.frameworks.rtvi",
    "pipecat.services.heygen.",
    "pipecat.services.tavus.",
    "pipecat.services.ultravox.",
    "pipecat.extensions.ivr.",
)
"""They speak with callers and with who carries their calls."""
LEVELS = frozenset({"trace", "debug", "info", "success", "warning", "error", "exception", "critical", "log"})
MAX_LINES = 24
"""Of one call in the source."""
UNKNOWN = "<...>"
HARMLESS = re.compile(
    r"""(?x)
    self (\._( session_id | conversation_id | pc_id | host | port | broadcast_path | peer_broadcast_path
             | ws_close_timeout | redial_attempt | sample_rate ))?
    | (\w+\.)* ( pc_id | kind | sid | format | application_state | iceConnectionState | connectionState
               | iceGatheringState | __name__ | duration )
    | ( response\.status | call\.id | call\.status | session\.id | stream\.id | call_sid | call_control_id )
    | ( call | session | stream | pc | meeting | conversation | agent | replica | persona ) _ ( id | sid )
    | transport_type | transport_key | state | width | height | code | action | enabled | sample_rate
    | video_source | audio_source | event_name | idle_duration | provider
    | e\.__class__\.__name__ | type\(\w+\)(\.__name__)? | len\([\w.]+\) | [A-Z_]+
    """
)
"""Expressions whose values are no caller's: states, sizes, names of types, ids by which providers know their calls."""


def take_out(record: Record) -> None:
    """Leave in the record what may be shown. Never raises: pipecat's own code would get it."""
    if not (record["name"] or "").startswith(MODULES):
        return
    try:
        record["message"] = logged(shown(record["file"].path, record["line"], record["message"]), LONGEST_LINE)
    except Exception:
        record["message"] = UNKNOWN


def shown(path: str, line: int, message: str) -> str:
    """As much of the message as may be shown, where ``line`` of the file at ``path`` has logged it."""
    template = _template(path, line)
    if template is None:
        return message
    beginning, rest = template
    found = beginning.match(message)
    return (found.group() if found is not None else f"{UNKNOWN} ") + rest


@lru_cache(4096)
def _template(path: str, line: int) -> tuple[re.Pattern[str], str] | None:
    """A pattern of what comes before the first value that is hidden, and what stands for the rest; None to show all."""
    message = _message(path, line)
    if isinstance(message, ast.Constant):
        return None
    if not isinstance(message, ast.JoinedStr):
        return re.compile(""), UNKNOWN if message is None else f"<{ast.unparse(message)}>"
    pattern, rest, hides = "", "", False
    for part in message.values:
        if isinstance(part, ast.Constant):
            text = str(part.value)
            pattern, rest = (pattern, rest + text) if hides else (pattern + re.escape(text), rest)
            continue
        assert isinstance(part, ast.FormattedValue)
        name = ast.unparse(part.value)
        hides = hides or HARMLESS.fullmatch(name) is None
        pattern, rest = (pattern, f"{rest}<{name}>") if hides else (f"{pattern}.*?", rest)
    return (re.compile(pattern, re.DOTALL), rest) if hides else None


def _message(path: str, line: int) -> ast.expr | None:
    """What is logged there; None where that cannot be told."""
    lines = [linecache.getline(path, number) for number in range(line, line + MAX_LINES)]
    for count in range(1, MAX_LINES + 1):
        try:
            tree = ast.parse(textwrap.dedent("".join(lines[:count])))
        except SyntaxError:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS:
                # With more arguments the message is a format, and what it was filled with cannot be told apart.
                return node.args[0] if len(node.args) == 1 and not node.keywords else None
        return None
    return None
