package issue

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Process is one start of a consumer.
type Process struct {
	ID       string // fresh for each start
	Name     string // for people: host and process id
	Capacity int    // events that it works at once
	Allowed  int    // how many of those its limiters let through now
	Finished int    // events that came to rest in the last five seconds
}

// ProcessStore knows which processes live. A process that is silent for the
// ledger's claim lapse is dead, and so are its claims.
type ProcessStore interface {
	Alive(ctx context.Context, process Process) error
	Gone(ctx context.Context, id string) error
}

// Presence tells the ledger that a process lives.
type Presence struct {
	Store   ProcessStore
	Process Process
	Every   time.Duration // well below the claim lapse
	Allowed func() int    // calls of a step that are let through now
	Rested  func() int64  // events that came to rest since the start
	Log     *zap.Logger

	mu     sync.Mutex // the first word may come while Run speaks already
	told   time.Time
	rested int64 // as told last
}

// Announce tells it once: claims made before that would be taken for those of
// a dead process.
func (p *Presence) Announce(ctx context.Context) error { return p.tell(ctx) }

// finishedIn is the time that Process.Finished is about.
const finishedIn = 5 * time.Second

// tell tells that the process lives, and how it fares.
func (p *Presence) tell(ctx context.Context) error { return p.Store.Alive(ctx, p.now()) }

// now is the process as it fares.
func (p *Presence) now() Process {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, rested := time.Now(), p.Rested()
	process := p.Process
	process.Allowed = min(p.Allowed(), process.Capacity)
	if since := now.Sub(p.told); !p.told.IsZero() && since > 0 {
		process.Finished = int(float64(rested-p.rested) * finishedIn.Seconds() / since.Seconds())
	}
	p.told, p.rested = now, rested
	return process
}

// Run keeps telling it until ctx ends, then says goodbye; it returns nil.
func (p *Presence) Run(ctx context.Context) error {
	ticker := time.NewTicker(p.Every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			if err := p.tell(ctx); err != nil && ctx.Err() == nil {
				p.Log.Warn("cannot tell the ledger that this process lives; its claims may lapse", zap.Error(err))
			}
		case <-ctx.Done():
			return p.goodbye(context.WithoutCancel(ctx))
		}
	}
}

// goodbye lets others take over at once what this process still held. Without
// it they wait for the lapse.
func (p *Presence) goodbye(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if err := p.Store.Gone(ctx, p.Process.ID); err != nil {
		p.Log.Warn("cannot tell the ledger that this process ends", zap.Error(err))
	}
	return nil
}
