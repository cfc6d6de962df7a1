package example;

import billing.v1.Event;
import billing.v1.EventBatch;
import java.util.Iterator;
import java.util.List;
import java.util.stream.Stream;

/** Events that were read, and the position of the log's newest event at that time. */
record Events(List<Event> found, long headPosition) {

    /** All events up to the batch that says that there are no more for now. */
    static Events untilCaughtUp(Iterator<EventBatch> batches) {
        Stream.Builder<Event> found = Stream.builder();
        while (batches.hasNext()) {
            EventBatch batch = batches.next();
            batch.getEventsList().forEach(found);
            if (batch.getCaughtUp()) {
                return new Events(found.build().toList(), batch.getHeadPosition());
            }
        }
        throw new AssertionError("the server ended the stream");
    }

    /** The position of the last event; the events must follow `position` one by one, up to the head. */
    long withoutGapAfter(long position) {
        for (Event event : found) {
            position++;
            Expect.equal("position of " + event, position, event.getPosition());
        }
        Expect.equal("head of the log after the last event", position, headPosition);
        return position;
    }
}
