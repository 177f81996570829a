package issue

import (
	"context"
	"time"

	"go.uber.org/zap"
)

// LeaseStore gives a task to one process at a time.
type LeaseStore interface {
	// Lease takes or renews the lease of a task for a while, by the store's
	// clock; false = somebody else has it.
	Lease(ctx context.Context, task, holder string, d time.Duration) (bool, error)
	// EndLease gives it back before its time.
	EndLease(ctx context.Context, task, holder string) error
}

// Lease lets one of several processes do a task. It keeps them from doing
// everything twice; nothing depends on it being one alone, since one that was
// stopped and comes back may work on for a moment.
type Lease struct {
	Store  LeaseStore
	Task   string
	Holder string        // id of this start of this process
	For    time.Duration // after which somebody else takes over from a silent holder
	Log    *zap.Logger
}

// Run does the task whenever the lease is this process's, until ctx ends; it
// returns nil then, or the error with which the task ended by itself. The
// context of the task ends with the lease.
func (l *Lease) Run(ctx context.Context, task func(context.Context) error) error {
	for ctx.Err() == nil {
		if ours, _ := l.ask(ctx); !ours { // whose error is in the log
			pause(ctx, nil, l.For/2)
			continue
		}
		l.Log.Info("this process has the lease", zap.String("task", l.Task))
		if err := l.hold(ctx, task); err != nil {
			return err
		}
	}
	return nil
}

// ask asks for the lease, or for more of it.
func (l *Lease) ask(ctx context.Context) (ours bool, err error) {
	ours, err = l.Store.Lease(ctx, l.Task, l.Holder, l.For)
	if err != nil && ctx.Err() == nil {
		l.Log.Warn("cannot ask for a lease; asking again", zap.String("task", l.Task), zap.Error(err))
	}
	return ours, err
}

// hold does the task while the lease can be renewed. It comes back when the
// task has ended.
func (l *Lease) hold(ctx context.Context, task func(context.Context) error) error {
	leased, end := context.WithCancel(ctx)
	defer end()
	ended := make(chan error, 1)
	go func() { ended <- task(leased) }()
	renew := time.NewTicker(l.For / 3)
	defer renew.Stop()
	until := time.Now().Add(l.For)
	for {
		select {
		case err := <-ended:
			l.giveBack(ctx)
			return err
		case <-renew.C:
			begun := time.Now()
			ours, err := l.ask(leased)
			switch {
			case ours:
				until = begun.Add(l.For)
			case leased.Err() == nil && (err == nil || time.Now().After(until.Add(-l.For/3))):
				l.Log.Warn("this process has lost the lease", zap.String("task", l.Task))
				end()
			}
		}
	}
}

// giveBack lets another process take over at once.
func (l *Lease) giveBack(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := l.Store.EndLease(ctx, l.Task, l.Holder); err != nil {
		l.Log.Warn("cannot give a lease back; it ends by itself", zap.String("task", l.Task), zap.Error(err))
	}
}
