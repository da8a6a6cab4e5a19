"""Opens JupyterLab on the quickstart; works as root and without a display."""

from __future__ import annotations

import argparse
import os
import secrets
import socket
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = "notebooks/quickstart.ipynb"


def free_port(ip: str, wanted: int) -> int:
    """The wanted port, or the next one that nobody listens on."""
    for port in range(wanted, wanted + 50):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((ip, port))
            except OSError:
                continue
            return port
    sys.exit(f"no free port from {wanted} to {wanted + 49}: choose another with PORT=.")


def has_display() -> bool:
    """Whether a browser could show itself here."""
    if sys.platform != "linux":
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def main() -> None:
    """Print the address, then become the server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8888)
    parser.add_argument("--ip", default="127.0.0.1")
    chosen = parser.parse_args()
    port = free_port(chosen.ip, chosen.port)
    token = secrets.token_hex(16)
    host = socket.gethostname() if chosen.ip in ("0.0.0.0", "::", "*") else chosen.ip
    command = [
        sys.executable,
        *("-m", "jupyterlab"),
        f"--ServerApp.root_dir={ROOT}",
        f"--LabApp.default_url=/lab/tree/{NOTEBOOK}",
        f"--ServerApp.ip={chosen.ip}",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={token}",
        "--ServerApp.log_level=WARN",
    ]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    if not has_display():
        command.append("--no-browser")
    print("== JupyterLab (Ctrl-C twice stops it); open this address, then Run > Run All Cells:")
    print(f"\n    http://{host}:{port}/lab/tree/{NOTEBOOK}?token={token}\n", flush=True)
    os.chdir(ROOT)
    os.execv(sys.executable, command)


if __name__ == "__main__":
    main()
