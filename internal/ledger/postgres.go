package ledger

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// connectPatience is how long a server may take to answer before it is away,
// unless the URL says connect_timeout.
const connectPatience = 5 * time.Second

// postgresStore is a database of a PostgreSQL server.
type postgresStore struct {
	pool *pgxpool.Pool
}

func postgresConfig(url string) (*pgxpool.Config, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, errors.New("the URL of the ledger cannot be read: it must be postgres://<user>:<password>@<host>:<port>/<database>")
	}
	if config.ConnConfig.ConnectTimeout == 0 {
		config.ConnConfig.ConnectTimeout = connectPatience
	}
	config.ConnConfig.RuntimeParams["application_name"] = "ecreds-issuer"
	config.MinConns, config.MaxConns = 0, readers
	return config, nil
}

// serverOf names the database of a configuration, without the password.
func serverOf(config *pgx.ConnConfig) string {
	return fmt.Sprintf("%s at %s as %s", config.Database, net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port))), config.User)
}

func openPostgres(ctx context.Context, config *pgxpool.Config) (*postgresStore, error) {
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	return &postgresStore{pool: pool}, nil
}

func (s *postgresStore) read(ctx context.Context, q command) error {
	rows, err := s.pool.Query(ctx, q.text, clean(q.args)...)
	if err != nil {
		return err
	}
	return eachRow(rows, q.each)
}

func (s *postgresStore) ping(ctx context.Context) error { return s.pool.Ping(ctx) }

func (s *postgresStore) close() error {
	s.pool.Close()
	return nil
}

func (s *postgresStore) connect(ctx context.Context) (session, error) {
	conn, err := pgx.ConnectConfig(ctx, s.pool.Config().ConnConfig)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, silentAtMost); err != nil {
		return nil, errors.Join(err, conn.Close(ctx))
	}
	return &postgresConn{conn: conn}, nil
}

// silentAtMost lets the server end a group in whose midst its process was stopped
// or its machine lost: until then nobody gets past the rows that it has locked,
// not even by a claim that has lapsed. (A statement of its own, since poolers
// refuse it as a parameter of the connection.)
const silentAtMost = "SET idle_in_transaction_session_timeout = '5s'"

// postgresConn is a connection in which groups run. A group costs three round
// trips: its beginning, its claims and checkpoints, and the rest with the commit.
type postgresConn struct {
	conn *pgx.Conn
}

const serverTime = `SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)`

func (c *postgresConn) begin(ctx context.Context) (time.Time, error) {
	var at time.Time
	err := c.run(ctx, []command{
		{text: "BEGIN"},
		{text: serverTime, each: func(r row) error {
			at = time.UnixMilli(r.number())
			return nil
		}},
	})
	return at, err
}

func (c *postgresConn) run(ctx context.Context, commands []command) error {
	if len(commands) == 0 {
		return nil
	}
	batch := &pgx.Batch{}
	for _, q := range commands {
		batch.Queue(q.text+q.returning(), clean(q.args)...)
	}
	results := c.conn.SendBatch(ctx, batch)
	for _, q := range commands {
		rows, err := results.Query()
		if err == nil {
			err = eachRow(rows, q.each)
		}
		if err != nil {
			return errors.Join(err, results.Close())
		}
	}
	return results.Close()
}

func (q command) returning() string {
	if q.reads == "" {
		return ""
	}
	return " RETURNING " + q.reads
}

// inserting gives the server one array for each column.
func (c *postgresConn) inserting(into *insertion, rows [][]any) []command {
	if len(rows) == 0 {
		return nil
	}
	arrays, types := make([]any, len(into.columns)), make([]string, len(into.columns))
	for i := range into.columns {
		array, sqlType := column(rows, i)
		arrays[i], types[i] = array, fmt.Sprintf("$%d::%s", i+1, sqlType)
	}
	return []command{{text: into.statement("SELECT * FROM unnest(" + strings.Join(types, ", ") + ")"), args: arrays}}
}

