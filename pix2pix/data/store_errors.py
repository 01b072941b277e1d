"""What went wrong at a store or a web server, in a sentence of ours (no torch).

Libraries of stores raise types of their own, whose words may hold a secret: a signed URL, the user
of an endpoint. So only types, HTTP statuses and hosts are told.
"""

import os
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from pix2pix.errors import UserError

ABSENT = 404
HTTP_CAUSES = {
    401: "credentials are missing or wrong",
    403: "access is denied; credentials may be missing",
    ABSENT: "it is not there",
    407: "the proxy wants credentials",
}
_AZURE = "AZURE_STORAGE_CONNECTION_STRING"
# Variables that name a store's endpoint, the one that wins first.
_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "gs": ("STORAGE_EMULATOR_HOST",),
    "az": (_AZURE,),
    "hf": ("HF_ENDPOINT",),
}
_DEFAULT_HOSTS = {
    "s3": "amazonaws.com",
    "gs": "storage.googleapis.com",
    "hf": "huggingface.co",
}
_ASK_SECONDS = 3
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or `gcloud auth application-default login`",
    "az": f"{_AZURE}, or AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    "hf": "HF_TOKEN, or `hf auth login`",
}


def refuse_user_info(url: str) -> None:
    """Raise UserError where the endpoint of a store's URL carries a user or a password.

    Stores sign their requests, and their libraries fail on both with a type's name alone.
    """
    name, told = _endpoint(url)
    if "@" in _authority(told):
        raise UserError(
            f"cannot open {url}: the endpoint in {name} (host {_host(told)}) has a user or a "
            "password in its URL, which no store accepts; remove it, and give credentials by "
            f"{_CREDENTIALS[urlsplit(url).scheme]}"
        )


def reason(place: str, error: Exception) -> str:
    """Return what went wrong at a path or a URL: the cause and, of a store, " (at HOST)"."""
    scheme = urlsplit(place).scheme if "://" in place else ""
    proxy = through_proxy(place) if scheme else ""
    _, told = _endpoint(place)
    cause = _cause(scheme, list(_chain(error)))
    if cause == SILENT and told and not proxy:
        cause = _cause_by_asking(told)
    is_of_host = cause in (SILENT, REFUSED, NO_HOST)  # or of a proxy, which looks the same
    host = _host(told) or (_DEFAULT_HOSTS.get(scheme, "") if is_of_host else "")
    return f"{cause}{f' (at {host})' if host else ''}{proxy if is_of_host else ''}"


def _cause(scheme: str, chain: list[BaseException]) -> str:
    """Return what an error means that came of the errors after it, at a store of that scheme."""
    first, names = chain[0], " ".join(type(error).__name__ for error in chain)
    if isinstance(first, FileNotFoundError):
        if "RepositoryNotFound" in names:
            return (
                "there is no such repository, or it is private and credentials are missing: "
                f"{_CREDENTIALS[scheme]}"
            )
        return HTTP_CAUSES[ABSENT]
    if isinstance(first, TimeoutError):
        return SILENT
    status = next(filter(None, map(_status, chain)), None)
    if status is not None:
        return http_cause(status)
    if scheme == "az" and type(first) is ValueError:  # adlfs, before it asks anybody
        return f"credentials are missing or malformed; set {_CREDENTIALS[scheme]}"
    if scheme == "s3" and "HTTPClientError" in names and "ValueError" in names:  # aiohttp
        return "the endpoint_url of the AWS configuration has a user or a password; remove it"
    for words, cause in _BY_NAME:
        if any(word in names for word in words):
            return cause
    if type(first).__module__ == "builtins" and isinstance(first, OSError) and first.errno:
        return os.strerror(first.errno)
    return f"the library of the store fails with {type(first).__name__}"


SILENT = "the server does not answer, or has fallen silent"
REFUSED = "the host refuses the connection, or there is none"
NO_HOST = "there is no such host"
UNTRUSTED = "its certificate is not to be trusted"
_BY_NAME = (  # of types, by parts of their names: importing all these libraries would cost more
    (("PermissionError", "Credentials", "Authentication"), HTTP_CAUSES[403]),
    (("Timeout",), SILENT),
    (("SSL", "Certificate"), UNTRUSTED),
    (("DNS", "gaierror"), NO_HOST),
    (("Connect", "ServiceRequestError"), REFUSED),
)


def _cause_by_asking(endpoint: str) -> str:
    """Return why an endpoint was silent: Azure's library tries a refused connection for minutes."""
    parts = urlsplit(endpoint if "://" in endpoint else f"https://{endpoint}")
    port = parts.port or (80 if parts.scheme == "http" else 443)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=_ASK_SECONDS).close()
    except ConnectionRefusedError:
        return REFUSED
    except socket.gaierror:
        return NO_HOST
    except OSError:
        pass
    return SILENT


def http_cause(status: int) -> str:
    """Return what an HTTP status means for who wants a file."""
    default = "the server fails" if status >= 500 else "the server cannot serve it"
    return f"HTTP status {status}: {HTTP_CAUSES.get(status, default)}"


def through_proxy(url: str) -> str:
    """Return ", through the proxy HOST" where the environment sends the URL's requests to one."""
    parts = urlsplit(url)
    proxies = getproxies()
    is_web = parts.scheme in ("http", "https")
    proxy = proxies.get(parts.scheme if is_web else "https") or proxies.get("all")
    if not proxy or (is_web and proxy_bypass(parts.hostname or "")):
        return ""
    return f", through the proxy {_host(proxy)}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it was raised from."""
    for _ in range(8):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int | None:
    """Return the HTTP status that an error of a library carries, each in its own way."""
    if str(error).startswith("Forbidden: "):  # gcsfs
        return 403
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore
        found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        holders = (error, response)
        names = ("status_code", "status", "code")
        found = next((v for h in holders for n in names if (v := getattr(h, n, None))), None)
    return int(found) if str(found).isdigit() and 400 <= int(found) < 600 else None


def _endpoint(url: str) -> tuple[str, str]:
    """Return the variable that names the endpoint of a store's URL, and the endpoint in it."""
    scheme = urlsplit(url).scheme
    names = [name for name in _ENDPOINTS.get(scheme, ()) if os.environ.get(name)]
    if scheme == "az":
        return _AZURE, _endpoint_of_azure()
    return (names[0], os.environ[names[0]]) if names else ("", "")


def _endpoint_of_azure() -> str:
    settings = dict(
        part.partition("=")[::2] for part in os.environ.get(_AZURE, "").split(";") if "=" in part
    )
    account = settings.get("AccountName") or os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
    suffix = settings.get("EndpointSuffix", "core.windows.net")
    return settings.get("BlobEndpoint") or (f"{account}.blob.{suffix}" if account else "")


def _authority(endpoint: str) -> str:
    return endpoint.partition("://")[2].partition("/")[0] or endpoint.partition("/")[0]


def _host(endpoint: str) -> str:
    return _authority(endpoint).rpartition("@")[2]
