"""Let a virtual environment fall back on this one's packages: `python scripts/beside.py FOLDER`.

Its own packages come first: an environment of other versions needs those alone, no second torch.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

PRINT = "import sysconfig; print(sysconfig.get_path('purelib'))"


def main(folder: str) -> None:
    """Write the .pth file; the packages' own .pth files (editable installs) count too."""
    python = Path(folder) / "bin/python"
    done = subprocess.run([python, "-c", PRINT], check=True, capture_output=True, encoding="utf-8")
    here = sysconfig.get_path("purelib")
    line = f"import site; site.addsitedir({here!r})\n"
    (Path(done.stdout.strip()) / "beside.pth").write_text(line)


if __name__ == "__main__":
    main(sys.argv[1])
