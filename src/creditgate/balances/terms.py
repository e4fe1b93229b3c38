"""Terms decoded once for many calls: replies carry them as they were written, and a customer's seldom change."""

import msgspec

from creditgate.core.customers import Terms
from creditgate.core.remembered import Remembered

REMEMBERED_BYTES_MAX = (
    8 * 2**20
)  # of text; decoded, with what is worked out from it, it is about ten times as much

terms_of = Remembered(msgspec.json.Decoder(Terms).decode, REMEMBERED_BYTES_MAX).of
