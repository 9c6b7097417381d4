"""The images' HEALTHCHECK: exit code 0 if the server in this container admits requests, else 1.

Asks /health/ready, which answers 200 from when every shape is compiled until the server is told to
stop. Goes to the address that TALIPOT_HOST and TALIPOT_PORT name, through no proxy; imports no
package, so that it takes a moment and works whatever state the server is in.
"""

import http.client
import os
import sys

# Addresses to listen on that are none to connect to.
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
TIMEOUT_S = 4


def main() -> int:
    """Print what the server says of itself and return the exit code."""
    host = os.environ.get("TALIPOT_HOST", "127.0.0.1")
    port = int(os.environ.get("TALIPOT_PORT", "8000"))
    server = http.client.HTTPConnection(EVERYWHERE.get(host, host), port, timeout=TIMEOUT_S)
    try:
        server.request("GET", "/health/ready")
        answer = server.getresponse()
        print(answer.read(500).decode("utf-8", "replace"))
    except (OSError, http.client.HTTPException) as error:
        print(f"no answer from {server.host}:{port}: {error}")
        return 1
    return 0 if answer.status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
