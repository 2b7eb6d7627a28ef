"""Messages from templates: subject, text and HTML from files of a folder, by Jinja and css-inline.

`templates.py` has the public class, `files.py` finds the files of a template, `compiled.py` compiles them, `pages.py`
makes HTML that mail readers show (styles in attributes, images in the message), and `plain_text.py` makes the text of a
message that has only HTML.
"""

from __future__ import annotations

from .templates import Templates

__all__ = ["Templates"]
