package issue

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// memory is a ledger in memory with the rules of a real one: what can be
// claimed, which writes are refused, what a revision keeps.
type memory struct {
	mu      sync.Mutex
	rows    map[IssuanceID]*row
	living  map[string]bool
	letters map[string]DeadLetter
	poison  []DeadLetter
	adopted []adoption
	fares   map[TemplateUse]*fare
	writes  []Checkpoint // what was written, without claims
	log     *[]string    // of writes and calls, in their order

	// fails, when set, makes an operation ("claim", "adopt", "poison", or the
	// state that a checkpoint writes) end with its error; nothing is written.
	fails func(op string) error
	// loses, when set, makes a checkpoint that was written end with its error:
	// its answer was lost.
	loses func(op string) error
}

type row struct {
	Issuance
	out     bool
	claim   *Claim
	due     time.Time // zero = not due at all
	reason  Reason
	message string
	last    int      // newest revision asked for
	newest  string   // certificate registered last
	history []string // state:attempts
}

// fare is how a template fares in a job.
type fare struct {
	TemplateStanding
	doubts map[LearnerID]bool
}

type adoption struct {
	Job  Job
	Page FannedOut
}

var _ WorkStore = (*memory)(nil)

func newMemory(log *[]string) *memory {
	return &memory{rows: map[IssuanceID]*row{}, living: map[string]bool{}, letters: map[string]DeadLetter{}, fares: map[TemplateUse]*fare{}, log: log}
}

// add queues a learner's issuance.
func (m *memory) add(learner LearnerID) *row {
	id := NewIssuanceID("batch-1", learner, merit)
	m.rows[id] = &row{Issuance: Issuance{
		ID: id, Batch: "batch-1", Learner: learner, Course: "do_1", Certificate: merit, Job: "job-1", Revision: 1,
		State: Queued, CompletedOn: time.Date(2019, 8, 20, 20, 0, 0, 0, time.UTC),
		Email: ChannelPending, SMS: ChannelPending,
	}, due: time.Now(), last: 1}
	return m.rows[id]
}

// dispatch turns a row out and returns its event.
func (m *memory) dispatch(r *row) Event {
	r.out, r.due = true, time.Time{}
	r.Number++
	return Event{
		MID: NewMID(time.Now()), Issuance: r.ID, Learner: r.Learner, Batch: r.Batch, Course: r.Course,
		Certificate: r.Certificate, Job: r.Job, Number: r.Number, Revision: r.Revision,
	}
}

func (m *memory) failure(op string) error {
	if m.fails == nil {
		return nil
	}
	return m.fails(op)
}

func (m *memory) Claim(ctx context.Context, c Claim) (Issuance, ClaimResult, error) {
	if err := ctx.Err(); err != nil {
		return Issuance{}, 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.failure("claim"); err != nil {
		return Issuance{}, 0, err
	}
	r, ok := m.rows[c.Issuance]
	switch {
	case !ok:
		return Issuance{}, ClaimNone, nil
	case !r.out || r.Number != c.Number:
		return Issuance{}, ClaimVoid, nil
	}
	if held := r.claim; held != nil && held.Token != c.Token {
		if m.living[held.Process] && held.Until.After(time.Now()) {
			return Issuance{}, ClaimBusy, nil
		}
		if !m.living[held.Process] {
			r.Crashes++
		}
	}
	r.claim = &c
	return r.Issuance, Claimed, nil
}

func (m *memory) Checkpoint(ctx context.Context, c Checkpoint) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.failure(string(c.State)); err != nil {
		return err
	}
	r := m.rows[c.Claim.Issuance]
	if r.claim == nil || r.claim.Token != c.Claim.Token {
		return ErrClaimLost
	}
	// A write whose answer was lost is the one thing that a claimant may not know.
	stands := Standing{Revision: r.Revision, State: r.State, Issued: r.Issued}
	if c.Before != stands && m.loses == nil {
		panic(fmt.Sprintf("a checkpoint takes the issuance for %+v, and it is %+v", c.Before, stands))
	}
	m.note(c)
	m.apply(r, c)
	if m.loses != nil {
		return m.loses(string(c.State))
	}
	return nil
}

