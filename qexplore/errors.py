"""The two exceptions qexplore raises on purpose; each message is one plain sentence."""


class QexploreError(ValueError):
    """Something the user gave cannot be used; the message says what and what to do."""


class Cancelled(RuntimeError):
    """The person pressed Cancel (the `cancel` event was set) while work was going on."""
