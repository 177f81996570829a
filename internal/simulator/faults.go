package simulator

import (
	"context"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Fault is something that goes wrong. The first group of fields says for which calls, the second what happens, the
// third how often. Faults are tried in the order they were set: latencies add up, the first other effect wins.
type Fault struct {
	Service   Service // "" = every service
	Operation string  // "" = every operation
	UserID    string
	BatchID   string
	Template  string // address or name of the template

	// Latency passes before the work is done, whether or not the client is still waiting.
	Latency time.Duration
	// Status answers without doing the work, with Body, and Retry-After when RetryAfter is given. A Body that begins
	// with < is served as HTML, an empty one as the service's own error of that status would look.
	Status     int
	Body       string
	RetryAfter string
	// AfterWork does the work first and then answers Status: stored, but reported as failed.
	AfterWork bool
	// LoseReply does the work and then cuts the connection.
	LoseReply bool
	// Hang never answers; the call ends when the client or the platform gives up. The work is not done.
	Hang bool
	// Outage of a whole service (no other restriction, no Rate, no Times) stops accepting: connections are refused
	// until the faults are cleared. With a restriction the connection is cut at once and the work is not done.
	Outage bool
	// Capacity is how many calls at once are answered after Latency (10 ms when that is zero); with n beyond it each
	// takes (n/Capacity)² as long, so that more callers get less done.
	Capacity int

	Rate  float64 // share of the matching calls, 0..1; 0 = all of them
	Times int     // how many calls it strikes; 0 = without end
}

// wholeService says whether the fault takes a service down rather than single calls.
func (f *Fault) wholeService() bool {
	return f.Outage && f.Operation == "" && f.UserID == "" && f.BatchID == "" && f.Template == "" && f.Rate == 0 && f.Times == 0
}

func (f *Fault) matches(c *Call, x *exchange) bool {
	return fits(string(f.Service), string(c.Service)) && fits(f.Operation, c.Operation) &&
		fits(f.UserID, c.UserID) && fits(f.BatchID, c.BatchID) && f.matchesTemplate(x)
}

func fits(want, have string) bool { return want == "" || want == have }

func (f *Fault) matchesTemplate(x *exchange) bool {
	if f.Template == "" {
		return true
	}
	for _, name := range x.template {
		if name == f.Template {
			return true
		}
	}
	return false
}

// armed is a fault in force, with what it has done so far.
type armed struct {
	Fault
	struck   atomic.Int64
	inFlight atomic.Int64
}

// strikes spends one of the fault's times on this call, if it has any left and chance agrees.
func (a *armed) strikes() bool {
	if a.Rate > 0 && a.Rate < 1 && rand.Float64() >= a.Rate {
		return false
	}
	return a.Times == 0 || a.struck.Add(1) <= int64(a.Times)
}

// delay is how long the call waits, and what to call when it has ended.
func (a *armed) delay() (time.Duration, func()) {
	if a.Capacity <= 0 {
		return a.Latency, func() {}
	}
	base := a.Latency
	if base == 0 {
		base = 10 * time.Millisecond
	}
	if over := float64(a.inFlight.Add(1)) / float64(a.Capacity); over > 1 {
		base = time.Duration(float64(base) * over * over)
	}
	return base, func() { a.inFlight.Add(-1) }
}

// ends says whether the fault decides the outcome of the call, rather than only delaying it.
func (a *armed) ends() bool { return a.Status != 0 || a.LoseReply || a.Hang || a.Outage }

type faultSet struct {
	stop <-chan struct{} // closed with the platform
	// errorBody makes the error a service would show for a status.
	errorBody func(Service, int) reply

	mu   sync.Mutex
	list atomic.Pointer[[]*armed] // read without a lock on every call; almost always empty
}

func (s *faultSet) active() []*armed {
	if list := s.list.Load(); list != nil {
		return *list
	}
	return nil
}

func (s *faultSet) add(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := append(append([]*armed(nil), s.active()...), &armed{Fault: f})
	s.list.Store(&list)
}

func (s *faultSet) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list.Store(nil)
}

// apply does the work under the faults in force, and says whether any of them had a hand in it.
func (s *faultSet) apply(ctx context.Context, c *Call, x *exchange, work func() reply) (reply, bool) {
	var (
		faulty   bool
		wait     time.Duration
		decisive *armed
		ends     []func()
	)
	defer func() {
		for _, end := range ends {
			end()
		}
	}()
	for _, a := range s.active() {
		if a.wholeService() || !a.matches(c, x) || !a.strikes() {
			continue
		}
		latency, end := a.delay()
		faulty, wait, ends = true, wait+latency, append(ends, end)
		if decisive == nil && a.ends() {
			decisive = a
		}
	}
	s.sleep(wait)
	if decisive == nil {
		return work(), faulty
	}
	return s.outcome(ctx, decisive, c, work), true
}

func (s *faultSet) outcome(ctx context.Context, a *armed, c *Call, work func() reply) reply {
	switch {
	case a.Outage:
		return reply{cut: true}
	case a.Hang:
		select {
		case <-ctx.Done():
		case <-s.stop:
		}
		return reply{cut: true}
	case a.LoseReply:
		work()
		return reply{cut: true}
	case a.AfterWork:
		work()
	}
	return s.failure(a, c)
}

func (s *faultSet) failure(a *armed, c *Call) reply {
	r := reply{status: a.Status, contentType: jsonType, body: []byte(a.Body)}
	if a.Body == "" {
		r = s.errorBody(c.Service, a.Status)
	} else if strings.HasPrefix(strings.TrimSpace(a.Body), "<") {
		r.contentType = "text/html; charset=utf-8"
	}
	if a.RetryAfter != "" {
		r.header = http.Header{"Retry-After": {a.RetryAfter}}
	}
	return r
}

func (s *faultSet) sleep(d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.stop:
	}
}

// SetFault puts a fault in force, after those already set.
func (p *Platform) SetFault(f Fault) {
	p.faults.add(f)
	if !f.wholeService() {
		return
	}
	for _, s := range p.servers {
		if fits(string(f.Service), string(s.service)) && s.service != Files {
			s.down()
		}
	}
}

// ClearFaults ends every fault and brings back the services that were down.
func (p *Platform) ClearFaults() {
	p.faults.clear()
	for _, s := range p.servers {
		if err := s.up(); err != nil {
			p.log.Error("service does not come back after an outage", zapService(s.service), zapErr(err))
		}
	}
}

// Faults lists the faults in force.
func (p *Platform) Faults() []Fault {
	out := []Fault{}
	for _, a := range p.faults.active() {
		out = append(out, a.Fault)
	}
	return out
}
