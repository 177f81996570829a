package issue

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Places gives out the places of a step at the service that it calls: as many
// as the service bears at once, and none while it is away.
type Places interface {
	// Take waits for a place, at most a few seconds, so that no claim lapses
	// meanwhile. The context it returns carries the place to the call; done gives
	// it back when no call was made, and does nothing otherwise.
	//
	// The error is an [*Failure] with verdict [Outage] while the service is away, a
	// [*NoPlaceError] when no place became free in time, or that of ctx.
	Take(ctx context.Context, step Step) (placed context.Context, done func(), err error)
}

// NoPlaceError says that a service had no place for a call in time, or asked
// for a pause. Nothing was called, and nothing is wrong: the event waits for its
// turn.
type NoPlaceError struct {
	Service    string
	RetryAfter time.Duration // of the pause that the service asked for; 0 = it did not
}

func (e *NoPlaceError) Error() string {
	if e.RetryAfter > 0 {
		return fmt.Sprintf("%s asked for a pause, of which %v are left", e.Service, e.RetryAfter.Round(time.Millisecond))
	}
	return fmt.Sprintf("no place at %s became free in time", e.Service)
}

// holdUnplaced is how long an event waits that got no place: it has already
// waited a while.
const holdUnplaced = time.Second

// unplaced finds the error of an event that only waits for its turn.
func unplaced(err error) (*NoPlaceError, bool) {
	var none *NoPlaceError
	found := errors.As(err, &none)
	return none, found
}