func (c *postgresConn) create(ctx context.Context, into *insertion, rows [][]any, each func(first string, seq int64)) error {
	commands := c.inserting(into, rows)
	for i := range commands {
		commands[i].text += " RETURNING " + into.columns[0] + ", seq"
		commands[i].each = func(r row) error {
			each(r.text(), r.number())
			return nil
		}
	}
	return c.run(ctx, commands)
}

// column collects the values of one column, with the type of their array.
func column(rows [][]any, i int) (array any, sqlType string) {
	if _, ok := plain(rows[0][i]).(string); ok {
		texts := make([]string, len(rows))
		for n, values := range rows {
			texts[n] = cleanText(plain(values[i]).(string)) //nolint:forcetypeassert // a column has one type
		}
		return texts, "text[]"
	}
	numbers := make([]int64, len(rows))
	for n, values := range rows {
		numbers[n] = plain(values[i]).(int64) //nolint:forcetypeassert // a column has one type
	}
	return numbers, "bigint[]"
}

func (c *postgresConn) commit(ctx context.Context, last []command) error {
	return c.run(ctx, append(last[:len(last):len(last)], command{text: "COMMIT"}))
}

// rollback ignores its error: a connection that cannot do it is closed by it.
func (c *postgresConn) rollback(ctx context.Context) {
	_, _ = c.conn.Exec(ctx, "ROLLBACK")
}

func (c *postgresConn) usable() bool { return !c.conn.IsClosed() }

func (c *postgresConn) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), connectPatience) //nolint:forbidigo // saying goodbye belongs to no caller
	defer cancel()
	return c.conn.Close(ctx)
}

// isConflict says that the server gave up a transaction for another's sake; it
// may be run again.
func isConflict(err error) bool {
	var refused *pgconn.PgError
	return errors.As(err, &refused) && (refused.Code == "40001" || refused.Code == "40P01")
}

func eachRow(rows pgx.Rows, each func(row) error) error {
	defer rows.Close()
	for rows.Next() {
		if each == nil {
			continue
		}
		if err := each(&postgresRow{rows: rows, values: rows.RawValues()}); err != nil {
			return err
		}
	}
	return rows.Err()
}

// postgresRow reads the values as they came over the wire: all columns are
// texts or whole numbers.
type postgresRow struct {
	rows   pgx.Rows
	values [][]byte
	next   int
}

func (r *postgresRow) text() string {
	r.next++
	return string(r.values[r.next-1])
}

func (r *postgresRow) number() int64 {
	value := r.values[r.next]
	format := r.rows.FieldDescriptions()[r.next].Format
	r.next++
	switch {
	case format == pgx.TextFormatCode:
		n, _ := strconv.ParseInt(string(value), 10, 64) // NULL is 0
		return n
	case len(value) == 8:
		return int64(binary.BigEndian.Uint64(value))
	case len(value) == 4:
		return int64(int32(binary.BigEndian.Uint32(value)))
	case len(value) == 1: // a boolean
		return int64(value[0])
	default:
		return 0 // NULL
	}
}

// clean makes arguments what PostgreSQL takes.
func clean(args []any) []any {
	cleaned := make([]any, len(args))
	for i, arg := range args {
		cleaned[i] = plain(arg)
		if text, ok := cleaned[i].(string); ok {
			cleaned[i] = cleanText(text)
		}
	}
	return cleaned
}

// cleanText replaces what no text of PostgreSQL may hold: an odd answer of a
// service must not keep its failure from being stored.
func cleanText(text string) string {
	if utf8.ValidString(text) && !strings.Contains(text, "\x00") {
		return text
	}
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}

// plainly says in one line why a server refuses us or cannot be reached; what
// the driver says besides may be long and names everything it tried.
func plainly(err error) error {
	var (
		refused *pgconn.PgError
		network *net.OpError
		name    *net.DNSError
	)
	switch {
	case errors.As(err, &refused):
		return errors.New(refused.Message)
	case errors.As(err, &name):
		return fmt.Errorf("the server cannot be reached: %s: %s", name.Name, name.Err)
	case errors.As(err, &network):
		return fmt.Errorf("the server cannot be reached: %w", network.Err)
	default:
		return err
	}
}
