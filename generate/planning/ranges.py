"""Options that take one number, or a range from which each row draws its own."""

import math
from dataclasses import dataclass

from orchard.errors import UserError

SIGN = ".."
Given = float | str
"""A number, or text such as ``1.5..3``."""


@dataclass(frozen=True)
class Range:
    """From ``low`` to ``high``, both included; a single number where they are equal."""

    low: float
    high: float

    @property
    def is_wide(self) -> bool:
        """Whether there is more than one number in it."""
        return self.low < self.high

    @property
    def argument(self) -> Given:
        """As it stands among the arguments of a set."""
        return f"{self.low}{SIGN}{self.high}" if self.is_wide else self.low

    def __str__(self) -> str:
        return f"{self.argument}, drawn for each row" if self.is_wide else str(self.low)

    def drawn(self, number: int, levels: int | None = None) -> float:
        """The number that a hash of 63 bits draws: any of the range, or one of so many even steps."""
        if not self.is_wide:
            return self.low
        share = number / 2**63 if levels is None else number % levels / (levels - 1)
        # Without the last digits of binary fractions, which would give some strengths one step more.
        return min(max(round(self.low + share * (self.high - self.low), 6), self.low), self.high)


def parse(option: str, given: Given) -> Range:
    """The range in ``1.5..3``, or a number as a range of its own.

    Raises:
        UserError: neither, or from a larger number to a smaller one.
    """
    low, sign, high = str(given).partition(SIGN)
    try:
        found = Range(float(low), float(high if sign else low))
    except ValueError:
        found = Range(math.nan, math.nan)
    if not -math.inf < found.low <= found.high < math.inf:
        raise UserError(f"{option} {given}: give a number, or a range such as 1.5{SIGN}3")
    return found
