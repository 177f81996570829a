package simulator

import (
	"sync"
	"time"
)

// Call is one request as the platform saw it, in the order of arrival.
type Call struct {
	Seq           int64         `json:"seq"`
	At            time.Time     `json:"at"`
	Service       Service       `json:"service"`
	Operation     string        `json:"operation"`
	UserID        string        `json:"userId,omitempty"`
	BatchID       string        `json:"batchId,omitempty"`
	CertificateID string        `json:"certificateId,omitempty"`
	Status        int           `json:"status"` // 0: no reply, or none yet
	Done          bool          `json:"done"`   // false while the call is still being worked
	Fault         bool          `json:"fault,omitempty"`
	Duration      time.Duration `json:"durationNs"`
	TraceParent   string        `json:"traceparent,omitempty"`
	RequestID     string        `json:"requestId,omitempty"`
	Body          []byte        `json:"body,omitempty"` // only with Config.KeepBodies
}

// CallKey counts calls by operation and status.
type CallKey struct {
	Operation string
	Status    int
}

// CallFilter keeps a call or drops it.
type CallFilter func(*Call) bool

// OfOperation keeps the calls of the operations named.
func OfOperation(names ...string) CallFilter {
	return func(c *Call) bool {
		for _, name := range names {
			if c.Operation == name {
				return true
			}
		}
		return false
	}
}

// OfService keeps the calls of one service.
func OfService(s Service) CallFilter { return func(c *Call) bool { return c.Service == s } }

// OfUser keeps the calls about one user.
func OfUser(id string) CallFilter { return func(c *Call) bool { return c.UserID == id } }

// OfBatch keeps the calls about one batch.
func OfBatch(id string) CallFilter { return func(c *Call) bool { return c.BatchID == id } }

// callLog keeps the newest calls and counts them all. A call enters when it arrives, so that a test can wait for one
// which will never be answered.
type callLog struct {
	limit int

	mu      sync.Mutex
	seq     int64
	entries []*Call
	counts  map[CallKey]int64
}

func newCallLog(limit int) *callLog {
	return &callLog{limit: limit, counts: map[CallKey]int64{}}
}

func (l *callLog) arrive(c Call) *Call {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seq++
	c.Seq = l.seq
	if len(l.entries) >= l.limit {
		// Dropping the older half at once costs less than one copy per call.
		l.entries = append([]*Call(nil), l.entries[len(l.entries)/2:]...)
	}
	l.entries = append(l.entries, &c)
	return &c
}

func (l *callLog) finish(c *Call, x *exchange, out reply, faulty bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.CertificateID == "" {
		c.CertificateID = x.certificateID // generate knows it only now
	}
	if !out.cut {
		c.Status = out.status
	}
	c.Fault, c.Done, c.Duration = faulty, true, time.Since(c.At)
	l.counts[CallKey{c.Operation, c.Status}]++
}

func (l *callLog) list(filters []CallFilter) []Call {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := []Call{}
next:
	for _, c := range l.entries {
		for _, keep := range filters {
			if !keep(c) {
				continue next
			}
		}
		out = append(out, *c)
	}
	return out
}

// Calls lists the calls that pass every filter, in order of arrival.
func (p *Platform) Calls(filters ...CallFilter) []Call { return p.calls.list(filters) }

// CallCounts says how many calls ended with which status since the start or the last ResetCalls.
func (p *Platform) CallCounts() map[CallKey]int64 {
	p.calls.mu.Lock()
	defer p.calls.mu.Unlock()
	out := make(map[CallKey]int64, len(p.calls.counts))
	for key, n := range p.calls.counts {
		out[key] = n
	}
	return out
}

// ResetCalls empties the call log and its counts. A call still being worked is counted when it ends.
func (p *Platform) ResetCalls() {
	p.calls.mu.Lock()
	defer p.calls.mu.Unlock()
	p.calls.entries, p.calls.counts = nil, map[CallKey]int64{}
}
