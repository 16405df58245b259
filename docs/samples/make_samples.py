"""Makes docs/samples/report.html and explorer.html from the result of `klarsicht demo --out OUT --images 120`.

Pictures are encoded again as WebP, to keep the repository light.

python docs/samples/make_samples.py OUT
"""

from __future__ import annotations

import base64
import io
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from klarsicht.explorer.export import export_run

QUALITY = 55


def shrink_pictures(page: str) -> str:
    """Encode the pictures of a page as WebP, where that is smaller."""
    return re.sub(r"data:image/(?:png|jpeg);base64,[A-Za-z0-9+/=]+", lambda found: shrink_picture(found[0]), page)


def shrink_picture(address: str) -> str:
    content = base64.b64decode(address.partition(",")[2])
    buffer = io.BytesIO()
    Image.open(io.BytesIO(content)).save(buffer, "WEBP", quality=QUALITY, method=6)
    smaller = f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return min(smaller, address, key=len)


def main(run: Path, here: Path) -> None:
    with TemporaryDirectory() as folder:
        explorer = export_run(run, "page", Path(folder) / "explorer.html").read_text()
    for name, page in (("report.html", (run / "report.html").read_text()), ("explorer.html", explorer)):
        (here / name).write_text(shrink_pictures(page))
        print(name, (here / name).stat().st_size, "bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) / "run", Path(__file__).parent)
