package ledger

import (
	"context"
	"errors"
	"strings"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

const (
	// patience is how long a read waits on the rare occasions when it has to: while
	// the log of a killed process is being recovered.
	patience = 5 * time.Second
	// busyWait is how long a group waits before it asks again for the lock that
	// another process holds. SQLite's own waiting grows to a tenth of a second.
	busyWait = time.Millisecond
	// readers is how many reads run at once; a write never waits for them.
	readers = 4
)

// sqliteStore is a file.
type sqliteStore struct {
	path string
	idle chan *sqliteConn // the readers that nobody uses
	quit chan struct{}
}

func openSQLite(path string) (*sqliteStore, error) {
	s := &sqliteStore{path: path, idle: make(chan *sqliteConn, readers), quit: make(chan struct{})}
	for range readers {
		reader, err := s.open(patience)
		if err != nil {
			return nil, errors.Join(err, s.close())
		}
		s.idle <- reader
	}
	return s, nil
}

// open opens the file so that a commit is on the disk when it returns, readers
// never wait, and two processes may share it.
func (s *sqliteStore) open(wait time.Duration) (*sqliteConn, error) {
	conn, err := sqlite.OpenConn(s.path, sqlite.OpenReadWrite, sqlite.OpenWAL)
	if err != nil {
		return nil, err
	}
	c := &sqliteConn{conn: conn, prepared: map[string]*sqlite.Stmt{}}
	for _, pragma := range []string{"synchronous=full", "cache_size=-65536", "wal_autocheckpoint=4000"} {
		if err := sqlitex.ExecuteTransient(conn, "PRAGMA "+pragma, nil); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	conn.SetBusyTimeout(wait)
	return c, nil
}

func (s *sqliteStore) connect(context.Context) (session, error) { return s.open(0) }

var errClosed = errors.New("the ledger is closed")

func (s *sqliteStore) read(ctx context.Context, q command) error {
	select {
	case <-s.quit:
		return errClosed
	default:
	}
	select {
	case reader := <-s.idle:
		defer func() { s.idle <- reader }()
		return reader.execute(q.text, q.args, q.each)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *sqliteStore) ping(ctx context.Context) error { return s.read(ctx, command{text: "SELECT 1"}) }

func (s *sqliteStore) close() error {
	close(s.quit)
	var errs []error
	for range cap(s.idle) {
		select {
		case reader := <-s.idle:
			errs = append(errs, reader.close())
		case <-time.After(patience):
			return errors.Join(append(errs, errors.New("a read of the ledger does not end"))...)
		}
	}
	return errors.Join(errs...)
}

// sqliteConn is a connection with its prepared statements.
type sqliteConn struct {
	conn     *sqlite.Conn
	prepared map[string]*sqlite.Stmt // by the text that was asked for
}

// sqliteWords turns PostgreSQL's words into SQLite's: a transaction that writes
// has locked everything already.
var sqliteWords = strings.NewReplacer("$", "?", "FOR UPDATE SKIP LOCKED", "", "FOR UPDATE", "")

func (c *sqliteConn) prepare(text string) (*sqlite.Stmt, error) {
	if s, ok := c.prepared[text]; ok {
		return s, nil
	}
	s, err := c.conn.Prepare(sqliteWords.Replace(text))
	if err != nil {
		return nil, err
	}
	c.prepared[text] = s
	return s, nil
}

// execute runs one statement to its end.
func (c *sqliteConn) execute(text string, args []any, each func(row) error) error {
	s, err := c.prepare(text)
	if err != nil {
		return err
	}
	for i, arg := range args {
		switch v := plain(arg).(type) {
		case int64:
			s.BindInt64(i+1, v)
		case string:
			s.BindText(i+1, v)
		default:
			s.BindNull(i + 1)
		}
	}
	if err := steps(s, each); err != nil {
		return errors.Join(err, s.Reset())
	}
	return s.Reset()
}

// steps walks a statement to its end.
func steps(s *sqlite.Stmt, each func(row) error) error {
	for {
		more, err := s.Step()
		if err != nil || !more {
			return err
		}
		if each == nil {
			continue
		}
		if err := each(&sqliteRow{stmt: s}); err != nil {
			return err
		}
	}
}

// begin takes the write lock, waiting for another process when it must.
func (c *sqliteConn) begin(ctx context.Context) (time.Time, error) {
	deadline := time.Now().Add(patience)
	for {
		err := c.execute("BEGIN IMMEDIATE", nil, nil)
		if sqlite.ErrCode(err).ToPrimary() != sqlite.ResultBusy || time.Now().After(deadline) {
			return time.Now(), err
		}
		select {
		case <-time.After(busyWait):
		case <-ctx.Done():
			return time.Time{}, ctx.Err()
		}
	}
}

func (c *sqliteConn) run(_ context.Context, commands []command) error {
	for _, q := range commands {
		var err error
		switch {
		case q.onlyLocks:
		case q.reads != "":
			err = c.update(q)
		default:
			err = c.execute(q.text, q.args, q.each)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// update changes a row of issuances and reads it.
func (c *sqliteConn) update(q command) error {
	err := c.execute(q.text, q.args, nil)
	if err != nil || c.conn.Changes() == 0 {
		return err
	}
	return c.execute("SELECT "+q.reads+" FROM issuances WHERE seq = $1", q.args[:1], q.each)
}

// inserting inserts one row after the other: SQLite gains nothing by more at
// once.
func (c *sqliteConn) inserting(into *insertion, rows [][]any) []command {
	commands := make([]command, len(rows))
	for i, values := range rows {
		commands[i] = command{text: into.oneRow, args: values}
	}
	return commands
}

func (c *sqliteConn) create(_ context.Context, into *insertion, rows [][]any, each func(first string, seq int64)) error {
	for _, values := range rows {
		if err := c.execute(into.oneRow, values, nil); err != nil {
			return err
		}
		if c.conn.Changes() == 1 {
			each(plain(values[0]).(string), c.conn.LastInsertRowID()) //nolint:forcetypeassert // an id
		}
	}
	return nil
}

func (c *sqliteConn) commit(ctx context.Context, last []command) error {
	if err := c.run(ctx, last); err != nil {
		return err
	}
	return c.execute("COMMIT", nil, nil)
}

// rollback ignores its error: that there is no transaction is what we want.
func (c *sqliteConn) rollback(context.Context) { _ = c.execute("ROLLBACK", nil, nil) }

func (c *sqliteConn) usable() bool { return true }

func (c *sqliteConn) close() error { return c.conn.Close() }

// sqliteRow is the row that a statement stands at.
type sqliteRow struct {
	stmt *sqlite.Stmt
	next int
}

func (r *sqliteRow) number() int64 {
	r.next++
	return r.stmt.ColumnInt64(r.next - 1)
}

func (r *sqliteRow) text() string {
	r.next++
	return r.stmt.ColumnText(r.next - 1)
}
