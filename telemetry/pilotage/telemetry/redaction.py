"""What must not be kept of a run's text: secrets go on the way in; `harmless` is the way out.

Two tables, one of shapes that are secrets wherever they stand and one of names beside which a value is a secret; each
keeps what a reader needs (which key, which host) and masks the rest. Invisible characters and full-width forms do not
hide a name. What it cannot know is a secret without a shape or a name beside it. Text and nesting are bounded, and no
pattern takes more than linear time in the length of a line.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

MASK = "[redacted]"
LONGEST = 100_000
"""Characters of one text; the rest is cut off."""
CUT = " …[cut off]"
DEEPEST = 100
"""Levels of a JSON value; what lies deeper is replaced."""
TOO_DEEP = "[too deep]"


def _words(text: str, between: str | None = None) -> frozenset[str]:
    return frozenset(" ".join(word.split()) for word in text.split(between))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """One shape of secret."""

    name: str
    shape: re.Pattern[str]
    keep: str = MASK
    """What stands in its place; `\\1` keeps the first group."""


def _pattern(name: str, shape: str, keep: str = MASK, flags: int = 0) -> Pattern:
    return Pattern(name=name, shape=re.compile(shape, flags), keep=keep)


_TOKENS = (
    ("JSON web token", r"\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*){0,3}"),
    ("AWS key id", r"\b(?:AKIA|ASIA|AIDA|AROA|AGPA|ANPA|ABIA|ACCA)[A-Z0-9]{16}\b"),
    ("GitHub token", r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,})"),
    ("GitLab token", r"\bgl(?:pat|ptt|dt|rt|cbt|soat|agent|oas|ft|imt)-[A-Za-z0-9_-]{16,}"),
    ("Slack token", r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}|\bxapp-[A-Za-z0-9-]{10,}"),
    ("provider key", r"\b(?:sk|rk|pk|whsec)[-_](?:[a-z]{2,12}[-_]|[a-z]{3}\d{2}[-_]){0,4}[A-Za-z0-9_-]{16,}"),
    ("Google key", r"\bAIza[A-Za-z0-9_-]{30,}|\bya29\.[A-Za-z0-9_-]{20,}|\bGOCSPX-[A-Za-z0-9_-]{20,}"),
    ("Prefect key", r"\bpn[ubs]_[A-Za-z0-9]{16,}"),
    (
        "package or platform token",
        r"\b(?:pypi-|npm_|hf_|do[opr]_v1_|SG\.|dckr_pat_|dckr_oat_|shp(?:at|ca|pa|ss)_|lin_api_|dp\.(?:pt|st|ct|sa)\."
        r"|sntry[su]_|glsa_|glc_|PMAK-|figd_|ntn_|hv[sbr]\.|NRAK-|sbp_|ATATT3|ATCTT3|pul-|rubygems_|nfp_|FlyV1\s|fo1_"
        r"|CFPAT-|AGE-SECRET-KEY-1|key-(?=[0-9a-f]{32})|EAA(?=[A-Za-z0-9]{40})|sq0(?:csp|atp|idp)-|shippo_live_|pscale_tkn_"
        r"|dvc_server_|rdme_|xkeysib-|LTAI(?=[A-Za-z0-9]{16})|fm[12]_|sq[uap]_|AKCp|dt0c01\.|FLWSECK(?:_TEST)?-|r8_|CLOJARS_"
        r"|ico-(?=[A-Za-z0-9]{32})|tk-(?:us|eu)-|EZ[AT]K(?=[A-Za-z0-9]{54})|lsv2_(?:pt|sk)_|ATBB(?=[A-Za-z0-9]{32})|sha256~"
        r"|CCIPAT_|sgp_|AQVN(?=[A-Za-z0-9_-]{35})|sm_pat_|pat-(?:na|eu)\d-|access-(?:sandbox|development|production)-(?=[0-9a-f]{8}-)|v1\.0-(?=[0-9a-f]{24}-))[A-Za-z0-9_.=+/-]{16,}",
    ),
    # what providers invent next looks like this: a short prefix, and much that no person typed
    (
        "prefixed token",
        r"(?<![A-Za-z0-9_.-])[A-Za-z][A-Za-z0-9]{1,9}(?:[_-][a-z0-9]{1,5})?[_-]"
        r"(?=[A-Z0-9]{0,24}[a-z])(?=[a-z0-9]{0,24}[A-Z])(?=(?:[A-Za-z]{0,30}[0-9]{1,8}(?=[A-Za-z])){3})[A-Za-z0-9]{28,}(?![A-Za-z0-9])",
    ),
    ("Airtable token", r"\bpat[A-Za-z0-9]{14}\.[0-9a-f]{64}\b"),
    ("Databricks token", r"\bdapi[0-9a-f]{32}(?:-\d)?\b"),
    ("Telegram token", r"\b\d{8,10}:[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])"),
    ("Azure client secret", r"(?<![A-Za-z0-9])[A-Za-z0-9_~.-]{3}[78]Q~[A-Za-z0-9_~.-]{31,34}"),
    ("Terraform token", r"\b[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_-]{40,}"),
    ("Twilio key", r"\b(?:SK|AC)[0-9a-f]{32}\b"),
    ("Mailchimp key", r"\b[0-9a-f]{32}-us\d{1,2}\b"),
    ("crypt hash", r"\$(?:2[abxy]|5|6|y|argon2(?:id|i|d))\$[A-Za-z0-9./=,$+-]{20,200}"),
)
PATTERNS: tuple[Pattern, ...] = (
    _pattern(
        "private key block",
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,20}-----.*?"
        r"(?:-----END [A-Z0-9 ]{0,40}KEY[A-Z ]{0,20}-----|\Z)",
        flags=re.DOTALL,
    ),
    _pattern("user token in a URL", r"(https?://)[^\s:/@'\"]{16,500}@", rf"\1{MASK}@"),
    _pattern(
        "authorization header",
        r"\b((?:proxy-)?authorization\\?['\"]?\s{0,3}[:=,]\s{0,3}\\?b?['\"]?"
        r"(?:bearer|basic|token|digest|negotiate|apikey)\s{1,3})[^\s'\",;\\\[]+",
        rf"\1{MASK}",
        re.IGNORECASE,
    ),
    _pattern(
        "bearer or basic token",
        r"\b(bearer|basic)\s{1,3}(?=[A-Za-z._~+/-]{0,40}[0-9=])[A-Za-z0-9._~+/-]{12,}={0,2}",
        rf"\1 {MASK}",
        re.IGNORECASE,
    ),
    _pattern("webhook", r"(hooks\.slack\.com/(?:services|workflows)/)[A-Za-z0-9/_-]+", rf"\1{MASK}"),
    _pattern("webhook", r"((?:discord(?:app)?\.com/api/webhooks/\d{1,25}/))[A-Za-z0-9_-]+", rf"\1{MASK}"),
    _pattern("webhook", r"(\.webhook\.office\.com/webhookb2/)[A-Za-z0-9@/_-]+", rf"\1{MASK}"),
    _pattern(
        "password of a command",
        r"(\bcurl\s[^\n]{0,200}?(?:-u|--user)[\s=]{1,3}['\"]?[^\s:'\"]{1,100}:)[^\s'\"]{1,500}",
        rf"\1{MASK}",
    ),
    _pattern(
        "password of a command",
        r"(\bConvertTo-SecureString\s{1,3}(?:-String\s{1,3})?['\"])[^'\"]{1,500}",
        rf"\1{MASK}",
        re.IGNORECASE,
    ),
    _pattern(
        "password of a command",
        r"(\b(?:mysql|mysqldump|mysqladmin|mariadb)\s[^\n]{0,200}?-p|\bsshpass\s{1,3}-p\s{0,3})(?![\s-])[^\s]{1,500}",
        rf"\1{MASK}",
    ),
    _pattern("netrc", r"(\blogin\s{1,3}\S{1,100}\s{1,3}password\s{1,3})\S{1,500}", rf"\1{MASK}"),
    *(_pattern(name, shape) for name, shape in _TOKENS),
)

# -- names

_PLAIN = _words(
    """
