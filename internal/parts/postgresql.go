package parts

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
)

// Postgres is a PostgreSQL cluster of its own, reached by a socket in a folder
// that nobody else may enter. It writes durably, as a real one does.
type Postgres struct {
	Server

	bin    string
	folder string
	made   atomic.Int64 // databases
}

// PostgreSQL starts a cluster for one test.
func PostgreSQL(tb testing.TB, settings ...string) *Postgres {
	tb.Helper()
	// Not tb.TempDir: its parent is closed to the user that the server runs as,
	// and its name may be longer than the path of a socket.
	folder, err := os.MkdirTemp("", "ecreds-parts-") //nolint:usetesting // for the reason above
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(folder) }) // in the system's temporary folder
	return own(tb, folder, func(ctx context.Context, folder string) (*Postgres, error) {
		return startPostgres(ctx, folder, settings)
	})
}

var sharedPostgres shared[*Postgres]

// SharedPostgreSQL is the cluster that all tests of this binary share, each with
// a database of its own.
func SharedPostgreSQL(tb testing.TB) *Postgres {
	tb.Helper()
	return sharedPostgres.get(tb, func(ctx context.Context, folder string) (*Postgres, error) {
		return startPostgres(ctx, folder, nil)
	})
}

// Database makes a new database and returns its URL, which pgx and psql take.
func (p *Postgres) Database(tb testing.TB) string {
	tb.Helper()
	name := fmt.Sprintf("test_%d", p.made.Add(1))
	if _, err := p.psql(tb.Context(), p.url("postgres"), "CREATE DATABASE "+name); err != nil {
		tb.Fatal(err)
	}
	return p.url(name)
}

func (p *Postgres) url(database string) string {
	return "postgres://postgres@/" + database + "?host=" + url.QueryEscape(p.folder)
}

// psql runs a statement and returns what it selects.
func (p *Postgres) psql(ctx context.Context, database, statement string) (string, error) {
	return execute(ctx, nil, filepath.Join(p.bin, "psql"), "--no-psqlrc", "--tuples-only", "--no-align",
		"--command", statement, database)
}

func startPostgres(ctx context.Context, folder string, settings []string) (*Postgres, error) {
	bin, err := postgresBin()
	if err != nil {
		return nil, err
	}
	servant, err := servantOf(folder)
	if err != nil {
		return nil, err
	}
	p := &Postgres{bin: bin, folder: folder}
	data := filepath.Join(folder, "data")
	// What initdb writes need not outlive a power cut; the server's writes must.
	if _, err := execute(ctx, servant, filepath.Join(bin, "initdb"), "--pgdata", data, "--username", "postgres",
		"--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-sync"); err != nil {
		return nil, err
	}
	p.command = command{
		name: "PostgreSQL", log: filepath.Join(folder, "log"), user: servant,
		stop: syscall.SIGINT, // "fast": connections are closed, not waited for
		args: append([]string{
			filepath.Join(bin, "postgres"), "-D", data, "-c", "listen_addresses=", "-c", "unix_socket_directories=" + folder,
			// What a client asked for ends with the client, should all of us be killed.
			"-c", "client_connection_check_interval=1s",
		}, settings...),
	}
	p.answers = func(ctx context.Context) error {
		_, err := p.psql(ctx, p.url("postgres"), "SELECT 1")
		return err
	}
	if err := p.start(ctx); err != nil {
		return nil, err
	}
	return p, nil
}

// postgresBin finds the programs of the newest server: Debian keeps them off
// PATH.
func postgresBin() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil {
		return "", err
	}
	if len(found) > 0 {
		return filepath.Dir(slices.MaxFunc(found, func(a, b string) int { return versionOf(a) - versionOf(b) })), nil
	}
	program, err := find("postgres")
	return filepath.Dir(program), err
}

func versionOf(program string) int {
	version, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(program)))) // 0 is the oldest
	return version
}

// servantOf gives the folder to the user that a server of root's runs as, since
// PostgreSQL refuses to run as root; nil = it runs as us.
func servantOf(folder string) (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	servant, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("PostgreSQL does not run as root, and needs the user of its package: %w", err)
	}
	uid, err := strconv.Atoi(servant.Uid)
	gid, err2 := strconv.Atoi(servant.Gid)
	if err := errors.Join(err, err2, os.Chown(folder, uid, gid)); err != nil {
		return nil, fmt.Errorf("give %s to user postgres: %w", folder, err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}
