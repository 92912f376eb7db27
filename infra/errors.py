"""Every error Rewardloop raises on purpose.

    RewardloopError
    ├── BadInput            the caller can mend it: the message says what was found and what to do
    │   ├── NotFound        a loop, campaign, content, decision or version that does not exist
    │   ├── Conflict        the same id with another body, or a lost compare-and-swap
    │   ├── TooLarge        a body that is larger than the limit once it is unpacked
    │   └── StrangeEncoding a body packed in a way that is not understood
    ├── Unauthorized        a sender who did not prove who they are; why is not said
    ├── Forbidden           a sender who is known and may not do this
    ├── TooMany             a sender who sends more than agreed; later it works
    ├── Misconfigured       a setting or a secret that stops the start, named
    ├── ModelRefused        a model file that did not pass verification; the last good model keeps serving
    ├── EstimateRefused     too little overlap or too few units for an honest number
    ├── OutOfLog            the place where a topic is to be read on is not in its log: records are missing
    └── Unavailable         a dependency is away; trying again helps (this branch alone is retriable)
        └── NotAcknowledged not everything of a call was kept; what was counts once when all is sent again

Bad *records* are not exceptions: decoders return ``Rejected`` and the record goes to quarantine.
"""

from collections.abc import Sequence


class RewardloopError(Exception):
    """Base of the tree. ``retriable`` says whether the same call may succeed later, unchanged."""

    retriable = False
    seconds = 1
    """When to try again, where that may help."""
    status = 500
    title = "Internal error"

    @property
    def parts(self) -> Sequence[tuple[str, str]]:
        """Offending parts of the input: JSON pointer and sentence."""
        return ()


class BadInput(RewardloopError):
    """Input that cannot be used. ``pointer`` is a JSON pointer to the offending part, when there is one."""

    status = 422
    title = "Input cannot be used"

    def __init__(self, message: str, pointer: str = "") -> None:
        super().__init__(message)
        self.pointer = pointer

    @property
    def parts(self) -> Sequence[tuple[str, str]]:
        """The one offending part."""
        return ((self.pointer, str(self)),)


class NotFound(BadInput):
    """Something named in the input does not exist."""

    status = 404
    title = "Not found"


class Conflict(BadInput):
    """The same id was used before with another body, or another writer was first."""

    status = 409
    title = "Conflict"


class TooLarge(BadInput):
    """A body beyond the limit."""

    status = 413
    title = "Too large"


class StrangeEncoding(BadInput):
    """A ``Content-Encoding`` that is not understood."""

    status = 415
    title = "Strange encoding"


class Unauthorized(RewardloopError):
    """A request without a valid signature. The message is the same for every cause."""

    status = 401
    title = "Not authorised"


class Forbidden(RewardloopError):
    """The key is not for this call or this loop."""

    status = 403
    title = "Forbidden"


class TooMany(RewardloopError):
    """More requests than the key's rate. ``seconds``: when to try again."""

    retriable = True
    status = 429
    title = "Too many requests"

    def __init__(self, message: str, seconds: int = 1) -> None:
        super().__init__(message)
        self.seconds = seconds


class Misconfigured(RewardloopError):
    """A setting or secret is missing or wrong; the process does not start."""

    title = "Misconfigured"


class ModelRefused(RewardloopError):
    """A model bundle failed verification (digest, parse, golden rows or schema)."""

    status = 409
    title = "Model refused"


class EstimateRefused(RewardloopError):
    """An off-policy estimate below the floor of overlap or size; the message gives the reason."""

    status = 409
    title = "Estimate refused"


class OutOfLog(RewardloopError):
    """The next position to read is outside the log: retention deleted records, or the topic was made anew.

    Reading elsewhere would skip records without a word, so the reader stops. ``partition`` is (topic, number),
    ``position`` the offset asked for; the log holds offsets from ``earliest`` up to, not including, ``latest``.
    """

    title = "Records are missing from the log"

    def __init__(self, partition: tuple[str, int], position: int, earliest: int, latest: int) -> None:
        topic, number = partition
        super().__init__(
            f"Topic {topic}, partition {number}: the next position to read is {position}, and the log holds "
            f"{earliest} to {latest}. Records were deleted before they were read, or the topic was made anew; "
            "nothing was skipped. Say where to go on with `rewardloop replay`."
        )
        self.partition, self.position, self.earliest, self.latest = partition, position, earliest, latest


class Unavailable(RewardloopError):
    """A dependency (database, broker, registry) does not answer."""

    retriable = True
    status = 503
    title = "Temporarily unavailable"


class NotAcknowledged(Unavailable):
    """Not everything of a call was kept. ``missing``: JSON pointer and reason of each part that was not."""

    def __init__(self, message: str, missing: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.missing = tuple(missing)

    @property
    def parts(self) -> Sequence[tuple[str, str]]:
        """What was not kept."""
        return self.missing