func (m *memory) note(c Checkpoint) {
	what := string(c.State)
	switch {
	case c.Release:
		what = strings.TrimPrefix(what+"+release", "+")
	case c.Rest:
		what += "+rest"
	}
	*m.log = append(*m.log, "write "+what)
	c.Claim, c.Before = Claim{}, Standing{}
	m.writes = append(m.writes, c)
}

func (m *memory) apply(r *row, c Checkpoint) {
	r.claim.Until = c.Claim.Until
	if c.State != "" {
		r.State = c.State
	}
	if c.Step != "" {
		r.Step = c.Step
	}
	r.Attempts, r.Rounds, r.FirstFailure, r.reason, r.message = c.Attempts, c.Rounds, c.FirstFailure, c.Reason, c.Message
	for _, finished := range c.Finished {
		r.Crashes = 0
		r.history = append(r.history, fmt.Sprintf("%s:%d", finished.State, finished.Attempts))
	}
	if c.State == Retrying || c.State == Failed {
		r.history = append(r.history, fmt.Sprintf("%s:%d", c.State, c.Attempts))
	}
	if c.Made != nil {
		made := *c.Made
		r.Made = &made
	}
	if c.OldID != nil {
		r.OldID = *c.OldID
	}
	if c.Registered {
		r.RegisteredAt, r.Issued, r.newest = time.Now(), true, r.Made.ID
	}
	if c.Email != "" {
		r.Email = c.Email
	}
	if c.SMS != "" {
		r.SMS = c.SMS
	}
	if c.Proven != nil {
		m.fares[*c.Proven] = &fare{TemplateStanding: TemplateStanding{Proven: true}}
	}
	if c.DeadLetter != nil {
		if _, known := m.letters[c.DeadLetter.ID]; !known {
			m.letters[c.DeadLetter.ID] = *c.DeadLetter
		}
	}
	if c.Release || c.Rest {
		r.claim = nil
	}
	if c.Rest {
		r.out, r.due = false, c.Due
		if r.State.Final() && r.last > r.Revision {
			m.nextRevision(r)
		}
	}
}

func (m *memory) nextRevision(r *row) {
	if r.State == Failed {
		r.Replays++
	}
	r.Revision++
	r.State, r.Step, r.Attempts, r.Rounds, r.Crashes = Queued, "", 0, 0, 0
	r.Made, r.RegisteredAt, r.FirstFailure, r.OldID = nil, time.Time{}, time.Time{}, r.newest
	r.Email, r.SMS, r.due = ChannelPending, ChannelPending, time.Now()
}

func (m *memory) Adopt(ctx context.Context, standing Job, page FannedOut) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.failure("adopt"); err != nil {
		return err
	}
	m.adopted = append(m.adopted, adoption{standing, page})
	return nil
}

func (m *memory) TemplateFailed(ctx context.Context, use TemplateUse, learner LearnerID) (TemplateStanding, error) {
	if err := ctx.Err(); err != nil {
		return TemplateStanding{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.failure("template"); err != nil {
		return TemplateStanding{}, err
	}
	f := m.fares[use]
	if f == nil {
		f = &fare{}
		m.fares[use] = f
	}
	if f.doubts == nil {
		f.doubts = map[LearnerID]bool{}
	}
	f.doubts[learner] = true
	limit := DoubtsInANew
	if f.Proven {
		limit = DoubtsInAProven
	}
	if f.BrokenAt.IsZero() && len(f.doubts) >= limit {
		f.BrokenAt = time.Now()
	}
	return f.TemplateStanding, nil
}

func (m *memory) IndexPoison(ctx context.Context, letter DeadLetter) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.failure("poison"); err != nil {
		return err
	}
	m.poison = append(m.poison, letter)
	return nil
}

// states lists the states that were written, without the claims' releases.
func (m *memory) states() []State {
	var states []State
	for _, w := range m.writes {
		states = append(states, w.State)
	}
	return slices.Compact(states)
}
