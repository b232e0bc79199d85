"""TLS of a connection to Postgres, as the parameters of its URL and the files of libpq say."""

import os
import ssl
from pathlib import Path

_VERIFYING = ("verify-ca", "verify-full")
TLS_MODES = ("disable", "allow", "prefer", "require", *_VERIFYING)


def tls_context(mode: str, tls: dict[str, str]) -> ssl.SSLContext:
    """Make the TLS context of a connection.

    Args:
        mode: The `sslmode` of the URL.
        tls: The parameters of the URL about TLS.

    Raises:
        ValueError: A version of TLS is unknown.
        OSError: A file that the URL names cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = mode == "verify-full"
    context.verify_mode = ssl.CERT_REQUIRED if mode in _VERIFYING else ssl.CERT_NONE
    if mode in {"require", *_VERIFYING}:
        _trust(context, mode, tls)
    certificate = _file(tls, "sslcert", "postgresql.crt")
    if certificate is not None:
        secret = tls.get("sslpassword", "")
        key = _file(tls, "sslkey", "postgresql.key")
        context.load_cert_chain(certificate, key, lambda: secret)
    context.minimum_version = _version(tls.get("ssl_min_protocol_version", "TLSv1.2"))
    if "ssl_max_protocol_version" in tls:
        context.maximum_version = _version(tls["ssl_max_protocol_version"])
    context.set_alpn_protocols(["postgresql"])
    return context


def _trust(context: ssl.SSLContext, mode: str, tls: dict[str, str]) -> None:
    roots = _file(tls, "sslrootcert", "root.crt")
    if roots is not None:
        context.load_verify_locations(cafile=roots)
        context.verify_mode = ssl.CERT_REQUIRED
    elif mode in _VERIFYING:
        missing = "~/.postgresql/root.crt"
        reason = "no certificate to trust, and the URL names none with sslrootcert"
        raise FileNotFoundError(2, reason, missing)
    revoked = _file(tls, "sslcrl", "root.crl")
    if revoked is not None:
        context.load_verify_locations(cafile=revoked)
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN


def _file(tls: dict[str, str], parameter: str, usual: str) -> str | None:
    """The file that the URL names, or else the usual one if it is there."""
    if parameter in tls:
        Path(tls[parameter]).open("rb").close()  # ssl would not say which file is missing
        return tls[parameter]
    path = Path("~/.postgresql", usual).expanduser()
    return str(path) if os.access(path, os.R_OK) else None


def _version(name: str) -> ssl.TLSVersion:
    try:
        return ssl.TLSVersion[name.replace(".", "_")]
    except KeyError:
        raise ValueError from None
