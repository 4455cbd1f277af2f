# ruff: noqa: E501 - a table reads better with a row on a line
"""Signs of protocols and of the operating system: HTTP status, gRPC status, errno."""

from __future__ import annotations

import errno

from pilotage.planner.detect.signs.rule import FailureRule, coded, phrases, words
from pilotage.planner.findings import Cure
from pilotage.planner.findings import FailureClass as F

R = FailureRule

HTTP: tuple[FailureRule, ...] = (
    R(id="http-429", failure_class=F.RATE_LIMITED, because="HTTP 429: the other side asked to slow down", strength="code", codes=coded("http", "429 509 420")),
    R(id="http-402", failure_class=F.QUOTA_SPENT, because="HTTP 402: the account has to be paid", strength="code", codes=coded("http", "402")),
    R(id="http-refused", failure_class=F.AUTH, because="HTTP 401 or 403: credentials were refused", strength="code", codes=coded("http", "401 403 407 451 511")),
    R(id="http-overloaded", failure_class=F.TRANSIENT, because="the other side is overloaded", strength="code", cure=Cure.MINUTES, codes=coded("http", "529 598 599")),
    R(id="http-unavailable", failure_class=F.TRANSIENT, because="the other side answered that it is unavailable", strength="code",
      codes=coded("http", "500 502 503 504 408 425 520 521 522 523 524 530")),
    R(id="http-locked", failure_class=F.TRANSIENT, because="the other side has it locked at this moment", strength="code", codes=coded("http", "423"), cure=Cure.MINUTES),
    R(id="http-certificate", failure_class=F.CERTIFICATE, because="the other side's TLS is not in order", strength="code", codes=coded("http", "525 526")),
    R(id="http-storage", failure_class=F.INFRASTRUCTURE, because="the other side has no storage left", strength="code", codes=coded("http", "507")),
    R(id="http-absent", failure_class=F.DEPENDENCY, because="HTTP 404 or 410: what it asks for is not there", strength="code", cure=Cure.OWNER, codes=coded("http", "404 410")),
    R(id="http-method", failure_class=F.CODE_BUG, because="the other side does not offer what the code asks for", strength="code", codes=coded("http", "405 406 415 426 501 505")),
    R(id="http-bad-request", failure_class=F.BAD_INPUT, because="the other side does not accept the request", strength="code",
      codes=coded("http", "400 409 411 412 413 414 416 417 418 421 422 424 428 431")),
)  # fmt: skip

REPLIES: tuple[FailureRule, ...] = (
    R(id="reply-connections", failure_class=F.TRANSIENT, because="the server takes no more connections at this moment", strength="code", cure=Cure.MINUTES,
      codes=coded("reply", "421 450 530 550"), phrases=phrases("number of connections", "too many connections", "maximum number", "too many users", "connections from")),
    R(id="reply-passing", failure_class=F.TRANSIENT, because="SMTP or FTP: a reply that the server itself calls transient", strength="code", cure=Cure.MINUTES, despite=words("bad-record auth-type"),
      codes=coded("reply", "421 425 426 431 432 441 442 446 447 449 450 451 452 454 471")),
    R(id="reply-auth", failure_class=F.AUTH, because="SMTP or FTP: the login was refused", strength="code", codes=coded("reply", "530 532 534 535 538 430")),
    R(id="reply-absent", failure_class=F.DEPENDENCY, because="FTP: the file is not there or not readable", strength="code", cure=Cure.OWNER, codes=coded("reply", "550"), phrases=phrases("no such file", "file not found", "not found", "can't open", "failed to open", "can't check for file", "directory not found", "failed to change directory")),
    R(id="reply-full", failure_class=F.INFRASTRUCTURE, because="the other side's storage is full", strength="code", codes=coded("reply", "552")),
    R(id="reply-refused", failure_class=F.BAD_INPUT, because="SMTP or FTP: the server does not accept it", strength="code", codes=coded("reply", "500 501 502 503 504 550 551 553 554 555")),
)  # fmt: skip

GRPC: tuple[FailureRule, ...] = (
    R(id="grpc-unavailable", failure_class=F.TRANSIENT, because="gRPC: unavailable", strength="code", codes=coded("grpc", "UNAVAILABLE ABORTED INTERNAL DEADLINE_EXCEEDED UNKNOWN DATA_LOSS CANCELLED")),
    R(id="grpc-exhausted", failure_class=F.RATE_LIMITED, because="gRPC: a quota or limit is reached", strength="code", codes=coded("grpc", "RESOURCE_EXHAUSTED")),
    R(id="grpc-refused", failure_class=F.AUTH, because="gRPC: credentials were refused", strength="code", codes=coded("grpc", "UNAUTHENTICATED PERMISSION_DENIED")),
    R(id="grpc-absent", failure_class=F.DEPENDENCY, because="gRPC: what it asks for is not there", strength="code", cure=Cure.OWNER, codes=coded("grpc", "NOT_FOUND")),
    R(id="grpc-argument", failure_class=F.BAD_INPUT, because="gRPC: the request is not accepted", strength="code", codes=coded("grpc", "INVALID_ARGUMENT OUT_OF_RANGE FAILED_PRECONDITION ALREADY_EXISTS")),
    R(id="grpc-unimplemented", failure_class=F.CODE_BUG, because="gRPC: the call does not exist there", strength="code", codes=coded("grpc", "UNIMPLEMENTED")),
)  # fmt: skip


