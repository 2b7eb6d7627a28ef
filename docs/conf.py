"""The site of the documentation: `make docs` builds it into `build/site`.

The source directory is the repository, so that a relative link of a page leads to the same file on the site and in the
file view of a forge. Which files are pages is said in `include_patterns`.
"""

from __future__ import annotations

from smtp_async import __version__

project = "smtp_async"
author = "The smtp_async authors"
copyright = author
version = release = __version__

root_doc = "docs/index"
include_patterns = ["docs/**", "examples/README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"]
exclude_patterns = ["docs/_static"]
# Names of the public reference are headings of the third level, whatever stands above them.
suppress_warnings = ["myst.header"]
source_suffix = {".md": "markdown"}

extensions = ["myst_parser", "sphinx_copybutton", "sphinxcontrib.mermaid"]
myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]
# The browser draws the diagrams; without this script it shows their text.
mermaid_version = "11.12.1"
mermaid_fullscreen = False

nitpicky = True
html_theme = "furo"
html_title = "smtp_async"
html_static_path = ["_static"]
html_css_files = ["site.css"]
# The pages stand in `docs/`, and so do they on the site; its root leads there.
html_extra_path = ["_static/root"]
html_show_copyright = False
