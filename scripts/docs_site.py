"""Hook of the documentation site: pages that are not in `docs/`, so that nothing is written down twice.

`README.md`, `CONTRIBUTING.md` and `CHANGELOG.md` become pages with their links rewritten, and each package
gets an API page. `properdocs.yml` names this file; `make docs` builds the site.
"""

import re
from pathlib import Path

from properdocs.config.defaults import MkDocsConfig
from properdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
PACKAGES = ("finetune", "generate", "review", "classify", "evaluate", "orchard")
LINK = re.compile(r"(?<=\]\()([^)\s:#]+)(?=[#)])")
"""The file that a Markdown link names; URLs have a colon."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages to those of `docs/`."""
    for name, page in PAGES.items():
        text = LINK.sub(lambda link: address(link[1]), (ROOT / name).read_text(encoding="utf-8"))
        files.append(File.generated(config, page, content=text))
    for package in PACKAGES:
        files.append(File.generated(config, f"api/{package}.md", content=f"::: {package}\n"))
    return files


def address(file: str) -> str:
    """Where a file of the repository is on the site: a module is an anchor of its package's API page."""
    path = Path(file)
    if path.suffix == ".py":
        return f"api/{path.parts[0]}.md#{'.'.join(path.with_suffix('').parts)}"
    return PAGES.get(file, file.removeprefix("docs/"))