def _numbers(names: str, *windows: int) -> frozenset[str]:
    """Return the codes of named errors of this system, with Windows' numbers of the same."""
    numbers = {getattr(errno, name) for name in names.split() if hasattr(errno, name)}
    return frozenset(f"errno:{number}" for number in {*numbers, *windows})


ERRNO: tuple[FailureRule, ...] = (
    R(id="errno-memory", failure_class=F.OUT_OF_MEMORY, because="errno: no memory", strength="code", codes=_numbers("ENOMEM", 8, 1455)),
    R(id="disk-full", failure_class=F.INFRASTRUCTURE, because="the disk or a quota on it is full", strength="code", codes=_numbers("ENOSPC EDQUOT", 112)),
    R(id="errno-network", failure_class=F.TRANSIENT, because="the connection failed on its way", strength="code",
      codes=_numbers("ECONNRESET ECONNREFUSED ECONNABORTED ETIMEDOUT EPIPE ENETUNREACH EHOSTUNREACH ENETDOWN ENETRESET EHOSTDOWN ENOTCONN ESHUTDOWN EADDRNOTAVAIL", 10053, 10054, 10060, 10061, 10065, 10051, 64, 121)),
    R(id="errno-name-passing", failure_class=F.TRANSIENT, because="a name could not be resolved for a moment", strength="code", cure=Cure.SECONDS, codes=coded("errno", "-3 11002")),
    R(id="errno-name", failure_class=F.DEPENDENCY, because="a name is not known: it is wrong, or its server is gone", strength="code", cure=Cure.OWNER, codes=coded("errno", "-2 -5 11001")),
    R(id="errno-too-many", failure_class=F.INFRASTRUCTURE, because="the machine's limit of open files or processes is reached", strength="code", codes=_numbers("EMFILE ENFILE EAGAIN", 10024)),
    R(id="errno-busy", failure_class=F.TRANSIENT, because="a file is in use at this moment", strength="code", cure=Cure.MINUTES, codes=_numbers("EBUSY ETXTBSY", 59, 32, 33)),
    R(id="errno-storage", failure_class=F.INFRASTRUCTURE, because="the storage under the file system failed", strength="code", codes=_numbers("ESTALE EIO EREMOTEIO")),
    R(id="errno-read-only", failure_class=F.ENVIRONMENT, because="the file system is read-only", strength="code", codes=_numbers("EROFS")),
    R(id="os-permission", failure_class=F.AUTH, because="the operating system refused access", strength="code", codes=_numbers("EACCES EPERM", 5)),
    R(id="errno-exec", failure_class=F.ENVIRONMENT, because="a program cannot be executed here", strength="code", codes=_numbers("ENOEXEC", 193)),
    R(id="errno-port", failure_class=F.ENVIRONMENT, because="a port is in use", strength="code", codes=_numbers("EADDRINUSE", 10048)),
)  # fmt: skip

CERTIFICATES: tuple[FailureRule, ...] = (
    R(id="certificate", failure_class=F.CERTIFICATE, because="a certificate is not trusted, not valid or not for this host", strength="code",
      phrases=phrases("certificate verify failed", "certificate_verify_failed", "certificate has expired", "certificate is not yet valid", "certificate is not valid", "certificate expired", "self signed certificate", "self-signed certificate", "unable to get local issuer certificate", "unable to get issuer certificate", "unable to verify the first certificate", "x509: certificate", "x509:", "pkix path building failed", "hostname mismatch", "doesn't match either of", "certificate required", "tlsv1_alert_unknown_ca", "tlsv1 alert unknown ca", "alert unknown ca", "unknown ca", "alert certificate", "err_cert_", "invalid certificate", "certificate_unknown", "server certificate verification failed", "could not find a suitable tls ca certificate bundle", "invalid ca certificate", "dh key too small", "ee key too small", "ca md too weak", "unsafe legacy renegotiation", "unsafe_legacy_renegotiation", "server certificate has expired", "bad certificate", "certificate revoked", "certificate is revoked", "ocsp", "its validity date is out of range", "no hostkey for host", "hostkey for host", "not found in known_hosts", "host key for server", "unsupported_protocol", "no protocols available", "no cipher match", "key values mismatch", "unable to load client cert", "ssl routines * wrong version number", "wrong_version_number", "wrong version number"),
      unless=phrases("connection reset by peer", "using certificate credentials")),
    R(id="certificate-type", failure_class=F.CERTIFICATE, because="a certificate is not trusted, not valid or not for this host", strength="code",
      exceptions=words("SSLCertVerificationError CertificateError ClientConnectorCertificateError BadHostKeyException SSLCertificateError CertificateVerificationError")),
)  # fmt: skip
