"""A Jinja environment for templates that come out of model files: hostile until proven otherwise.

Two fences. Nothing but plain data is reachable: attributes, filters and globals are lists of what
chat templates use, so there is no path to a Python object. And every loop turn, call, operator,
literal and piece of output passes a Meter, so no template can run long or grow large.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateSyntaxError
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import FILTERS
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Joiner, Namespace, pass_context

from pentad.model.template.filters import Filters, check_plain, check_text
from pentad.model.template.meter import Meter
from pentad.model.template.rewrite import BUILT, JOINED, METERED, SCANNED, WRITTEN, rewrite


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


STR_METHODS = _names(
    "strip lstrip rstrip split rsplit splitlines startswith endswith upper lower title capitalize "
    "replace join find rfind index count isdigit isalpha isalnum isspace isupper islower isnumeric isdecimal "
    "isascii casefold swapcase removeprefix removesuffix partition rpartition format center ljust rjust zfill"
)
DICT_METHODS = _names("items keys values get")
LIST_METHODS = _names("index count")
LOOP_ATTRIBUTES = _names(
    "index index0 revindex revindex0 first last length cycle depth depth0 previtem nextitem changed"
)
BUILTIN_FILTERS = _names(
    "abs capitalize count length d default dictsort e escape first float groupby int items last list lower "
    "map max min reject rejectattr reverse round safe select selectattr sort string title trim truncate "
    "unique upper wordcount forceescape urlencode"
)
OF_ITEMS = _names(
    "count d default dictsort first groupby items last length list map max min reject rejectattr select "
    "selectattr sort unique"
)
"""Filters that go through items or pass a value on. All others write their value out as text, and must
not get what has no text of its own but an address in memory."""


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
        self.filters = {name: self._guarded(name) for name in BUILTIN_FILTERS}
        self._own = Filters(self, lambda: self.meter, self._built, self._plus)
        self.filters |= self._own.by_name
        self.filters |= {
            METERED: _at_run_time(self._own.metered),
            BUILT: _at_run_time(self._built),
            WRITTEN: _at_run_time(self._written),
            JOINED: _at_run_time(self._own.join),
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
        if isinstance(obj, str) and attribute == "format":  # not Jinja's wrapper: calls come to us
            return obj.format
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
        if isinstance(owner, str) and name in self._own.of_text:
            for given in ("_loop_vars", "_block_vars"):  # Jinja's own, inside loops and blocks
                kwargs.pop(given, None)
            return self._own.of_text[name](owner, *args, **kwargs)
        if isinstance(owner, str):
            self.meter.charge_chars(len(owner))
        return self._built(super().call(context, obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Arithmetic on small numbers, concatenation, bounded repetition, `%` with plain values."""
        numbers = isinstance(left, (int, float)) and isinstance(right, (int, float))
        if isinstance(left, str) and operator == "%":
            return self._own.percent(left, right)
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

    def _plus(self, left: Any, right: Any) -> Any:
        return self.call_binop(cast("Context", None), "+", left, right)

    def _guarded(self, name: str) -> Callable[..., Any]:
        """A filter of Jinja's that pays for its input and has its result weighed."""
        filter_ = FILTERS[name]
        check = check_plain if name in OF_ITEMS else check_text
        skip = int(hasattr(filter_, "jinja_pass_arg"))

        @functools.wraps(filter_)
        def run(*args: Any, **kwargs: Any) -> Any:
            value = args[skip]
            self.meter.charge(1 + (len(value) if isinstance(value, (str, list, dict, tuple)) else 0) // 16)
            check(value)
            if isinstance(value, Iterator):
                args = (*args[:skip], self._own.metered(value), *args[skip + 1 :])
            return self._built(filter_(*args, **kwargs))

        return run

    def _built(self, value: Any) -> Any:
        self.meter.weigh(value)
        if isinstance(value, (list, tuple, dict)):
            for child in value.values() if isinstance(value, dict) else value:
                check_text(child)
        return value

    def _written(self, value: Any) -> str:
        check_text(value)
        self.meter.charge(self.meter.weigh(value))
        text = value if isinstance(value, str) else str(value)
        self.meter.emit(len(text))
        return text

    def _scanned(self, value: Any) -> Any:
        if isinstance(value, (str, list, tuple, dict)):
            self.meter.charge(1 + len(value) // 16)
        return value

    # Where the meter is put in.

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        """Rewrites the syntax tree so that loops, literals, concatenation and output pass the meter."""
        for kind in (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends):
            for node in source.find_all(kind):
                raise TemplateSyntaxError("a chat template stands alone: no include or import", node.lineno)
        rewrite(source)
        source.set_environment(self)
        return super()._generate(source, *args, **kwargs)
