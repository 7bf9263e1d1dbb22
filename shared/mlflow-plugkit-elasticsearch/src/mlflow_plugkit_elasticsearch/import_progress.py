"""How an import shows what it does: a line that moves on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time

import click

_EVERY = 10.0
_WIDTH = 78


class Progress:
    """Shows how many things of a part have been copied or compared, and how fast.

    On a terminal one line is written over and over. Elsewhere, as in a log, there is a line for each part that has
    something, and one every ten seconds for those that take long.
    """

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._moves = sys.stderr.isatty()
        self._part, self._count, self._since, self._shown, self._total = "", 0, 0.0, 0.0, 0

    def begin(self, part: str, count: int = 0) -> None:
        """A part begins; `count` things of it were copied earlier."""
        self._part, self._count = part, count
        self._since = self._shown = time.monotonic()

    def add(self, number: int) -> None:
        """So many more."""
        self._count += number
        self._total += number
        now = time.monotonic()
        if self._moves or now - self._shown >= _EVERY:
            self._show(now)

    def end(self) -> None:
        """The part has ended."""
        if self._count:
            self._show(time.monotonic(), last=True)

    @property
    def total(self) -> int:
        """How many things of all parts."""
        return self._total

    def say(self, text: str) -> None:
        """A line of its own."""
        if self._moves:
            click.echo("\r" + " " * _WIDTH + "\r", nl=False, err=True)
        click.echo(text, err=True)

    def _show(self, now: float, *, last: bool = False) -> None:
        self._shown = now
        rate = self._count / max(now - self._since, 0.001)
        text = f"{self._doing} {self._part}: {self._count} ({rate:.0f}/s)"
        if not self._moves:
            click.echo(text, err=True)
            return
        click.echo("\r" + text[:_WIDTH].ljust(_WIDTH), nl=last, err=True)
