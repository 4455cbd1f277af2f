"""Secret forms and harmless look-alikes, for `make bench-redaction` and its floor in the tests.

Every secret is made up. A third of the forms, chosen by a hash of their text, was not looked at while the patterns were
written; `seen` tells which side one is on.
"""

from __future__ import annotations

import hashlib
import uuid
from random import Random

_KEYS = (
    *(
        "password",
        "PASSWORD",
        "DB_PASSWORD",
        "PGPASSWORD",
        "dbPassword",
        "db.password",
        "smtp-password",
        "userPassword",
    ),
    *(
        "passwd",
        "MYSQL_PWD",
        "passphrase",
        "accessToken",
        "access_token",
        "ACCESS-TOKEN",
        "refresh_token",
        "authToken",
    ),
    *(
        "api_key",
        "apiKey",
        "API-KEY",
        "x-api-key",
        "apikey",
        "OPENAI_API_KEY",
        "client_secret",
        "clientSecret",
        "secret",
    ),
    *(
        "SECRET_KEY",
        "aws_secret_access_key",
        "AccountKey",
        "private_key",
        "signingKey",
        "encryption_key",
        "session_token",
    ),
    *(
        "connection_string",
        "SNOWFLAKE_PASSWORD",
        "GITHUB_TOKEN",
        "SLACK_BOT_TOKEN",
        "JWT_SECRET",
        "webhook_secret",
    ),
)
_SYNTAX = (
    "{k}={v}",
    "{k}: {v}",
    "{k} = '{v}'",
    '{{"{k}": "{v}", "region": "eu"}}',
    "{{'{k}': '{v}'}}",
    "('{k}', '{v}')",
    "{k}=b'{v}'",
    "run.sh --{k} {v} --verbose",
    "run.sh --{k}={v}",
    "<{k}>{v}</{k}>",
    'error: \\"{k}\\": \\"{v}\\"',
    '[{{"name": "{k}", "value": "{v}"}}]',
    "https://api.example.com/v1?{k}={v}&page=2",
    "export {k}={v}; make",
    "{k} => {v}",
    '<add key="{k}" value="{v}"/>',
)
_VALUES = ("hunter2", "Tr0ub4dor&3x", "q7Rk2Zp9Xw4Lm8Tn", "0a1b2c3d4e5f6a7b")
_HEX = "0123456789abcdef"
_WORD = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def _made(random: Random, count: int, signs: str = _WORD) -> str:
    return "".join(random.choice(signs) for _ in range(count))


def _tokens() -> list[str]:
    r = Random(15)
    return [
        "AKIA" + _made(r, 16, _WORD[:26] + "234567"),
        "ASIA" + _made(r, 16, _WORD[:26] + "234567"),
        "ghp_" + _made(r, 36),
        "gho_" + _made(r, 36),
        "github_pat_" + _made(r, 22) + "_" + _made(r, 59),
        "glpat-" + _made(r, 20),
        "glrt-" + _made(r, 20),
        "xoxb-" + _made(r, 12, "0123456789") + "-" + _made(r, 24),
        "xapp-1-" + _made(r, 11) + "-" + _made(r, 13, "0123456789") + "-" + _made(r, 64, _HEX),
        "sk-" + _made(r, 48),
        "sk-proj-" + _made(r, 48),
        "sk-ant-api03-" + _made(r, 80),
        "sk_live_" + _made(r, 24),
        "rk_live_" + _made(r, 24),
        "whsec_" + _made(r, 32),
        "AIza" + _made(r, 35),
        "ya29." + _made(r, 60),
        "GOCSPX-" + _made(r, 28),
        "pnu_" + _made(r, 36),
        "pypi-" + "AgEIcHlwaS5vcmc" + _made(r, 80),
        "npm_" + _made(r, 36),
        "hf_" + _made(r, 34),
        "dop_v1_" + _made(r, 64, _HEX),
        "SG." + _made(r, 22) + "." + _made(r, 43),
        "dckr_pat_" + _made(r, 27),
        "shpat_" + _made(r, 32, _HEX),
        "lin_api_" + _made(r, 40),
        "dp.pt." + _made(r, 43),
        "sntrys_" + _made(r, 60),
        "glsa_" + _made(r, 32) + "_" + _made(r, 8, _HEX),
        "PMAK-" + _made(r, 24, _HEX) + "-" + _made(r, 34, _HEX),
        "figd_" + _made(r, 40),
        "hvs." + _made(r, 90),
        "NRAK-" + _made(r, 27, _WORD[:26] + "0123456789"),
        "dapi" + _made(r, 32, _HEX),
        _made(r, 10, "123456789") + ":" + _made(r, 35),
        _made(r, 3) + "8Q~" + _made(r, 34),
        _made(r, 14) + ".atlasv1." + _made(r, 67),
        "SK" + _made(r, 32, _HEX),
        _made(r, 32, _HEX) + "-us14",
        "eyJhbGciOiJIUzI1NiJ9." + _made(r, 40) + "." + _made(r, 43),
        "$2b$12$" + _made(r, 53),
        "xkeysib-" + _made(r, 64, _HEX) + "-" + _made(r, 16),
        "rubygems_" + _made(r, 48, _HEX),
        "AGE-SECRET-KEY-1" + _made(r, 58, "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L"),
    ]


