package app

import (
	"context"
	"fmt"

	"github.com/segmentio/kafka-go"

	"github.com/ecreds/issuer/internal/events"
	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/stream"
	"github.com/ecreds/issuer/internal/sunbird"
)

// handler stands between records and the core: it decodes, lets the worker
// work, and writes dead letters.
type handler struct {
	worker      *issue.Worker
	deadLetters *stream.Publisher
}

func (h handler) handle(ctx context.Context, message kafka.Message) stream.Outcome {
	bury := mortalBury(func(ctx context.Context, letter issue.DeadLetter) (issue.Place, error) {
		receipt := h.deadLetters.Publish(ctx, events.DeadLetter(message, letter))[0]
		return issue.Place{Partition: receipt.Partition, Offset: receipt.Offset}, receipt.Err
	})
	event, err := events.Decode(message)
	if err != nil {
		origin := fmt.Sprintf("%s-%d-%d", message.Topic, message.Partition, message.Offset)
		return stream.Outcome(h.worker.Poison(ctx, origin, err, bury))
	}
	ctx = sunbird.WithTrace(ctx, sunbird.Trace{Parent: event.TraceParent, RequestID: event.MID})
	return stream.Outcome(h.worker.Work(ctx, event, bury))
}
