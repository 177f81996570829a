package ledger

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// groupSize bounds a group of writes: a full group holds the lock of a SQLite
	// file for about 5 ms.
	groupSize = 512
	// groupSpacing is the least time from the end of a group to the next: a commit
	// costs some 0.5 ms of processor and disk whatever is in it, so under load it
	// pays to wait until the callers of the last group have come back. A write that
	// comes alone never waits for it.
	groupSpacing = time.Millisecond
	// groupPatience is how long a server may take for one group.
	groupPatience = 30 * time.Second
	// groupTries is how often a group is tried that the server gave up for the
	// sake of another process.
	groupTries = 5
)

// write is one caller's change: a claim, a checkpoint, or anything else. It may
// run more than once, so it sets its results afresh each time.
type write struct {
	claim      *claiming
	checkpoint *checkpointing
	run        func(*transaction) error
	done       chan error
}

// writer runs all writes of this process, grouped: whatever has gathered while
// one group was being made durable forms the next.
type writer struct {
	ctx     context.Context // never ends: a group belongs to many callers
	store   store
	session session
	queue   chan *write
	stopped chan struct{}
	stop    sync.Once
	quit    chan struct{}
	ended   time.Time // of the last group
	tx      transaction
}

func startWriter(ctx context.Context, store store, claimLapse time.Duration, shard int) (*writer, error) {
	session, err := store.connect(ctx)
	if err != nil {
		return nil, err
	}
	w := &writer{
		ctx: context.WithoutCancel(ctx), store: store, session: session,
		queue: make(chan *write, groupSize), quit: make(chan struct{}), stopped: make(chan struct{}),
		tx: transaction{claimLapse: claimLapse, shard: shard},
	}
	go w.loop() //nolint:contextcheck // a group belongs to many callers
	return w, nil
}

// do runs a change in some group; see submit.
func (w *writer) do(ctx context.Context, run func(*transaction) error) error {
	return w.submit(ctx, &write{run: run})
}

// submit runs a write in some group and returns when that group is durable or
// has failed. A write that began is not given up when ctx ends: the caller could
// not know whether it happened.
func (w *writer) submit(ctx context.Context, job *write) error {
	job.done = make(chan error, 1)
	select {
	case w.queue <- job:
	case <-ctx.Done():
		return ctx.Err()
	case <-w.quit:
		return errClosed
	}
	select {
	case err := <-job.done:
		return err
	case <-w.stopped:
	}
	select {
	case err := <-job.done: // one of the last: it may be as durable as any
		return err
	default:
		return errClosed
	}
}

func (w *writer) close() error {
	w.stop.Do(func() { close(w.quit) })
	<-w.stopped
	return w.session.close()
}

func (w *writer) loop() {
	defer close(w.stopped)
	for {
		select {
		case first := <-w.queue:
			w.commit(w.gather(first))
		case <-w.quit:
			w.drain()
			return
		}
	}
}

// gather forms a group: what comes until groupSpacing is over, and what is
// waiting then.
func (w *writer) gather(first *write) []*write {
	group := []*write{first}
	spaced := time.NewTimer(time.Until(w.ended.Add(groupSpacing)))
	defer spaced.Stop()
	for waiting := true; waiting && len(group) < groupSize; {
		select {
		case next := <-w.queue:
			group = append(group, next)
		case <-spaced.C:
			waiting = false
		}
	}
	return w.take(group)
}

// take adds what is waiting, without waiting for more.
func (w *writer) take(group []*write) []*write {
	for len(group) < groupSize {
		select {
		case next := <-w.queue:
			group = append(group, next)
		default:
			return group
		}
	}
	return group
}

// drain finishes the writes that were waiting when the writer was closed.
func (w *writer) drain() {
	for {
		select {
		case first := <-w.queue:
			w.commit(w.gather(first))
		default:
			return
		}
	}
}

// commit makes a group durable. When it fails, each of its writes is tried by
// itself, so that one bad write does not take others with it.
func (w *writer) commit(group []*write) {
	defer func() { w.ended = time.Now() }()
	err := w.persist(group)
	if err == nil || len(group) == 1 || errors.Is(err, errNoTurn) {
		for _, job := range group {
			job.done <- err
		}
		return
	}
	for _, job := range group {
		job.done <- w.persist([]*write{job})
	}
}

// errNoTurn marks a failure for which no write of the group is to blame: trying
// each by itself would only make all of them wait again.
var errNoTurn = errors.New("no transaction is possible")

// persist runs a group in one transaction, again when the server gave it up for
// the sake of another process.
func (w *writer) persist(group []*write) error {
	for try := 1; ; try++ {
		err := w.attempt(group)
		if !isConflict(err) || try == groupTries {
			return err
		}
	}
}

// attempt runs a group in one transaction. It uses no caller's context: the
// group belongs to many.
func (w *writer) attempt(group []*write) error {
	ctx, cancel := context.WithTimeout(w.ctx, groupPatience)
	defer cancel()
	at, err := w.begin(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", errNoTurn, err)
	}
	w.tx.begin(ctx, w.session, at)
	err = w.tx.run(group)
	if err == nil {
		err = w.tx.commit()
	}
	if err != nil {
		w.session.rollback(ctx)
		if !w.session.usable() {
			err = fmt.Errorf("%w: %w", errNoTurn, err)
		}
	}
	return err
}

// begin begins a transaction, on a new connection when the last one broke. It
// may break while nobody writes, so that a first failure says little.
func (w *writer) begin(ctx context.Context) (time.Time, error) {
	if w.session.usable() {
		at, err := w.session.begin(ctx)
		if err == nil || w.session.usable() {
			return at, err
		}
	}
	session, err := w.store.connect(ctx)
	if err != nil {
		return time.Time{}, err
	}
	w.session = session
	return session.begin(ctx)
}