password passwd passphrase passcode pwd pass secret token apikey credential authorization cookie signature sig sas dsn
jwt pat auth pswd psw
"""
)
"""A name that ends in one of these words, or its plural, is that of a secret."""
_PAIRS = _words(
    """
api key | access key | account key | private key | secret key | session key | session id | auth key | auth string |
encryption key | signing key | master key | shared key | storage key | ssh key | deploy key | license key | client key
| service key | access id | key id | key secret | connection string | conn string | connection url | conn str | sas
url | password hash | secret value | token value | bearer | x api | cred string | consumer key | subscription key |
webhook url | personal token
""",
    "|",
)
"""Two last words that name a secret."""
_PAIR_NEEDS = {"key id": frozenset({"access"}), "access id": frozenset({"secret"})}
"""Pairs that name one only after one of these words."""
_JOINED = (
    *(
        "password",
        "passwd",
        "passphrase",
        "apikey",
        "secretkey",
        "accesskey",
        "privatekey",
        "authtoken",
        "accesstoken",
    ),
    *(
        "refreshtoken",
        "idtoken",
        "sessiontoken",
        "clientsecret",
        "authkey",
        "sessionid",
        "connectionstring",
        "pgpass",
    ),
    *(
        "accountkey",
        "signingkey",
        "encryptionkey",
        "usertoken",
        "bottoken",
        "cookies",
        "appsecret",
        "mysqlpwd",
    ),
)
"""Ends of a word that was written without any sign between its parts."""
_COUNTED = _words(
    """
