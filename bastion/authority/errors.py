"""What can go wrong when the api is asked, told apart by who has to act.

BastionError
└── AuthorityError
    ├── AuthorityUnavailable     ours: it cannot be reached, is broken, or does not speak as we know it
    └── AuthorityRefused         theirs: it was asked and said no, with a code and a sentence
"""

from ca.errors import BastionError


class AuthorityError(BastionError):
    """The api gave no certificate and no state. `sentence` may be shown to the person who waits for it."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


class AuthorityUnavailable(AuthorityError):
    """No usable answer. `detail` is for the log: it names no secret and nobody's key."""

    def __init__(self, detail: str) -> None:
        super().__init__("The service that issues certificates cannot be reached at the moment. Try again later.")
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


class AuthorityRefused(AuthorityError):
    """A definite no. `code` is the api's stable `error` word."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
