"""A picture of a report page, as headless Chromium shows it.

python scripts/screenshot.py evaluation/report.html --out docs/images/report.png
"""

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright


def main() -> None:
    """Open the page and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--width", type=int, default=1280, help="pixels of the window")
    parser.add_argument("--height", type=int, default=1200, help="pixels shown; 0 for the whole page")
    parser.add_argument("--scheme", choices=("light", "dark"), default="light")
    args = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        size = {"width": args.width, "height": args.height or 1200}
        page = browser.new_page(viewport=size, color_scheme=args.scheme)
        page.goto(args.page.resolve().as_uri())
        args.out.parent.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=args.out, full_page=not args.height)
        browser.close()


if __name__ == "__main__":
    main()
