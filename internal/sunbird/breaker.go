package sunbird

import (
	"fmt"
	"sync"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"

	"github.com/ecreds/issuer/internal/issue"
)

const (
	// breakerFailures in a row open the breaker: one lost connection, or one
	// answer of a gateway that restarts, must not stop everything.
	breakerFailures = 5
	// breakerDelay is how long calls are refused before the service is tried
	// again. One call a second does no harm to what is down, so the delay does
	// not grow, and work resumes soon after the outage.
	breakerDelay = time.Second
	// breakerProbes is how many calls may try at once whether the service is back.
	breakerProbes = 3
	// probePatience is how long probes may be under way before others try: those
	// that were sent while the service was starting may never be answered.
	probePatience = 2 * time.Second
)

// breaker knows whether a service is away. Only outages open it. What became of
// a call that began before it last opened tells nothing about now and is not
// counted.
type breaker struct {
	service  string
	circuit  circuitbreaker.CircuitBreaker[any]
	onChange func(open bool)

	mu       sync.Mutex
	open     bool // as onChange was told
	opened   int  // how many times
	since    time.Time
	last     *issue.Failure      // of the outages since the last answer
	probing  time.Time           // since when
	suspects map[string]struct{} // of calls without reply since the last answer
}

func newBreaker(service string, onChange func(open bool)) *breaker {
	b := &breaker{service: service, onChange: onChange, suspects: make(map[string]struct{})}
	b.circuit = circuitbreaker.NewBuilder[any]().
		WithFailureThreshold(breakerFailures).
		WithSuccessThresholdRatio(1, breakerProbes).
		WithDelay(breakerDelay).
		OnStateChanged(b.changed).
		Build()
	return b
}

// changed follows the circuit. It asks for the state again: two changes may
// arrive in the wrong order.
func (b *breaker) changed(circuitbreaker.StateChangedEvent) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch b.circuit.State() {
	case circuitbreaker.OpenState:
		b.opened++
	case circuitbreaker.HalfOpenState:
		b.probing = time.Now()
	case circuitbreaker.ClosedState:
	}
	if open := !b.circuit.IsClosed(); open != b.open {
		b.open = open
		b.onChange(open)
	}
}

// refuses says whether calls are refused for some time yet.
func (b *breaker) refuses() bool { return b.circuit.RemainingDelay() > 0 }

// admit lets a call through, or refuses it because the service is away. The
// number it returns belongs to the call's result.
func (b *breaker) admit() (opened int, admitted bool) {
	admitted = b.circuit.TryAcquirePermit()
	b.mu.Lock()
	opened = b.opened
	stuck := !admitted && time.Since(b.probing) > probePatience
	b.mu.Unlock()
	if stuck && b.circuit.IsHalfOpen() {
		b.circuit.Open() // for other probes, after another delay
	}
	return opened, admitted
}

// refusal is the failure of a call that was refused.
func (b *breaker) refusal() *issue.Failure {
	b.mu.Lock()
	defer b.mu.Unlock()
	failure := &issue.Failure{
		Verdict: issue.Outage, Reason: issue.ReasonUnavailable, Unsent: true,
		Message: b.service + " is away",
	}
	if b.last != nil { // otherwise it has just come back
		failure.Reason = b.last.Reason
		failure.Message = cut(fmt.Sprintf("%s is away since %s: %v", b.service, b.since.UTC().Format(time.TimeOnly+" MST"), b.last),
			maxMessage)
	}
	return failure
}

// current says whether a call began after the breaker last opened. The lock is
// held.
func (b *breaker) current(opened int) bool { return opened == b.opened }

// answered records that the service has answered a call.
func (b *breaker) answered(opened int) {
	b.mu.Lock()
	current, open := b.current(opened), b.open
	if current {
		b.last, b.since = nil, time.Time{}
		clear(b.suspects)
	}
	b.mu.Unlock()
	if !current {
		return
	}
	b.circuit.RecordSuccess()
	if open {
		b.circuit.Close() // a call that was made in spite of it
	}
}

// away records an outage.
func (b *breaker) away(opened int, failure *issue.Failure) {
	b.mu.Lock()
	current := b.current(opened)
	if current {
		if b.last == nil {
			b.since = time.Now()
		}
		b.last = failure
	}
	b.mu.Unlock()
	if current {
		b.circuit.RecordFailure()
	}
}

// silent says whether a call without reply is an outage: two suspects had none
// since the last answer.
func (b *breaker) silent(suspect string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.suspects) < 2 { // two are enough, and memory stays small
		b.suspects[suspect] = struct{}{}
	}
	return len(b.suspects) > 1
}

// untold takes back a call that tells nothing. A probe that tells nothing
// leaves the breaker open: the library cannot take its permit back.
func (b *breaker) untold(opened int) {
	b.mu.Lock()
	probe := b.open && b.current(opened)
	b.mu.Unlock()
	if probe && b.circuit.IsHalfOpen() {
		b.circuit.Open()
	}
}