max min num number count total input output prompt completion cached used remaining new per of reasoning
"""
)
"""Before `tokens`, these say that they are counted."""
_PEOPLE = frozenset({"pat", "Pat"})
"""Alone and not in capitals, the short form of `personal access token` is what a person is called."""
_WEAK = _words(
    """
token tokens auth signature sig cookie cookies credential credentials secret secrets pass pat
"""
)
"""Names that prose uses too: a word that says how they are is no secret."""
_SAID_OF_THEM = _words(
    """
a an and are at be been but by can cannot could did does expired for found from had has have in invalid is it
malformed missing must needed no none not null nil of off ok on or rejected required revoked should the to true false
undefined unknown unset empty was were will with without wrong yes accepted denied disabled enabled failed refused
unauthorized unexpected valid verified bearer basic digest negotiate redacted hidden default optional absent present
mismatch error failure string str int bool bytes object number optional[str] authenticated
"""
)
_BOUNDARY = re.compile(r"[_\-. :/$]+|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@lru_cache(maxsize=20_000)
def names_a_secret(name: str) -> bool:
    """Whether what stands under this name is a secret: `DB_PASSWORD`, `accessToken`, `pgpassword`, `x-api-key`."""
    words = [word.lower() for word in _BOUNDARY.split(name.strip()) if word]
    if not words:
        return False
    last = words[-1]
    if name.strip() in _PEOPLE:
        return False
    if last.rstrip("0123456789"):
        last = last.rstrip("0123456789")
    if last == "tokens" and _COUNTED.intersection(words[:-1]):
        return False
    singular = last.removesuffix("s") if last not in ("pass", "sas") else last
    if last in _PLAIN or singular in _PLAIN:
        return True
    if last.endswith(_JOINED) or singular.endswith(_JOINED):
        return True
    pair = " ".join([*words[-2:-1], singular])
    return pair in _PAIRS and (pair not in _PAIR_NEEDS or bool(_PAIR_NEEDS[pair].intersection(words[:-2])))


_NAME = r"[A-Za-z][A-Za-z0-9_.\-]{0,80}(?: (?:[Kk]ey|[Ss]tring|[Tt]oken|[Ss]ecret|[Pp]assword|KEY|STRING|ID|[Ii]d))?"
_ASSIGNED = re.compile(
    rf"(?<![A-Za-z0-9_.\-])(?P<dash>-{{0,2}})(?P<name>{_NAME})"
    r"(?P<between>(?:\\{0,2}['\"])?(?:\[?\])?\s{0,3}(?::=|=>|%3[Dd]|[:=](?!=))\s{0,3}|(?:\\{0,2}['\"])\s{0,3},\s{0,3})"
    r"(?P<prefix>(?:(?:[bBrRuUfF]{1,2}|@)(?=\\{0,2}['\"]))?)(?P<quote>(?:\\{0,2}['\"]{1,3})?)"
)
_BARE = re.compile(r"[^\s,;&|'\"\\<>()\[\]{}][^\s,;&|'\"\\<>]*")
"""A value without quotes."""
_FLAG = re.compile(rf"(?<![^\s'\"])(-{{1,2}}({_NAME})\s{{1,3}}['\"]?)([^\s'\"\-][^\s'\"]{{0,500}})")
_LAYER = re.compile(
    rf"(^\s{{0,8}}(?:ENV|ARG)\s{{1,3}}({_NAME})\s{{1,3}}['\"]?)([^\s'\"=]{{1,500}})", re.MULTILINE
)
"""A value in a container's recipe, as a build repeats it."""
_STATEMENT = re.compile(rf"(\b({_NAME})\s{{1,3}}(['\"]))([^'\"\n]{{2,500}})(?=\3\s{{0,3}};)")
"""A name and a quoted value before a semicolon, as in a server's settings."""
_PASSED_ON = _words("proxy_pass fastcgi_pass uwsgi_pass scgi_pass grpc_pass memcached_pass")
"""Where a web server passes requests on to."""
_SET = re.compile(rf"(\b(?:set|setx|setenv)\s{{1,3}}({_NAME})\s{{1,3}}(['\"]))([^'\"\n]{{1,500}})(?=\3)")
_XML = re.compile(rf"(<(?:[A-Za-z0-9]{{1,30}}:)?({_NAME})(?:\s[^<>]{{0,200}})?>)([^<>]{{1,2000}})(?=</)")
_XML_ATTRIBUTES = re.compile(
    rf"(\b(?:key|name)=(['\"])({_NAME})\2\s{{1,3}}value=(['\"]))([^'\"]{{1,2000}})", re.IGNORECASE
)
_PAIR_IN_TEXT = re.compile(
    rf"(['\"](?:name|key)\\?['\"]\s{{0,3}}:\s{{0,3}}\\?['\"]({_NAME})\\?['\"]\s{{0,3}},"
    r"\s{0,3}\\?['\"]value\\?['\"]\s{0,3}:\s{0,3}\\?['\"])([^'\"]{1,2000})",
    re.IGNORECASE,
)
_URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]{1,30}://)([^\s:/@'\"<>]{0,200}):(?!//)([^\s'\"<>]{1,500})")
_SPOKEN = re.compile(
    r"(\b(?:password|passphrase|passwd|passcode)(?:\s(?:is|was|of|for \w{1,40}))?\s{1,3}(['\"`]))([^'\"`\s]{2,200})(?=\2)",
    re.IGNORECASE,
)
_LONG_WORD = re.compile(r"(?<![A-Za-z0-9+/_=-])[A-Za-z0-9+/_-]{24,}={0,2}(?![A-Za-z0-9+/_=-])")
_NEAR_KEY = re.compile(
    r"(?:key|secret|token|password|credential|auth)\W{0,3}(?:\w{1,40}\W{1,3}){0,2}$", re.IGNORECASE
)
_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_RANDOM_BITS = 3.5
"""Bits a character: English and paths lie below, random base64 of 24 characters and more above."""
_QUOTED_AT_MOST = 2000
_SHORT = 80
"""Characters up to which answers are remembered: most texts of events are keys, names and states seen before."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_REFERENCE = re.compile(r"(?:\$\{|\$\(|\{\{|\$[A-Z_]|%\(|%[sdr]\b|\*{3}|\.{3}|os\.environ|\[redacted\])")
"""How a value begins that only says where the secret comes from."""


def redact(text: str) -> str:
    """The text without the secrets that have a known shape or stand beside a telling name, at most LONGEST characters."""
    if len(text) > LONGEST:
        text = text[: LONGEST - len(CUT)] + CUT
    return _redacted_short(text) if len(text) <= _SHORT else _redacted(text)


@lru_cache(maxsize=20_000)
def _redacted_short(text: str) -> str:
    return _redacted(text)


def _redacted(text: str) -> str:
    if text.isascii():
        return _masked(text)
    text = _SURROGATE.sub("\ufffd", text)
    seen = without_invisible(unicodedata.normalize("NFKC", text))
    if seen != text and (masked := _masked(seen)) != seen:
        return masked  # what hides in it is worth more than how it was written
    return _masked(text)


def without_invisible(text: str) -> str:
    """The text without characters that nobody sees: soft hyphens, joiners, direction marks, tags, fillers."""
    return "".join(sign for sign in text if not invisible(sign))


@lru_cache(maxsize=4096)
def invisible(sign: str) -> bool:
    """Whether the character takes no room on a screen and is no line end or control."""
    return (unicodedata.category(sign) == "Cf" and sign != "\ufffd") or sign in _FILLERS or sign in _SELECTORS


_FILLERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0\u2800")
_SELECTORS = frozenset(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0), *range(0x180B, 0x1810))))


def _masked(text: str) -> str:
    for pattern in PATTERNS:
        text = pattern.shape.sub(pattern.keep, text)
    if "://" in text:
        text = _URL.sub(_url, text)
    if "<" in text:
        text = _XML.sub(lambda m: m[1] + MASK if names_a_secret(m[2]) else m[0], text)
        text = _XML_ATTRIBUTES.sub(lambda m: m[1] + MASK if names_a_secret(m[3]) else m[0], text)
    if "value" in text:
        text = _PAIR_IN_TEXT.sub(lambda m: m[1] + MASK if names_a_secret(m[2]) else m[0], text)
    text = _assigned(text)
    if "-" in text:
        text = _FLAG.sub(lambda m: m[1] + MASK if names_a_secret(m[2]) else m[0], text)
    if ";" in text:
        text = _STATEMENT.sub(
            lambda m: m[1] + MASK if names_a_secret(m[2]) and m[2] not in _PASSED_ON else m[0], text
        )
    if "set" in text:
        text = _SET.sub(lambda m: m[1] + MASK if names_a_secret(m[2]) else m[0], text)
    if "ENV" in text or "ARG" in text:
        text = _LAYER.sub(lambda m: m[1] + MASK if names_a_secret(m[2]) else m[0], text)
    text = _SPOKEN.sub(rf"\1{MASK}", text)
    return _LONG_WORD.sub(_masked_if_random(text), text)


def _url(found: re.Match[str]) -> str:
    """A URL with its password masked: up to the last `@` before the query, else the first one after it."""
    scheme, user, rest = found[1], found[2], found[3]
    path = re.split(r"[?#]", rest, maxsplit=1)[0]
    end = path.rfind("@") if "@" in path else rest.find("@")
    if end <= 0 or (re.match(r"\d{1,5}(?:[/?#]|$)", rest) and not re.match(r"\d{1,5}@", rest)):
        return found[0]
    return f"{scheme}{user}:{MASK}@{rest[end + 1 :]}"


def _assigned(text: str) -> str:
    """The text with the values of telling names masked, read from left to right, once."""
    parts: list[str] = []
    at = 0
    while (assignment := _ASSIGNED.search(text, at)) is not None:
        quote, begin = assignment["quote"], assignment.end()
        comma = "," in assignment["between"]
        telling = names_a_secret(assignment["name"])
        behind_colon = text[assignment.start() - 1 : assignment.start()] == ":"
        if (
            telling
            and not quote
            and behind_colon
            and "=" not in assignment["between"]
            and " " not in assignment["name"]
        ):
            telling = False  # a part of an ARN or another name with colons
        if telling and comma:  # only as in ('password', '…')
            telling = text[max(0, assignment.start() - 2) : assignment.start() - 1] in ("(", "[")
        bare = _BARE.match(text, begin) if telling and not quote and not comma else None
        if not telling or not (quote or bare):
            end = assignment.end("name")  # the next name may begin right behind this one
            parts.append(text[at:end])
            at = end
            continue
        if quote:
            close = text.find(quote, begin, begin + _QUOTED_AT_MOST)
            close = close if close >= 0 else _line_end(text, begin)
        else:
            close = bare.end() if bare else begin
        value = text[begin:close]
        parts.append(text[at:begin])
        parts.append(MASK if _is_value(assignment["name"], value, quoted=bool(quote)) else value)
        at = max(close, begin)
        if at >= len(text):
            break
        if close == begin:
            parts.append(text[at : at + 1])
            at += 1
    parts.append(text[at:])
    return "".join(parts)


def _line_end(text: str, begin: int) -> int:
    end = text.find("\n", begin, begin + _QUOTED_AT_MOST)
    return end if end >= 0 else min(len(text), begin + _QUOTED_AT_MOST)


def _is_value(name: str, value: str, *, quoted: bool) -> bool:
    """Whether a value beside a telling name is a secret and not a word about it, a reference or a placeholder."""
    if len(value) < (1 if quoted else 2) or _REFERENCE.match(value):
        return False
    weak = name.lower() in _WEAK
    return not (value.lower().rstrip(".!:") in _SAID_OF_THEM and (weak or not quoted))


def _masked_if_random(text: str) -> Callable[[re.Match[str]], str]:
    def mask(found: re.Match[str]) -> str:
        word = found.group(0)
        if _UUID.fullmatch(word) or not _NEAR_KEY.search(text[max(0, found.start() - 60) : found.start()]):
            return word
        return MASK if _entropy(word) > _RANDOM_BITS else word

    return mask


def _entropy(word: str) -> float:
    return -sum(n / len(word) * math.log2(n / len(word)) for n in Counter(word).values())


def redact_json(value: Any, depth: int = 0) -> Any:
    """The same value with secrets masked in every text, and all of what stands under a secret-looking key."""
    if depth > DEEPEST:
        return TOO_DEEP
    match value:
        case dict():
            masked = {redact(str(key)): _under(str(key), item, depth + 1) for key, item in value.items()}
            named = value.get("name", value.get("key"))
            if isinstance(named, str) and isinstance(value.get("value"), str) and names_a_secret(named):
                masked["value"] = MASK
            return masked
        case list() | tuple():
            if len(value) == 2 and all(isinstance(item, str) for item in value) and names_a_secret(value[0]):
                return [redact(value[0]), MASK]
            return [redact_json(item, depth + 1) for item in value]
        case str():
            return redact(value)
        case _:
            return value


def _under(key: str, value: Any, depth: int) -> Any:
    if names_a_secret(key) and value not in (None, "", False, True):
        return MASK
    return redact_json(value, depth)


# -- streams of lines

_KEY_BEGINS = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,20}-----")
_KEY_ENDS = re.compile(r"-----END [A-Z0-9 ]{0,40}KEY[A-Z ]{0,20}-----")
_KEY_LINE = re.compile(r"\s*(?:[A-Za-z0-9+/=_-]+|(?:Proc-Type|DEK-Info|Comment|Version): .{0,80}|)\s*")
_KEY_BODY = re.compile(
    r"\s{0,3}(?=[A-Za-z0-9+/]{0,80}[A-Z])(?=[A-Za-z0-9+/]{0,80}[a-z])[A-Za-z0-9+/]{60,80}={0,2}\s{0,3}"
)
KEY_LINES = 200
"""Lines of the longest key block; after so many an end that never came is given up."""


class LineStream:
    """Redaction of lines that arrive one by one: a key block may begin in one and end in another."""

    def __init__(self) -> None:
        self._inside = 0

    @property
    def inside(self) -> bool:
        """Whether a block has begun and not ended."""
        return self._inside > 0

    def redacted(self, lines: list[str]) -> list[str]:
        """The lines, in the order of time, with the secrets of each and of blocks across them masked."""
        given = [self._line(line) for line in lines]
        for at, line in enumerate(lines):
            if _KEY_ENDS.search(line) and not _KEY_BEGINS.search(line):
                before = at - 1  # a block whose beginning nobody collected
                while before >= 0 and at - before < KEY_LINES and _KEY_LINE.fullmatch(lines[before]):
                    given[before] = MASK
                    before -= 1
        return given

    def _line(self, line: str) -> str:
        if self._inside:
            self._inside += 1
            if end := _KEY_ENDS.search(line):
                self._inside = 0
                return MASK + redact(line[end.end() :])
            if self._inside <= KEY_LINES and all(_KEY_LINE.fullmatch(part) for part in line.split("\n")):
                return MASK
            self._inside = 0
        begun = list(_KEY_BEGINS.finditer(line))
        if begun and not _KEY_ENDS.search(line, begun[-1].end()):
            self._inside = 1
        return MASK if _KEY_BODY.fullmatch(line) and _entropy(line.strip()) > 4 else redact(line)
