package ledger

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ecreds/issuer/internal/issue"
)

// Config says where the ledger is and how to treat it.
type Config struct {
	URL          string        // "sqlite:<path>" or "postgres://…"
	Installation string        // whose ledger it is; another's is refused. "" = not asked
	Migrate      bool          // bring an older schema up to date at start
	ClaimLapse   time.Duration // a process silent for longer is dead
	Registry     prometheus.Registerer
}

// Ledger is an open ledger. Its methods are safe for concurrent use.
type Ledger struct {
	claimLapse time.Duration
	store      store
	writer     *writer
	metrics    *metrics
	now        func() time.Time
}

// shards is over how many rows each sum of a job is spread.
const shards = 16

// Open opens the ledger. A schema that is missing, older (without
// Config.Migrate) or newer is refused, and so is another installation's ledger.
// Its errors are one line without the password.
func Open(ctx context.Context, config Config) (*Ledger, error) {
	store, name, err := open(ctx, config)
	if err != nil {
		return nil, err
	}
	l := &Ledger{claimLapse: config.ClaimLapse, store: store, now: time.Now}
	if l.writer, err = startWriter(ctx, store, config.ClaimLapse, rand.IntN(shards)); err != nil {
		return nil, errors.Join(fmt.Errorf("open the ledger %s: %w", name, plainly(err)), store.close())
	}
	l.metrics = newMetrics(config.Registry)
	return l, nil
}

// open opens the store that the URL names, and brings it up to date.
func open(ctx context.Context, config Config) (s store, name string, err error) {
	if !IsURL(config.URL) {
		return nil, "", fmt.Errorf("%s is not a ledger: it must be sqlite:<path of a file> or postgres://…", redact(config.URL))
	}
	if path, ok := strings.CutPrefix(config.URL, "sqlite:"); ok {
		if err := migrateSQLite(ctx, path, config); err != nil {
			return nil, "", err
		}
		s, err := openSQLite(path)
		if err != nil {
			return nil, "", fmt.Errorf("open the ledger %s: %w", path, err)
		}
		return s, path, nil
	}
	server, err := postgresConfig(config.URL)
	if err != nil {
		return nil, "", err
	}
	name = serverOf(server.ConnConfig)
	if err := migratePostgres(ctx, server.ConnConfig, name, config); err != nil {
		return nil, "", err
	}
	s, err = openPostgres(ctx, server)
	return s, name, err
}

// IsURL says whether a text names a ledger by its form: a server, or a file.
func IsURL(url string) bool {
	path, isFile := strings.CutPrefix(url, "sqlite:")
	return isFile && path != "" || strings.HasPrefix(url, "postgres://") || strings.HasPrefix(url, "postgresql://")
}

// redact tells a wrongly spelt database URL by its scheme alone: a password may
// stand anywhere in the rest.
func redact(raw string) string {
	if scheme, _, ok := strings.Cut(raw, "://"); ok {
		return fmt.Sprintf("%q", scheme+"://…")
	}
	return "the given text"
}

// Close waits for the writes under way and closes the store.
func (l *Ledger) Close() error { return errors.Join(l.writer.close(), l.store.close()) }

// Ping says whether the ledger answers.
func (l *Ledger) Ping(ctx context.Context) error { return away(l.store.ping(ctx)) }

// away marks errors of the store itself as such: whoever asked must come again,
// and must not take them for an answer.
func away(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("%w: ledger: %w", issue.ErrUnavailable, err)
}