_AROUND = ("refused: {}", '{{"v": "{}"}}', "GET /x?y={} failed", "first line\n{}\nlast")
_URLS = (
    ("postgresql://etl:{v}@db.internal:5432/sales", "s3cr3tpw"),
    ("postgresql+psycopg://etl:{v}@db/sales", "pa/ss/w0rd"),
    ("mysql://root:{v}@127.0.0.1/x", "p@ssw0rd"),
    ("redis://:{v}@cache:6379/0", "hunter2hunter2"),
    ("amqp://guest:{v}@rabbit:5672/%2f", "gu3st!"),
    ("mongodb+srv://app:{v}@cluster0.example.net/?retryWrites=true", "x#y?z1"),
    ("https://user:{v}@git.example/x.git", "abc123"),
    ("https://{v}@git.example/x.git", "0123456789abcdefghij0123"),
    ("snowflake://u:{v}@acct/db/schema?warehouse=w", "Sn0w$flake"),
    ("could not connect to ftp://ops:{v}@ftp.example.com", "ftp-pass-9"),
    ("Server=db;User Id=sa;Password={v};Encrypt=yes", "My$ecret"),
    ("AccountName=acme;AccountKey={v};EndpointSuffix=x", "abcdEFGH1234=="),
    ("host=db user=etl password={v} dbname=x", "l1bpq"),
    ("Authorization: Bearer {v}", "abc.def-ghi_jkl012345"),
    ("Authorization: Basic {v}", "dXNlcjpwYXNzd29yZA=="),
    ("-H 'X-Api-Key: {v}'", "k-0123-4567"),
    ("Set-Cookie: session_id={v}; HttpOnly", "9f8e7d6c5b4a"),
    ("https://hooks.slack.com/services/{v}", "T000/B000/XXXXXXXXXXXX"),
    ("https://x.blob.core.windows.net/c?sv=2022&sig={v}", "aB3%2Bd9"),
    ("https://b.s3.amazonaws.com/k?X-Amz-Signature={v}&X-Amz-Date=1", "deadbeefcafe"),
    ("invalid password '{v}' for user etl", "hunter2"),
    ("pass\u00adword={v}", "hunter2"),
    ("to\u200bken={v}", "abcd1234efgh"),
    ("ｐａｓｓｗｏｒｄ={v}", "hunter2"),
    ("-----BEGIN RSA PRIVATE KEY-----\n{v}\n-----END RSA PRIVATE KEY-----", "MIIEowIBAAKCAQEA"),
    ("-----BEGIN OPENSSH PRIVATE KEY-----\n{v}", "b3BlbnNzaC1rZXktdjEA"),
    ('"private_key": "-----BEGIN PRIVATE KEY-----\\n{v}\\n-----END PRIVATE KEY-----\\n"', "MIIEvQIBADANBg"),
    ("the secret is {v}", "q7Rk2Zp9Xw4Lm8Tn3Vb6Yc1D"),
)


_LOWER = "abcdefghijklmnopqrstuvwxyz"
_DIGITS = "0123456789"


