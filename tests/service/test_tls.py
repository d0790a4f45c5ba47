"""HTTPS with real certificates, and callers who must show theirs."""

import ssl
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from core.errors import ConfigError
from service.server import serve
from service.settings import load_settings
from tests.service.live import OCTET, Live, octet, pairs, settings_for

Start = Callable[..., Live]
PASSWORD = "open sesame"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings that name the service's certificate and its encrypted key."""
    folder, issued = tmp_path_factory.mktemp("tls"), authority.issue_cert("127.0.0.1")
    for blob in issued.cert_chain_pems:
        blob.write_to_path(folder / "cert.pem", append=True)
    key = load_pem_private_key(issued.private_key_pem.bytes(), None)
    sealed = key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(PASSWORD.encode())
    )
    (folder / "key.pem").write_bytes(sealed)
    return {
        "tls_certfile": str(folder / "cert.pem"),
        "tls_keyfile": str(folder / "key.pem"),
        "tls_key_password": PASSWORD,
    }


def trusting(authority: trustme.CA, shown: trustme.LeafCert | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if shown is not None:
        shown.configure_cert(context)
    return context


def ask(live: Live, context: ssl.SSLContext) -> int:
    url, body = f"{live.url}/negatives", octet(*pairs(3))
    return httpx.post(url, content=body, headers=OCTET, verify=context).status_code


def test_who_trusts_the_authority_is_answered(
    start: Start, registry: Path, files: dict[str, str], authority: trustme.CA
) -> None:
    live = start(registry, server=files)
    assert live.url.startswith("https://")
    assert ask(live, trusting(authority)) == 200
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        ask(live, ssl.create_default_context())
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(live.url.replace("https", "http") + "/livez")


def test_callers_must_show_a_certificate(
    start: Start, registry: Path, files: dict[str, str], authority: trustme.CA, tmp_path: Path
) -> None:
    callers = trustme.CA()
    callers.cert_pem.write_to_path(tmp_path / "callers.pem")
    live = start(registry, server=files | {"tls_client_ca": str(tmp_path / "callers.pem")})
    assert ask(live, trusting(authority, callers.issue_cert("me@example.org"))) == 200
    for other in (None, trustme.CA().issue_cert("me@example.org")):
        with pytest.raises((httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError)):
            ask(live, trusting(authority, other))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tls_certfile": "absent.pem"}, "No such file"),
        ({"tls_keyfile": "absent.pem"}, "No such file"),
        ({"tls_key_password": "wrong"}, "TLS cannot start"),
        ({"tls_key_password": None}, "TLS cannot start"),  # and no prompt on the terminal
        ({"tls_certfile": __file__}, "TLS cannot start"),
        ({"tls_client_ca": __file__}, "TLS cannot start"),
    ],
)
def test_files_that_cannot_be_used_stop_the_start(
    registry: Path, files: dict[str, str], change: dict[str, str | None], words: str
) -> None:
    settings = settings_for(registry, server=files | change)
    with pytest.raises(ConfigError, match=words) as refused:
        serve(settings)
    assert "TURNPOINT_SERVER__TLS_CERTFILE" in str(refused.value)
    assert PASSWORD not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("lonely", ["tls_keyfile", "tls_client_ca"])
def test_half_of_tls_is_refused(lonely: str) -> None:
    with pytest.raises(ConfigError, match="without SERVER__TLS_CERTFILE"):
        load_settings({"server": {lonely: "x.pem"}})
