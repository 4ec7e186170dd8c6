"""The two exceptions qexplore raises on purpose; each message is one plain sentence."""


class QexploreError(ValueError):
    """Something the user gave cannot be used; the message says what and what to do."""


class Cancelled(RuntimeError):
    """The person pressed Cancel (the `cancel` event was set) while work was going on."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its kind where it has none, to go into a sentence."""
    return (str(error).splitlines() or [""])[0].rstrip(".") or type(error).__name__