def _public_tokens() -> list[str]:
    """Shapes that gitleaks, detect-secrets and TruffleHog look for, besides those above; the values are made up."""
    r = Random(1512)
    upper = _LOWER.upper() + _DIGITS
    return [
        "gldt-" + _made(r, 20),
        "glptt-" + _made(r, 40, _HEX),
        "gloas-" + _made(r, 64, _HEX),
        "xoxe.xoxp-1-" + _made(r, 160),
        "key-" + _made(r, 32, _HEX),
        "ntn_" + _made(r, 11, _DIGITS) + _made(r, 35),
        "pscale_tkn_" + _made(r, 43),
        "pul-" + _made(r, 40, _HEX),
        "fm2_" + _made(r, 120),
        "glc_eyJvIjoi" + _made(r, 60),
        "squ_" + _made(r, 40, _HEX),
        "AKCp" + _made(r, 69),
        "dt0c01." + _made(r, 24, upper) + "." + _made(r, 64, upper),
        "EZAK" + _made(r, 54),
        "FLWSECK_TEST-" + _made(r, 32, _HEX) + "-X",
        "gsk_" + _made(r, 52),
        "pplx-" + _made(r, 48),
        "r8_" + _made(r, 37),
        "sbp_" + _made(r, 40, _HEX),
        "lsv2_pt_" + _made(r, 32, _HEX) + "_" + _made(r, 10, _HEX),
        "pat" + _made(r, 14) + "." + _made(r, 64, _HEX),
        "ATATT3xFfGF0" + _made(r, 180),
        "ATBB" + _made(r, 32),
        "CLOJARS_" + _made(r, 60, _HEX),
        "duffel_live_" + _made(r, 43),
        "ico-" + _made(r, 32),
        "sha256~" + _made(r, 43),
        "tk-us-" + _made(r, 48),
        "tfp_" + _made(r, 59),
        "CCIPAT_" + _made(r, 22) + "_" + _made(r, 40, _HEX),
        "v1.0-" + _made(r, 24, _HEX) + "-" + _made(r, 146, _HEX),
        "xai-" + _made(r, 80),
        "dbtc_" + _made(r, 40),
    ]


_PUBLIC_SYNTAX = (
    *('{k} := "{v}"', '{k}:="{v}"', '{k} = @"{v}"', '{k}[]= "{v}"', '{k} "{v}";', "{k} '{v}';"),
    *(
        'some_dict["{k}"] = "{v}"',
        '{k} => "{v}"',
        'set {k} "{v}"',
        "{k}%3D{v}",
        "ENV {k} {v}",
        '$env:{k} = "{v}"',
    ),
)
_PUBLIC_KEYS = (
    "apikey",
    "theapikey",
    "my_password",
    "private_key",
    "client_secret",
    "db_passwd",
    "auth_token",
)
_PUBLIC_VALUES = ("Qz7{h}o)p${e]v-_$#u9", "tr0ub4dor&3", "pa55:w0rd!x", "k3yWithNoSigns9Z")
_COMMANDS = (
    *(
        "curl -u admin:{v} https://x.test/",
        "curl --user=admin:{v} https://x.test/",
        "mysql -u root -p{v} sales",
    ),
    *(
        "sshpass -p {v} ssh host",
        "machine h login etl password {v}",
        'ConvertTo-SecureString "{v}" -AsPlainText',
    ),
)


def public_forms() -> list[tuple[str, str]]:
    """`(text, secret in it)` in the ways of public tools' own tests. All were looked at, some after a first count."""
    forms = [(_AROUND[at % len(_AROUND)].format(token), token) for at, token in enumerate(_public_tokens())]
    for row, key in enumerate(_PUBLIC_KEYS):
        for at, syntax in enumerate(_PUBLIC_SYNTAX):
            value = _PUBLIC_VALUES[(at + row) % len(_PUBLIC_VALUES)]
            forms.append((syntax.replace("{k}", key).replace("{v}", value), value))
    return forms + [(text.replace("{v}", value), value) for text in _COMMANDS for value in _PUBLIC_VALUES]


