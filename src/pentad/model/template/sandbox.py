"""A Jinja environment for templates that come out of model files: hostile until proven otherwise.

Two fences. Nothing but plain data is reachable: attributes, filters and globals are lists of what
chat templates use, so there is no path to a Python object. And every loop turn, call, operator,
literal and piece of output passes a Meter, so no template can run long or grow large.
"""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateSyntaxError
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import FILTERS, make_attrgetter
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Joiner, Namespace, pass_context, pass_environment

from pentad.model.template.meter import Meter
from pentad.model.template.rewrite import BUILT, JOINED, METERED, SCANNED, WRITTEN, rewrite


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


STR_METHODS = _names(
    "strip lstrip rstrip split rsplit splitlines startswith endswith upper lower title capitalize "
    "replace join find rfind index count isdigit isalpha isalnum isspace isupper islower "
    "removeprefix removesuffix partition rpartition"
)
DICT_METHODS = _names("items keys values get")
LIST_METHODS = _names("index count")
LOOP_ATTRIBUTES = _names(
    "index index0 revindex revindex0 first last length cycle depth depth0 previtem nextitem changed"
)
BUILTIN_FILTERS = _names(
    "abs capitalize count length d default dictsort e escape first float groupby int items last list lower "
    "map max min reject rejectattr reverse round safe select selectattr sort string title trim truncate "
    "unique upper"
)
PLAIN = (str, int, float, bool, type(None), list, tuple, dict, Undefined)
MAX_INDENT = 16


def _at_run_time(filter_: Callable[[Any], Any]) -> Callable[..., Any]:
    """The filter, marked so that Jinja does not fold it away at compile time."""

    @pass_context
    def run(context: Context, value: Any) -> Any:  # noqa: ARG001 - the mark asks for it
        return filter_(value)

    return run


