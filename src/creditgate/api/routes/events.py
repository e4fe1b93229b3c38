"""What was used: event by event, and added up."""

from collections.abc import Mapping

from creditgate.api.calls import Answer, Call, Verb
from creditgate.api.wire.answers import encode
from creditgate.api.wire.events import (
    AggregateAnswer,
    AggregateEventsRequest,
    EventsAnswer,
    ListEventsRequest,
    aggregate_answer,
    events_answer,
)
from creditgate.api.wire.fields import read
from creditgate.engine.aggregates import Aggregates
from creditgate.engine.history import History
from creditgate.engine.spans import Spans


class EventRoutes:
    """The verbs of usage events."""

    def __init__(self, history: History, spans: Spans, aggregates: Aggregates) -> None:
        self._history = history
        self._spans = spans
        self._aggregates = aggregates

    @property
    def by_verb(self) -> Mapping[str, Verb]:
        return {
            "events.list": Verb(self.list_events, ListEventsRequest, EventsAnswer),
            "events.aggregate": Verb(self.aggregate, AggregateEventsRequest, AggregateAnswer),
        }

    async def list_events(self, call: Call) -> Answer:
        request = read(ListEventsRequest, call.body)
        start, end = request.bounds()
        if request.range is not None:
            moment = await self._spans.moment(request.customer_id)
            start, end = self._spans.of(request.range, moment, request.feature_ids())
        page = await self._history.events(
            customer_id=request.customer_id,
            entity_id=request.entity_id,
            feature_ids=request.feature_ids(),
            properties=request.properties(),
            start=start,
            end=end,
            limit=request.rows(),
            cursor=request.start_cursor,
        )
        return Answer(encode(events_answer(page)))

    async def aggregate(self, call: Call) -> Answer:
        request = read(AggregateEventsRequest, call.body)
        found = await self._aggregates.aggregate(request.asked())
        return Answer(encode(aggregate_answer(found, is_grouped=request.group_by is not None)))
