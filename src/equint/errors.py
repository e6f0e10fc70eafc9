"""What a user sees when something cannot be used: a line that says what is wrong, where, and what to do."""

from __future__ import annotations


class EquintError(Exception):
    """Something the user gave cannot be used; the message names it and says what to do.

    The command line prints it as one line and exits with code 2. Every kind of it is a class of its own below.
    """


class UnreadableModel(EquintError):
    """A network that is missing, damaged, quantized already, or of a form that is not read."""


class UnsupportedOperator(EquintError):
    """An operator, or one of its attributes or shapes, that has no form where it is needed."""


class UnusableData(EquintError):
    """Samples, statistics, labels or values that are missing, do not fit, or are not finite."""


class UnknownName(EquintError):
    """No recipe, target, task, layer, tensor or key is called this."""


class InvalidOption(EquintError):
    """An argument or option of a wrong type, out of its bounds, or at odds with another."""


class InvalidRecipe(EquintError):
    """A recipe that cannot be read, or whose passes and formats do not go together."""


class InvalidCard(EquintError):
    """A card that cannot be read, or lacks or misstates what is asked of it."""


class TargetMismatch(EquintError):
    """A format or value that the target's hardware does not take."""


class OutputRefused(EquintError):
    """An output that cannot be written, or would overwrite what must not be lost."""


class MissingLibrary(EquintError):
    """An optional library that is not installed."""
