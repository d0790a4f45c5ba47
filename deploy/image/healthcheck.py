"""The image's health check: exit code 0 when `/readyz` says so, else 1 and the reason.

Standard library only, and no curl in the image. It asks over loopback, so a certificate, which is
made out to another name, is not verified.
"""

import os
import ssl
import sys
import urllib.error
import urllib.request

TIMEOUT = 4.0  # seconds; below that of HEALTHCHECK

scheme = "https" if os.environ.get("TURNPOINT_SERVER__TLS_CERTFILE") else "http"
port = os.environ.get("TURNPOINT_SERVER__PORT") or "8000"
unverified = ssl._create_unverified_context()  # noqa: S323  # loopback, see above
try:
    with urllib.request.urlopen(
        f"{scheme}://127.0.0.1:{port}/readyz", timeout=TIMEOUT, context=unverified
    ) as answer:
        print(answer.read().decode())
except urllib.error.HTTPError as error:
    sys.exit(error.read().decode())
except OSError as error:
    sys.exit(f"no answer: {error}")
