package ledger

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"time"
)

// store is one of the two databases. All SQL is PostgreSQL 11's; what SQLite
// spells otherwise its store translates.
type store interface {
	// read runs a query outside any group.
	read(ctx context.Context, q command) error
	// connect opens the connection in which groups of writes run.
	connect(ctx context.Context) (session, error)
	ping(ctx context.Context) error
	close() error
}

// session is a connection in which one group of writes after the other runs. It
// is used by one goroutine.
type session interface {
	// begin begins a transaction and tells the time by the store's clock.
	begin(ctx context.Context) (time.Time, error)
	// run runs commands in their order; on a server they share a round trip.
	run(ctx context.Context, commands []command) error
	// inserting makes the commands that insert many rows.
	inserting(into *insertion, rows [][]any) []command
	// create inserts many rows and calls each with the first value of every row that
	// was not there yet, and its new seq.
	create(ctx context.Context, into *insertion, rows [][]any, each func(first string, seq int64)) error
	// commit runs the last commands of the transaction and makes it durable.
	commit(ctx context.Context, last []command) error
	// rollback leaves the transaction, when there is one.
	rollback(ctx context.Context)
	// usable is false when another session must take this one's place.
	usable() bool
	close() error
}

// command is a statement with its arguments, $1 being the first: numbers, texts,
// or nil.
type command struct {
	text string
	args []any
	each func(row) error // is called for every row; may be nil
	// reads, of an update, are columns of the one row that it changes, whose seq is
	// $1: each is called for them when it was changed. PostgreSQL returns them;
	// SQLite is twice as fast when it reads them afterwards.
	reads string
	// onlyLocks says that it is there for its locks alone: nothing to do in a SQLite
	// file, which a transaction has to itself.
	onlyLocks bool
}

// insertion is a statement that inserts rows of texts and numbers, none of them
// NULL.
type insertion struct {
	table   string
	columns []string
	tail    string // ON CONFLICT
	oneRow  string // inserts the row of its arguments
}

func insertInto(table, columns, tail string) *insertion {
	into := &insertion{table: table, columns: strings.Split(columns, ", "), tail: tail}
	marks := make([]string, len(into.columns))
	for i := range marks {
		marks[i] = fmt.Sprintf("$%d", i+1)
	}
	into.oneRow = into.statement("VALUES (" + strings.Join(marks, ", ") + ")")
	return into
}

// statement is the insertion of rows that are given so.
func (i *insertion) statement(rows string) string {
	return fmt.Sprintf("INSERT INTO %s (%s) %s %s", i.table, strings.Join(i.columns, ", "), rows, i.tail)
}

// row is a row of an answer, read column by column from the first to the last.
// NULL reads as 0 or "".
type row interface {
	number() int64
	text() string
}

// word reads a text of a type of its own.
func word[T ~string](r row) T { return T(r.text()) }

// moment reads what millis wrote.
func moment(r row) time.Time {
	ms := r.number()
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// millis is how times are stored; the zero time is NULL.
func millis(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMilli()
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}

// plain makes an argument an int64, a string or nil.
func plain(value any) any {
	switch v := value.(type) {
	case nil, int64, string, []int64, []string:
		return v
	case int:
		return int64(v)
	}
	v := reflect.ValueOf(value)
	if v.Kind() == reflect.String {
		return v.String()
	}
	return v.Int()
}
