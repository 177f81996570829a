package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// groupSize bounds a group of writes: at some 20 µs a write a full group
	// holds the lock for about 10 ms.
	groupSize = 512
	// groupSpacing is the least time between two groups: a commit costs some
	// 0.5 ms of processor and disk whatever is in it, so under load it pays to
	// let writes gather. A write that comes alone never waits for it.
	groupSpacing = 2 * time.Millisecond
	// busyWait is how long a group waits before it asks again for the lock that
	// another process holds.
	busyWait = time.Millisecond
)

// write is one caller's change. It may run more than once, so it sets its
// results afresh each time.
type write struct {
	run  func(*transaction) error
	done chan error
}

// writer runs all writes of this process, grouped: whatever has gathered while
// one group was being made durable forms the next.
type writer struct {
	conn    *sql.Conn
	queue   chan *write
	stopped chan struct{}
	stop    sync.Once
	quit    chan struct{}
	begun   time.Time // of the last group
	tx      transaction
}

func startWriter(ctx context.Context, db *sql.DB) (*writer, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	// From here on waiting for another process's lock is begin's business: SQLite's
	// own waiting grows to a tenth of a second.
	if _, err := conn.ExecContext(ctx, "PRAGMA busy_timeout = 0"); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	w := &writer{
		conn: conn, queue: make(chan *write, groupSize), quit: make(chan struct{}), stopped: make(chan struct{}),
		tx: transaction{ctx: context.WithoutCancel(ctx), conn: conn, prepared: map[string]*sql.Stmt{}},
	}
	go w.loop()
	return w, nil
}

// do runs a write in some group and returns when that group is durable or has
// failed. A write that began is not given up when ctx ends: the caller could
// not know whether it happened.
func (w *writer) do(ctx context.Context, run func(*transaction) error) error {
	job := &write{run: run, done: make(chan error, 1)}
	select {
	case w.queue <- job:
	case <-ctx.Done():
		return ctx.Err()
	case <-w.quit:
		return sql.ErrConnDone
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
		return sql.ErrConnDone
	}
}

func (w *writer) close() error {
	w.stop.Do(func() { close(w.quit) })
	<-w.stopped
	return errors.Join(w.tx.close(), w.conn.Close())
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
	spaced := time.NewTimer(time.Until(w.begun.Add(groupSpacing)))
	defer spaced.Stop()
	for waiting := true; waiting && len(group) < groupSize; {
		select {
		case next := <-w.queue:
			group = append(group, next)
		case <-spaced.C:
			waiting = false
		}
	}
	w.begun = time.Now()
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
	err := w.attempt(group)
	if err == nil || len(group) == 1 || errors.Is(err, errNotBegun) {
		for _, job := range group {
			job.done <- err
		}
		return
	}
	for _, job := range group {
		job.done <- w.attempt([]*write{job})
	}
}

// errNotBegun marks the failure of a group in which no write had its turn:
// trying each by itself would only make all of them wait again.
var errNotBegun = errors.New("no transaction can begin")

// attempt runs a group in one transaction. It uses no caller's context: the
// group belongs to many.
func (w *writer) attempt(group []*write) error {
	if err := w.begin(); err != nil {
		return fmt.Errorf("%w: %w", errNotBegun, err)
	}
	w.tx.begin(time.Now())
	err := func() error {
		for _, job := range group {
			if err := job.run(&w.tx); err != nil {
				return err
			}
		}
		return w.tx.finish()
	}()
	if err == nil {
		err = w.exec("COMMIT")
	}
	if err != nil {
		// Whatever failed, the connection must leave the transaction; that there
		// was none any more is what we want.
		_ = w.exec("ROLLBACK")
	}
	return err
}

// begin takes the write lock, waiting for another process when it must.
func (w *writer) begin() error {
	deadline := time.Now().Add(5 * time.Second)
	for {
		err := w.exec("BEGIN IMMEDIATE")
		if !isBusy(err) || time.Now().After(deadline) {
			return err
		}
		<-time.After(busyWait)
	}
}

func (w *writer) exec(statement string) error {
	_, err := w.conn.ExecContext(w.tx.ctx, statement)
	return err
}

// transaction is what writes run in: a connection with its prepared statements
// and the counts that its changes come to.
type transaction struct {
	ctx      context.Context // never ends: a group belongs to many callers
	conn     *sql.Conn
	prepared map[string]*sql.Stmt
	at       int64 // when the transaction began, in epoch milliseconds

	// What is written at its end, for all its writes together:
	counts counts
	moves  []move
	notes  []history
}

func (t *transaction) begin(at time.Time) {
	t.at, t.counts, t.moves, t.notes = at.UnixMilli(), counts{}, t.moves[:0], t.notes[:0]
}

// finish writes what was gathered.
func (t *transaction) finish() error {
	if err := t.settleMoves(); err != nil {
		return err
	}
	if err := t.writeNotes(); err != nil {
		return err
	}
	return t.keepCounts()
}

func (t *transaction) statement(query string) (*sql.Stmt, error) {
	if s, ok := t.prepared[query]; ok {
		return s, nil
	}
	s, err := t.conn.PrepareContext(t.ctx, query)
	if err != nil {
		return nil, err
	}
	t.prepared[query] = s
	return s, nil
}

// exec runs a statement and returns how many rows it changed.
func (t *transaction) exec(query string, args ...any) (int64, error) {
	s, err := t.statement(query) //nolint:sqlclosecheck // it is kept for the life of the connection
	if err != nil {
		return 0, err
	}
	result, err := s.ExecContext(t.ctx, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// row reads one row; [sql.ErrNoRows] when there is none.
func (t *transaction) row(query string, args []any, into ...any) error {
	s, err := t.statement(query) //nolint:sqlclosecheck // it is kept for the life of the connection
	if err != nil {
		return err
	}
	return s.QueryRowContext(t.ctx, args...).Scan(into...)
}

// rows reads all rows, calling each for one at a time.
func (t *transaction) rows(query string, args []any, each func(scan func(...any) error) error) error {
	s, err := t.statement(query) //nolint:sqlclosecheck // it is kept for the life of the connection
	if err != nil {
		return err
	}
	rows, err := s.QueryContext(t.ctx, args...)
	if err != nil {
		return err
	}
	return eachRow(rows, each)
}

func (t *transaction) close() error {
	var errs []error
	for _, s := range t.prepared {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// eachRow walks rows to their end and closes them.
func eachRow(rows *sql.Rows, each func(scan func(...any) error) error) error {
	defer func() { _ = rows.Close() }() // its error is the one rows.Err gives
	for rows.Next() {
		if err := each(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}