class Generation(Extension):
    """`{% generation %}`: marks the assistant's part for training; here its body is simply rendered."""

    tags = {"generation"}  # noqa: RUF012 - Jinja declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class TemplateSandbox(ImmutableSandboxedEnvironment):
    """Compiles and runs templates under a Meter; `metered` must be entered around every rendering."""

    intercepted_binops = frozenset({"+", "*", "**", "%", "//", "-", "/"})

    def __init__(self, extra: Mapping[str, Callable[..., Any]]) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            cache_size=0,
            extensions=[loopcontrols, Generation],
        )
        self._local = threading.local()
        ranged = self.globals["range"]
        self.globals = {"range": ranged, "dict": dict, "namespace": Namespace, "joiner": Joiner, **extra}
        self.filters = {name: self._guarded(FILTERS[name]) for name in BUILTIN_FILTERS}
        self.filters |= {
            "tojson": self._tojson,
            "join": self._join,
            "replace": self._replace,
            "indent": self._indent,
            METERED: _at_run_time(self._metered),
            BUILT: _at_run_time(self._built),
            WRITTEN: _at_run_time(self._written),
            JOINED: _at_run_time(lambda parts: self._join(self, parts)),
            SCANNED: _at_run_time(self._scanned),
        }

    @property
    def meter(self) -> Meter:
        """The meter of the rendering that this thread is in."""
        meter: Meter = self._local.meter
        return meter

    @contextmanager
    def metered(self, meter: Meter) -> Generator[None, None, None]:
        """Uses `meter` for what this thread renders inside."""
        self._local.meter = meter
        try:
            yield
        finally:
            del self._local.meter

    # What is reachable.

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:  # noqa: ARG002 - Jinja's signature
        """Only the listed methods of plain data, the loop's own fields and the template's namespaces."""
        if isinstance(obj, str):
            return attr in STR_METHODS
        if isinstance(obj, dict):
            return attr in DICT_METHODS
        if isinstance(obj, (list, tuple)):
            return attr in LIST_METHODS
        if isinstance(obj, LoopContext):
            return attr in LOOP_ATTRIBUTES
        return isinstance(obj, Namespace) and not attr.startswith("_")

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Like the sandbox's, but `message.update` means the key of a mapping, not Python's method."""
        if isinstance(obj, dict) and attribute not in DICT_METHODS:
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)

    def is_safe_callable(self, obj: Any) -> bool:
        """Functions given to the template, its macros and the methods let through above."""
        return (
            isinstance(obj, (Macro, Joiner, LoopContext))
            or any(obj is known for known in self.globals.values())
            or isinstance(getattr(obj, "__self__", None), (str, dict, list, tuple, LoopContext))
        )

    # What it costs.

    def call(self, context: Context, obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Every call of a template comes here."""
        self.meter.charge(1)
        owner, name = getattr(obj, "__self__", None), getattr(obj, "__name__", "")
        if isinstance(owner, str) and name in ("replace", "join"):
            guarded = (
                self._replace if name == "replace" else lambda text, items: self._join(self, items, text)
            )
            return guarded(owner, *args, **kwargs)
        if isinstance(owner, str):
            self.meter.charge_chars(len(owner))
        return self._built(super().call(context, obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Arithmetic on small numbers, concatenation, bounded repetition; no `%` formatting."""
        numbers = isinstance(left, (int, float)) and isinstance(right, (int, float))
        if isinstance(left, str) and operator == "%":
            raise SecurityError("text formatting with % is not available")
        if operator == "**" and not (numbers and abs(right) <= 64):
            raise SecurityError("only powers up to 64 are available")
        self.meter.charge(1)
        if numbers:
            self.meter.weigh(left)
            self.meter.weigh(right)
        elif operator == "*":
            times = next((n for n in (left, right) if isinstance(n, int)), 0)
            self.meter.charge(max(times, 0) * max(self.meter.weigh(left), self.meter.weigh(right)))
        else:
            self.meter.charge((self.meter.weigh(left) + self.meter.weigh(right)) // 4)
        return self._built(super().call_binop(context, operator, left, right))

    def _guarded(self, filter_: Callable[..., Any]) -> Callable[..., Any]:
        """A filter that pays for its input and has its result weighed."""
        skip = int(hasattr(filter_, "jinja_pass_arg"))

        @functools.wraps(filter_)
        def run(*args: Any, **kwargs: Any) -> Any:
            value = args[skip]
            self.meter.charge(1 + (len(value) if isinstance(value, (str, list, dict, tuple)) else 0) // 16)
            if isinstance(value, Iterator):
                args = (*args[:skip], self._metered(value), *args[skip + 1 :])
            self._check_plain(value)
            return self._built(filter_(*args, **kwargs))

        return run

    def _metered(self, items: Iterable[Any]) -> Iterator[Any]:
        meter = self.meter
        for item in items:
            meter.charge(1)
            yield item

    def _built(self, value: Any) -> Any:
        self.meter.weigh(value)
        if isinstance(value, (list, tuple, dict)):
            for child in value.values() if isinstance(value, dict) else value:
                self._check_plain(child)
        return value

    def _written(self, value: Any) -> str:
        self._check_plain(value)
        self.meter.charge(self.meter.weigh(value))
        text = value if isinstance(value, str) else str(value)
        self.meter.emit(len(text))
        return text

    def _scanned(self, value: Any) -> Any:
        if isinstance(value, (str, list, tuple, dict)):
            self.meter.charge(1 + len(value) // 16)
        return value

    def _check_plain(self, value: Any) -> None:
        """Objects of the template engine must not be written out: their text shows our insides."""
        if not isinstance(
            value, (*PLAIN, Iterator, type({}.keys()), type({}.values()), type({}.items()), range)
        ):
            raise SecurityError(f"a {type(value).__name__} is not data")

    # Filters of our own, where the library's could grow without bound or escapes for HTML.

    def _tojson(
        self, value: Any, indent: int | None = None, ensure_ascii: bool = False, **options: Any
    ) -> str:
        if unknown := set(options) - {"separators", "sort_keys"}:
            raise SecurityError(f"tojson has no option {sorted(unknown)[0]!r}")
        if indent is not None and not 0 <= int(indent) <= MAX_INDENT:
            raise SecurityError(f"tojson indents by 0 to {MAX_INDENT} spaces")
        self._check_plain(value)
        self.meter.charge(4 * self.meter.weigh(value))
        return json.dumps(value, indent=indent, ensure_ascii=ensure_ascii, **options)

    @staticmethod
    @pass_environment
    def _join(env: TemplateSandbox, value: Iterable[Any], d: str = "", attribute: str | None = None) -> str:
        items: Iterable[Any] = env._metered(value)
        if attribute is not None:
            items = map(make_attrgetter(env, attribute), items)
        texts = [env._text(item) for item in items]
        env.meter.charge_chars(sum(map(len, texts)) + len(str(d)) * len(texts))
        return str(d).join(texts)

    def _text(self, value: Any) -> str:
        self._check_plain(value)
        self.meter.charge(self.meter.weigh(value))
        return str(value)

    def _replace(self, text: Any, old: Any, new: Any, count: int | None = None) -> str:
        source, old, new = self._text(text), str(old), str(new)
        found = source.count(old) if count is None else min(count, source.count(old))
        self.meter.charge_chars(len(source) + max(found, 0) * len(new))
        return source.replace(old, new, -1 if count is None else count)

    def _indent(self, text: Any, width: int = 4, first: bool = False, blank: bool = False) -> str:
        source = self._text(text)
        if not 0 <= int(width) <= MAX_INDENT:
            raise SecurityError(f"indent takes 0 to {MAX_INDENT} spaces")
        self.meter.charge_chars(len(source) + (source.count("\n") + 1) * int(width))
        lines = source.split("\n")
        pad = " " * int(width)
        out = [pad + line if (blank or line) and (i or first) else line for i, line in enumerate(lines)]
        return "\n".join(out)

    # Where the meter is put in.

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        """Rewrites the syntax tree so that loops, literals, concatenation and output pass the meter."""
        for kind in (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends):
            for node in source.find_all(kind):
                raise TemplateSyntaxError("a chat template stands alone: no include or import", node.lineno)
        rewrite(source)
        source.set_environment(self)
        return super()._generate(source, *args, **kwargs)
