package issue

import (
	"context"
	"time"

	"go.uber.org/zap"
)

// Process is one start of a consumer.
type Process struct {
	ID       string // fresh for each start
	Name     string // for people: host and process id
	Capacity int    // events that it works at once
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
	Log     *zap.Logger
}

// Announce tells it once: claims made before that would be taken for those of
// a dead process.
func (p *Presence) Announce(ctx context.Context) error { return p.Store.Alive(ctx, p.Process) }

// Run keeps telling it until ctx ends, then says goodbye; it returns nil.
func (p *Presence) Run(ctx context.Context) error {
	ticker := time.NewTicker(p.Every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			if err := p.Store.Alive(ctx, p.Process); err != nil && ctx.Err() == nil {
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
