"""Variables as ``docker run --env-file``, Kubernetes and editors leave them.

Docker, Podman and ``kubectl create secret --from-env-file`` keep the quotation marks and comments that ``.env`` may
have; some keep a BOM as well.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Collection, Iterator, Mapping

BOM = "\ufeff"
# As python-dotenv reads it: a quoted value, and a comment after it.
QUOTED = re.compile(r"""\s*(?:'((?:\\.|[^'\\])*)'|"((?:\\.|[^"\\])*)")\s*(?:\s#.*)?""", re.DOTALL)
ESCAPE = re.compile(r"""\\[\\'"abfnrtv]"""), re.compile(r"\\[\\']")
QUOTATION_MARKS = "\"'“”„‘’"
COMMENT = re.compile(r"\s#")
SERVICE_LINK = re.compile(
    r".+_(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)", re.DOTALL
)
SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")


def corrected(environment: Mapping[str, str], ours: Collection[str]) -> dict[str, str]:
    """Take off BOMs and carriage returns, and quotation marks around values of ``ours``."""
    found: dict[str, str] = {}
    # Names with a BOM last: a variable without one wins.
    for name, value in sorted(environment.items(), key=lambda item: item[0].startswith(BOM)):
        bare = name.removeprefix(BOM)
        value = value.removeprefix(BOM).removesuffix("\r")
        found.setdefault(bare, unquoted(value) if bare in ours else value)
    return found


def unquoted(value: str) -> str:
    match = QUOTED.fullmatch(value)
    if match is None:
        return value
    single, double = match.groups()
    pattern, text = (ESCAPE[0], double) if single is None else (ESCAPE[1], single)
    return pattern.sub(lambda escape: codecs.decode(escape[0], "unicode-escape"), text)


def oddity(value: object) -> str | None:
    """Marks of ``.env`` in a value, or in one of several, as words that follow it; None without one, and for JSON."""
    if isinstance(value, tuple):
        return next(filter(None, map(oddity, value)), None)
    text = value.strip() if isinstance(value, str) else ""
    if not text or text[0] in "[{":
        return None
    if text[0] in QUOTATION_MARKS or text[-1] in QUOTATION_MARKS:
        return "begins or ends with a quotation mark"
    return "holds a comment (#), which `docker run --env-file` keeps" if COMMENT.search(text) else None


def quoted_values(environment: Mapping[str, str], others: Collection[str]) -> Iterator[str]:
    """A line about values of the bot's variables."""
    names = [name for name in sorted(environment) if name not in others and QUOTED.fullmatch(environment[name])]
    if names:
        yield (
            f"{', '.join(names)}: the quotation marks are part of the value, as `docker run --env-file` leaves them; "
            "your bot may want it without"
        )


def is_service_link(name: str, value: str) -> bool:
    """Kubernetes sets such variables for a Service: PIPECAT_PORT, PIPECAT_SERVICE_HOST for one called pipecat."""
    is_address = name.endswith("PORT") and SERVICE_ADDRESS.match(value.strip()) is not None
    return is_address or SERVICE_LINK.fullmatch(name) is not None
