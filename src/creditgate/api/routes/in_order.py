"""The calls of one customer in a batch: applied in their order, though sent together where that can be.

Calls of one customer that are sent in one turn go to Redis as one, in their order (`balances/merging.py`), and most are
answered straight from its reply. One that takes more than that goes on when all before it are answered. None behind it
has been applied by then: what keeps it from being applied, something overdue, a passed `not_after` or a lost request,
keeps all that take and were sent with it; a check that was answered meanwhile is asked again. Only of a check, or of
what may be refused, nothing would be found if the reply were lost; it would be asked again. So nothing that takes is
sent together with one of these before it.
"""

from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

from creditgate.api.calls import Answer
from creditgate.api.routes.askers import Asker
from creditgate.api.routes.meter import Wanted
from creditgate.core.decisions import Decision, Mode
from creditgate.engine import stepping
from creditgate.engine.at_once import Asked
from creditgate.engine.keys import CallerKey
from creditgate.engine.meanings import Repeated
from creditgate.engine.stepping import Done

# What is sent together, so that it fits one call of lua/merged.lua.
TOGETHER_MAX = 32
TOGETHER_BYTES_MAX = 32 * 1024  # of bodies


class Item(NamedTuple):
    """One call of a batch: its place, what it asks for, and the body that says so."""

    place: int
    wanted: Wanted[Any]
    body: bytes


Begin = Callable[[Item, Asker[Any, Any] | None, Done[Answer]], Coroutine[Any, Any, Answer] | None]
"""Begins to answer an item, by who asks for it; where that takes a coroutine it is returned, and answers instead."""


class InOrder:
    """The items of one customer, answered from `go_on` to the last."""

    def __init__(
        self,
        items: Iterable[Item],
        part: Callable[[], None],
        begin: Begin,
        ended: Callable[[Item, Answer | None, BaseException | None], None],
    ) -> None:
        """`part` keeps what begins next apart from other calls; `ended` gets each item with its answer or error."""
        self._items = deque(items)
        self._part = part
        self._begin = begin
        self._ended = ended
        self._under_way: dict[int, Callable[[], None] | None] = {}  # by place; what waits to be the first
        self._together = self._together_bytes = 0
        self._may_take = True
        self._is_beginning = False

    def go_on(self) -> None:
        """Begin what may begin now."""
        if self._is_beginning:  # one was answered as it began
            return
        self._is_beginning = True
        while self._items and self._may_begin(self._items[0]):
            self._start(self._items.popleft())
        self._is_beginning = False

    def wait(self, item: Item, done: Done[Answer], go_on: Callable[[], None]) -> None:
        """Have an item go on as soon as it is the first that is not answered; `done` gets what that raises."""
        self._under_way[item.place] = partial(_safely, go_on, done)
        self._let_first_go_on()

    def asks_again(self, item: Item, done: Done[Answer]) -> bool:
        """Have a check that was answered before what stands before it ask again in its turn; False if it need not."""
        if item.wanted.takes or next(iter(self._under_way)) == item.place:
            return False
        self.wait(item, done, partial(self._ask_again, item, done))
        return True

    def _ask_again(self, item: Item, done: Done[Answer]) -> None:
        rest = self._begin(item, item.wanted.asker, done)
        if rest is not None:
            stepping.run(rest, done)

    def _may_begin(self, item: Item) -> bool:
        if not self._under_way:
            self._part()  # else those of others could fill the merge, and some of these come behind something else
            self._together = self._together_bytes = 0
            self._may_take = True
            return True
        return (
            item.wanted.asker is not None
            and (self._may_take or not item.wanted.takes)
            and self._together < TOGETHER_MAX
            and self._together_bytes + len(item.body) <= TOGETHER_BYTES_MAX
        )

    def _start(self, item: Item) -> None:
        done = partial(self._done, item)
        self._under_way[item.place] = None
        self._together += 1
        self._together_bytes += len(item.body)
        asker = item.wanted.asker
        if item.wanted.usage.mode is Mode.REJECT:  # as that of a check is
            self._may_take = False
        if asker is not None and (self._items or len(self._under_way) > 1):
            asker = cast(Asker[Any, Any], _InTurn(asker, self, item))
        try:
            rest = self._begin(item, asker, done)
        except Exception as error:
            done(None, error)
            return
        if rest is not None:
            self._together = TOGETHER_MAX  # none begins beside it
            self.wait(item, done, partial(stepping.run, rest, done))

    def _done(self, item: Item, answer: Answer | None, error: BaseException | None) -> None:
        del self._under_way[item.place]
        self._ended(item, answer, error)
        self._let_first_go_on()
        if not self._under_way:
            self.go_on()

    def _let_first_go_on(self) -> None:
        first = next(iter(self._under_way), None)
        if first is None:
            return
        go_on, self._under_way[first] = self._under_way[first], None
        if go_on is not None:
            go_on()


class _InTurn:
    """Who asks for an item: what is not answered straight from the reply waits for the items before it."""

    def __init__(self, asker: Asker[Any, Any], line: InOrder, item: Item) -> None:
        self.usage = asker.usage
        self.unkeyed = asker.unkeyed
        self._asker = asker
        self._line = line
        self._item = item

    @property
    def means(self) -> Any:
        return self._asker.means

    @means.setter
    def means(self, means: Any) -> None:
        self._asker.means = means

    def fingerprint(self) -> str:
        return self._asker.fingerprint()

    def keyed(self, key: CallerKey) -> "_InTurn":
        return _InTurn(self._asker.keyed(key), self._line, self._item)

    def decided(self, decision: Decision, done: Done[Answer]) -> None:
        if not self._line.asks_again(self._item, done):
            self._asker.decided(decision, done)

    def told(
        self, repeated: Repeated, amounts: Sequence[int], deltas: Sequence[int], done: Done[Answer]
    ) -> None:
        if not self._line.asks_again(self._item, done):
            self._asker.told(repeated, amounts, deltas, done)

    def further(self, asked: Asked[Any], done: Done[Answer]) -> None:
        self._line.wait(self._item, done, partial(self._asker.further, asked, done))


def _safely(go_on: Callable[[], None], done: Done[Answer]) -> None:
    try:
        go_on()
    except Exception as error:
        done(None, error)
