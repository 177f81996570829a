package issue

import (
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v4"
)

const (
	jitterBase = 200 * time.Millisecond
	jitterCap  = 4 * time.Second
)

// jitter is a backoff with full jitter: a random wait between nothing and a
// doubling bound, which spreads the repetitions of many callers best. (The
// library's own randomisation reaches half of the bound only.) It keeps to a
// Retry-After and stops once no further try may start.
type jitter struct {
	bound    time.Duration
	floor    time.Duration
	patience time.Duration
	begun    bool
	deadline time.Time
}

var _ backoff.BackOff = (*jitter)(nil)

func newJitter(patience time.Duration) *jitter {
	return &jitter{bound: jitterBase, patience: patience, deadline: time.Now().Add(patience)}
}

// begin starts the patience anew, once, and answers when it ends.
func (j *jitter) begin() time.Time {
	if !j.begun {
		j.begun, j.deadline = true, time.Now().Add(j.patience)
	}
	return j.deadline
}

// atLeast makes the next wait no shorter than d.
func (j *jitter) atLeast(d time.Duration) { j.floor = d }

// NextBackOff implements [backoff.BackOff].
func (j *jitter) NextBackOff() time.Duration {
	wait := max(rand.N(j.bound), j.floor)
	j.bound = min(2*j.bound, jitterCap)
	if time.Now().Add(wait).After(j.deadline) {
		return backoff.Stop
	}
	return wait
}

// Reset implements [backoff.BackOff]. A jitter serves one step and starts
// ready, so there is nothing to reset.
func (j *jitter) Reset() {}
