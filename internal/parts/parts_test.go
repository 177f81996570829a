//go:build realparts

package parts

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// asHelper, when set, makes the test binary a process that starts a broker and
// waits to be killed.
const asHelper = "PARTS_TEST_HELPER"

func TestMain(m *testing.M) { goleak.VerifyTestMain(StopAfter(m)) }

func TestKafkaIsKilledAndServesAgain(t *testing.T) {
	t.Parallel()
	broker := Kafka(t)
	address := broker.ListenAddrs()[0]
	write(t, address, "first")
	broker.Kill(t)
	broker.Kill(t) // no more than once
	_, err := kafka.DialContext(t.Context(), "tcp", address)
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	begun := time.Now()
	broker.Restart(t)
	t.Logf("back %v after kill -9", time.Since(begun))
	require.Equal(t, address, broker.ListenAddrs()[0])
	write(t, address, "second")
	require.Equal(t, []string{"first", "second"}, read(t, address, 2))
	broker.Stop(t)
	broker.Restart(t)
	require.Equal(t, []string{"first", "second"}, read(t, address, 2))
}

const testTopic = "parts"

func write(t *testing.T, address, value string) {
	t.Helper()
	conn, err := kafka.DialContext(t.Context(), "tcp", address)
	require.NoError(t, err)
	require.NoError(t, conn.CreateTopics(kafka.TopicConfig{Topic: testTopic, NumPartitions: 1, ReplicationFactor: 1}))
	require.NoError(t, conn.Close())
	require.Eventually(t, func() bool { // a leader is elected in its own time
		conn, err = kafka.DialLeader(t.Context(), "tcp", address, testTopic, 0)
		return err == nil
	}, patience, glimpse)
	_, err = conn.WriteMessages(kafka.Message{Value: []byte(value)})
	require.NoError(t, err)
	require.NoError(t, conn.Close())
}

func read(t *testing.T, address string, n int) []string {
	t.Helper()
	reader := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{address}, Topic: testTopic, MaxWait: time.Second})
	defer reader.Close()
	var values []string
	for range n {
		message, err := reader.ReadMessage(t.Context())
		require.NoError(t, err)
		values = append(values, string(message.Value))
	}
	return values
}

func TestBrokerThatCannotStartSaysWhy(t *testing.T) {
	t.Parallel()
	_, err := startBroker(t.Context(), t.TempDir(), []Setting{Set("num.io.threads", "0")})
	require.ErrorContains(t, err, "num.io.threads")
}

func TestSharedPartIsStartedOnce(t *testing.T) {
	t.Parallel()
	engine := SharedOpenSearch(t)
	require.Same(t, engine, SharedOpenSearch(t))
	require.NoError(t, engine.healthy(t.Context()))
}

func TestPostgreSQLIsKilledAndKeepsWhatWasCommitted(t *testing.T) {
	t.Parallel()
	p := PostgreSQL(t)
	database := p.Database(t)
	require.NotEqual(t, database, p.Database(t))
	ask := func(statement string) string {
		answer, err := p.psql(t.Context(), database, statement)
		require.NoError(t, err, answer)
		return answer
	}
	require.Equal(t, "1", ask("SELECT 1"))
	require.Equal(t, "on on", ask("SELECT current_setting('fsync') || ' ' || current_setting('synchronous_commit')"))
	require.Empty(t, ask("SHOW listen_addresses"))
	ask("CREATE TABLE kept AS SELECT 7 AS n")
	busy := exec.CommandContext(t.Context(), filepath.Join(p.bin, "psql"), "-c", "SELECT count(*) FROM generate_series(1, 1e12)", database)
	require.NoError(t, busy.Start())
	require.Eventually(t, func() bool {
		return ask("SELECT count(*) FROM pg_stat_activity WHERE state = 'active'") == "2"
	}, patience, glimpse)
	p.Kill(t) // a query that never waits does not keep the server down
	require.Error(t, busy.Wait())
	_, err := p.psql(t.Context(), database, "SELECT 1")
	require.Error(t, err)
	p.Restart(t)
	require.Equal(t, "7", ask("SELECT n FROM kept"))
	p.Stop(t)
	p.Restart(t)
	require.Equal(t, "7", ask("SELECT n FROM kept"))
}

func TestSharedPartNeedsSomebodyWhoStopsIt(t *testing.T) {
	sharing.mu.Lock()
	sharing.inUse = false
	sharing.mu.Unlock()
	t.Cleanup(func() { sharing.mu.Lock(); sharing.inUse = true; sharing.mu.Unlock() })
	var nobodys shared[*Broker]
	nobodys.start(t.Context(), nil)
	require.ErrorIs(t, nobodys.err, errNotStopped)
}

// TestNothingOutlivesAKilledTestBinary kills a process in the midst of its test.
func TestNothingOutlivesAKilledTestBinary(t *testing.T) {
	t.Parallel()
	helper := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestHelper$", "-test.v")
	helper.Env = append(helper.Environ(), asHelper+"=yes")
	stdout, err := helper.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, helper.Start())
	var part, watcher int
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		if _, err := fmt.Sscanf(lines.Text(), "part %d watcher %d", &part, &watcher); err == nil {
			break
		}
	}
	require.NotZero(t, part, "the helper did not start a broker")
	require.True(t, runs(part))
	require.NoError(t, helper.Process.Kill())
	require.Error(t, helper.Wait())
	require.Eventually(t, func() bool { return !runs(part) && !runs(watcher) }, 10*time.Second, glimpse)
}

// TestHelper is no test: it is what the one above kills.
func TestHelper(t *testing.T) {
	if os.Getenv(asHelper) == "" {
		return
	}
	broker := Kafka(t)
	fmt.Fprintf(os.Stdout, "part %d watcher %d\n", broker.process.part.Process.Pid, broker.process.watcher.Process.Pid)
	<-t.Context().Done()
}

// runs says whether a process is there; one that has ended and is waited for by
// nobody is not.
func runs(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, os.ErrNotExist) {
		return false
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z")
}

func TestFailedDownloadSaysWhatWasTried(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "none")
	err := fetch(t.Context(), folder, []byte("<project/>"))
	require.ErrorContains(t, err, mavenGoal)
	require.ErrorContains(t, err, "modelVersion", "Maven's own words")
	require.False(t, isFolder(folder))
	left, err := os.ReadDir(filepath.Dir(folder))
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestJarsAreFetchedOnceByWhomeverIsFirst(t *testing.T) {
	t.Setenv("PARTS_CACHE", t.TempDir())
	small := []byte(`<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
		<groupId>ecreds.parts</groupId><artifactId>small</artifactId><version>1</version><packaging>pom</packaging>
		<dependencies><dependency><groupId>org.slf4j</groupId><artifactId>slf4j-api</artifactId><version>1.7.36</version></dependency></dependencies>
		</project>`)
	found := make(chan string, 2)
	for range cap(found) {
		go func() {
			folder, err := jars(t.Context(), "small", small)
			if err != nil {
				folder = err.Error()
			}
			found <- folder
		}()
	}
	first := <-found
	require.DirExists(t, first)
	require.Equal(t, first, <-found)
}

func TestMissingProgramSaysHowToInstallIt(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := find("java")
	require.EqualError(t, err, "java is not installed; as root on Debian or Ubuntu run: "+
		"apt-get install -y --no-install-recommends openjdk-17-jre-headless maven postgresql")
}
