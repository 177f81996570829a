package ledger

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"github.com/pressly/goose/v3"
	"github.com/prometheus/client_golang/prometheus"
	"modernc.org/sqlite" // also registers the driver "sqlite"

	"github.com/ecreds/issuer/internal/issue"
)

// Config says where the ledger is and how to treat it.
type Config struct {
	URL        string        // "sqlite:<path>"
	Migrate    bool          // bring an older schema up to date at start
	ClaimLapse time.Duration // a process silent for longer is dead
	Registry   prometheus.Registerer
}

// Ledger is an open ledger. Its methods are safe for concurrent use.
type Ledger struct {
	claimLapse time.Duration
	reads      *sql.DB
	writes     *sql.DB
	writer     *writer
	metrics    *metrics
	now        func() time.Time
}

// patience is how long reads and migrations wait on the rare occasions when they
// have to: while the log of a killed process is being recovered, or another
// program migrates.
const patience = 5 * time.Second

// turnPause is how often a program asks for its turn to open a new file.
const turnPause = 20 * time.Millisecond

// readers is how many reads run at once; a write never waits for them.
const readers = 4

//go:embed migrations/*.sql
var migrations embed.FS

// Open opens the ledger. A schema that is missing, older (without
// Config.Migrate) or newer is refused.
func Open(ctx context.Context, config Config) (*Ledger, error) {
	path, ok := strings.CutPrefix(config.URL, "sqlite:")
	if !ok || path == "" {
		return nil, fmt.Errorf("%s is not a ledger: it must be sqlite:<path of a file>", redact(config.URL))
	}
	if err := migrate(ctx, path, config.Migrate); err != nil {
		return nil, err
	}
	writes, err := openFile(path, "immediate")
	if err != nil {
		return nil, err
	}
	reads, err := openFile(path, "deferred")
	if err != nil {
		return nil, errors.Join(err, writes.Close())
	}
	reads.SetMaxOpenConns(readers)
	l := &Ledger{
		claimLapse: config.ClaimLapse, reads: reads, writes: writes,
		metrics: newMetrics(config.Registry), now: time.Now,
	}
	l.writer, err = startWriter(ctx, writes)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the ledger %s: %w", path, err), reads.Close(), writes.Close())
	}
	return l, nil
}

// openFile opens a SQLite file so that a commit is on the disk when it returns,
// readers never wait, and two processes may share it.
func openFile(path, lock string) (*sql.DB, error) {
	query := url.Values{"_txlock": {lock}, "_pragma": {
		fmt.Sprintf("busy_timeout(%d)", patience.Milliseconds()), "journal_mode(wal)", "synchronous(full)", "cache_size(-65536)", "wal_autocheckpoint(4000)",
	}}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+query.Encode())
	if err != nil {
		return nil, fmt.Errorf("open the ledger %s: %w", path, err)
	}
	return db, nil
}

// migrate brings the schema up to date when that is wanted, and refuses one
// that is not.
func migrate(ctx context.Context, path string, wanted bool) (err error) {
	// Two programs may start at once on a new file. Making it a ledger takes locks
	// that SQLite does not wait for, so one of them waits here.
	turn := flock.New(path + ".lock")
	if _, err := turn.TryLockContext(ctx, turnPause); err != nil {
		return fmt.Errorf("open the ledger %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, turn.Unlock()) }()
	db, err := openFile(path, "immediate")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, db, files)
	if err != nil {
		return fmt.Errorf("read the migrations: %w", err)
	}
	if wanted {
		if _, err := provider.Up(ctx); err != nil {
			return fmt.Errorf("bring the ledger %s up to date: %w", path, err)
		}
	}
	has, needs, err := provider.GetVersions(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("read the schema version of the ledger %s: %w", path, err)
	case has < needs:
		return fmt.Errorf("the ledger %s has schema version %d and %d is needed: start once with MIGRATE=true", path, has, needs)
	case has > needs:
		return fmt.Errorf("the ledger %s has schema version %d, newer than the %d this program knows: use a newer program",
			path, has, needs)
	}
	return nil
}

// redact tells a wrongly spelt database URL by its scheme alone: a password may
// stand anywhere in the rest.
func redact(raw string) string {
	if scheme, _, ok := strings.Cut(raw, "://"); ok {
		return strconv.Quote(scheme + "://…")
	}
	return "the given text"
}

// Close waits for the writes under way and closes the files.
func (l *Ledger) Close() error {
	return errors.Join(l.writer.close(), l.writes.Close(), l.reads.Close())
}

// Ping says whether the ledger answers.
func (l *Ledger) Ping(ctx context.Context) error {
	return away(l.reads.PingContext(ctx))
}

// away marks errors of the store itself as such: whoever asked must come again,
// and must not take them for an answer.
func away(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("%w: ledger: %w", issue.ErrUnavailable, err)
}

// isBusy says that another process holds the write lock.
func isBusy(err error) bool {
	var failure *sqlite.Error
	return errors.As(err, &failure) && failure.Code()&0xff == sqliteBusy
}

// sqliteBusy is SQLITE_BUSY of sqlite3.h; the extended codes differ above the
// lowest byte.
const sqliteBusy = 5

// millis is how times are stored; the zero time is NULL.
func millis(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMilli()
}

// moment reads what millis wrote.
func moment(ms sql.NullInt64) time.Time {
	if !ms.Valid {
		return time.Time{}
	}
	return time.UnixMilli(ms.Int64).UTC()
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}