def secrets() -> list[tuple[str, str]]:
    """`(text, secret in it)`, each form once."""
    forms = [
        (
            syntax.format(k=key, v=_VALUES[(at + row) % len(_VALUES)]),
            _VALUES[(at + row) % len(_VALUES)],
        )
        for row, key in enumerate(_KEYS)
        for at, syntax in enumerate(_SYNTAX)
        if (at + row) % 3 == 0
    ]
    forms += [(_AROUND[at % len(_AROUND)].format(token), token) for at, token in enumerate(_tokens())]
    forms += public_forms()
    return forms + [(text.format(v=value), value) for text, value in _URLS]


_ORDINARY = """\
RuntimeError: HTTP 503 from https://api.example.com:8443/v1/orders?day=2026-11-02
Finished in state Failed('Flow run encountered an exception: ValueError: bad row 17')
MemoryError: Unable to allocate 512. MiB for an array with shape (67108864,) and data type float64
File /srv/flows/telemetry/collector_of_everything_that_happens.py, line 12, in main
KeyError: 'customer_id'
KeyError: 'password'
KeyError: 'api_key'
max_tokens: 4096, tokens used 17
prompt_tokens=120 completion_tokens=80 total_tokens=200
401 Unauthorized: credentials were rejected by the warehouse
mail ops@example.com about postgresql://db.internal/sales
rate limited, retry after 30 s; risk-adjusted_value_of_everything
password authentication failed for user "etl"
FATAL: password authentication failed for user etl
Access token expired, please log in again
token: invalid
token: expired
Token: null
the token is missing
secret: None
auth: disabled
auth=false
authorization: required
credentials: missing
cookie: absent
signature: mismatch
SignatureDoesNotMatch: the request signature we calculated does not match
secret_name: db-credentials
secretName: db-credentials
secret "db-credentials" not found
MountVolume.SetUp failed for volume "creds": secret "db-credentials" not found
password_policy=strict
password_min_length: 12
passwordFile: /run/secrets/db_password
password_file=/etc/pilotage/password
token_url: https://login.example.com/oauth2/token
token_type: bearer
tokenizer: bert-base-uncased
token_count=17
num_tokens: 12
api_key_id_field: key_id
key: build-1234
primary_key=order_id
foreign_key: customer_id
sort_key = created_at
partition key 2026-11-02
cache key: etl/nightly/2026-11-02
idempotency_key=p-9546cc61ef21
concurrency_key: gpu
keyboard: us
monkey=1
passed: 12, failed: 3
tests passed=12
pass_rate: 0.97
compass: north
bypass=true
author: ann
authored_by=bob
authority: example.com
author=Ann Example
signal: SIGKILL
signed_by=ci
sigterm=15
design: v2
assign: ann
basic authentication is not supported
bearer of bad news
Basic configuration complete
x = os.environ['DB_PASSWORD']
password=${DB_PASSWORD}
password: {{ secrets.db_password }}
api_key=$API_KEY
--password-file /run/secrets/pw
--token-ttl 3600
--max-tokens 4096
http://host:8080/path@2x.png
https://registry.example.com/@scope/pkg
git@github.com:acme/flows.git
ssh://git.example.com:2222/acme/flows
http://localhost:4200/runs/flow-run/149ca645-3502-4bee-b18b-98359cad68cf
s3://bucket/path/part-0001.parquet
arn:aws:secretsmanager:eu-west-1:123456789012:secret:db-credentials
arn:aws:iam::123456789012:role/etl
docker pull registry.example.com/etl:2026.11.2
exit code 137
OOMKilled
pod etl-nightly-7d9c6b5f4-x2k8p evicted
pod/etl-worker-0 restarted 3 times
java.lang.IllegalStateException: key not found: customer
redis.exceptions.ResponseError: WRONGTYPE Operation against a key holding the wrong kind of value
sqlalchemy.exc.IntegrityError: duplicate key value violates unique constraint "orders_pkey"
DETAIL: Key (order_id)=(17) already exists.
ImportError: cannot import name 'SecretStr' from 'pydantic'
from prefect.blocks.system import Secret
Secret.load("warehouse")
def get_token(self): ...
if token == other:
for key, value in items:
SyntaxError: unexpected token ')'
JSONDecodeError: Expecting value: line 1 column 1 (char 0)
jwt.exceptions.ExpiredSignatureError: Signature has expired
certificate verify failed: unable to get local issuer certificate
-----BEGIN CERTIFICATE-----
-----BEGIN PUBLIC KEY-----
private key file not found
public_key: present
the private repository is private
session started
session: etl
sessions=4
cookies enabled
Cookie policy accepted
connection: keep-alive
connection_timeout=30
connection pool exhausted
dsn_lookup=off
salt: 12
Prefect profile: default
PREFECT_API_URL=http://127.0.0.1:4200/api
queue=high priority=1 limit=4
deployment etl/nightly paused
tags: env:prod, tier:0, team:data
retry 3 of 5 in 60 s
attempt=3 delay=60
2026-11-02T08:00:00+00:00 INFO run started
Traceback (most recent call last):
rows=1000000 columns=12
version: 3.8.8
sha: 3f2a9c1d5e7b8a90f1e2d3c4b5a6978877665544
checkpoint: step-17
hash mismatch for wheel
user=etl host=db
username: etl
email: ops@example.com
region: eu-west-1
password is required
password must be changed
the password has expired
no password supplied
Enter passphrase for key
"""


