"""An exact evaluator of arithmetic: its own parser and nothing of Python's, bounded in size and time."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from fractions import Fraction

MAX_CHARACTERS = 500
MAX_BITS = 20_000
MAX_DEPTH = 50
DIGITS = 15

_DATE = re.compile(r"\b\d{4}-\d{2}-\d{2}\b")
_TOKEN = re.compile(r"\s*(?:(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+\.?\d*|\.\d+)|([a-z]+)|(\*\*|//|[-+*/%^(),!]))")
_WORDS = (
    (r"\bdivided by\b|÷", "/"),
    (r"\b(?:times|multiplied by)\b|[×·]|(?<=\d)\s*x\s*(?=[\d(])", "*"),
    (r"\bplus\b", "+"),
    (r"\bminus\b|[−–]", "-"),
    (r"\bto the power of\b", "^"),
    (r"\bper ?cent\b", "%"),
    (r"\bmodulo\b", "mod"),
    (r"[$€£]|=\s*\??\s*$", ""),
)


class BadExpression(ValueError):
    """Not arithmetic, undefined, or too large; the text says which."""


def evaluate(text: str) -> str:
    """The value as a decimal: exact where it has at most 15 digits after the point, else rounded.

    Knows + - * / // mod ^ ** ! ( ), pi, e and the functions of `FUNCTIONS`. `%` always means per
    cent: `12.5%`, `12.5% of 640`, and `12.5 % 640` for the same. Where it may have been meant as a
    remainder (`17 % 5`), or it is not said of what (`640 + 10%`), nothing is guessed.

    Raises BadExpression.
    """
    if len(text) > MAX_CHARACTERS:
        raise BadExpression(f"the expression has {len(text)} characters, at most {MAX_CHARACTERS} are read")
    if date := _DATE.search(text):
        raise BadExpression(f"{date[0]} is a date, no number")
    lowered = text.lower()
    for pattern, symbol in _WORDS:
        lowered = re.sub(pattern, symbol, lowered)
    parser = _Parser(_tokens(lowered))
    return written(parser.whole())


def read_aloud(text: str) -> str:
    """The expression in one line, with the `of` that a percentage may leave out."""
    return re.sub(rf"%\s*(?=[\d.($€£]|(?:{'|'.join(FUNCTIONS)})\()", "% of ", " ".join(text.split()))


def written(value: Fraction) -> str:
    """A fraction as decimal digits."""
    if value.denominator == 1:
        return str(value.numerator)
    scale = 10**DIGITS
    scaled = value * scale
    if abs(value) < Fraction(1, 1000):
        return f"{float(value):.{DIGITS}g}"
    digits = str(abs(round(scaled))).rjust(DIGITS + 1, "0")
    text = f"{digits[:-DIGITS]}.{digits[-DIGITS:]}".rstrip("0").rstrip(".")
    return ("-" if value < 0 else "") + text


def _tokens(text: str) -> list[str]:
    found, place = [], 0
    text = text.rstrip()
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise BadExpression(f"{text[place : place + 12].strip()!r} is not arithmetic")
        number, word, sign = match.groups()
        # In max(1,234) the comma separates; in 1,234 + 1 it groups digits.
        if number and "," in number and "(" in found:
            number = number.split(",")[0]
            place = match.start(1) + len(number)
        else:
            place = match.end()
        found.append(number.replace(",", "") if number else word or sign)
    return found


_ENDS = ("", "+", "-", ")", ",")
"""What may follow a whole term."""
_SIGNS = ("*", "/", "//", "^", "**", "mod")


class _Parser:
    """Recursive descent; one method per level of precedence."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    def whole(self) -> Fraction:
        if not self._tokens:
            raise BadExpression("the expression is empty")
        value = self._sum()
        if self._at < len(self._tokens):
            raise BadExpression(f"{self._tokens[self._at]!r} is not expected there")
        return value

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _after(self) -> str:
        return self._tokens[self._at + 1] if self._at + 1 < len(self._tokens) else ""

    def _take(self, *wanted: str) -> str:
        token = self._peek()
        if token and token in wanted:
            self._at += 1
            return token
        return ""

    def _sum(self) -> Fraction:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise BadExpression(f"nested deeper than {MAX_DEPTH}")
        value, share = self._term()
        while sign := self._take("+", "-"):
            other, also = self._term()
            if share != also:
                raise BadExpression(
                    "it is not said of what a percentage is added or taken; write 10% of 640, or 0.1"
                )
            value = _bounded(value + other if sign == "+" else value - other)
        self._depth -= 1
        return value

    def _term(self) -> tuple[Fraction, bool]:
        """A product, and whether it is a bare percentage."""
        value = self._signed()
        if self._peek() == "%" and self._after() in _ENDS:
            self._take("%")
            return value / 100, True
        return self._product(value), False

    def _percent(self, value: Fraction) -> Fraction:
        """What stands before `%`, as a share of what follows if anything does."""
        if self._take("of"):
            return _bounded(value / 100 * self._signed())
        if self._peek() in _ENDS or self._peek() in _SIGNS:
            return value / 100
        whole = self._signed()
        if value.denominator == 1 and whole.denominator == 1 and value >= whole:
            a, b = written(value), written(whole)
            raise BadExpression(f"{a} % {b} has two meanings; write {a}% of {b}, or {a} mod {b}")
        return _bounded(value / 100 * whole)

    def _product(self, value: Fraction) -> Fraction:
        while sign := self._take("*", "/", "//", "%", "mod"):
            if sign == "%":
                value = self._percent(value)
                continue
            other = self._signed()
            while self._take("%"):
                other = self._percent(other)
            if sign != "*" and other == 0:
                raise BadExpression("division by zero")
            match sign:
                case "*":
                    value *= other
                case "/":
                    value /= other
                case "//":
                    value = Fraction(value // other)
                case _:
                    value = value % other
            value = _bounded(value)
        return value

    def _signed(self) -> Fraction:
        sign = 1
        while taken := self._take("-", "+"):
            sign = -sign if taken == "-" else sign
        return sign * self._power()

    def _power(self) -> Fraction:
        base = self._postfix()
        if self._take("^", "**"):
            return _power(base, self._signed())
        return base

    def _postfix(self) -> Fraction:
        value = self._atom()
        while self._take("!"):
            value = _factorial(value)
        return value

    def _atom(self) -> Fraction:
        token = self._peek()
        self._at += 1
        if token == "(":
            value = self._sum()
            self._close()
            return value
        if token and (token[0].isdigit() or token[0] == "."):
            return Fraction(token)
        if token in CONSTANTS:
            return CONSTANTS[token]
        if token in FUNCTIONS and self._take("("):
            arguments = [self._sum()]
            while self._take(","):
                arguments.append(self._sum())
            self._close()
            return _apply(token, arguments)
        if token and not token[0].isalpha():
            raise BadExpression(f"{token!r} is not expected there")
        if token:
            raise BadExpression(f"{token!r} is not known; functions: {', '.join(FUNCTIONS)}")
        raise BadExpression("the expression ends too early")

    def _close(self) -> None:
        if not self._take(")"):
            raise BadExpression("a closing parenthesis is missing")


def _bounded(value: Fraction) -> Fraction:
    if value.numerator.bit_length() > MAX_BITS or value.denominator.bit_length() > MAX_BITS:
        raise BadExpression("the number is too large")
    return value


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        return _real(lambda: math.pow(base, exponent))
    if base == 0 and exponent < 0:
        raise BadExpression("division by zero")
    size = max(base.numerator.bit_length(), base.denominator.bit_length())
    if size * abs(exponent.numerator) > MAX_BITS and abs(base) != 1:
        raise BadExpression("the number is too large")
    return Fraction(base**exponent.numerator)


def _factorial(value: Fraction) -> Fraction:
    if value.denominator != 1 or not 0 <= value <= 1000:
        raise BadExpression("a factorial takes a whole number from 0 to 1000")
    return Fraction(math.factorial(value.numerator))


def _sqrt(value: Fraction) -> Fraction:
    if value < 0:
        raise BadExpression("the square root of a negative number is not real")
    exact = Fraction(math.isqrt(value.numerator), math.isqrt(value.denominator))
    return exact if exact * exact == value else _real(lambda: math.sqrt(value))


def _round(value: Fraction, digits: Fraction = Fraction(0)) -> Fraction:
    # Half away from zero, as people round.
    scale = Fraction(10) ** max(-DIGITS, min(DIGITS, int(digits)))
    return Fraction(math.floor(abs(value) * scale + Fraction(1, 2))) / scale * (-1 if value < 0 else 1)


def _whole(function: Callable[..., int]) -> Callable[..., Fraction]:
    def checked(*values: Fraction) -> Fraction:
        if any(value.denominator != 1 for value in values):
            raise BadExpression("only whole numbers have a common divisor or multiple")
        return Fraction(function(*(value.numerator for value in values)))

    return checked


def _by_float(function: Callable[[float], float]) -> Callable[[Fraction], Fraction]:
    return lambda value: _real(lambda: function(float(value)))


def _real(work: Callable[[], float]) -> Fraction:
    try:
        value = work()
        return Fraction(f"{value:.{DIGITS}g}")
    except (ValueError, OverflowError, ZeroDivisionError):
        raise BadExpression("undefined or out of range there") from None


def _apply(name: str, arguments: Sequence[Fraction]) -> Fraction:
    try:
        return _bounded(FUNCTIONS[name](*arguments))
    except TypeError:
        raise BadExpression(f"{name} does not take {len(arguments)} arguments") from None


CONSTANTS = {"pi": Fraction("3.14159265358979324"), "e": Fraction("2.71828182845904524")}
FUNCTIONS: dict[str, Callable[..., Fraction]] = {
    "sqrt": _sqrt,
    "abs": lambda value: abs(value),
    "round": _round,
    "floor": lambda value: Fraction(math.floor(value)),
    "ceil": lambda value: Fraction(math.ceil(value)),
    "min": lambda *values: min(values),
    "max": lambda *values: max(values),
    "sum": lambda *values: sum(values, Fraction(0)),
    "mean": lambda *values: sum(values, Fraction(0)) / len(values),
    "gcd": _whole(math.gcd),
    "lcm": _whole(math.lcm),
    "factorial": lambda value: _factorial(value),
    "exp": _by_float(math.exp),
    "ln": _by_float(math.log),
    "log": _by_float(math.log10),
    "sin": _by_float(math.sin),
    "cos": _by_float(math.cos),
    "tan": _by_float(math.tan),
}
