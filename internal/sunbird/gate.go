package sunbird

import (
	"context"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/failsafe-go/failsafe-go/adaptivelimiter"

	"github.com/ecreds/issuer/internal/issue"
)

// Downstream is a service as metrics label it.
type Downstream string

// The services that we call.
const (
	Cert      Downstream = "cert"
	Learner   Downstream = "learner"
	Notify    Downstream = "notify"
	Content   Downstream = "content"
	Enrolment Downstream = "enrolment"
)

// Downstreams lists all, for metrics that start at zero.
func Downstreams() []Downstream { return []Downstream{Cert, Learner, Notify, Content, Enrolment} }

const (
	// placePatience is how long a call waits for a place.
	placePatience = 5 * time.Second
	// leastPause is the pause after an answer 429 that names none.
	leastPause = time.Second
	// maxPause caps what a service may ask of all calls. An event that asked
	// itself keeps to the whole of it.
	maxPause = 30 * time.Second
)

// GateConfig says what a gate stands before.
type GateConfig struct {
	Downstream  Downstream
	Service     string // name in errors, such as "cert-service"
	Concurrency int    // the most calls at once
	// Insistent lets calls through an open breaker: somebody waits for the answer
	// and would rather try than be told to.
	Insistent bool
	// OnChange is told when the breaker opens and when it closes, one call at a
	// time; nil = nobody is. It must not wait.
	OnChange func(open bool)
	Metrics  *Metrics
}

// Gate stands before one service, for all calls of the process to it: it lets
// through as many at once as the service bears (a limiter), and none while the
// service is away (a breaker). Waiting calls are let through in their order.
type Gate struct {
	service   string
	insistent bool
	breaker   *breaker
	limiter   adaptivelimiter.AdaptiveLimiter[any]
	resume    atomic.Int64 // end of the pause that the service asked for, in Unix nanoseconds
}

// NewGate makes a gate, open to all.
func NewGate(c GateConfig) *Gate {
	g := &Gate{service: c.Service, insistent: c.Insistent}
	show := func(limit int) { c.Metrics.setLimit(c.Downstream, limit) }
	g.limiter = newLimiter(c.Concurrency, show)
	show(g.limiter.Limit())
	g.breaker = newBreaker(c.Service, func(open bool) {
		if !open { // what was learnt before the outage may no longer hold
			g.limiter.Reset()
			show(g.limiter.Limit())
		}
		c.Metrics.setOpen(c.Downstream, open)
		if c.OnChange != nil {
			c.OnChange(open)
		}
	})
	return g
}

// place is the right to one call.
type place struct {
	gate   *Gate
	permit adaptivelimiter.Permit
	opened int
	taken  atomic.Bool // by a call
	// alike says that the call is one of a step. Those are all alike, and the
	// limiter learns from them; a search for one user and one for a hundred would
	// tell it that the service has become slower.
	alike bool
}

type placeKey struct{}

// Limit is how many calls at once are let through now.
func (g *Gate) Limit() int { return g.limiter.Limit() }

// Take waits for a place, as [issue.Places] has it. A call to the gate's service
// uses the place that its context carries; one that finds none there takes its
// own, and teaches the limiter nothing.
func (g *Gate) Take(ctx context.Context) (context.Context, func(), error) {
	p, err := g.take(ctx)
	if err != nil {
		return ctx, func() {}, err
	}
	p.alike = true
	done := func() {
		if p.use() {
			p.drop()
		}
	}
	return context.WithValue(ctx, placeKey{}, p), done, nil
}

func (g *Gate) take(ctx context.Context) (*place, error) {
	if err := g.closed(); err != nil {
		return nil, err
	}
	permit, err := g.limiter.AcquirePermitWithMaxWait(ctx, placePatience)
	switch {
	case errors.Is(err, adaptivelimiter.ErrExceeded):
		return nil, &issue.NoPlaceError{Service: g.service}
	case err != nil:
		return nil, err
	}
	opened, admitted := g.breaker.admit()
	if !admitted && !g.insistent {
		permit.Drop()
		return nil, g.breaker.refusal()
	}
	return &place{gate: g, permit: permit, opened: opened}, nil
}

// closed says why there is no use in waiting for a place; nil = there is.
func (g *Gate) closed() error {
	if !g.insistent && g.breaker.refuses() {
		return g.breaker.refusal()
	}
	if resume := g.resume.Load(); resume != 0 {
		if pause := time.Until(time.Unix(0, resume)); pause > 0 {
			return &issue.NoPlaceError{Service: g.service, RetryAfter: pause}
		}
	}
	return nil
}

// placeFor gives a call the place that its context carries, or another one. A
// client without a gate has nil places.
func (g *Gate) placeFor(ctx context.Context) (*place, error) {
	if g == nil {
		return nil, nil //nolint:nilnil // a nil place is one that needs no care
	}
	if p, ok := ctx.Value(placeKey{}).(*place); ok && p.gate == g && p.use() {
		return p, nil
	}
	p, err := g.take(ctx)
	if err == nil {
		p.use()
	}
	return p, err
}

// use says whether the place was still to be had.
func (p *place) use() bool { return p.taken.CompareAndSwap(false, true) }

// drop gives the place back; the call tells nothing about the service.
func (p *place) drop() {
	p.permit.Drop()
	p.gate.breaker.untold(p.opened)
}

// settle gives the place back after its call and takes note of what became of
// it. It returns the call's error, as it is to be understood.
func (p *place) settle(call Call, answer Answer, err error) error {
	if p == nil {
		return silence(nil, call, err)
	}
	err = silence(p.gate.breaker, call, err)
	if err != nil {
		p.lost(err)
		return err
	}
	p.gate.pause(answer)
	if verdict, _ := Classify(answer.Status); verdict == issue.Outage {
		p.permit.Drop()
		p.gate.breaker.away(p.opened, answer.Failure())
		return nil
	}
	if p.alike && answer.Success() {
		p.permit.Record()
	} else { // how quickly a service refuses tells nothing of what it bears
		p.permit.Drop()
	}
	p.gate.breaker.answered(p.opened)
	return nil
}

// lost takes note of a call without an answer.
func (p *place) lost(err error) {
	var failure *issue.Failure
	if !errors.As(err, &failure) || failure.Verdict != issue.Outage {
		p.drop()
		return
	}
	p.permit.Drop()
	p.gate.breaker.away(p.opened, failure)
}

// silence makes a call without reply transient while its suspect may be to
// blame.
func silence(b *breaker, call Call, err error) error {
	var failure *issue.Failure
	if call.Suspect == "" || !errors.Is(err, ErrNoReply) || !errors.As(err, &failure) {
		return err
	}
	if b != nil && b.silent(call.Suspect) {
		return err
	}
	transient := *failure
	transient.Verdict, transient.Reason = issue.Transient, issue.ReasonTimeout
	return &transient
}

// pause keeps all calls back for as long as an answer asks.
func (g *Gate) pause(answer Answer) {
	if answer.Success() {
		return
	}
	pause := min(RetryAfter(answer.Header, time.Now()), maxPause)
	if answer.Status == http.StatusTooManyRequests {
		pause = max(pause, leastPause)
	}
	if pause > 0 {
		g.resume.Store(time.Now().Add(pause).UnixNano())
	}
}
