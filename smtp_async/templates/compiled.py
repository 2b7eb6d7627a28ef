"""Templates compiled: one Jinja template for each part of a message.

Strategy. Only HTML is escaped, and Jinja decides that for a file as a whole. So there are two environments, and the
subject and the text are compiled, with all that they include, by the one that does not escape.

A file with all parts is taken apart before it is compiled: each of its blocks `subject`, `text` and `html` becomes a
template of its own, behind the imports, macros and assignments that stand outside of the blocks. So a part is rendered
once and alone, and may itself extend a layout.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..errors import FeatureUnavailable, TemplateError
from ..model.reply import printable
from .files import TemplateFiles

if TYPE_CHECKING:
    import jinja2
    from jinja2 import nodes

__all__ = ["CompiledTemplate", "Compiler"]

_SUBJECT: Final = "subject"
_TEXT: Final = "text"
_HTML: Final = "html"
#: Characters between two pauses: well under a millisecond of rendering, and about one of everything that follows.
_SLICE: Final = 16_384
_PARTS: Final = (_SUBJECT, _TEXT, _HTML)


class CompiledTemplate(NamedTuple):
    """The parts of a template, those that it has.

    Attributes:
        name: for errors.
        subject, text, html: render the parts.
    """

    name: str
    subject: jinja2.Template | None
    text: jinja2.Template | None
    html: jinja2.Template | None


class Compiler:
    """Compiles the templates of a folder.

    Args:
        folder: where they are.
        filters, globals: further names for them.
        reload: compile files again when they have changed.

    Raises:
        FeatureUnavailable: Jinja is not installed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        filters: Mapping[str, Callable[..., Any]],
        globals: Mapping[str, Any],
        reload: bool,
    ) -> None:
        try:
            import jinja2
        except ImportError as error:
            raise FeatureUnavailable(
                "templates are rendered by jinja2", needs="smtp-async[templates]"
            ) from error
        self._jinja2 = jinja2
        self._folder = folder

        def environment(*, escape: bool) -> jinja2.Environment:
            made = jinja2.Environment(
                loader=jinja2.FileSystemLoader(folder),
                autoescape=escape,
                undefined=jinja2.StrictUndefined,
                auto_reload=reload,
                # A line that holds only a tag leaves no empty line in a text.
                trim_blocks=True,
                lstrip_blocks=True,
            )
            made.filters.update(filters)
            made.globals.update(globals)
            return made

        self._escaping = environment(escape=True)
        self._plain = environment(escape=False)
        self._globals = {**self._plain.globals}

    def compiled(self, name: str, files: TemplateFiles) -> CompiledTemplate:
        """Compile the files of a template.

        Raises:
            TemplateError: a file is no valid template.
        """
        try:
            if files.whole is not None:
                return self._taken_apart(name, files.whole)
            return CompiledTemplate(
                name,
                None if files.subject is None else self._plain.get_template(files.subject),
                None if files.text is None else self._plain.get_template(files.text),
                None if files.html is None else self._escaping.get_template(files.html),
            )
        except (self._jinja2.TemplateError, UnicodeDecodeError) as error:
            raise self._explained(error, name) from error

    def values(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values for `rendered`: those of a context, and the names that all templates may use."""
        return {**self._globals, **context}

    def rendered(
        self, part: jinja2.Template, values: dict[str, Any], name: str
    ) -> Generator[None, None, str]:
        """Render one part: yield after each slice of a large one, return it as a whole.

        Args:
            part: of a compiled template.
            values: from `values`.
            name: of the template, for errors.

        Raises:
            TemplateError: a name has no value, or an included file does not exist or is not valid.
        """
        pieces: list[str] = []
        size = 0
        environment = part.environment
        try:
            try:
                # Shared, because merging them with the globals for each part would take longer than a short part.
                for piece in part.root_render_func(part.new_context(values, shared=True)):
                    pieces.append(piece)
                    size += len(piece)
                    if size > _SLICE:
                        size = 0
                        yield
            except Exception:
                # Raises it again, with the lines of the template in its traceback.
                environment.handle_exception()
        except (self._jinja2.TemplateError, UnicodeDecodeError) as error:
            raise self._explained(error, name) from error
        return "".join(pieces)

    def _explained(self, error: Exception, name: str) -> TemplateError:
        """Return an error of Jinja as one that names the file and the line."""
        jinja2 = self._jinja2
        where = name
        if isinstance(error, jinja2.TemplateSyntaxError):
            where = f"{error.name or name}, line {error.lineno}"
        elif isinstance(error, jinja2.TemplateNotFound):
            return TemplateError(f"{name}: there is no file {error.name} in {self._folder}")
        elif isinstance(error, UnicodeDecodeError):
            return TemplateError(f"{name}: a file of the template is not UTF-8: {error}")
        else:
            for frame in traceback.extract_tb(error.__traceback__):
                path = Path(frame.filename)
                if path.is_relative_to(self._folder):
                    where = f"{path.relative_to(self._folder)}, line {frame.lineno}"
        text = printable(str(error), 200)
        if isinstance(error, jinja2.UndefinedError):
            text += "; every name that a template uses must be in its context"
        return TemplateError(f"{where}: {text}")

    # --- one file with all parts -----------------------------------------------------------------------------

    def _taken_apart(self, name: str, file: str) -> CompiledTemplate:
        parts = {part: self._part(file, part) for part in _PARTS}
        return CompiledTemplate(name, parts[_SUBJECT], parts[_TEXT], parts[_HTML])

    def _part(self, file: str, part: str) -> jinja2.Template | None:
        """Compile one block of a file; None if the file does not have it."""
        from jinja2 import nodes

        environment = self._escaping if part == _HTML else self._plain
        loader = environment.loader
        assert loader is not None
        source, path, _ = loader.get_source(environment, file)
        tree = environment.parse(source, file, path)
        before: list[nodes.Node] = []
        body: list[nodes.Node] | None = None
        for node in tree.body:
            if isinstance(node, nodes.Block) and node.name in _PARTS:
                body = node.body if node.name == part else body
            elif not _is_blank(node):
                self._demand_outside(node, file)
                before.append(node)
        if body is None:
            return None
        alone = nodes.Template([*before, *body], lineno=1)
        alone.set_environment(environment)
        code = environment.compile(alone, file, path)
        return environment.template_class.from_code(environment, code, environment.make_globals(None))

    def _demand_outside(self, node: nodes.Node, file: str) -> None:
        """Raise if `node` may not stand outside of the blocks."""
        from jinja2 import nodes

        if isinstance(node, nodes.Block):
            what = f"the block is called {node.name}, but the parts are called {', '.join(_PARTS)}"
        elif isinstance(node, nodes.Extends):
            what = "the parts extend layouts, not the file: write it inside of the block html"
        elif isinstance(
            node, nodes.Import | nodes.FromImport | nodes.Assign | nodes.AssignBlock | nodes.Macro
        ):
            return
        else:
            what = "this is in none of the blocks subject, text and html, so it would not be sent"
        raise self._jinja2.TemplateSyntaxError(what, node.lineno, file)


def _is_blank(node: nodes.Node) -> bool:
    from jinja2 import nodes

    return isinstance(node, nodes.Output) and all(
        isinstance(one, nodes.TemplateData) and not one.data.strip() for one in node.nodes
    )