_LIKE_PUBLIC_FORMS = (
    *('set timeout "30";', 'proxy_pass "http://etl:8080";', "ENV PATH /usr/local/bin", "ARG VERSION 3.11"),
    *("curl -u admin https://x.test/", "mysql -u root -p sales", "mysql -p --host db", "sshpass -h"),
    *(
        "test_HTTP2ConnectionPoolReusesIdleSocketsAfterReset",
        "dag_etlLoadOrdersIntoTheWarehouse2026November30",
    ),
    *(
        "cus_9s6XKzkNRiz8i3",
        "run_0f3a9b7c1d2e4f5061728394a5b6c7d8e9f0a1b2",
        "sha256:0f3a9b7c1d2e4f506172",
        "r8_small",
    ),
    *("dt0c01 is a prefix", "etl-7c9d8f6b5d-x2x9k", 'password policy "strict" is on;', "login etl failed"),
    *("page=2%3Dlast", 'key "orders";', "machine learning login page"),
)
"""What looks like a public tool's form and is none."""


def harmless() -> list[str]:
    """Look-alikes that must stay as they are: prose, code, build identifiers, hashes, UUIDs."""
    r = Random(16)
    made = [
        *_LIKE_PUBLIC_FORMS,
        *(f"run {uuid.UUID(int=r.getrandbits(128), version=4)} of etl/nightly" for _ in range(12)),
        *(f"commit {_made(r, 40, _HEX)}" for _ in range(10)),
        *(f"image sha256:{_made(r, 64, _HEX)}" for _ in range(10)),
        *(f"build_id={_made(r, 12, _HEX)}" for _ in range(8)),
        *(f"etag: {_made(r, 32, _HEX)}" for _ in range(6)),
        *(f"trace_id={_made(r, 32, _HEX)} span_id={_made(r, 16, _HEX)}" for _ in range(6)),
        *(
            f"pod etl-{_made(r, 10, 'bcdfghjklmnpqrstvwxz2456789')}-{_made(r, 5, 'bcdfghjk2456789')}"
            for _ in range(8)
        ),
        *(f"wheel pilotage-0.1.0-py3-none-any.whl --hash=sha256:{_made(r, 64, _HEX)}" for _ in range(4)),
        *(f"incident i-{_made(r, 12, _HEX)} proposal p-{_made(r, 12, _HEX)}" for _ in range(6)),
        *(f"s3://lake/{_made(r, 8, _HEX)}/part-{n:05d}-{_made(r, 8, _HEX)}.parquet" for n in range(6)),
    ]
    return [*(line for line in _ORDINARY.splitlines() if line), *made]


def seen(text: str) -> bool:
    """Whether a form was looked at while the patterns were written."""
    return text in _LOOKED_AT or hashlib.sha256(text.encode("utf-8", "replace")).digest()[0] % 3 != 0


_LOOKED_AT = frozenset(text for text, _ in public_forms()) | frozenset(_LIKE_PUBLIC_FORMS)
